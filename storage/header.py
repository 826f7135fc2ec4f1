"""The header that every file and manifest carries: what a reader must know before it reads a clip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.skeleton import Skeleton

SCHEMA_VERSION = 1
"""Version of columns and header; a reader refuses a file with a higher one."""

_KNOWN = ("schema_version", "dataset", "skeleton", "class_names", "splits")


def canonical_json(value: Any) -> str:
    """One spelling per value (sorted keys, no spaces), so that equal values give equal bytes and digests.

    Raises:
        InputError: the value is not JSON (NaN and infinity included).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise InputError(
            f"A header, request or checkpoint config holds a value that JSON cannot ({e}); use str, int, "
            "finite float, bool, None, lists and dicts."
        ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the clips of a dataset share.

    Attributes:
        dataset: Name of the dataset.
        skeleton: The full definition, so that a file is readable without us.
        class_names: Name of each label, length K.
        splits: Official splits in their `Split.to_dict()` form.
        extra: Further JSON keys (terms, citation, code_version, ...).
    """

    dataset: str
    skeleton: Skeleton
    class_names: tuple[str, ...]
    splits: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise InputError(
                f"The header of dataset '{self.dataset}' has no class names; give one per label."
            )
        if clash := sorted(set(self.extra) & set(_KNOWN)):
            raise InputError(
                f"The header of dataset '{self.dataset}' has {clash} among its extra keys; these names "
                "belong to the header itself."
            )

    @staticmethod
    def of(motions: MotionSet, splits: tuple[Mapping[str, Any], ...] = (), **extra: Any) -> Header:
        """The header that fits a set of clips."""
        return Header(
            dataset=motions.dataset,
            skeleton=motions.skeleton,
            class_names=motions.class_names,
            splits=splits,
            extra=extra,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as stored."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "skeleton": self.skeleton.to_dict(),
            "class_names": list(self.class_names),
            "splits": [dict(s) for s in self.splits],
            **self.extra,
        }

    @staticmethod
    def from_dict(d: Any, name: str = "the header") -> Header:
        """Read the JSON form.

        Args:
            d: What `to_dict` gave.
            name: How error messages name the place it came from.

        Raises:
            InputError: not a header, or one of a newer version.
        """
        if not isinstance(d, Mapping):
            raise InputError(f"The header of {name} is a {type(d).__name__}; it must be a JSON object.")
        version = d.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise InputError(
                f"The header of {name} has schema_version {version!r}; it must be a whole number from 1 to "
                f"{SCHEMA_VERSION}."
            )
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{_capital(name)} has schema version {version} but this motionsynth reads up to "
                f"{SCHEMA_VERSION}; upgrade motionsynth to read it."
            )
        if missing := [k for k in _KNOWN if k not in d]:
            raise InputError(f"The header of {name} lacks {missing}; it needs {', '.join(_KNOWN)}.")
        for key, kind in (("dataset", str), ("skeleton", Mapping), ("class_names", list), ("splits", list)):
            if not isinstance(d[key], kind):
                raise InputError(
                    f"The header of {name} has a {type(d[key]).__name__} under '{key}'; it is not one that "
                    "motionsynth wrote."
                )
        return Header(
            dataset=d["dataset"],
            skeleton=Skeleton.from_dict(d["skeleton"]),
            class_names=tuple(str(c) for c in d["class_names"]),
            splits=tuple(d["splits"]),
            extra={k: v for k, v in d.items() if k not in _KNOWN},
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
