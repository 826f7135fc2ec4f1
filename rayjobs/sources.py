"""Where raw clips come from: a known dataset's files, a pyskl annotation pickle, or Parquet files in our schema.

A source lists items (names that mean the same on every worker) with the clips in each, and reads one item at a
time. The driver looks at names, sizes and headers only; clips are read by the workers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from motionsynth.axes import check_axes, to_metres_y_up
from motionsynth.datasets import DATASETS, SAMPLE, get_dataset
from motionsynth.datasets.pyskl import pyskl_motions
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import Skeleton, get_skeleton
from motionsynth.splits import Split, halve_people
from storage.header import Header
from storage.schema import UNREADABLE, from_table, read_header

OWN = ("pyskl", "parquet", "sample")
"""`--dataset` values besides the names in `DATASETS`."""


class Source(Protocol):
    """Raw clips. Instances are pickled to workers, so they hold names and settings, no clips."""

    @property
    def name(self) -> str:
        """Of the prepared dataset."""
        ...

    def header(self) -> Header:
        """What the clips share."""
        ...

    def items(self) -> Sequence[tuple[str, int]]:
        """(item, number of clips in it), in the order of the dataset."""
        ...

    def files(self) -> Sequence[Path]:
        """The raw files, for the fingerprint."""
        ...

    def read(self, item: str) -> list[Motion]:
        """The clips of one item. Raises InputError when they cannot be read."""
        ...


def fingerprint(source: Source) -> str:
    """A hash that changes when a raw file is added, removed, renamed, rewritten, or the header changes."""
    seen = []
    for path in source.files():
        s = path.stat()
        seen.append((str(path), s.st_size, s.st_mtime_ns))
    return hashlib.sha256(repr((seen, source.header().to_dict())).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSource:
    """A dataset of `DATASETS`: one raw file, one clip."""

    name: str
    raw: Path
    dataset: str

    def header(self) -> Header:
        info = get_dataset(self.dataset)
        return Header(
            dataset=info.name,
            skeleton=get_skeleton(info.skeleton),
            class_names=info.class_names,
            splits=tuple(s.to_dict() for s in info.splits),
            extra={
                "title": info.title,
                "citation": info.citation,
                "terms": info.terms,
                "may_redistribute": info.may_redistribute,
            },
        )

    def items(self) -> Sequence[tuple[str, int]]:
        return [(str(path), 1) for path in self.files()]

    def files(self) -> Sequence[Path]:
        return _find(self.dataset, self.raw)

    def read(self, item: str) -> list[Motion]:
        return [get_dataset(self.dataset).read(Path(item))]


@lru_cache(maxsize=2)
def _find(dataset: str, raw: Path) -> list[Path]:
    return get_dataset(dataset).find(raw)


@dataclass(frozen=True, kw_only=True, slots=True)
class PysklSource:
    """A pickle in pyskl's annotation format; see `motionsynth.datasets.pyskl.pyskl_motions` for the settings.

    Attributes:
        skeleton: The skeleton's file form as JSON: a user's own file need not be there on other machines.
        up, unit: Axes and unit of the file; see `motionsynth.axes`.
    """

    name: str
    path: Path
    skeleton: str
    class_names: tuple[str, ...] | None = None
    subject_pattern: str | None = None
    view_pattern: str | None = None
    fps: float = 30.0
    up: str = "y"
    unit: str = "m"

    def header(self) -> Header:
        motions, splits = _pyskl(self)
        return Header(
            dataset=self.name,
            skeleton=motions.skeleton,
            class_names=motions.class_names,
            splits=tuple(s.to_dict() for s in splits),
            extra={"title": self.path.name, "terms": "Own data: see where the file came from."},
        )

    def items(self) -> Sequence[tuple[str, int]]:
        return [(str(i), 1) for i in range(len(_pyskl(self)[0]))]

    def files(self) -> Sequence[Path]:
        return [self.path]

    def read(self, item: str) -> list[Motion]:
        motion = _pyskl(self)[0].motions[int(item)]
        positions = to_metres_y_up(motion.positions, self.up, self.unit)
        return [replace(motion, dataset=self.name, positions=positions)]


@lru_cache(maxsize=1)
def _pyskl(source: PysklSource) -> tuple[MotionSet, tuple[Split, ...]]:
    # Once per process: a pickle cannot be read in parts, and a Ray worker serves many tasks.
    return pyskl_motions(
        source.path,
        Skeleton.from_dict(json.loads(source.skeleton)),
        source.class_names,
        source.subject_pattern,
        source.view_pattern,
        source.fps,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParquetSource:
    """Files in our own schema; an item is one row group, so that a task reads no more than it needs."""

    name: str
    paths: tuple[Path, ...]

    def header(self) -> Header:
        first = _parquet_header(self.paths[0])
        for path in self.paths[1:]:
            if _parquet_header(path).to_dict() != first.to_dict():
                raise InputError(
                    f"Parquet file '{path}' has another header (skeleton, classes or splits) than '{self.paths[0]}'; "
                    "prepare them as two datasets."
                )
        return first if first.splits else replace(first, splits=_halves(self.paths))

    def items(self) -> Sequence[tuple[str, int]]:
        out = []
        for path in self.paths:
            meta = pq.ParquetFile(path).metadata
            out += [(f"{path}#{g}", meta.row_group(g).num_rows) for g in range(meta.num_row_groups)]
        return out

    def files(self) -> Sequence[Path]:
        return self.paths

    def read(self, item: str) -> list[Motion]:
        path, _, group = item.rpartition("#")
        try:
            table = pq.ParquetFile(path).read_row_group(int(group), use_threads=False)
        except UNREADABLE as e:
            raise InputError(
                f"Row group {group} of Parquet file '{path}' cannot be read ({_first_line(e)}); write the file again."
            ) from None
        return list(from_table(table, _parquet_header(Path(path)), name=f"'{path}'")[0].motions)


@lru_cache(maxsize=64)
def _parquet_header(path: Path) -> Header:
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError:
        raise InputError(f"Parquet file '{path}' does not exist; check --raw.") from None
    except UNREADABLE as e:
        raise InputError(
            f"'{path}' is not a readable Parquet file ({_first_line(e)}); write it again."
        ) from None
    return read_header(schema, f"'{path}'")


@lru_cache(maxsize=2)
def _halves(paths: tuple[Path, ...]) -> tuple[Mapping[str, Any], ...]:
    """A split by people for files that bring none; none where they name no people, or cannot be read."""
    subjects, labels = [], []
    try:
        for path in paths:
            table = pq.read_table(path, columns=["subject", "label"])
            subjects += table["subject"].to_pylist()
            labels += table["label"].to_pylist()
        split = halve_people(subjects, labels)
    except (*UNREADABLE, KeyError, TypeError, ValueError):
        return ()  # a column is missing or of another type: `read` says so
    return (split.to_dict(),) if split else ()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def open_source(
    dataset: str,
    raw: Sequence[Path],
    *,
    name: str = "",
    skeleton: str = "",
    class_names: Path | None = None,
    fps: float = 30.0,
    subject_pattern: str = "",
    view_pattern: str = "",
    up: str = "y",
    unit: str = "m",
) -> Source:
    """The source that the command line asks for.

    Args:
        dataset: A name in `DATASETS`, "pyskl", "parquet" or "sample".
        raw: The raw folder; for pyskl the pickle; for parquet a folder or files; for the sample nothing.
        name: Name of the prepared dataset (default: the dataset's, the pickle's file name, the Parquet header's).
        skeleton: For pyskl: a shipped skeleton's name or a .toml/.json file.
        class_names: For pyskl: a text file with one class name per line.
        fps, subject_pattern, view_pattern: For pyskl; see `pyskl_motions`.
        up, unit: For pyskl: the axis that points up, and the unit; see `motionsynth.axes`.

    Raises:
        InputError: unknown dataset, or options that do not fit it.
    """
    if dataset not in DATASETS and dataset not in OWN:
        raise InputError(f"Unknown dataset '{dataset}'. Known: {', '.join([*DATASETS, *OWN])}.")
    pyskl_only = {
        "--skeleton": bool(skeleton),
        "--class-names": class_names is not None,
        "--subject-pattern": bool(subject_pattern),
        "--view-pattern": bool(view_pattern),
        "--up": up != "y",
        "--unit": unit != "m",
    }
    if dataset != "pyskl" and (given := [k for k, v in pyskl_only.items() if v]):
        raise InputError(
            f"{given[0]} belongs to --dataset pyskl; '{dataset}' knows it by itself, so leave it out."
        )
    check_axes(up, unit)
    if dataset == "sample":
        if raw:
            raise InputError("--dataset sample is bundled with the package; leave --raw out.")
        return ParquetSource(name=name or "sample", paths=_parquet_files([SAMPLE]))
    paths = [Path(p).expanduser().resolve() for p in raw]
    if dataset == "parquet":
        if not paths:
            raise InputError("--dataset parquet needs --raw with a folder of .parquet files, or the files.")
        files = _parquet_files(paths)
        return ParquetSource(name=name or _parquet_header(files[0]).dataset, paths=files)
    if len(paths) != 1:
        what = (
            "the annotation pickle"
            if dataset == "pyskl"
            else f"the folder with {get_dataset(dataset).layout}"
        )
        raise InputError(
            f"--dataset {dataset} needs --raw with one path, got {len(paths)}: {what.rstrip('.')}."
        )
    if dataset == "pyskl":
        if not skeleton:
            raise InputError(
                "--dataset pyskl needs --skeleton, since the format does not name its joints: a shipped one "
                "(kinect25 for NTU RGB+D, kinect20, smpl24, ...) or a .toml file."
            )
        return PysklSource(
            name=name or re.sub(r"[^A-Za-z0-9_.-]", "_", paths[0].stem),
            path=paths[0],
            skeleton=json.dumps(get_skeleton(skeleton).to_dict()),
            class_names=_read_class_names(class_names),
            subject_pattern=subject_pattern or None,
            view_pattern=view_pattern or None,
            fps=fps,
            up=up,
            unit=unit,
        )
    return FileSource(name=name or dataset, raw=paths[0], dataset=dataset)


def _parquet_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(path.rglob("*.parquet"))
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"'{path}' does not exist; give a folder of .parquet files, or the files.")
    if not files:
        raise InputError(
            f"'{paths[0]}' holds no .parquet file; give a folder of .parquet files, or the files."
        )
    return tuple(files)


def _read_class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(
            f"Class name file '{path}' cannot be read ({e}); it holds one name per line."
        ) from None


def describe_source(source: Source) -> dict[str, Any]:
    """For the manifest: how the dataset was named, how many raw files it had, and how they were read."""
    told = {"name": source.name, "kind": type(source).__name__, "raw_files": len(source.files())}
    if not isinstance(source, PysklSource):
        return told
    # The header, which says the rest, is the same whatever these are.
    settings = ("subject_pattern", "view_pattern", "fps", "up", "unit")
    return {**told, **{name: getattr(source, name) for name in settings}}
