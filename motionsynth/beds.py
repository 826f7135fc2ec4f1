"""Beds: which real clips a draw may train on, and which it is judged by.

A bed is one (protocol, scarcity, draw, split). Everything fitted for it (generator, recogniser, statistics) sees
`Bed.train` alone; `Bed.evaluate` are people (or views) that no training clip shows.

A hybrid dataset (see `motionsynth.hybrid`) also holds synthetic clips. They stand apart in `Bed.synthetic`: shots and
shares count real clips, generators and rivals learn from real clips, and only real clips judge (in a dataset as
published, synthetic ones judge, too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.splits import Split, partition

SCARCITIES = ("rare", "few", "fraction", "natural", "full")
SIDES = ("validation", "test")
NO_PROTOCOL = (
    "none, as nobody said who judges: give each clip its subject and prepare it again, and people are halved"
)
"""What stands in place of a dataset's protocols where it has none."""
VALIDATION_FOLDS = 3
"""Draws in which every training person judges once."""
RARE_DRAWS = 3
"""Draws after which the rare classes of the `rare` protocol have rotated through all classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BedSpec:
    """What decides a bed.

    Attributes:
        protocol: Name of one of the dataset's official splits: cross_subject, cross_view, fold1, ...
        scarcity: `rare`: a third of the classes is cut to `shots` clips, the others stay full; `few`: every class
            is; `fraction`: every class keeps a share; `natural`: nothing is cut, and those classes are rare that have
            at most `shots` clips in the training half; `full`: nothing is cut, and no class is rare.
        shots: Clips per cut class (`rare`, `few`), or the most that a rare class has (`natural`).
        fraction: Share kept (`fraction`).
        draw: Which rare classes, which clips and, on validation, which held-out people.
        split: Who judges: "validation", a third of the training people; or "test", the protocol's test half.
        seed: Changes every draw at once.
    """

    protocol: str = "cross_subject"
    scarcity: str = "rare"
    shots: int = 10
    fraction: float = 1.0
    draw: int = 0
    split: str = "validation"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scarcity not in SCARCITIES:
            raise InputError(f"Unknown scarcity '{self.scarcity}'. Known: {', '.join(SCARCITIES)}.")
        if self.split not in SIDES:
            raise InputError(f"Unknown split '{self.split}'. Known: {', '.join(SIDES)}.")
        if self.shots < 2:
            raise InputError(f"shots is {self.shots}; a rare class needs at least 2 clips.")
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction is {self.fraction}; it must lie above 0 and at most 1.")
        if self.draw < 0:
            raise InputError(f"draw is {self.draw}; draws count from 0.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must be at least 0.")

    @property
    def cuts(self) -> bool:
        """Whether clips are taken away, so that a ceiling has more of them."""
        return self.scarcity not in ("natural", "full")

    @property
    def size(self) -> str:
        """What is left of the training half, in words."""
        return {
            "rare": f"a third of the classes at {self.shots} shots",
            "few": f"every class at {self.shots} shots",
            "fraction": f"{100 * self.fraction:g} % of the clips",
            "natural": f"all clips, rare the classes of at most {self.shots}",
            "full": "all clips",
        }[self.scarcity]

    @property
    def key(self) -> str:
        """Short and safe in an object's path."""
        size = {
            "rare": f"k{self.shots}",
            "few": f"k{self.shots}",
            "fraction": f"{self.fraction:g}",
            "natural": f"k{self.shots}",
            "full": "all",
        }
        return f"{self.protocol}-{self.split}-{self.scarcity}-{size[self.scarcity]}-s{self.seed}-d{self.draw}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bed:
    """The clips of one draw.

    Attributes:
        train: What everything may see.
        full: The same people's clips before they were cut: the ceiling arm's.
        evaluate: Held-out people's (or views') clips.
        rare: The classes that were cut, or that are rare by nature.
        synthetic: The synthetic clips on a hybrid dataset's training side; none elsewhere.
        as_published: Synthetic clips are among those that judge.
    """

    spec: BedSpec
    train: MotionSet
    full: MotionSet
    evaluate: MotionSet
    rare: tuple[int, ...]
    synthetic: MotionSet
    as_published: bool = False


