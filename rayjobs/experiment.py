"""What train, generate, score and pipeline share: which beds a run has, and where each stage's objects lie.

Keys in storage:
    runs/RUN/DATASET/BED/GENERATOR/{checkpoints,synthetic,tensorboard}      one per draw
    runs/RUN/DATASET/scores/ID.json                                       one per trained recogniser
    runs/RUN/DATASET/score-SPLIT.{json,parquet}                           the table
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from motionsynth.beds import Bed, BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import cli
from storage import Storage
from storage.dataset import read_dataset
from storage.manifest import read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Options of every verb that works on beds.

    Attributes:
        dataset: Name of a prepared dataset (see `rayjobs.prepare`).
        recipe: What to run; the options below override single fields of it.
        protocol: Official split of the dataset, such as cross_subject (default: the recipe's, or the dataset's
            first where it has none of that name).
        split: "validation" judges by people held out of the training half; "test" reads the test half.
        scarcity: rare, few, fraction or full.
        shots: Clips per rare class.
        fraction: Share of the clips kept, with --scarcity fraction.
        draws: Number of draws.
        seed: Changes every draw and generator.
    """

    dataset: str
    recipe: str = "motion_gan"
    protocol: str = ""
    split: str = "validation"
    scarcity: str = ""
    shots: int = 0
    fraction: float = 0.0
    draws: int = 0
    seed: int = 0

    def chosen(self, storage: Storage) -> Recipe:
        """The recipe with the overrides in place."""
        recipe = get_recipe(self.recipe)
        known = [str(s["name"]) for s in read_manifest(storage, data_prefix(self.dataset)).header.splits]
        protocol = self.protocol or recipe.bed.protocol
        if protocol not in known:
            if self.protocol or not known:
                raise InputError(
                    f"Dataset '{self.dataset}' has no protocol '{protocol}'. Known: {', '.join(known) or 'none'}."
                )
            protocol = known[0]
        given = {"scarcity": self.scarcity, "shots": self.shots, "fraction": self.fraction, "seed": self.seed}
        bed = replace(
            recipe.bed, protocol=protocol, split=self.split, **{k: v for k, v in given.items() if v}
        )
        return replace(recipe, bed=bed, **({"draws": self.draws} if self.draws else {}))


def data_prefix(dataset: str) -> str:
    """Where a prepared dataset lies."""
    return f"data/{cli.check_name('dataset', dataset)}"


def run_prefix(run: str, dataset: str) -> str:
    """Where a run's results on a dataset lie."""
    return f"runs/{cli.check_name('run', run)}/{cli.check_name('dataset', dataset)}"


def bed_prefix(run: str, dataset: str, bed: BedSpec, generator: str) -> str:
    """Where a generator trained on a bed lies, with what it made."""
    return f"{run_prefix(run, dataset)}/{bed.key}/{generator}"


@lru_cache(maxsize=1)
def _dataset(storage: Storage, dataset: str) -> tuple[MotionSet, tuple[Split, ...]]:
    motions, header = read_dataset(storage, data_prefix(dataset))
    return motions, tuple(Split.from_dict(s) for s in header.splits)


def load_bed(storage: Storage, dataset: str, spec: BedSpec) -> Bed:
    """One bed; the dataset is read once per process and `Storage`."""
    return make_bed(*_dataset(storage, dataset), spec)
