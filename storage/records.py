"""What a manifest knows of its shards: a record of each, in parts of a file where there are many.

A part holds the records of `PART_SHARDS` shards, one JSON object a line. Its name has a hash of its content in it, so
parts of another manifest never clash, and whoever knows a part's entry can tell whether it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from storage.header import canonical_json
from storage.limits import MAX_PART_BYTES, MAX_SHARD_BYTES, UNREADABLE, check_parquet, parse_json
from storage.objects import MissingError, check_key, sha256
from storage.paths import Storage

PART_SHARDS = 8192
"""Shards of a part; a dataset with no more has all its records in the manifest itself."""
SHARDS = ("shards", "data")
"""Folders of the shards: of a dataset, and of one that was published for others (`storage.publish`)."""
PARTS = "manifest"
"""Folder of the parts, beside the manifest."""

_T = TypeVar("_T")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One shard as the manifest knows it.

    Attributes:
        key: Relative to the dataset's prefix, so that a dataset can be copied elsewhere.
        rows, bytes, sha256: Of the object.
        counts: Rows per label.
        accepted: Rows whose `accepted` is not False.
    """

    key: str
    rows: int
    bytes: int
    sha256: str
    counts: Mapping[int, int]
    accepted: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form; also what a worker returns to the driver."""
        counts = {str(k): n for k, n in sorted(self.counts.items())}
        return {
            "key": self.key,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "counts": counts,
            "accepted": self.accepted,
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> ShardRecord:
        """Read the JSON form.

        Raises:
            InputError: the key points elsewhere, or the shard is larger than any that is read.
            ValueError, KeyError, TypeError, AttributeError: it is no record.
        """
        record = ShardRecord(**{**d, "counts": _counts(d["counts"])})
        _check_place(record.key, *SHARDS)
        _check_sha(record.sha256)
        _check_numbers(record.rows, record.bytes, record.accepted)
        if record.bytes > MAX_SHARD_BYTES:
            raise InputError(
                f"Shard '{record.key}' is recorded with {record.bytes:,} bytes, more than the {MAX_SHARD_BYTES:,} of "
                "the largest shard; make the dataset again in smaller ones."
            )
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What many shards hold together; fields as in `ShardRecord`."""

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    accepted: int = 0
    counts: Mapping[int, int] = field(default_factory=dict)

    @staticmethod
    def of(records: Iterable[ShardRecord | Totals]) -> Totals:
        """The sum."""
        shards = rows = size = accepted = 0
        counts: dict[int, int] = {}
        for r in records:
            shards += r.shards if isinstance(r, Totals) else 1
            rows, size, accepted = rows + r.rows, size + r.bytes, accepted + r.accepted
            for label, n in r.counts.items():
                counts[label] = counts.get(label, 0) + n
        return Totals(
            shards=shards, rows=rows, bytes=size, accepted=accepted, counts=dict(sorted(counts.items()))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part as the manifest knows it: where it lies, what it must be, and what its shards hold."""

    key: str
    bytes: int
    sha256: str
    totals: Totals

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        t = self.totals
        return {
            "key": self.key,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "shards": t.shards,
            "shard_bytes": t.bytes,
            "rows": t.rows,
            "accepted": t.accepted,
            "counts": {str(k): n for k, n in sorted(t.counts.items())},
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Part:
        """Read the JSON form. Raises as `ShardRecord.from_dict` does."""
        part = Part(
            key=d["key"],
            bytes=d["bytes"],
            sha256=d["sha256"],
            totals=Totals(
                shards=d["shards"],
                rows=d["rows"],
                bytes=d["shard_bytes"],
                accepted=d["accepted"],
                counts=_counts(d["counts"]),
            ),
        )
        _check_place(part.key, PARTS)
        _check_sha(part.sha256)
        _check_numbers(part.bytes, part.totals.shards, part.totals.rows, part.totals.bytes)
        return part


def encode_part(index: int, records: Sequence[ShardRecord]) -> tuple[Part, bytes]:
    """The part of these records: its entry and its content. The same records at the same place give the same bytes."""
    data = "".join(f"{canonical_json(r.to_dict())}\n" for r in records).encode()
    digest = sha256(data)
    key = f"{PARTS}/{index:05d}-{digest[:16]}.jsonl"
    return Part(key=key, bytes=len(data), sha256=digest, totals=Totals.of(records)), data


def write_part(at: Storage, index: int, records: Sequence[ShardRecord]) -> Part:
    """Write a part below a dataset's folder; one that is there has the same content, unless it is damaged."""
    part, data = encode_part(index, records)
    at.write(part.key, data)
    return part


def decode_part(data: bytes) -> tuple[ShardRecord, ...]:
    """The records of a part. Raises as `ShardRecord.from_dict` does."""
    return tuple(ShardRecord.from_dict(parse_json(line)) for line in data.splitlines())


def read_part(at: Storage, part: Part) -> tuple[ShardRecord, ...]:
    """The records of a part, checked against its entry.

    Raises:
        InputError: it is missing, damaged or too large.
    """
    where = f"Part '{at.uri}/{part.key}' of a manifest"
    cure = f"delete {PARTS} and manifest.json and run the command that makes the dataset again, which keeps its shards"
    try:
        data = at.read(part.key, MAX_PART_BYTES)
    except MissingError:
        raise InputError(f"{where} is missing; {cure}.") from None
    try:
        if len(data) != part.bytes or sha256(data) != part.sha256:
            raise ValueError("another digest")
        records = decode_part(data)
        if Totals.of(records) != part.totals:
            raise ValueError("other totals")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{where} is damaged; {cure}.") from None
    return records


def list_parts(at: Storage) -> dict[int, str]:
    """Keys of the parts below a dataset's folder by their index, without those that several parts claim."""
    found: dict[int, list[str]] = {}
    for o in at.scan(PARTS):
        if m := re.fullmatch(rf"{PARTS}/(\d{{5,9}})-[0-9a-f]{{16}}\.jsonl", o.key):
            found.setdefault(int(m[1]), []).append(o.key)
    return {index: keys[0] for index, keys in found.items() if len(keys) == 1}


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecords(Sequence[ShardRecord]):
    """The records of a manifest in parts: read part by part when they are gone through, never all at once."""

    at: Storage
    parts: tuple[Part, ...]

    @property
    def totals(self) -> Totals:
        """Of all parts, by their entries."""
        return Totals.of(p.totals for p in self.parts)

    def __len__(self) -> int:
        return sum(p.totals.shards for p in self.parts)

    def __iter__(self) -> Iterator[ShardRecord]:
        for part in self.parts:
            yield from read_part(self.at, part)

    @overload
    def __getitem__(self, index: int) -> ShardRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ShardRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> ShardRecord | tuple[ShardRecord, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        left = range(len(self))[index]
        for part in self.parts:
            if left < part.totals.shards:
                return read_part(self.at, part)[left]
            left -= part.totals.shards
        raise IndexError(index)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredRecords):
            return self.parts == other.parts
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(p.sha256 for p in self.parts))


