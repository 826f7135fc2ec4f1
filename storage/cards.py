"""README.md of what is published: a dataset card or a model card, with the front matter that Hugging Face reads.

Everything in a card is counted, or read from headers, checkpoints and score files; what is not known is not said. JSON
is YAML, so the front matter needs no library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from motionsynth.skeleton import Skeleton
from motionsynth.terms import Grant
from storage.card_parts import (
    About,
    Making,
    bullets,
    cite,
    hub_licence,
    line,
    making_part,
    many,
    scores_part,
    skeleton_part,
    source_biases,
    sources_part,
    table,
    yaml,
)
from storage.croissant import MEANING
from storage.facts import Facts

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One way to load a dataset: the file patterns of each split.

    Attributes:
        name: As `load_dataset` takes it.
        note: One sentence.
        splits: File patterns by split name.
        clips: Number of clips by split name.
    """

    name: str
    note: str
    splits: Mapping[str, Sequence[str]]
    clips: Mapping[str, int]


_DATASET = Template("""\
---
$front
---

# $title

$summary

| | |
|---|---|
$glance

## Load it

No code of ours is needed. `FOLDER` is where this file lies, or its name on a hub.

```python
from datasets import load_dataset

clips = load_dataset("FOLDER", "$config")            # a DatasetDict: $config_splits
```

```python
import pandas, polars, duckdb

pandas.read_parquet("FOLDER/data")                    # one row per clip
polars.read_parquet("FOLDER/data/*.parquet")
duckdb.sql("SELECT label_name, count(*) FROM 'FOLDER/data/*.parquet' GROUP BY 1")
```

| configuration | clips | what |
|---|---|---|
$configs

`SHA256SUMS` lists every file (`sha256sum -c SHA256SUMS`); it was written last, so a copy without it is not complete.

## Columns

| column | what |
|---|---|
$columns

## Skeleton

$skeleton

## Classes

| label | name | real clips | people | synthetic clips |
|---|---|---|---|---|
$classes
$making
## Sources and terms

$sources

## Known biases

$biases

## Scores

$scores

## How to cite

$cite
""")

_MODEL = Template("""\
---
$front
---

# $title

A checkpoint of the generator `$generator` of motionsynth. It makes clips of human motion of a class that it is given.

| | |
|---|---|
$glance

## Use it

```bash
python -m rayjobs.generate --checkpoint NAME_OF_THIS_FOLDER --per-class 20 --storage FOLDER_ABOVE --run new
```

The files are safetensors and JSON; nothing is unpickled. The state of its training is not among them.

## Skeleton

$skeleton

## Classes

$classes
$making
## What it carries of real people

$carries

## Sources and terms

$sources

## Known biases

$biases

## Scores

$scores

## How to cite

$cite
""")


def dataset_card(
    facts: Facts, grant: Grant, configs: Sequence[Config], makings: Sequence[Making],
    scores: Sequence[Mapping[str, Any]], about: About,
) -> str:  # fmt: skip
    """README.md of a dataset.

    Args:
        facts: Its figures.
        grant: Under what it is published.
        configs: How it can be loaded, the default first.
        makings: How its synthetic clips were made.
        scores: What `rayjobs.score` wrote about them.
        about: What the publisher says.
    """
    front = {
        "pretty_name": about.title,
        **hub_licence(grant),
        "tags": _tags(facts.num_real > 0, facts.num_synthetic > 0),
        "size_categories": [next((s for n, s in _SIZES if facts.manifest.rows < n), "n>1M")],
        "configs": [_front_config(c, default=i == 0) for i, c in enumerate(configs)],
    }
    return _DATASET.substitute(
        front=yaml(front),
        title=line(about.title),
        summary=summary(facts),
        glance=table(_glance(facts)),
        config=configs[0].name,
        config_splits=", ".join(f"{n} with {configs[0].clips[n]:,} clips" for n in configs[0].splits),
        configs=table(
            [(f"`{c.name}`", ", ".join(f"{s} {c.clips[s]:,}" for s in c.splits), c.note) for c in configs]
        ),
        columns=table([(f"`{k}`", v) for k, v in MEANING.items()]),
        skeleton=skeleton_part(facts.header.skeleton),
        classes=table(
            [
                (i, name, facts.real.get(i, 0), facts.people.get(i, 0), facts.synthetic.get(i, 0))
                for i, name in enumerate(facts.header.class_names)
            ]
        ),
        making=making_part(makings),
        sources=sources_part(grant),
        biases=bullets(biases(facts, grant, makings)),
        scores=scores_part(scores, facts.num_synthetic > 0),
        cite=cite(grant, about),
    )


