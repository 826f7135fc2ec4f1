"""What the project knows about one motion dataset: a `DatasetInfo`, one per file of this folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from motionsynth.errors import InputError
from motionsynth.motion import Motion
from motionsynth.splits import Split

Redistribution = Literal["allowed", "unstated", "forbidden"]
"""Whether terms allow motions to be passed on to others; "unstated": they carry no licence that says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """A dataset as its authors publish it, and how to read it.

    Attributes:
        name: Short name: the `--dataset` argument and the `dataset` column.
        title: Full name.
        skeleton: Name of the skeleton that `read` returns (see `motionsynth.skeleton.get_skeleton`).
        class_names: Class names, index = `Motion.label`.
        splits: Official train/test protocols; the first one is the default.
        layout: Which files must lie where under the raw folder.
        citation: The paper to cite.
        terms: Terms of use, in words: the sentence that `redistribution` rests on.
        redistribution: Whether the terms allow motions to be passed on to others (see `motionsynth.terms`).
        licence: SPDX identifier of the licence, "" where there is none.
        sensor: What recorded the motions.
        find: Raw folder -> sorted raw files, one per clip. Raises InputError naming the expected files if
            there are none.
        read: One raw file -> one `Motion` with its full identity. Raises InputError when it cannot be read.
    """

    name: str
    title: str
    skeleton: str
    class_names: tuple[str, ...]
    splits: tuple[Split, ...]
    layout: str
    citation: str
    terms: str
    redistribution: Redistribution
    licence: str = ""
    sensor: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path], Motion]

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names):
            raise InputError(f"Dataset '{self.name}' names a class twice; class names must be unique.")

    @property
    def may_redistribute(self) -> bool:
        """Whether the terms allow motions to be passed on, as headers of prepared datasets say it."""
        return self.redistribution == "allowed"

    def split(self, name: str) -> Split:
        """An official split by name.

        Raises:
            InputError: the dataset has no such split.
        """
        for split in self.splits:
            if split.name == name:
                return split
        known = ", ".join(s.name for s in self.splits)
        raise InputError(f"Dataset '{self.name}' has no split '{name}'. Known: {known}.")


def find_raw(raw: Path, path_pattern: str, expected: str) -> list[Path]:
    """All files below a folder whose path relative to it matches, sorted.

    Args:
        raw: Folder of the raw download; the files may lie at any depth.
        path_pattern: Regular expression, searched in each file's path relative to `raw` (with `/`).
        expected: The files that the user should have, for the message.

    Raises:
        InputError: the folder does not exist or holds no such file.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise InputError(f"Raw folder '{raw}' does not exist or is not a folder; it must hold {expected}.")
    pattern = re.compile(path_pattern)
    found = sorted(p for p in raw.rglob("*") if pattern.search(p.relative_to(raw).as_posix()) and p.is_file())
    if not found:
        raise InputError(f"Raw folder '{raw}' holds none of the expected files; it must hold {expected}.")
    return found


def parse_path(path: Path, path_pattern: str, expected: str) -> dict[str, str]:
    """The named groups of a regular expression searched in a file's path: the identity that its name carries.

    Raises:
        InputError: the path does not match.
    """
    if (match := re.search(path_pattern, Path(path).as_posix())) is None:
        raise InputError(
            f"File name '{path}' does not tell its subject and action; it must look like {expected}."
        )
    return match.groupdict()
