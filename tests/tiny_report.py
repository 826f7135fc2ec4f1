"""Runs for the tests of reports: one in memory, its scores made up; one in storage, made by the verbs themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from motionsynth.beds import Bed, BedSpec, make_bed
from motionsynth.motion import MotionSet
from motionsynth.protocol import PROTOCOL_VERSION, ScoreRecord
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.report import GeneratedSet, Run
from motionsynth.rivals import interpolate_clips
from motionsynth.splits import Split
from rayjobs import cli, generate_beds, score, train
from rayjobs.score_tables import tables
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

DATASET, RUN = "tiny", "r"
CLASS_NAMES = ('<script>alert(1)</script> & "walk"', "wave </script> left hand", "wave <b>right</b> hand")
TERMS = "Only for <i>tests</i>."
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
MADE_PER_CLASS = 5


def named_set() -> MotionSet:
    """The tiny set; its class names hold HTML."""
    motions = make_tiny_set(2)
    own = tuple(replace(m, label_name=CLASS_NAMES[m.label]) for m in motions.motions)
    return replace(motions, class_names=CLASS_NAMES, motions=own)


def recipe_of(draws: int = 1) -> Recipe:
    """The debug recipe, every class scarce."""
    bed = BedSpec(scarcity="few", shots=3)
    return replace(get_recipe("debug"), draws=draws, bed=bed, synthetic_per_class=MADE_PER_CLASS)


def record(bed: Bed, arm: str, recalls: tuple[float, ...], seed: int = 0) -> ScoreRecord:
    """A recogniser with these recalls of 20 held-out clips a class; what it misses it names as the next class."""
    k = len(recalls)
    confusion = np.zeros((k, k), int)
    for c, r in enumerate(recalls):
        confusion[c, c] = round(20 * r)
        confusion[c, (c + 1) % k] = 20 - confusion[c, c]
    mean = float(np.mean(recalls))
    return ScoreRecord(
        protocol=PROTOCOL_VERSION, dataset=DATASET, bed=bed.spec.key, draw=bed.spec.draw, split=bed.spec.split,
        arm=arm, recogniser="tcn", seed=seed, top1=mean, macro=mean, rare_recall=mean, recalls=recalls, rare=bed.rare,
        confusion=tuple(tuple(row) for row in confusion.tolist()), real_clips=9, synthetic_clips=0, steps=4,
        seconds=1.0, average_precisions=tuple(min(1.0, r + 0.05) for r in recalls),
    )  # fmt: skip


def run_in_memory(recalls: Mapping[str, list[tuple[float, ...]]] | None = None) -> Run:
    """Interpolated clips, and scores with these recalls by arm and seed."""
    recipe = recipe_of()
    bed = make_bed(named_set(), (SPLIT,), recipe.beds[0])
    made = interpolate_clips(bed.train, dict.fromkeys(range(3), MADE_PER_CLASS), seed=1)
    recalls = recalls or {
        "strong": [(0.5, 0.5, 0.5), (0.5, 0.6, 0.5)], "motion_gan": [(0.7, 0.7, 0.4), (0.7, 0.8, 0.5)],
        "difference": [(0.5, 0.6, 0.5), (0.6, 0.6, 0.5)], "ceiling": [(0.9, 0.9, 0.9), (0.9, 1.0, 0.9)],
    }  # fmt: skip
    records = [record(bed, arm, r, seed) for arm, rows in recalls.items() for seed, r in enumerate(rows)]
    result = {
        "dataset": DATASET, "run": RUN, "split": "validation", "bed": asdict(recipe.bed),
        "protocols": ["cross_subject"],
        "as_published": False, "draws": 1, "git_revision": "abc", "test_readings": 0, "class_names": list(CLASS_NAMES),
        "quality": [], **tables(records, recipe),
    }  # fmt: skip
    curves = {"generator/flow": [(2, 0.5), (4, 0.3)], "diagnostic/attention_gain": [(2, 0.0), (4, 0.2)]}
    one = GeneratedSet(
        generator="motion_gan", bed=bed, motions=replace(bed.train, motions=tuple(made)), curves=curves,
        attention={0: [0.1, 0.2, 0.3, 0.4]},
    )  # fmt: skip
    return Run(
        result=cli.plain(result),
        records=records,
        sets=[one],
        about={"title": "Tiny <b>set</b>", "terms": TERMS},
    )


def never() -> NoReturn:
    """A connection that must not be asked for."""
    raise AssertionError("Ray was asked for though there is nothing to do")


def run_in_storage(folder: Path, recipe: Recipe) -> Storage:
    """Prepare, train, generate and score, without Ray."""
    storage = Storage(folder)
    motions = named_set()
    header = Header.of(motions, splits=(SPLIT.to_dict(),), title="Tiny <b>set</b>", terms=TERMS)
    write_dataset(storage, f"data/{DATASET}", motions, header)
    for spec in recipe.beds:
        train.run_loop(storage, DATASET, RUN, recipe, spec)
    generate_beds.generate_beds(storage, DATASET, RUN, recipe, None, previews=False)
    scorer = score.Scorer(storage, DATASET, f"scores/{DATASET}")
    for task, _ in score.plan_tasks(storage, DATASET, RUN, recipe):
        scorer.run(task)
    score.score(storage, DATASET, RUN, recipe, never)
    return storage
