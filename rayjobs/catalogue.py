"""The clips of a finished dataset as a table without their motion, and single clips on demand: what can be browsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from motionsynth.motion import Motion
from storage import Storage
from storage.dataset import read_shard
from storage.decisions import Decision, read_decisions
from storage.limits import UNREADABLE, check_parquet
from storage.manifest import below, damaged_shard, read_manifest

QUALITY = ("class_confidence", "physics_violation", "novelty")
TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(
        ("sample_id", "label_name", "subject", "view", "source", "parent_id", "generator"), pa.string()
    ),
    **dict.fromkeys(("label", "num_persons", "num_frames"), pa.int64()),
    **dict.fromkeys(("fps", *QUALITY), pa.float64()),
    "accepted": pa.bool_(),
    "rejected_by": pa.string(),
}
"""Columns of the table. Types are cast to: a value of an extension type may unpickle itself."""
ORDERS = ("stored", *QUALITY, "num_frames")
STATES = ("all", "accepted", "refused", "marked")
MAX_CLIPS = 2_000_000
READERS = 8
KEPT_SHARDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """Which clips are to be shown, and in which order.

    Attributes:
        label: Class, None for all.
        source: "real", "synthetic", or "" for both.
        state: Of `STATES`; "refused" are those of a filter, "marked" those of a person.
        ranges: Lowest and highest value by quality column, None for no end; clips without a value are left out where
            there is one.
        order: Of `ORDERS`; quality columns put clips without a value last.
        descending: The other way round.
    """

    label: int | None = None
    source: str = ""
    state: str = "all"
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    order: str = "stored"
    descending: bool = False

    def __post_init__(self) -> None:
        known = {"state": STATES, "order": ORDERS, "source": ("", "real", "synthetic")}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} is '{getattr(self, name)}'; allowed: {', '.join(filter(None, allowed))}."
                )
        if unknown := [c for c in self.ranges if c not in QUALITY]:
            raise InputError(f"There is no quality column '{unknown[0]}'. Known: {', '.join(QUALITY)}.")


class Catalogue:
    """A finished dataset; its table is read once, motions when they are asked for.

    Args:
        storage, prefix: Where.

    Raises:
        InputError: it is not finished, has more than `MAX_CLIPS` clips, or a shard cannot be read.
    """

    def __init__(self, storage: Storage, prefix: str) -> None:
        self.at = below(storage, prefix)
        self.prefix = prefix
        self.manifest = read_manifest(storage, prefix)
        if self.manifest.rows > MAX_CLIPS:
            raise InputError(
                f"'{self.at.uri}' has {self.manifest.rows:,} clips; at most {MAX_CLIPS:,} can be browsed: look at a "
                "run with fewer, or read the Parquet files with pyarrow or DuckDB."
            )
        fs, root = self.at.filesystem()
        records = list(self.manifest.shards)

        def load(number: int) -> pa.Table:
            key = records[number].key
            try:
                with fs.open_input_file(f"{root}/{key}") as file:
                    check_parquet(file, file.size(), f"shard '{self.at.uri}/{key}'")
                    there = pq.ParquetFile(file)
                    table = there.read(columns=[c for c in TYPES if c in there.schema_arrow.names])
                columns = {
                    c: table[c].cast(t) if c in table.column_names else pa.nulls(len(table), t)
                    for c, t in TYPES.items()
                }
            except InputError:
                raise
            except UNREADABLE:
                raise InputError(damaged_shard(self.at, key, "cannot be read", self.manifest.kind)) from None
            own = range(len(table))
            place = {"shard": pa.array([number] * len(own), pa.int32()), "row": pa.array(own, pa.int32())}
            return pa.table({**columns, **place})

        with ThreadPoolExecutor(READERS) as pool:
            parts = list(pool.map(load, range(len(records))))
        self.table = pa.concat_tables(parts)
        self.marks: dict[str, Decision] = read_decisions(storage, prefix)
        self._places = {i: at for at, i in enumerate(self.table["sample_id"].to_pylist())}
        self._refused = np.array([a is False for a in self.table["accepted"].to_pylist()], bool)
        self._numbers = {
            c: np.array(self.table[c].to_pylist(), np.float64) for c in (*QUALITY, "num_frames", "label")
        }
        self._sources = np.array(self.table["source"].to_pylist(), str)
        self._shard = lru_cache(maxsize=KEPT_SHARDS)(
            lambda number: read_shard(self.at, records[number], self.manifest)
        )

    @property
    def class_names(self) -> Sequence[str]:
        """By label."""
        return self.manifest.header.class_names

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places

    def motion(self, sample_id: str) -> Motion:
        """One clip, its shard checked against its digest. Raises KeyError: there is none of that name."""
        row = self.table.slice(self._places[sample_id], 1).to_pylist()[0]
        return self._shard(row["shard"]).motions[row["row"]]

    def select(self, wish: Wish, start: int, count: int) -> tuple[int, list[dict[str, Any]]]:
        """Number of clips that are wished for, and a page of them."""
        marked = np.zeros(len(self.table), bool)
        marked[[self._places[i] for i in self.marks if i in self._places]] = True
        states = {"marked": marked, "refused": self._refused, "accepted": ~(marked | self._refused)}
        keep = states.get(wish.state, np.ones(len(self.table), bool)).copy()
        if wish.label is not None:
            keep &= self._numbers["label"] == wish.label
        if wish.source:
            keep &= self._sources == wish.source
        for name, (low, high) in wish.ranges.items():
            # A clip without a value is NaN, which lies in no range.
            keep &= low is None or self._numbers[name] >= low
            keep &= high is None or self._numbers[name] <= high
        found = np.flatnonzero(keep)
        sign = -1 if wish.descending else 1
        if wish.order != "stored":
            found = found[np.argsort(sign * self._numbers[wish.order][found], kind="stable")]
        else:
            found = found[::sign]
        page = self.table.select(list(TYPES)).take(pa.array(found[start : start + count])).to_pylist()
        return len(found), [{**r, "mark": self._mark(r["sample_id"])} for r in page]

    def _mark(self, sample_id: str) -> str | None:
        mark = self.marks.get(sample_id)
        return None if mark is None else mark.reason
