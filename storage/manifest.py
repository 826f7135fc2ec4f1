"""The manifest of a dataset: written last, so that its existence means that the dataset is complete.

Readers follow it and never a listing: a late duplicate or a shard of an older plan is not in it and not read.

With many shards their records lie in parts of their own (`storage.records`), written before the manifest, which then
lists the parts with their digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from motionsynth.errors import InputError
from storage.header import Header, canonical_json
from storage.limits import MAX_JSON_BYTES, parse_json
from storage.objects import ConflictError, MissingError, sha256
from storage.paths import Storage
from storage.records import (
    PART_SHARDS,
    Part,
    ShardRecord,
    StoredRecords,
    Totals,
    chunks,
    describe,
    describe_stored,
    encode_part,
    write_part,
)

__all__ = [
    "COMMAND",
    "MANIFEST",
    "MANIFEST_VERSION",
    "Kind",
    "Manifest",
    "ShardRecord",
    "below",
    "damaged_shard",
    "describe",
    "describe_stored",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
"""Version 1 holds all records, 2 lists their parts. A dataset that fits into one file is still written as version 1,
with the bytes and the digest that it always had."""

Kind = Literal["prepared", "generated", "refined"]
COMMAND = {
    "prepared": "python -m rayjobs.prepare",
    "generated": "python -m rayjobs.generate",
    "refined": "python -m rayjobs.refine",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A finished dataset.

    Attributes:
        kind: "prepared" (real clips), "generated", or "refined" (a generated set, graded).
        header: As in every shard.
        shards: In reading order; of a dataset with many, read part by part when they are gone through.
        request: For a generated or refined set, the request in JSON form.
        extra: Further JSON, such as what was dropped and why; the same for the same input.
    """

    kind: Kind
    header: Header
    shards: Sequence[ShardRecord]
    request: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def totals(self) -> Totals:
        """What all shards hold together; of parts without reading them."""
        return self.shards.totals if isinstance(self.shards, StoredRecords) else Totals.of(self.shards)

    @property
    def rows(self) -> int:
        """Clips in all shards."""
        return self.totals.rows

    @property
    def counts(self) -> dict[int, int]:
        """Clips per label."""
        return dict(self.totals.counts)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the manifest: names the dataset's exact content."""
        return sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """JSON; equal manifests give equal bytes, there is no date in it."""
        totals = self.totals
        parts = {
            "manifest_version": 1,
            "kind": self.kind,
            "header": self.header.to_dict(),
            "request": None if self.request is None else dict(self.request),
            "rows": totals.rows,
            "counts": {str(k): n for k, n in totals.counts.items()},
            "accepted": totals.accepted,
            "extra": dict(self.extra),
        }
        if totals.shards > PART_SHARDS:
            parts |= {"manifest_version": MANIFEST_VERSION, "parts": [p.to_dict() for p in self._parts()]}
        else:
            parts["shards"] = [s.to_dict() for s in self.shards]
        return canonical_json(parts).encode()

    def _parts(self) -> Iterable[Part]:
        if isinstance(self.shards, StoredRecords):
            return self.shards.parts
        return [encode_part(i, chunk)[0] for i, chunk in enumerate(chunks(self.shards, PART_SHARDS))]

    @staticmethod
    def from_bytes(data: bytes, name: str = MANIFEST, at: Storage | None = None) -> Manifest:
        """Read the JSON.

        Args:
            data: The manifest.
            name: How error messages name it.
            at: The dataset's folder, for the parts of a manifest that has some.

        Raises:
            InputError: not a manifest, or one of a newer version.
        """
        try:
            d = parse_json(data)
            version = d["manifest_version"]
            if version > MANIFEST_VERSION:
                raise InputError(
                    f"Manifest '{name}' has version {version} but this motionsynth reads up to "
                    f"{MANIFEST_VERSION}; upgrade motionsynth to read it."
                )
            if version >= 2:
                if at is None:
                    raise ValueError("parts lie beside a manifest")
                shards = StoredRecords(at, tuple(Part.from_dict(p) for p in d["parts"]))
            else:
                shards = tuple(ShardRecord.from_dict(s) for s in d["shards"])
            if d["kind"] not in COMMAND:
                raise ValueError("no such kind")
            return Manifest(
                kind=d["kind"],
                header=Header.from_dict(d["header"], f"manifest '{name}'"),
                shards=shards,
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


def write_manifest(storage: Storage, prefix: str, manifest: Manifest, *, replace: bool = False) -> None:
    """Commit a dataset: the last write, refused while a shard is missing.

    Raises:
        InputError: a shard of the manifest is not there, or has another size.
        ConflictError: another manifest is there and `replace` is false.
    """
    at = below(storage, prefix)
    if not manifest.rows:
        raise InputError(f"The dataset for '{at.uri}' has no clips; check what was dropped and why.")
    if missing := _missing(at, manifest):
        raise InputError(
            f"{len(missing)} of {len(manifest.shards)} shards of '{at.uri}' are missing or incomplete "
            f"({', '.join(missing[:3])}); run the same `{COMMAND[manifest.kind]}` command again to finish it."
        )
    if not isinstance(manifest.shards, StoredRecords) and len(manifest.shards) > PART_SHARDS:
        for index, chunk in enumerate(chunks(manifest.shards, PART_SHARDS)):
            write_part(at, index, chunk)
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
        return Manifest.from_bytes(at.read(MANIFEST, MAX_JSON_BYTES), f"{at.uri}/{MANIFEST}", at)
    except MissingError:
        begun = sum(1 for _ in at.scan("shards"))
        state = f"has {begun} shards but no {MANIFEST}, so it is unfinished" if begun else "holds no dataset"
        raise MissingError(
            f"'{at.uri}' {state}; run the `{COMMAND['prepared']}` or `{COMMAND['generated']}` command that "
            "makes it (again), which keeps what is done."
        ) from None


def _missing(at: Storage, manifest: Manifest) -> list[str]:
    """Keys of the shards that are not there in their size, by one listing and 8 bytes for each object."""
    there = _marks((o.key, o.size) for o in at.scan("shards"))
    known = np.isin(_marks((s.key, s.bytes) for s in manifest.shards), there)
    return (
        [] if known.all() else [s.key for s, there in zip(manifest.shards, known, strict=True) if not there]
    )


def _marks(objects: Iterable[tuple[str, int]]) -> np.ndarray:
    """A 64-bit hash of each key with its size."""
    marks = (blake2b(f"{size} {key}".encode(), digest_size=8).digest() for key, size in objects)
    return np.fromiter((int.from_bytes(m, "little") for m in marks), np.uint64)


def damaged_shard(at: Storage, key: str, what: str, kind: Kind) -> str:
    """The sentence for a shard that is not as it was written."""
    return f"Shard '{at.uri}/{key}' {what}; delete it and run the same `{COMMAND[kind]}` command again."


def below(storage: Storage, prefix: str) -> Storage:
    """`storage.sub(prefix)`, or the storage itself for the prefix ""."""
    return storage.sub(prefix) if prefix else storage
