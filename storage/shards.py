"""Shards: what a generation request expands to, and which of them are done.

A shard's id is a hash of its spec and its object's name follows from the id, so a re-run finds what is there
already, and a retry writes the same name. What a sample is depends on its class and ordinal alone, never on
the shard it falls into.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

from motionsynth.errors import InputError
from storage.dataset import (
    read_dataset,
    read_shards,
    verify,
    write_dataset,
    write_prepared_shard,
    write_shard,
)
from storage.header import SCHEMA_VERSION, canonical_json
from storage.manifest import (
    Manifest,
    ShardRecord,
    describe,
    describe_stored,
    read_manifest,
    write_manifest,
)
from storage.paths import Storage

if TYPE_CHECKING:
    # Planning needs no torch; only the samples' type comes from there.
    from motionsynth.generators.base import SampleRequest

__all__ = [
    "GenerationRequest",
    "Manifest",
    "SampleRange",
    "Plan",
    "ShardRecord",
    "ShardSpec",
    "describe",
    "describe_stored",
    "key_of",
    "list_done",
    "plan",
    "read_dataset",
    "read_manifest",
    "read_shards",
    "sample_seed",
    "stored_sizes",
    "verify",
    "write_dataset",
    "write_manifest",
    "write_prepared_shard",
    "write_shard",
]


_KEY = re.compile(r"shards/(\d{6,12})-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRange:
    """Samples `start` to `stop` (exclusive) of a class, counted within the request."""

    label: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.label < 0 or not 0 <= self.start < self.stop:
            raise InputError(
                f"A shard has the range {self.start} to {self.stop} of class {self.label}; it needs a class "
                "from 0 and 0 <= start < stop."
            )

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """What somebody wants generated.

    Attributes:
        checkpoint: Prefix of the checkpoint in storage.
        checkpoint_digest: Its digest (`storage.checkpoints`), so that other weights give other shards.
        counts: Number of clips per class index.
        seed: Of the whole request.
        shard_size: Clips per shard: the unit of retry and of memory.
        dataset: Name of the dataset the clips imitate.
        extra: Whatever else changes the samples (guidance scale, filter thresholds, ...), as JSON.
    """

    checkpoint: str
    checkpoint_digest: str
    counts: Mapping[int, int]
    seed: int = 0
    shard_size: int = 256
    dataset: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise InputError(
                f"shard_size is {self.shard_size}; it must be at least 1 (256 suits most models)."
            )
        if bad := {k: n for k, n in self.counts.items() if k < 0 or n < 0}:
            raise InputError(f"The request has the counts {bad}; classes and counts must be 0 or more.")
        if not sum(self.counts.values()):
            raise InputError("The request asks for 0 clips; give a positive count for at least one class.")
        canonical_json(dict(self.extra))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as stored in the manifest (class indices become text)."""
        return {
            "checkpoint": self.checkpoint,
            "checkpoint_digest": self.checkpoint_digest,
            "counts": {str(k): int(n) for k, n in sorted(self.counts.items()) if n},
            "seed": self.seed,
            "shard_size": self.shard_size,
            "dataset": self.dataset,
            "extra": dict(self.extra),
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> GenerationRequest:
        """Read the JSON form."""
        return GenerationRequest(**{**d, "counts": {int(k): int(n) for k, n in d["counts"].items()}})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpec:
    """Everything that decides the content of one shard; see `GenerationRequest` for the shared fields.

    Attributes:
        index: Place in the plan, for order and for people.
        ranges: The samples, in batch order.
    """

    index: int
    checkpoint: str
    checkpoint_digest: str
    seed: int
    dataset: str
    ranges: tuple[SampleRange, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of a hash over the spec and the schema version."""
        return _hash({"schema_version": SCHEMA_VERSION, **self.to_dict()})[:16]

    @property
    def rows(self) -> int:
        """Number of samples."""
        return sum(len(r) for r in self.ranges)

    @property
    def counts(self) -> dict[int, int]:
        """Number of samples per class index."""
        out: dict[int, int] = {}
        for r in self.ranges:
            out[r.label] = out.get(r.label, 0) + len(r)
        return out

    def samples(self) -> Iterator[SampleRequest]:
        """The samples in order, each with its id and seed.

        The id names checkpoint, seed, dataset and extra by a hash, then class and ordinal: unique among all
        requests, and the same when the request is cut into other shards or asks for more.
        """
        from motionsynth.generators.base import SampleRequest

        run = _hash([self.checkpoint_digest, self.seed, self.dataset, dict(self.extra)])[:10]
        for r in self.ranges:
            for ordinal in range(r.start, r.stop):
                yield SampleRequest(
                    sample_id=f"syn-{run}-c{r.label:03d}-{ordinal:06d}",
                    label=r.label,
                    seed=sample_seed(self.seed, r.label, ordinal),
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, to travel to workers."""
        return {
            "index": self.index,
            "checkpoint": self.checkpoint,
            "checkpoint_digest": self.checkpoint_digest,
            "seed": self.seed,
            "dataset": self.dataset,
            "ranges": [[r.label, r.start, r.stop] for r in self.ranges],
            "extra": dict(self.extra),
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> ShardSpec:
        """Read the JSON form."""
        ranges = tuple(SampleRange(label=c, start=a, stop=b) for c, a, b in d["ranges"])
        return ShardSpec(**{**d, "ranges": ranges})


@dataclass(frozen=True, slots=True, eq=False)
class Plan(Sequence[ShardSpec]):
    """The shards of a request: `shard_size` clips each (the last one fewer), classes in ascending order.

    A spec is worked out when it is asked for, so a plan of any length costs no memory.
    """

    request: GenerationRequest
    _labels: tuple[int, ...] = field(init=False)
    _ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        counts = {label: n for label, n in sorted(self.request.counts.items()) if n}
        object.__setattr__(self, "_labels", tuple(counts))
        object.__setattr__(self, "_ends", tuple(accumulate(counts.values())))

    @property
    def clips(self) -> int:
        """Samples of all shards."""
        return self._ends[-1]

    def rows(self, index: int) -> int:
        """Samples of one shard."""
        size = self.request.shard_size
        return min(size, self.clips - index * size)

    def __len__(self) -> int:
        return -(-self.clips // self.request.shard_size)

    @overload
    def __getitem__(self, index: int) -> ShardSpec: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardSpec]: ...
    def __getitem__(self, index: int | slice) -> ShardSpec | list[ShardSpec]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        request = self.request
        return ShardSpec(
            index=index,
            checkpoint=request.checkpoint,
            checkpoint_digest=request.checkpoint_digest,
            seed=request.seed,
            dataset=request.dataset,
            ranges=tuple(self._ranges(index * request.shard_size, self.rows(index))),
            extra=dict(request.extra),
        )

    def _ranges(self, at: int, left: int) -> Iterator[SampleRange]:
        """Clips `at` to `at + left`, counted over all classes."""
        place = bisect_right(self._ends, at)
        while left:
            begin = self._ends[place - 1] if place else 0
            take = min(left, self._ends[place] - at)
            yield SampleRange(label=self._labels[place], start=at - begin, stop=at - begin + take)
            at, left, place = at + take, left - take, place + 1


def plan(request: GenerationRequest) -> Plan:
    """Cut a request into shards."""
    return Plan(request)


def key_of(spec: ShardSpec) -> str:
    """The shard's object key below the run's prefix: index for people, id for identity."""
    return f"shards/{spec.index:06d}-{spec.id}.parquet"


def stored_sizes(storage: Storage, prefix: str, specs: Plan) -> array[int]:
    """Bytes of each shard of a plan that exists, 0 where there is none; writes are atomic, so an object is whole.

    One listing (a request for 1,000 objects on S3), and 8 bytes of memory for a shard, however many there are.
    """
    sizes = array("Q", bytes(8 * len(specs)))
    at = storage.sub(prefix) if prefix else storage
    for o in at.scan("shards"):
        m = _KEY.fullmatch(o.key)
        if m and int(m[1]) < len(specs) and key_of(specs[int(m[1])]) == o.key:
            sizes[int(m[1])] = o.size
    return sizes


def list_done(storage: Storage, prefix: str, specs: Plan) -> frozenset[str]:
    """Ids of the specs whose object exists; see `stored_sizes`, which holds less in memory."""
    return frozenset(specs[i].id for i, size in enumerate(stored_sizes(storage, prefix, specs)) if size)


def sample_seed(seed: int, label: int, ordinal: int) -> int:
    """A seed in [0, 2**63) from the request's seed, the class and the ordinal; the same everywhere."""
    return int(_hash([seed, label, ordinal])[:16], 16) >> 1


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
