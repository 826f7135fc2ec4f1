"""Writing and reading whole datasets of shards, always by their manifest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from storage.decisions import decided, read_decisions
from storage.header import Header
from storage.limits import MAX_SHARD_BYTES
from storage.manifest import (
    COMMAND,
    Kind,
    Manifest,
    ShardRecord,
    below,
    damaged_shard,
    describe,
    read_manifest,
    write_manifest,
)
from storage.objects import MissingError, sha256
from storage.paths import Storage
from storage.schema import decode, encode

READERS = 4
"""Shards that are fetched ahead of the one in use."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def write_shard(storage: Storage, prefix: str, key: str, motions: MotionSet, header: Header) -> ShardRecord:
    """Encode clips and write them once under a key that follows from their spec.

    Raises:
        ConflictError: the key holds other bytes, so the samples were not reproducible.
    """
    data = encode(motions, header)
    below(storage, prefix).put_once(key, data)
    return describe(key, data)


def write_prepared_shard(
    storage: Storage, prefix: str, index: int, motions: MotionSet, header: Header
) -> ShardRecord:
    """Encode clips of a prepared dataset and write them under a key made of their index and content."""
    data = encode(motions, header)
    key = f"shards/{index:06d}-{sha256(data)[:16]}.parquet"
    below(storage, prefix).put_once(key, data)
    return describe(key, data)


def write_dataset(
    storage: Storage,
    prefix: str,
    motions: MotionSet | Iterable[MotionSet],
    header: Header,
    rows_per_shard: int = 512,
    *,
    replace: bool = False,
    kind: Kind = "prepared",
    request: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write clips that are there already as shards and commit the manifest; the same input gives the same objects.

    Args:
        storage: Where.
        prefix: Folder of the dataset, e.g. `data/nucla`.
        motions: A set, or an iterable of sets that is too large for memory.
        header: Fits all of them.
        rows_per_shard: Clips per object.
        replace: Put this dataset in the place of another one that is there.
        kind, request, extra: See `Manifest`.

    Raises:
        ConflictError: another dataset is there and `replace` is false.
    """
    if rows_per_shard < 1:
        raise InputError(f"rows_per_shard is {rows_per_shard}; it must be at least 1.")
    records: list[ShardRecord] = []
    waiting: list[Motion] = []

    def flush() -> None:
        part = MotionSet(
            dataset=header.dataset,
            skeleton=header.skeleton,
            class_names=header.class_names,
            motions=tuple(waiting[:rows_per_shard]),
        )
        records.append(write_prepared_shard(storage, prefix, len(records), part, header))
        del waiting[:rows_per_shard]

    for part in [motions] if isinstance(motions, MotionSet) else motions:
        for motion in part.motions:
            waiting.append(motion)
            if len(waiting) == rows_per_shard:
                flush()
    if waiting:
        flush()
    manifest = Manifest(
        kind=kind, header=header, shards=tuple(records), request=request, extra=dict(extra or {})
    )
    write_manifest(storage, prefix, manifest, replace=replace)
    return manifest


def read_shards(storage: Storage, prefix: str) -> Iterator[MotionSet]:
    """The shards of a finished dataset, one `MotionSet` each, in manifest order; a few are fetched ahead.

    Clips that somebody marked as bad read as refused (see `storage.decisions`).

    Raises:
        InputError: no manifest, or a shard is missing, truncated, corrupt or of another dataset.
    """
    manifest, marks = read_manifest(storage, prefix), read_decisions(storage, prefix)
    for part in _shards(below(storage, prefix), manifest):
        yield replace(part, motions=decided(part.motions, marks))


def read_dataset(storage: Storage, prefix: str) -> tuple[MotionSet, Header]:
    """All clips of a finished dataset, every shard checked against its digest; marked ones read as refused.

    Raises:
        InputError: see `read_shards`; also when a `sample_id` occurs in two shards.
    """
    manifest = read_manifest(storage, prefix)
    at = below(storage, prefix)
    motions = tuple(m for part in _shards(at, manifest) for m in part.motions)
    if len({m.sample_id for m in motions}) != len(motions):
        raise InputError(f"A sample_id of '{at.uri}' occurs in two shards; make the dataset again.")
    header = manifest.header
    whole = MotionSet(
        dataset=header.dataset,
        skeleton=header.skeleton,
        class_names=header.class_names,
        motions=decided(motions, read_decisions(storage, prefix)),
    )
    return whole, header


def verify(storage: Storage, prefix: str) -> list[str]:
    """Read every object of a finished dataset again and compare it with the manifest.

    Returns:
        One sentence per damaged or missing shard; empty when all is well.

    Raises:
        InputError: there is no manifest, or the store does not answer.
    """
    manifest = read_manifest(storage, prefix)
    at = below(storage, prefix)
    return [p for p in ahead(lambda s: _problem(at, s, manifest.kind)[0], manifest.shards) if p]


def _shards(at: Storage, manifest: Manifest) -> Iterator[MotionSet]:
    return ahead(lambda record: read_shard(at, record, manifest), manifest.shards)


def ahead(work: Callable[[_T], _R], items: Iterable[_T], readers: int = READERS) -> Iterator[_R]:
    """`map` with threads: results in order, and never more of them in memory than readers."""
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[_R]] = deque()
        todo = iter(items)
        try:
            while True:
                waiting.extend(pool.submit(work, item) for item in islice(todo, readers - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for f in waiting:
                f.cancel()


def read_shard(at: Storage, record: ShardRecord, manifest: Manifest) -> MotionSet:
    """One shard as it was written, checked against its record. Raises InputError: see `read_shards`."""
    problem, data = _problem(at, record, manifest.kind)
    if problem:
        raise InputError(problem)
    motions, header = decode(data, f"shard '{at.uri}/{record.key}'")
    same = header.skeleton == manifest.header.skeleton and header.class_names == manifest.header.class_names
    if not same or len(motions) != record.rows:
        raise InputError(damaged_shard(at, record.key, "does not fit the manifest's header", manifest.kind))
    return motions


def _problem(at: Storage, record: ShardRecord, kind: Kind) -> tuple[str, bytes]:
    try:
        data = at.read(record.key, MAX_SHARD_BYTES)
    except MissingError:
        return (
            f"Shard '{at.uri}/{record.key}' is missing; run the same `{COMMAND[kind]}` command again to "
            "restore it.",
            b"",
        )
    if len(data) != record.bytes:
        return damaged_shard(at, record.key, f"has {len(data)} bytes instead of {record.bytes}", kind), b""
    if sha256(data) != record.sha256:
        return damaged_shard(at, record.key, "differs from its recorded digest", kind), b""
    return "", data
