"""Evaluation splits: which clips of a dataset may be trained on and which are held out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet

FIELDS = ("subject", "view", "sample_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One way to halve a dataset.

    Attributes:
        name: `cross_subject`, `cross_view`, `cross_setup`, `xsub`, ...
        by: The field of a `Motion` that decides: "subject", "view" or "sample_id".
        train, test: Keys on each side; a clip whose key is in neither is left out.
        pattern: If given, the key is group 1 of this regular expression searched in the field (for a protocol
            that reads a part of the clip's name, such as NTU's setup number).
        note: One sentence for people: source of the lists, caveats.
        validation: Keys of a third side that judges on validation and is never trained on; without it, `beds` holds
            out training people. The fields from here on are those of hybrid datasets (see `motionsynth.hybrid`).
        seen: Subjects whose clips the generator of the dataset's synthetic clips was trained on. All of them are on the
            training side, and so are the synthetic clips; without `seen`, a synthetic clip is on no side.
        bed: Key of the bed on which that generator was trained.
        as_published: The lists hold synthetic clips, too, and these may judge.
    """

    name: str
    by: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    pattern: str = ""
    note: str = ""
    validation: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    bed: str = ""
    as_published: bool = False
    # Splits by clip name hold tens of thousands of keys: look them up, do not scan them.
    _side_of: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = {"train": self.train, "validation": self.validation, "test": self.test}
        sides = {key: side for side, keys in lists.items() for key in keys}
        object.__setattr__(self, "_side_of", sides)
        if self.by not in FIELDS:
            raise InputError(f"Split '{self.name}' is by '{self.by}'; allowed: {', '.join(FIELDS)}.")
        if both := sorted(set(self.train) & set(self.test)):
            raise InputError(
                f"Split '{self.name}' has {len(both)} keys on both sides ({', '.join(both[:3])}); give each one to "
                "train or to test."
            )
        if both := sorted(set(self.validation) & {*self.train, *self.test}):
            raise InputError(
                f"Split '{self.name}' has {len(both)} keys in validation and on another side ({', '.join(both[:3])}); "
                "give each one to one side."
            )
        if self.pattern:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as e:
                raise InputError(
                    f"Split '{self.name}' has the pattern '{self.pattern}', which is not a regular expression ({e}); "
                    "mend it."
                ) from None
            if groups < 1:
                raise InputError(
                    f"Split '{self.name}' has the pattern '{self.pattern}' without a group; put parentheses around the "
                    "part that is the key."
                )

    def key(self, motion: Motion) -> str:
        """What the two lists are searched for; "" when the pattern does not match."""
        text = str(getattr(motion, self.by))
        if not self.pattern:
            return text
        found = re.search(self.pattern, text)
        return (found.group(1) or "") if found else ""

    def side(self, motion: Motion) -> str:
        """ "train", "validation", "test", or "" for a clip that belongs to none of them."""
        if motion.source == "synthetic" and not self.as_published:
            # Whatever its identity columns say: a clip that nobody performed judges nothing.
            return "train" if self.seen else ""
        return self._side_of.get(self.key(motion), "")

    def to_dict(self) -> dict:
        """JSON-serialisable form, as stored in dataset headers; fields of hybrid datasets only where they are set."""
        hybrid = {
            "validation": list(self.validation),
            "seen": list(self.seen),
            "bed": self.bed,
            "as_published": self.as_published,
        }
        return {
            "name": self.name,
            "by": self.by,
            "train": list(self.train),
            "test": list(self.test),
            "pattern": self.pattern,
            "note": self.note,
            **{k: v for k, v in hybrid.items() if v},
        }

    @staticmethod
    def from_dict(d: Mapping) -> Split:
        """Inverse of `to_dict`.

        Raises:
            InputError: a key is missing, a list is not one, or the split is not valid.
        """
        if missing := [k for k in ("name", "by", "train", "test") if k not in d]:
            raise InputError(f"A split lacks {missing}; it needs name, by, train and test.")
        for side in ("train", "test", "validation", "seen"):
            listed = d.get(side, ())
            if isinstance(listed, str) or not isinstance(listed, (list, tuple)):
                raise InputError(f"Split '{d['name']}' has {side} = {listed!r}; it must be a list of keys.")
        return Split(
            name=str(d["name"]),
            by=str(d["by"]),
            train=tuple(str(k) for k in d["train"]),
            test=tuple(str(k) for k in d["test"]),
            pattern=str(d.get("pattern", "")),
            note=str(d.get("note", "")),
            validation=tuple(str(k) for k in d.get("validation", ())),
            seen=tuple(str(k) for k in d.get("seen", ())),
            bed=str(d.get("bed", "")),
            as_published=bool(d.get("as_published", False)),
        )


def halve_people(subjects: Sequence[str], labels: Sequence[int]) -> Split | None:
    """A split for clips that bring none: half of the people train, the others judge.

    Who shows what few people show is dealt out first, each to the side that has fewer of such people, so that a class
    which two people show has one on either side. The same clips give the same halves.

    Args:
        subjects: Of each clip; one without a subject is in neither half.
        labels: Of each clip.

    Returns:
        The split `cross_subject`, or None where the clips name fewer than two people.
    """
    shows: dict[str, set[int]] = {}
    for who, label in zip(subjects, labels, strict=True):
        if who:
            shows.setdefault(who, set()).add(int(label))
    if len(shows) < 2:
        return None
    people = Counter(label for shown in shows.values() for label in shown)
    sides: tuple[list[str], list[str]] = ([], [])
    there = (Counter[int](), Counter[int]())
    for who in sorted(shows, key=lambda who: (min(people[c] for c in shows[who]), who)):
        scarcest = sorted(shows[who], key=lambda c: (people[c], c))
        lead = next((d for c in scarcest if (d := there[0][c] - there[1][c])), len(sides[0]) - len(sides[1]))
        side = int(lead > 0)
        sides[side].append(who)
        there[side].update(shows[who])
    train, test = (tuple(sorted(side)) for side in sides)
    note = "Nobody said who judges: people were halved, those first who show what few show."
    return Split(name="cross_subject", by="subject", train=train, test=test, note=note)


def partition(motions: MotionSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the clips on each side.

    Returns:
        (train, test), each int64 [n], ascending.

    Raises:
        InputError: one side has no clip.
    """
    sides = [split.side(m) for m in motions.motions]
    out = []
    for side, listed in (("train", split.train), ("test", split.test)):
        out.append(np.array([i for i, of in enumerate(sides) if of == side], np.int64))
        if not len(out[-1]):
            seen = ", ".join(repr(k) for k in sorted({split.key(m) for m in motions.motions})[:5]) or "none"
            wanted = ", ".join(repr(k) for k in listed[:5]) or "nothing"
            raise InputError(
                f"Split '{split.name}' leaves no {side} clip of the {len(motions)} in dataset '{motions.dataset}': its "
                f"{split.by} keys are {seen}, the split's {side} list has {wanted}; choose another split or mend its "
                "lists."
            )
    return out[0], out[1]
