"""A small run with everything that a report shows, made by the real verbs' own functions in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from motionsynth.beds import BedSpec
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import generate_beds, score, train
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

DATASET, RUN = "tiny", "r"
CLASS_NAMES = ("<script>alert(1)</script> & \"walk\"", "wave </script> left hand", "wave <b>right</b> hand")
TERMS = "Only for <i>tests</i>."
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


def recipe_of(split: str = "validation") -> Recipe:
    """The debug recipe on one draw; every class of the tiny set is scarce."""
    return replace(
        get_recipe("debug"), draws=1, bed=BedSpec(scarcity="few", shots=3, split=split), synthetic_per_class=5
    )


def never() -> NoReturn:
    """A connection that must not be asked for."""
    raise AssertionError("Ray was asked for though there is nothing to do")


def make_run(folder: Path, recipe: Recipe | None = None) -> Storage:
    """Prepare, train, generate and score, without Ray; class names and terms hold HTML."""
    recipe = recipe or recipe_of()
    storage = Storage(folder)
    motions = make_tiny_set(2)
    named = replace(
        motions,
        class_names=CLASS_NAMES,
        motions=tuple(replace(m, label_name=CLASS_NAMES[m.label]) for m in motions.motions),
    )
    header = Header.of(named, splits=(SPLIT.to_dict(),), extra={"title": "Tiny", "terms": TERMS})
    write_dataset(storage, f"data/{DATASET}", named, header)
    for spec in recipe.beds:
        train.run_loop(storage, DATASET, RUN, recipe, spec)
    generate_beds.generate_beds(storage, DATASET, RUN, recipe, None, previews=False)
    scorer = score.Scorer(storage, DATASET, f"scores/{DATASET}")
    for task, _ in score.plan_tasks(storage, DATASET, RUN, recipe):
        scorer.run(task)
    score.score(storage, DATASET, RUN, recipe, never)
    return storage
