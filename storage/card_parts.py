"""What all cards have in common: sources, terms, recipes, scores, and how the hub spells licences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motionsynth.beds import BedSpec
from motionsynth.skeleton import Skeleton
from motionsynth.terms import Grant

SOFTWARE = (
    "The motionsynth authors: motionsynth, synthetic human motion that makes rare actions recognisable."
)
_HUB_LICENCES = {"PDDL-1.0": "pddl", "ODC-By-1.0": "odc-by", "ODbL-1.0": "odbl"}
"""Licences that the hub spells otherwise than in lower case."""
_HUB_KNOWN = {
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "pddl", "odc-by", "odbl",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """How clips were made.

    Attributes:
        checkpoint: Prefix of the checkpoint.
        digest: Of the checkpoint.
        config: Its config; None where it lies no longer there or is another one now.
        request: What was asked of it; None for a checkpoint itself.
    """

    checkpoint: str
    digest: str
    config: Mapping[str, Any] | None
    request: Mapping[str, Any] | None = None

    @property
    def trained_on(self) -> int:
        """Real clips that the generator was trained on; 0 where that is not known."""
        return sum(map(len, (self.config or {}).get("context", {}).get("clips", ())))


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the publisher says.

    Attributes:
        title: Heading of the card.
        version: Of the dataset or model.
        url: Where it will lie; "".
        date: Of publication; "".
    """

    title: str
    version: str = "1.0.0"
    url: str = ""
    date: str = ""


def cite(grant: Grant, about: About) -> str:
    """What to cite, as lines."""
    where = f" {about.url}" if about.url else ""
    when = f" {about.date}." if about.date else ""
    lines = [f"{about.title}, version {about.version}.{when}{where}", SOFTWARE]
    return bullets([*lines, *(info.citation for info in grant.sources)])


def hub_licence(grant: Grant) -> dict[str, str]:
    """The front matter's `license` and what explains it."""
    if not grant.licence:
        return {"license": "unknown"}
    name = _HUB_LICENCES.get(grant.licence, grant.licence.lower())
    return {"license": name} if name in _HUB_KNOWN else {"license": "other", "license_name": name}


def licence_address(grant: Grant) -> str:
    """Where the licence stands, or the sentence that says there is none."""
    if not grant.licence:
        terms = " ".join(i.terms for i in grant.sources)
        return f'No licence. Terms of the sources: {terms} The publisher says: "{grant.right}"'
    simple = " " not in grant.licence and not grant.licence.startswith("LicenseRef-")
    return f"https://spdx.org/licenses/{grant.licence}.html" if simple else grant.licence


def making_part(makings: Sequence[Making]) -> str:
    """How clips were made: a section for every checkpoint, "" without any."""
    if not makings:
        return ""
    lines = ["", "## How the synthetic clips were made", ""]
    for m in makings:
        config, request = m.config, m.request or {}
        lines.append(f"### `{m.checkpoint}`\n")
        rows: list[tuple[str, Any]] = [("digest of the checkpoint", f"`{m.digest}`")]
        if config is None:
            rows.append(("recipe", "the checkpoint is no longer there, so its settings are not known"))
        else:
            rows.append(("generator", f"`{config['generator']}`"))
            if m.trained_on:
                rows.append(("trained on", f"{m.trained_on:,} real clips"))
            if bed := config.get("bed"):
                spec = BedSpec(**bed)
                rows.append(
                    (
                        "bed",
                        f"`{spec.key}`: {spec.protocol}, {spec.size}, draw {spec.draw}, seed {spec.seed}, "
                        f"{spec.split} people held out",
                    )
                )
            rows.append(("code", f"`{config.get('git_revision', 'unknown')}`"))
        if request:
            rows.append(("seed of the request", request.get("seed", 0)))
            rows.append(("request", f"`{json.dumps(request.get('extra', {}), sort_keys=True)}`"))
        lines.append(f"| | |\n|---|---|\n{table(rows)}\n")
        for part in ("generator_config", "training"):
            if config and part in config:
                lines.append(
                    f"`{part}`:\n\n```json\n{json.dumps(config[part], indent=1, sort_keys=True)}\n```\n"
                )
    return "\n".join(lines)


def sources_part(grant: Grant) -> str:
    """Where clips come from, under what terms, and under what they are published."""
    lines = [
        f'**{i.title}** (`{i.name}`). Terms: "{i.terms}" Redistribution: {i.redistribution}.'
        + (f" Licence: {i.licence}." if i.licence else "")
        for i in grant.sources
    ]
    lines += [f"`{name}`: own data of the publisher." for name in grant.own]
    lines.append(f"Published under: {grant.licence or 'no licence'}.")
    if grant.right:
        lines.append(f'The publisher claims the right to pass this on, in their own words: "{grant.right}"')
    return bullets(lines)


def source_biases(grant: Grant) -> list[str]:
    """What the sensors of the sources do to the clips."""
    return [
        f"`{i.name}` was recorded by {i.sensor}: joints are estimates, wrong where the body hides them from the camera."
        for i in grant.sources
    ]


def scores_part(scores: Sequence[Mapping[str, Any]], synthetic: bool) -> str:
    """Score tables, as they were written."""
    if not scores:
        return (
            "Whether these synthetic clips help a recogniser was not measured in the storage that they come from."
            if synthetic
            else "None: these are real clips."
        )
    lines = [
        "As `rayjobs.score` wrote them, whichever way they came out. A gain counts only against `strong` (real clips, "
        "augmented), and only where its paired 95 % interval excludes zero. A table pools all draws of its run, of "
        "which these clips may be one.",
    ]
    for s in scores:
        judged = "the test half" if s["split"] == "test" else "people held out of the training half"
        size = BedSpec(**s["bed"]).size
        head = (
            f"{s['dataset']}, {', '.join(s['protocols'])}, {size}, {many(s['draws'], 'draw')}; judged by {judged}"
            f" (code `{s['git_revision']}`)."
        )
        if s["split"] == "test":
            head += f" The test half had been read {many(s['test_readings'], 'time')}."
        if s.get("as_published"):
            head += " Composed as published: synthetic clips and people of the training side also judge."
        lines.append(f"{head}\n\n```\n{s['text']}\n```")
    return "\n\n".join(lines)


def skeleton_part(skeleton: Skeleton) -> str:
    """The joints, in order."""
    rows = [
        (i, name, skeleton.joints[p] if p >= 0 else "")
        for i, (name, p) in enumerate(zip(skeleton.joints, skeleton.parents, strict=True))
    ]
    return f"`{skeleton.name}`, in the order of the joint axis:\n\n| | joint | parent |\n|---|---|---|\n{table(rows)}"


def yaml(front: Mapping[str, Any]) -> str:
    """Front matter; JSON values, of which lists are one item a line."""
    lines = []
    for key, value in front.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {json.dumps(v, ensure_ascii=False)}" for v in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[Any]]) -> str:
    """The rows of a Markdown table."""
    return "\n".join("| " + " | ".join(line(c).replace("|", "\\|") for c in row) + " |" for row in rows)


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def line(value: Any) -> str:
    """Text without line breaks."""
    return " ".join(str(value).split())


def many(n: int, what: str) -> str:
    """A number with its noun."""
    plural = {"class": "classes", "person": "persons"}.get(what, f"{what}s")
    return f"{n:,} {what if n == 1 else plural}"
