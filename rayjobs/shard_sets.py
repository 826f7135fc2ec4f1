"""A set of shards that is being generated: what there is of it, what is left, and its manifest once nothing is.

A set is worked off in parts of `PART_SHARDS` shards. The records of a part are stored as soon as its shards are, so
that neither the driver nor a resumed run ever holds or looks up the records of more than a few parts.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from motionsynth.errors import InputError
from rayjobs.shard_pool import header_of
from storage import ConflictError, MissingError, Storage
from storage.checkpoints import read_config
from storage.header import Header, canonical_json
from storage.limits import MAX_JSON_BYTES, MAX_PART_BYTES, parse_json
from storage.manifest import Manifest, read_manifest, write_manifest
from storage.objects import sha256
from storage.records import (
    PART_SHARDS,
    Part,
    ShardRecord,
    StoredRecords,
    decode_part,
    describe_stored,
    encode_part,
    list_parts,
    write_part,
)
from storage.shards import GenerationRequest, Plan, key_of, plan, stored_sizes

logger = logging.getLogger(__name__)

REQUEST = "request.json"
"""Written first: what the shards below a prefix belong to, so that `status` knows what is left."""
READERS = 16
"""Shards that are looked up at once where their records were lost."""


@dataclass(kw_only=True, slots=True)
class ShardSet:
    """One generated set on its way to a manifest.

    Attributes:
        prefix, request: Which; see `rayjobs.generate.Wanted`.
        header: Of its shards.
        specs: All of its shards.
        sizes: Bytes of each shard that was there at first, 0 for one that was not.
        stored: Keys of the parts that an earlier run left, by index.
        parts: Those that are known to be right, by index.
        records: Of a set in one part, which has no object of its own.
        manifest: Once it is committed.
    """

    prefix: str
    request: GenerationRequest
    header: Header
    specs: Plan
    sizes: array[int]
    stored: Mapping[int, str]
    parts: dict[int, Part] = field(default_factory=dict)
    records: Sequence[ShardRecord] = ()
    manifest: Manifest | None = None

    @classmethod
    def open(cls, storage: Storage, prefix: str, request: GenerationRequest) -> ShardSet:
        """Claim the prefix for the request and look what is there.

        Raises:
            InputError: another request has the prefix, or the checkpoint does not know a class.
        """
        header = header_of(read_config(storage, request.checkpoint))
        if unknown := [k for k in request.counts if k >= len(header.class_names)]:
            raise InputError(
                f"The request asks for class {unknown[0]}; the checkpoint knows 0 to {len(header.class_names) - 1}."
            )
        claim(storage, prefix, request)
        specs = plan(request)
        found = cls(
            prefix=prefix,
            request=request,
            header=header,
            specs=specs,
            sizes=stored_sizes(storage, prefix, specs),
            stored=list_parts(storage.sub(prefix)) if len(specs) > PART_SHARDS else {},
        )
        if left := found.left:
            logger.info("%d of %d shards are left under %s.", left, len(specs), prefix)
        else:
            found.manifest = _finished(storage, prefix, request)
        return found

    @property
    def left(self) -> int:
        """Shards that were not there at first."""
        return self.sizes.count(0)

    @property
    def clips_left(self) -> int:
        """Their clips."""
        return sum(self.specs.rows(i) for i, size in enumerate(self.sizes) if not size)

    @property
    def num_parts(self) -> int:
        """Parts that all shards make."""
        return -(-len(self.specs) // PART_SHARDS)

    def missing(self, part: int) -> list[int]:
        """Shards of a part that were not there at first."""
        return [i for i in self._range(part) if not self.sizes[i]]

    def close(self, storage: Storage, part: int, made: Mapping[tuple[str, int], ShardRecord]) -> None:
        """Keep the records of a part if its shards are all there, and commit the set if it is whole now.

        Args:
            storage: Where.
            part: Which.
            made: Records of the shards that were made, by prefix and index.
        """
        if self.manifest is not None:
            return
        missing = self.missing(part)
        if any((self.prefix, i) not in made for i in missing):
            return
        at = storage.sub(self.prefix)
        kept = None if missing else self._kept(at, part)
        if kept is not None:
            self.parts[part] = kept
        else:
            records = {i: made[self.prefix, i] for i in missing}
            records |= self._describe(storage, [i for i in self._range(part) if i not in records])
            ordered = tuple(records[i] for i in self._range(part))
            if self.num_parts == 1:
                self.records = ordered
            else:
                self.parts[part] = write_part(at, part, ordered)
        if self.records or len(self.parts) == self.num_parts:
            self._commit(storage, at)

    def result(self) -> dict[str, Any]:
        """Counts and digest of a committed set: JSON-serialisable."""
        if self.manifest is None:
            raise RuntimeError(f"'{self.prefix}' is not whole")
        totals = self.manifest.totals
        return {
            "prefix": self.prefix,
            "clips": totals.rows,
            "accepted": totals.accepted,
            "counts": {self.header.class_names[k]: n for k, n in totals.counts.items()},
            "shards": len(self.specs),
            "shards_made": self.left,
            "clips_made": self.clips_left,
            "bytes": totals.bytes,
            "manifest": self.manifest.digest,
        }

    def _range(self, part: int) -> range:
        return range(part * PART_SHARDS, min((part + 1) * PART_SHARDS, len(self.specs)))

    def _commit(self, storage: Storage, at: Storage) -> None:
        parts = tuple(self.parts[i] for i in sorted(self.parts))
        self.manifest = Manifest(
            kind="generated",
            header=self.header,
            shards=StoredRecords(at, parts) if parts else self.records,
            request=self.request.to_dict(),
        )
        write_manifest(storage, self.prefix, self.manifest)
        self.records = ()

    def _kept(self, at: Storage, index: int) -> Part | None:
        """The part that an earlier run left, if it is of the shards that are there."""
        key = self.stored.get(index)
        if key is None:
            return None
        try:
            data = at.read(key, MAX_PART_BYTES)
            if sha256(data)[:16] != key.rpartition("-")[2].removesuffix(".jsonl"):
                return None
            records = decode_part(data)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        want = [(key_of(self.specs[i]), self.sizes[i]) for i in self._range(index)]
        if [(r.key, r.bytes) for r in records] != want:
            return None
        part, again = encode_part(index, records)
        return part if again == data else None

    def _describe(self, storage: Storage, indices: Sequence[int]) -> dict[int, ShardRecord]:
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda i: describe_stored(storage, self.prefix, key_of(self.specs[i])), indices)
            return dict(zip(indices, found, strict=True))


def windows(sets: Sequence[ShardSet], size: int) -> Iterator[list[tuple[ShardSet, int]]]:
    """Parts of the sets that are not committed, as many at once as have `size` shards to make, or a few more."""
    window: list[tuple[ShardSet, int]] = []
    shards = 0
    for s in sets:
        for part in range(s.num_parts if s.manifest is None else 0):
            window.append((s, part))
            shards += len(s.missing(part))
            if shards >= size:
                yield window
                window, shards = [], 0
    if window:
        yield window


def claim(storage: Storage, prefix: str, request: GenerationRequest) -> None:
    """Note the request under its prefix, before any shard.

    Raises:
        ConflictError: another request has the prefix.
    """
    try:
        storage.put_once(f"{prefix}/{REQUEST}", canonical_json(request.to_dict()).encode())
    except ConflictError:
        raise ConflictError(
            f"'{storage.sub(prefix).uri}' holds the clips of another request (checkpoint, counts, seed, sampling, "
            "batch or shard size differ); choose another run name, or delete that folder."
        ) from None


def read_request(storage: Storage, prefix: str) -> GenerationRequest:
    """The request that the shards below a prefix belong to.

    Raises:
        MissingError: there is none.
        InputError: it cannot be read.
    """
    data = storage.read(f"{prefix}/{REQUEST}", MAX_JSON_BYTES)
    try:
        return GenerationRequest.from_dict(parse_json(data))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"'{storage.sub(prefix).uri}/{REQUEST}' is not a request that motionsynth wrote, or it is damaged; delete "
            "it and run the same `python -m rayjobs.generate` command again."
        ) from None


def _finished(storage: Storage, prefix: str, request: GenerationRequest) -> Manifest | None:
    try:
        manifest = read_manifest(storage, prefix)
    except MissingError:
        return None
    # The prefix is claimed for this request, so another one's manifest was copied here by hand.
    if manifest.request != parse_json(canonical_json(request.to_dict())):
        raise ConflictError(
            f"'{storage.sub(prefix).uri}' has the manifest of another request; choose another run name."
        )
    return manifest