def rare_classes(num_classes: int, draw: int, seed: int) -> tuple[int, ...]:
    """The rotating third: over `RARE_DRAWS` consecutive draws, every class is rare exactly once."""
    order = np.random.default_rng([seed, draw // RARE_DRAWS, 0xC1A55]).permutation(num_classes)
    return tuple(sorted(int(c) for c in order[draw % RARE_DRAWS :: RARE_DRAWS]))


def naturally_rare(motions: MotionSet, train: np.ndarray, spec: BedSpec) -> tuple[int, ...]:
    """The classes of which a training half has at least one clip and at most `spec.shots`.

    Args:
        motions: The dataset.
        train: Positions of the training half's real clips, before anybody is held out of it.
        spec: Of the bed.

    Raises:
        InputError: there is none.
    """
    sizes = np.bincount(motions.labels[train], minlength=motions.num_classes)
    if rare := tuple(int(c) for c in np.flatnonzero((sizes > 0) & (sizes <= spec.shots))):
        return rare
    fewest = sorted((int(n), motions.class_names[c]) for c, n in enumerate(sizes) if n)[:3]
    raise InputError(
        f"No class of '{motions.dataset}' has at most {spec.shots} clips in the training half of '{spec.protocol}' "
        f"(fewest: {', '.join(f'{name} {n}' for n, name in fewest) or 'there is no clip'}); say with --shots how many "
        "a rare class has, or let --scarcity rare cut classes."
    )


def spread_over(people: list[str], clips: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k clips, taking one from each person in turn so that few clips still show many people.

    Args:
        people: Subject of each clip of the dataset.
        clips: Positions to choose from.
        k: How many; all of them if there are no more than k.
        rng: Decides order of people and of clips within a person.
    """
    if len(clips) <= k:
        return clips
    turns: dict[str, int] = {}
    names = sorted({people[i] for i in clips})
    order = {name: r for r, name in zip(rng.permutation(len(names)), names, strict=True)}
    keyed = []
    for i in rng.permutation(clips):
        turns[people[i]] = turns.get(people[i], 0) + 1
        keyed.append((turns[people[i]], order[people[i]], i))
    return np.sort([i for _, _, i in sorted(keyed)[:k]])


def held_out_people(
    motions: MotionSet, indices: np.ndarray, draw: int, seed: int, rare: tuple[int, ...] = ()
) -> set[str]:
    """A third of the training people (at least one), rotating with the draw.

    Args:
        motions: The dataset.
        indices: Positions of the training half's clips.
        draw, seed: Of the bed.
        rare: Classes that few people show: these people are dealt out first, so that as many thirds as can have some
            of them.

    Raises:
        InputError: fewer than two people.
    """
    names = sorted({motions.motions[i].subject for i in indices})
    if len(names) < 2:
        raise InputError(
            f"The training half of '{motions.dataset}' shows {len(names)} person; validation needs at least 2: give "
            "each clip its subject, or score on the test half."
        )
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(names))
    folds = min(VALIDATION_FOLDS, len(names))
    if rare:
        clips = [motions.motions[i] for i in indices]
        shown = {n: len({m.label for m in clips if m.subject == n} & {*rare}) for n in names}
        order = sorted(order, key=lambda i: -shown[names[i]])
    return {names[i] for i in order[draw % folds :: folds]}


def _judges(
    motions: MotionSet, split: Split, train: np.ndarray, spec: BedSpec, rare: tuple[int, ...]
) -> np.ndarray:
    """bool [len(train)]: which real clips of the training half judge on validation, where no list says so.

    A third of the people, rotating with the draw. Of a hybrid dataset: those whom the generator of its synthetic
    clips has not seen; in the bed on which that generator was trained these are the same third.
    """
    if split.seen and split.bed != spec.key:
        people = {motions.motions[i].subject for i in train} - set(split.seen)
        if not people:
            raise InputError(
                f"The synthetic clips of '{motions.dataset}' come from a generator that saw everybody in the training "
                f"half of '{split.name}', so nobody is left for validation; score with --split test, or compose clips "
                "of a generator trained with --split validation."
            )
    else:
        people = held_out_people(motions, train, spec.draw, spec.seed, rare)
    return np.array([motions.motions[i].subject in people for i in train], bool)


def _still_rare(
    motions: MotionSet, rare: tuple[int, ...], train: np.ndarray, evaluate: np.ndarray, spec: BedSpec
) -> tuple[int, ...]:
    """Those of the naturally rare classes that the people who are left to train show.

    Raises:
        InputError: those who judge show none of them.
    """
    left = tuple(c for c in rare if (motions.labels[train] == c).any())
    judged = set(motions.labels[evaluate].tolist())
    if any(c in judged for c in left):
        return left
    who = (
        f"The test half of '{spec.protocol}' shows"
        if spec.split == "test"
        else f"Those held out in draw {spec.draw} show"
    )
    cure = "choose another --protocol" if spec.split == "test" else "score with --split test"
    names = ", ".join(motions.class_names[c] for c in rare)
    raise InputError(
        f"{who} none of the rare classes of '{motions.dataset}' ({names}) that the others show, so nothing would be "
        f"measured; {f'give --draws {spec.draw}, or ' if spec.draw else ''}{cure}."
    )


def make_bed(motions: MotionSet, splits: Sequence[Split], spec: BedSpec) -> Bed:
    """Cut a dataset to one draw.

    Raises:
        InputError: unknown split, an empty side, too few people for validation, no class that is rare or that judges
            show, a draw that repeats another, or synthetic clips whose generator saw what this bed cuts away.
    """
    known = {s.name: s for s in splits}
    if spec.protocol not in known:
        raise InputError(
            f"Dataset '{motions.dataset}' has no protocol '{spec.protocol}'. "
            f"Known: {', '.join(sorted(known)) or NO_PROTOCOL}."
        )
    if spec.scarcity == "rare" and motions.num_classes < RARE_DRAWS:
        raise InputError(
            f"Dataset '{motions.dataset}' has {motions.num_classes} classes; scarcity 'rare' cuts a third of them and "
            f"needs at least {RARE_DRAWS}: use few or fraction."
        )
    split = known[spec.protocol]
    both, test = partition(motions, split)
    fake = np.array([motions.motions[i].source == "synthetic" for i in both], bool)
    train, synthetic = both[~fake], both[fake]
    if len(synthetic) and spec.cuts and spec.key != split.bed:
        raise InputError(
            f"The synthetic clips of '{motions.dataset}' come from a generator that saw clips which the bed {spec.key} "
            "cuts away; use --scarcity full, or compose the clips of a generator trained on this very bed."
        )
    own = naturally_rare(motions, train, spec) if spec.scarcity == "natural" else ()
    if own:
        # Draws differ in who judges alone, so another one would count the same recognisers twice.
        fixed = spec.split == "test" or split.validation or split.seen
        ways = 1 if fixed else min(VALIDATION_FOLDS, len({motions.motions[i].subject for i in train}))
        if spec.draw >= max(1, ways):
            raise InputError(
                f"Draw {spec.draw} of '{spec.protocol}' would repeat one before it: with scarcity 'natural' nothing is "
                f"cut, and draws differ in who judges alone; give --draws {max(1, ways)}, and more --seeds."
            )
    if spec.split == "test":
        evaluate = test
    elif split.validation:
        evaluate = np.array([i for i, m in enumerate(motions.motions) if split.side(m) == "validation"], int)
        if not len(evaluate):
            raise InputError(
                f"Split '{split.name}' leaves no validation clip in dataset '{motions.dataset}'; score with --split "
                "test, or mend its lists."
            )
    else:
        judges = _judges(motions, split, train, spec, own)
        train, evaluate = train[~judges], train[judges]
    labels = motions.labels
    subjects = [m.subject for m in motions.motions]
    k = motions.num_classes
    if spec.scarcity == "natural":
        rare = _still_rare(motions, own, train, evaluate, spec)
    else:
        rare = {"rare": rare_classes(k, spec.draw, spec.seed), "full": ()}.get(spec.scarcity, tuple(range(k)))
    kept = []
    for c in range(k):
        clips = train[labels[train] == c]
        rng = np.random.default_rng([spec.seed, spec.draw, c])
        if spec.scarcity == "fraction":
            clips = spread_over(subjects, clips, max(2, round(spec.fraction * len(clips))), rng)
        elif c in rare and spec.cuts:
            clips = spread_over(subjects, clips, spec.shots, rng)
        kept.append(clips)
    return Bed(
        spec=spec,
        train=motions.select(np.sort(np.concatenate(kept))),
        full=motions.select(train),
        evaluate=motions.select(evaluate),
        rare=rare,
        synthetic=motions.select(synthetic),
        as_published=split.as_published,
    )
