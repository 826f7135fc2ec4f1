"""The manifest of a dataset: written last, so that its existence means that the dataset is complete.

Readers follow it and never a listing: a late duplicate or a shard of an older plan is not in it and not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from storage.header import Header, canonical_json
from storage.objects import ConflictError, MissingError, sha256
from storage.paths import Storage
from storage.schema import UNREADABLE

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

Kind = Literal["prepared", "generated", "refined"]
COMMAND = {
    "prepared": "python -m rayjobs.prepare",
    "generated": "python -m rayjobs.generate",
    "refined": "python -m rayjobs.refine",
}


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
        """Read the JSON form."""
        return ShardRecord(**{**d, "counts": {int(k): n for k, n in d["counts"].items()}})


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A finished dataset.

    Attributes:
        kind: "prepared" (real clips), "generated", or "refined" (a generated set, graded).
        header: As in every shard.
        shards: In reading order.
        request: For a generated or refined set, the request in JSON form.
        extra: Further JSON, such as what was dropped and why; the same for the same input.
    """

    kind: Kind
    header: Header
    shards: tuple[ShardRecord, ...]
    request: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Clips in all shards."""
        return sum(s.rows for s in self.shards)

    @property
    def counts(self) -> dict[int, int]:
        """Clips per label."""
        out: dict[int, int] = {}
        for s in self.shards:
            for label, n in s.counts.items():
                out[label] = out.get(label, 0) + n
        return dict(sorted(out.items()))

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the manifest: names the dataset's exact content."""
        return sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """JSON; equal manifests give equal bytes, there is no date in it."""
        parts = {
            "manifest_version": MANIFEST_VERSION,
            "kind": self.kind,
            "header": self.header.to_dict(),
            "request": None if self.request is None else dict(self.request),
            "rows": self.rows,
            "counts": {str(k): n for k, n in self.counts.items()},
            "accepted": sum(s.accepted for s in self.shards),
            "shards": [s.to_dict() for s in self.shards],
            "extra": dict(self.extra),
        }
        return canonical_json(parts).encode()

    @staticmethod
    def from_bytes(data: bytes, name: str = MANIFEST) -> Manifest:
        """Read the JSON.

        Raises:
            InputError: not a manifest, or one of a newer version.
        """
        try:
            d = json.loads(data)
            version = d["manifest_version"]
            if version > MANIFEST_VERSION:
                raise InputError(
                    f"Manifest '{name}' has version {version} but this motionsynth reads up to "
                    f"{MANIFEST_VERSION}; upgrade motionsynth to read it."
                )
            return Manifest(
                kind=d["kind"],
                header=Header.from_dict(d["header"], f"manifest '{name}'"),
                shards=tuple(ShardRecord.from_dict(s) for s in d["shards"]),
                request=d["request"],
                extra=d["extra"],
            )
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"Manifest '{name}' is not one that motionsynth wrote, or it is damaged; delete it and run "
                "the command that makes it again."
            ) from None


def describe(key: str, data: bytes) -> ShardRecord:
    """The record of a shard from its bytes."""
    return _record(key, len(data), sha256(data), pa.BufferReader(data))


def describe_stored(storage: Storage, prefix: str, key: str) -> ShardRecord:
    """The record of a shard that is there already; reads its footer and two columns, not its motion.

    Raises:
        InputError: it is missing or unreadable.
    """
    at = below(storage, prefix)
    digest = at.digest(key)
    fs, root = at.filesystem()
    try:
        with fs.open_input_file(f"{root}/{key}") as f:
            return _record(key, f.size(), digest, f)
    except UNREADABLE:
        raise InputError(damaged_shard(at, key, "cannot be read as Parquet", "generated")) from None


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


def write_manifest(storage: Storage, prefix: str, manifest: Manifest, *, replace: bool = False) -> None:
    """Commit a dataset: the last write, refused while a shard is missing.

    Raises:
        InputError: a shard of the manifest is not there, or has another size.
        ConflictError: another manifest is there and `replace` is false.
    """
    at = below(storage, prefix)
    if not manifest.rows:
        raise InputError(f"The dataset for '{at.uri}' has no clips; check what was dropped and why.")
    sizes = {o.key: o.size for o in at.list("shards")}
    if missing := [s.key for s in manifest.shards if sizes.get(s.key) != s.bytes]:
        raise InputError(
            f"{len(missing)} of {len(manifest.shards)} shards of '{at.uri}' are missing or incomplete "
            f"({', '.join(missing[:3])}); run the same `{COMMAND[manifest.kind]}` command again to finish it."
        )
    if replace:
        at.write(MANIFEST, manifest.to_bytes())
        return
    try:
        at.put_once(MANIFEST, manifest.to_bytes())
    except ConflictError:
        raise ConflictError(
            f"'{at.uri}' already holds another finished dataset; choose another run name or delete its "
            f"{MANIFEST} first."
        ) from None


def read_manifest(storage: Storage, prefix: str) -> Manifest:
    """The manifest of a finished dataset.

    Raises:
        MissingError: there is none; says whether the dataset was begun and how to finish it.
    """
    at = below(storage, prefix)
    try:
        return Manifest.from_bytes(at.read(MANIFEST), f"{at.uri}/{MANIFEST}")
    except MissingError:
        begun = len(at.list("shards"))
        state = f"has {begun} shards but no {MANIFEST}, so it is unfinished" if begun else "holds no dataset"
        raise MissingError(
            f"'{at.uri}' {state}; run the `{COMMAND['prepared']}` or `{COMMAND['generated']}` command that "
            "makes it (again), which keeps what is done."
        ) from None


def damaged_shard(at: Storage, key: str, what: str, kind: Kind) -> str:
    """The sentence for a shard that is not as it was written."""
    return f"Shard '{at.uri}/{key}' {what}; delete it and run the same `{COMMAND[kind]}` command again."


def below(storage: Storage, prefix: str) -> Storage:
    """`storage.sub(prefix)`, or the storage itself for the prefix ""."""
    return storage.sub(prefix) if prefix else storage
