"""What a finished dataset is, in figures: counted from its columns, without reading a motion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from motionsynth.motion import Motion
from motionsynth.splits import Split
from storage.decisions import decided, read_decisions
from storage.header import Header
from storage.manifest import Manifest, below, damaged_shard, read_manifest
from storage.paths import Storage

COLUMNS = (
    "sample_id", "label", "label_name", "num_persons", "num_frames", "fps", "skeleton", "dataset", "subject", "view",
    "repetition", "source", "parent_id", "generator", "checkpoint", "seed", "accepted",
)  # fmt: skip
_NOTHING = np.zeros((1, 1, 1, 3), np.float32)

Part = tuple[bool, tuple[str, ...]]
"""Clips that every protocol treats alike: whether they are accepted, and their side in each split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Figures of a dataset.

    Attributes:
        manifest: Of the dataset.
        real, synthetic: Clips per label.
        people: For each label, how many people its real clips show.
        subjects, views: Of the real clips.
        persons: Clips by the number of persons in them.
        frames: Smallest, mean and largest number of frames.
        hours: Of all clips together.
        fps: Frame rates that occur.
        ids: For each source dataset, the `sample_id` of its real clips and of those that synthetic ones derive from.
        parents: Real clips that synthetic ones derive from.
        orphans: Synthetic clips that name no parent.
        generators, checkpoints: Of the synthetic clips, with the number of clips of each.
        seeds: Smallest and largest; None without any.
        parts: Clips of each part, in the order in which parts first occur.
    """

    manifest: Manifest
    real: Mapping[int, int]
    synthetic: Mapping[int, int]
    people: Mapping[int, int]
    subjects: tuple[str, ...]
    views: tuple[str, ...]
    persons: Mapping[int, int]
    frames: tuple[int, float, int]
    hours: float
    fps: tuple[float, ...]
    ids: Mapping[str, frozenset[str]]
    parents: frozenset[str]
    orphans: int
    generators: Mapping[str, int]
    checkpoints: Mapping[str, int]
    seeds: tuple[int, int] | None
    parts: Mapping[Part, int]

    @property
    def header(self) -> Header:
        """Of the dataset."""
        return self.manifest.header

    @property
    def splits(self) -> tuple[Split, ...]:
        """Official splits."""
        return tuple(Split.from_dict(s) for s in self.header.splits)

    @property
    def refused(self) -> int:
        """Clips that a filter refused."""
        return sum(n for (accepted, _), n in self.parts.items() if not accepted)

    @property
    def num_real(self) -> int:
        """Real clips."""
        return sum(self.real.values())

    @property
    def num_synthetic(self) -> int:
        """Synthetic clips."""
        return sum(self.synthetic.values())


def part_of(motion: Motion, splits: tuple[Split, ...]) -> Part:
    """The part that a clip belongs to."""
    return motion.accepted is not False, tuple(s.side(motion) for s in splits)


def read_facts(storage: Storage, prefix: str) -> Facts:
    """Count a finished dataset.

    Raises:
        InputError: there is none, or a shard cannot be read.
    """
    manifest = read_manifest(storage, prefix)
    splits = tuple(Split.from_dict(s) for s in manifest.header.splits)
    count: dict[str, Counter[Any]] = {
        k: Counter() for k in ("real", "synthetic", "persons", "fps", "generators", "checkpoints", "parts")
    }
    people: dict[int, set[str]] = {}
    subjects, views, parents = set(), set(), set()
    ids: dict[str, set[str]] = {}
    frames: list[int] = []
    seeds: list[int] = []
    seconds, orphans = 0.0, 0
    marks = read_decisions(storage, prefix)
    for row, persons, length in _rows(storage, prefix, manifest):
        (m,) = decided((row,), marks)
        count[m.source][m.label] += 1
        count["persons"][persons] += 1
        count["fps"][m.fps] += 1
        count["parts"][part_of(m, splits)] += 1
        frames.append(length)
        seconds += length / m.fps
        own = ids.setdefault(m.dataset or manifest.header.dataset, set())
        if m.source == "real":
            own.add(m.sample_id)
            people.setdefault(m.label, set()).add(m.subject)
            subjects.add(m.subject)
            views.add(m.view)
            continue
        count["generators"][m.generator or ""] += 1
        count["checkpoints"][m.checkpoint or ""] += 1
        origin = m.parent_id.split("+") if m.parent_id else []
        orphans += not origin
        parents.update(origin)
        own.update(origin)
        if m.seed is not None:
            seeds.append(m.seed)
    ordered = lambda c: dict(sorted(c.items()))  # noqa: E731
    return Facts(
        manifest=manifest,
        real=ordered(count["real"]),
        synthetic=ordered(count["synthetic"]),
        people={k: len(v) for k, v in sorted(people.items())},
        subjects=tuple(sorted(subjects)),
        views=tuple(sorted(views)),
        persons=ordered(count["persons"]),
        frames=(min(frames), sum(frames) / len(frames), max(frames)),
        hours=seconds / 3600,
        fps=tuple(sorted(count["fps"])),
        ids={k: frozenset(v) for k, v in sorted(ids.items())},
        parents=frozenset(parents),
        orphans=orphans,
        generators=ordered(count["generators"]),
        checkpoints=ordered(count["checkpoints"]),
        seeds=(min(seeds), max(seeds)) if seeds else None,
        parts=dict(count["parts"]),
    )


def _rows(storage: Storage, prefix: str, manifest: Manifest) -> Iterator[tuple[Motion, int, int]]:
    """Clips without their motion, persons and frames of each."""
    at = below(storage, prefix)
    fs, root = at.filesystem()
    for record in manifest.shards:
        try:
            with fs.open_input_file(f"{root}/{record.key}") as f:
                file = pq.ParquetFile(f)
                table = file.read(columns=[c for c in COLUMNS if c in file.schema_arrow.names])
        except (pa.ArrowException, OSError):
            raise InputError(
                damaged_shard(at, record.key, "cannot be read as Parquet", manifest.kind)
            ) from None
        for row in table.to_pylist():
            persons, length = row.pop("num_persons"), row.pop("num_frames")
            yield Motion(positions=_NOTHING, **row), persons, length