def model_card(
    making: Making, grant: Grant, carried: int, scores: Sequence[Mapping[str, Any]], about: About
) -> str:
    """README.md of a checkpoint.

    Args:
        making: The checkpoint.
        grant: Under what it is published.
        carried: Real clips that its tensors hold.
        scores: What `rayjobs.score` wrote about clips of it.
        about: What the publisher says.
    """
    config = making.config or {}
    context = config["context"]
    front = {**hub_licence(grant), "library_name": "motionsynth", "tags": _tags(False, True)}
    counts = [len(c) for c in context["clips"]]
    classes = [(i, n, counts[i], _rare(context, i)) for i, n in enumerate(context["class_names"])]
    holds = (
        f"Its tensors hold {carried:,} real training clips, as differences to what the generator makes of them; from "
        "them every new clip starts. **Whoever has this file can recover these people's motions.** Share it, and what "
        "it makes, only with those who may see the clips themselves."
        if carried
        else "Its tensors hold no clip. Like every generator it can repeat what it was trained on."
    )
    about_people = [
        f"It was trained on {making.trained_on:,} real clips, whose names stand in `config.json`, and imitates the "
        "people in them.",
        *source_biases(grant),
        f"Smallest class in training: {min((n for n in counts if n), default=0)} clips; it will vary little.",
    ]
    return _MODEL.substitute(
        front=yaml(front),
        title=line(about.title),
        generator=config["generator"],
        glance=table(
            [
                ("skeleton", f"{context['skeleton']['name']}, {len(context['skeleton']['joints'])} joints"),
                ("frames per second", f"{context['fps']:g}"),
                ("persons", context["num_persons"]),
                ("trained on", f"{making.trained_on:,} real clips of {context['dataset']}"),
                ("digest", f"`{making.digest}`"),
            ]
        ),
        skeleton=skeleton_part(Skeleton.from_dict(context["skeleton"])),
        classes="| label | name | training clips | |\n|---|---|---|---|\n" + table(classes),
        making=making_part([making]),
        carries=holds,
        sources=sources_part(grant),
        biases=bullets(about_people),
        scores=scores_part(scores, True),
        cite=cite(grant, about),
    )


def summary(facts: Facts) -> str:
    """One paragraph: what there is."""
    real, made, header = facts.num_real, facts.num_synthetic, facts.header
    parts = []
    if real:
        people, views = len(facts.subjects), len(facts.views)
        parts.append(f"{real:,} recorded clips ({many(people, 'subject')}, {many(views, 'view')})")
    if made:
        parts.append(f"{made:,} synthetic clips")
    note = f" {header.extra['note']}" if header.extra.get("note") else ""
    if made:
        note += " Synthetic clips were made by a neural generator; nobody performed them."
    classes = sum(1 for i in range(len(header.class_names)) if facts.real.get(i) or facts.synthetic.get(i))
    return (
        f"Human motion as joint positions: {' and '.join(parts)} of {many(classes, 'class')}, {facts.hours:.2f} hours "
        f"in all.{note}"
    )


def biases(facts: Facts, grant: Grant, makings: Sequence[Making]) -> list[str]:
    """What a user must know of whom and what the clips show, as sentences."""
    out = []
    if facts.num_real:
        out.append(
            f"The real clips show {many(len(facts.subjects), 'subject')} from {many(len(facts.views), 'view')}; age, "
            "sex, health and body size are not recorded, so nobody can say for whom this is representative."
        )
    out += source_biases(grant)
    if facts.num_synthetic:
        trained = ", ".join(str(m.trained_on) for m in makings if m.trained_on)
        if facts.parents:
            out.append(
                f"{facts.num_synthetic - facts.orphans:,} synthetic clips derive from {len(facts.parents):,} real "
                "clips (column `parent_id`) and show the same people's bodies and habits: they add variants, no people."
            )
        if facts.orphans:
            out.append(
                f"{facts.orphans:,} synthetic clips name no parent: they were drawn from what a generator learned"
                + (f" of {trained} real clips, and add no people." if trained else ".")
            )
        out.append(
            "Synthetic clips are for training. Judge a recogniser by real clips of people it never saw."
        )
    counts = [n for i in range(len(facts.header.class_names)) if (n := facts.real.get(i, 0))]
    if len(counts) > 1 and max(counts) > 1.5 * min(counts):
        out.append(
            f"Classes are unequal: {min(counts):,} real clips of the smallest, {max(counts):,} of the largest."
        )
    if facts.refused:
        out.append(
            f"{facts.refused:,} clips were refused by a filter (`accepted` false, reasons in `rejected_by`); they are "
            "in the configuration `refused` alone."
        )
    return out


def _glance(facts: Facts) -> list[tuple[str, Any]]:
    low, mean, high = facts.frames
    skeleton, rows = facts.header.skeleton, facts.manifest.rows
    persons = ", ".join(f"{many(m, 'person')} in {n:,} clips" for m, n in facts.persons.items())
    return [
        ("clips", f"{rows:,} ({facts.num_real:,} real, {facts.num_synthetic:,} synthetic)"),
        ("classes", len(facts.header.class_names)),
        ("persons", persons),
        ("frames", f"{low} to {high}, {mean:.0f} on average"),
        ("frames per second", ", ".join(f"{f:g}" for f in facts.fps)),
        ("skeleton", f"{skeleton.name}, {skeleton.num_joints} joints"),
        ("units and axes", "metres; y up, right-handed; a body that faces +z has its right side at -x"),
        ("made from", f"manifest `{facts.manifest.digest}`"),
    ]


def _front_config(config: Config, default: bool) -> dict[str, Any]:
    files = [{"split": s, "path": list(p)} for s, p in config.splits.items()]
    return {"config_name": config.name, **({"default": True} if default else {}), "data_files": files}


def _tags(real: bool, synthetic: bool) -> list[str]:
    tags = ["human-motion", "skeleton", "action-recognition", "motionsynth"]
    return tags + ["synthetic"] * synthetic + ["motion-capture"] * real


def _rare(context: Mapping[str, Any], label: int) -> str:
    return "rare" if label in context["rare"] else ""