def chunks(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    """Runs of so many items, the last one shorter."""
    todo = iter(items)
    while chunk := tuple(islice(todo, size)):
        yield chunk


def describe(key: str, data: bytes) -> ShardRecord:
    """The record of a shard from its bytes."""
    return _record(key, len(data), sha256(data), pa.BufferReader(data))


def describe_stored(storage: Storage, prefix: str, key: str) -> ShardRecord:
    """The record of a shard that is there already; reads its footer and two columns, not its motion.

    Raises:
        InputError: it is missing, unreadable or too large.
    """
    at = storage.sub(prefix) if prefix else storage
    digest = at.digest(key)
    fs, root = at.filesystem()
    try:
        with fs.open_input_file(f"{root}/{key}") as f:
            check_parquet(f, f.size(), f"shard '{at.uri}/{key}'")
            return _record(key, f.size(), digest, f)
    except InputError:
        raise
    except UNREADABLE:
        raise InputError(
            f"Shard '{at.uri}/{key}' cannot be read as Parquet; delete it and run the same "
            "`python -m rayjobs.generate` command again."
        ) from None


def _record(key: str, size: int, digest: str, source: Any) -> ShardRecord:
    file = pq.ParquetFile(source)
    columns = [c for c in ("label", "accepted") if c in file.schema_arrow.names]
    table = file.read(columns=columns)
    counts: dict[int, int] = {}
    # Cast first: a value of an extension type, such as Ray's for Python objects, may unpickle itself.
    for label in table["label"].cast(pa.int64()).to_pylist():
        counts[label] = counts.get(label, 0) + 1
    rejected = table["accepted"].cast(pa.bool_()).to_pylist().count(False) if "accepted" in columns else 0
    return ShardRecord(
        key=key,
        rows=table.num_rows,
        bytes=size,
        sha256=digest,
        counts=dict(sorted(counts.items())),
        accepted=table.num_rows - rejected,
    )


def _counts(given: Mapping[str, Any]) -> dict[int, int]:
    counts = {int(k): n for k, n in given.items()}
    _check_numbers(*counts, *counts.values())
    return counts


def _check_place(key: Any, *folders: str) -> None:
    """Raises InputError: the key of a manifest points out of the folders in which it may lie."""
    check_key(key)
    if not key.startswith(tuple(f"{f}/" for f in folders)):
        raise InputError(
            f"A manifest names the object '{key[:100]}', which lies outside of its '{folders[0]}/'; it is not one that "
            "motionsynth wrote, so do not use it."
        )


def _check_sha(value: Any) -> None:
    if not _SHA.fullmatch(value):
        raise ValueError("no SHA-256")


def _check_numbers(*values: Any) -> None:
    if not all(type(v) is int and 0 <= v < 1 << 63 for v in values):
        raise ValueError("no whole numbers from 0")
