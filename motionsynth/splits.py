"""Official evaluation splits: which clips of a dataset may be trained on and which are held out."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    """

    name: str
    by: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    pattern: str = ""
    note: str = ""
    # Splits by clip name hold tens of thousands of keys: look them up, do not scan them.
    _side_of: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sides = dict.fromkeys(self.train, "train") | dict.fromkeys(self.test, "test")
        object.__setattr__(self, "_side_of", sides)
        if self.by not in FIELDS:
            raise InputError(f"Split '{self.name}' is by '{self.by}'; allowed: {', '.join(FIELDS)}.")
        if both := sorted(set(self.train) & set(self.test)):
            raise InputError(
                f"Split '{self.name}' has {len(both)} keys on both sides ({', '.join(both[:3])}); give each one to "
                "train or to test."
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
        """ "train", "test", or "" for a clip that belongs to neither."""
        return self._side_of.get(self.key(motion), "")

    def to_dict(self) -> dict:
        """JSON-serialisable form, as stored in dataset headers."""
        return {
            "name": self.name,
            "by": self.by,
            "train": list(self.train),
            "test": list(self.test),
            "pattern": self.pattern,
            "note": self.note,
        }

    @staticmethod
    def from_dict(d: Mapping) -> Split:
        """Inverse of `to_dict`.

        Raises:
            InputError: a key is missing, a list is not one, or the split is not valid.
        """
        if missing := [k for k in ("name", "by", "train", "test") if k not in d]:
            raise InputError(f"A split lacks {missing}; it needs name, by, train and test.")
        for side in ("train", "test"):
            if isinstance(d[side], str) or not isinstance(d[side], (list, tuple)):
                raise InputError(f"Split '{d['name']}' has {side} = {d[side]!r}; it must be a list of keys.")
        return Split(
            name=str(d["name"]),
            by=str(d["by"]),
            train=tuple(str(k) for k in d["train"]),
            test=tuple(str(k) for k in d["test"]),
            pattern=str(d.get("pattern", "")),
            note=str(d.get("note", "")),
        )


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
