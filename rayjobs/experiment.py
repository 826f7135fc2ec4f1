"""What train, generate, score and pipeline share: which beds a run has, and where each stage's objects lie.

Keys in storage:
    runs/RUN/DATASET/BED/GENERATOR/{checkpoints,synthetic,tensorboard}      one per draw
    runs/RUN/DATASET/BED/GENERATOR/synthetic-refined                      the same clips, graded
    runs/RUN/DATASET/score-SPLIT-RECOGNISERS.{json,parquet}               the table
    runs/RUN/DATASET/report-SPLIT-RECOGNISERS.html                        the report
    runs/RUN/.../progress-VERB.json                                       how far a running job is; `rayjobs.board`
    scores/DATASET/ID.json                                                one per trained recogniser, whichever run's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from motionsynth.beds import NO_PROTOCOL, Bed, BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.protocol import REFINED
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import cli
from storage import Storage
from storage.dataset import read_dataset
from storage.decisions import content_digest
from storage.manifest import read_manifest

REFINED_SET = "synthetic-refined"
"""Folder of the graded clips, beside `synthetic`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Options of every verb that works on beds.

    Attributes:
        dataset: Name of a prepared dataset (see `rayjobs.prepare`).
        recipe: What to run: a recipe's name, or the path of a JSON file that ends in .json and says what differs from
            one; the options below override single fields of it. Several joined by commas are trained on the same
            beds and judged in one table, by the recognisers of the first.
        protocol: Official split of the dataset, such as cross_subject (default: the recipe's, or the dataset's
            first where it has none of that name). Several joined by commas (fold1,fold2), or "all", are pooled
            in one table.
        split: "validation" judges by people held out of the training half; "test" reads the test half. No recipe
            sets it.
        scarcity: What is cut: rare (a third of the classes), few (every class), fraction, full (nothing); or natural,
            for a dataset with rare classes of its own: nothing is cut, and those of at most --shots clips are rare.
        shots: Clips per rare class.
        fraction: Share of the clips kept, with --scarcity fraction.
        draws: Number of draws.
        scarce_only: Leave out the bed with all clips, and with it training on synthetic clips alone.
        seed: Changes every draw and generator (default: the recipe's).
    """

    dataset: str
    recipe: str = "motion_gan"
    protocol: str = ""
    split: str = "validation"
    scarcity: str = ""
    shots: int = 0
    fraction: float = 0.0
    draws: int = 0
    scarce_only: bool = False
    seed: int = 0

    def chosen(self, storage: Storage) -> Recipe:
        """The recipe with the overrides in place; `split` always decides, whatever a recipe file says."""
        recipe = get_recipe(self.recipe)
        known = [str(s["name"]) for s in read_manifest(storage, data_prefix(self.dataset)).header.splits]
        asked = self.protocol or ",".join(recipe.protocols)
        protocols = chosen_protocols(self.dataset, known, asked, recipe.bed.protocol)
        given = {"scarcity": self.scarcity, "shots": self.shots, "fraction": self.fraction, "seed": self.seed}
        bed = replace(
            recipe.bed, protocol=protocols[0], split=self.split, **{k: v for k, v in given.items() if v}
        )
        draws = {"draws": self.draws} if self.draws else {}
        if self.scarce_only and bed.scarcity == "full":
            raise InputError("--scarce-only leaves nothing of --scarcity full; give one of the two.")
        full = {"full": False} if self.scarce_only else {}
        return replace(recipe, bed=bed, protocols=protocols, **draws, **full)


def chosen_protocols(dataset: str, known: Sequence[str], given: str, default: str) -> tuple[str, ...]:
    """The protocols that `--protocol` asks for.

    Args:
        dataset: Its name, for the message.
        known: Its protocols.
        given: One, several joined by commas, "all", or "".
        default: Taken for "", or the first of `known` where it is none of them.

    Raises:
        InputError: one is unknown or asked for twice, or the dataset has none.
    """
    if not given and known:
        return (default if default in known else known[0],)
    if given == "all" and known:
        return tuple(known)
    names = [n.strip() for n in (given or default).split(",")]
    if unknown := [n for n in names if n not in known]:
        several = ", several of them joined by commas, or all" if len(known) > 1 else ""
        raise InputError(
            f"Dataset '{dataset}' has no protocol '{unknown[0]}'. Known: {', '.join(known) or NO_PROTOCOL}{several}."
        )
    if len(set(names)) < len(names):
        raise InputError(f"--protocol '{given}' names a protocol twice; name each once.")
    return tuple(names)


def data_prefix(dataset: str) -> str:
    """Where a prepared dataset lies."""
    return f"data/{cli.check_name('dataset', dataset)}"


def data_digest(storage: Storage, dataset: str) -> str:
    """What names a prepared dataset's content, marks included. Raises MissingError: it is not prepared."""
    return content_digest(storage, data_prefix(dataset))


def is_hybrid(storage: Storage, dataset: str) -> bool:
    """Whether a prepared dataset brings its own synthetic clips (`rayjobs.compose` made it)."""
    return "hybrid" in read_manifest(storage, data_prefix(dataset)).header.extra


def run_prefix(run: str, dataset: str) -> str:
    """Where a run's results on a dataset lie."""
    return f"runs/{cli.check_name('run', run)}/{cli.check_name('dataset', dataset)}"


def scores_prefix(dataset: str) -> str:
    """Where the records of the recognisers trained on a dataset lie, those of every run."""
    return f"scores/{cli.check_name('dataset', dataset)}"


def bed_prefix(run: str, dataset: str, bed: BedSpec, generator: str) -> str:
    """Where a generator trained on a bed lies, with what it made."""
    return f"{run_prefix(run, dataset)}/{bed.key}/{generator}"


def synthetic_prefix(run: str, dataset: str, bed: BedSpec, generator: str) -> str:
    """Where the clips of a generator trained on a bed lie; with `refined:` before its name, the graded ones."""
    name = generator.removeprefix(REFINED)
    return f"{bed_prefix(run, dataset, bed, name)}/{'synthetic' if name == generator else REFINED_SET}"


@lru_cache(maxsize=1)
def _dataset(storage: Storage, dataset: str) -> tuple[MotionSet, tuple[Split, ...]]:
    motions, header = read_dataset(storage, data_prefix(dataset))
    # A clip that was marked as bad is in no bed: nothing trains on it, and it judges nothing.
    return motions.accepted(), tuple(Split.from_dict(s) for s in header.splits)


def load_bed(storage: Storage, dataset: str, spec: BedSpec) -> Bed:
    """One bed; the dataset is read once per process and `Storage`."""
    return make_bed(*_dataset(storage, dataset), spec)
