"""Sets of many shards: made in windows, remembered in parts, resumed without looking every shard up again."""

from __future__ import annotations

import gc
import logging
import pathlib
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.control_plane import PREFIX, EmptyWriter, prepare, request_of
from cluster.connect import Connection, connect
from motionsynth.errors import InputError
from rayjobs import generate as job
from rayjobs import shard_pool, shard_sets
from rayjobs.cli import JobError
from rayjobs.generate import Wanted, claim, read_request
from rayjobs.shard_pool import Shard, ShardWriter
from rayjobs.status import status
from storage import Storage, manifest, records
from storage.dataset import read_dataset, verify
from storage.manifest import read_manifest
from storage.records import StoredRecords
from storage.shards import ShardSpec, plan, stored_sizes


class TrivialWriter(EmptyWriter):
    """One frame for a clip, but every clip its own."""

    write = ShardWriter.write


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "store")
    prepare(made)
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 8 shards, windows of 16."""
    for module in (records, manifest, shard_sets):
        monkeypatch.setattr(module, "PART_SHARDS", 8)
    for module in (job, shard_pool):
        monkeypatch.setattr(module, "WINDOW_SHARDS", 16)
    monkeypatch.setattr(shard_pool, "WINDOW_SHARDS_PER_ACTOR", 1)


def run(
    storage: Storage, *shards: int, writer: Any = TrivialWriter, connect: Any = None
) -> list[dict[str, Any]]:
    """Sets of so many shards of one clip, in this process unless told otherwise."""
    wish = [Wanted(f"{PREFIX}-{n}", request_of(storage, n)) for n in shards]
    return job.generate(storage, wish, connect=connect, writer=writer, actors=2 if connect else None)


def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the shards whose records are read from the shards themselves, from now on."""
    keys: list[str] = []
    original = records.describe_stored

    def watched(storage: Storage, prefix: str, key: str) -> Any:
        keys.append(key)
        return original(storage, prefix, key)

    monkeypatch.setattr(shard_sets, "describe_stored", watched)
    return keys


def shard_keys(storage: Storage, n: int) -> list[str]:
    return [o.key for o in storage.list(f"{PREFIX}-{n}/shards")]


def test_a_set_in_parts_is_read_like_any_other(storage: Storage) -> None:
    (result,) = run(storage, 43)
    whole = read_manifest(storage, result["prefix"])
    assert isinstance(whole.shards, StoredRecords) and len(whole.shards.parts) == 6
    assert result["manifest"] == whole.digest and result["clips"] == result["shards_made"] == 43
    assert result["counts"] == {"one": 15, "two": 14, "three": 14}
    motions, _ = read_dataset(storage, result["prefix"])
    wanted = [r.sample_id for spec in plan(request_of(storage, 43)) for r in spec.samples()]
    assert [m.sample_id for m in motions.motions] == wanted
    assert verify(storage, result["prefix"]) == []


def test_the_manifest_does_not_depend_on_windows_or_on_ray(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    (here,) = run(storage, 43)
    sizes: list[int] = []
    original = job.make_shards

    def watched(storage: Storage, todo: Sequence[Shard], **rest: Any) -> Any:
        sizes.append(len(todo))
        return original(storage, todo, **rest)

    monkeypatch.setattr(job, "make_shards", watched)
    other = Storage(tmp_path / "other")
    prepare(other)
    connection: Connection = connect("local")
    (there,) = run(other, 43, connect=lambda: connection)
    assert sizes == [16, 16, 11]
    assert there == here


def test_thousands_of_shards_cost_the_driver_no_more_memory_than_hundreds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows bound what is in flight, and nothing that grows with the set outlives one, 8 bytes a shard apart."""
    for module in (records, manifest, shard_sets):
        monkeypatch.setattr(module, "PART_SHARDS", 100)
    for module in (job, shard_pool):
        monkeypatch.setattr(module, "WINDOW_SHARDS", 200)
    in_flight: list[int] = []
    held: list[int] = []
    # The table of all interned strings grows at its own times, and pathlib interns names.
    others = [tracemalloc.Filter(False, pathlib.__file__)]
    original = job.make_shards_here

    def watched(storage: Storage, todo: Sequence[Shard], **rest: Any) -> Any:
        in_flight.append(len(todo))
        gc.collect()
        if tracemalloc.is_tracing():
            held.append(sum(t.size for t in tracemalloc.take_snapshot().filter_traces(others).traces))
        return original(storage, todo, **rest)

    monkeypatch.setattr(job, "make_shards_here", watched)
    # pytest keeps every log line.
    monkeypatch.setattr(logging.getLogger("rayjobs.telemetry"), "disabled", True)
    store = Storage(tmp_path)
    prepare(store)
    run(store, 2, writer=EmptyWriter)
    tracemalloc.start()
    try:
        run(store, 3000, writer=EmptyWriter)
    finally:
        tracemalloc.stop()
    assert in_flight == [2] + [200] * 15
    # The records of 2,600 shards would be more than 1 MB.
    assert held[-1] < held[1] + 100_000


def test_resume_reads_the_parts_in_place_of_their_shards(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = run(storage, 43)
    prefix = first["prefix"]
    keys = looked_up(monkeypatch)
    assert run(storage, 43) == [first | {"shards_made": 0, "clips_made": 0}] and keys == []
    # Interrupted after the commit of the parts.
    storage.delete(f"{prefix}/manifest.json")
    assert run(storage, 43) == [first | {"shards_made": 0, "clips_made": 0}] and keys == []
    # Interrupted within the fourth part: its shards alone are looked up.
    storage.delete(f"{prefix}/manifest.json")
    for key in shard_keys(storage, 43)[28:]:
        storage.delete(key)
    for o in storage.list(f"{prefix}/manifest")[3:]:
        storage.delete(o.key)
    (again,) = run(storage, 43)
    assert again == first | {"shards_made": 15, "clips_made": 15}
    assert [key[7:13] for key in sorted(keys)] == ["000024", "000025", "000026", "000027"]


def test_a_shard_lost_after_the_commit_comes_back(storage: Storage) -> None:
    (first,) = run(storage, 43)
    key = shard_keys(storage, 43)[20]
    data = storage.read(key)
    storage.delete(key)
    assert run(storage, 43) == [first | {"shards_made": 1, "clips_made": 1}]
    assert storage.read(key) == data


@pytest.mark.parametrize("damage", ["cut", "other shards", "another size", "twice", "other spelling"])
def test_a_part_that_is_not_right_is_made_anew(
    storage: Storage, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = run(storage, 43)
    prefix = first["prefix"]
    storage.delete(f"{prefix}/manifest.json")
    at = storage.sub(prefix)
    one, two = at.list("manifest")[1:3]
    content = records.decode_part(at.read(one.key))
    if damage == "cut":
        at.write(one.key, at.read(one.key)[:-40])
    elif damage == "twice":
        records.write_part(at, 1, content[:3])
    else:
        at.delete(one.key)
        lines = at.read(two.key) if damage == "other shards" else records.encode_part(1, content)[1]
        if damage == "another size":
            lines = lines.replace(b'"bytes":', b'"bytes":1')
        elif damage == "other spelling":
            lines = lines.replace(b":", b": ")
        at.write(f"manifest/00001-{records.sha256(lines)[:16]}.jsonl", lines)
    keys = looked_up(monkeypatch)
    assert run(storage, 43) == [first | {"shards_made": 0, "clips_made": 0}]
    assert len(keys) == 8
    assert verify(storage, prefix) == []


class Picky(TrivialWriter):
    """Cannot make the shards from the twentieth to the fortieth."""

    def write(self, prefix: str, spec: ShardSpec) -> Any:
        if 20 <= spec.index < 40:
            raise InputError(f"{spec.index} is cursed")
        return super().write(prefix, spec)


def test_failures_are_counted_and_windows_without_a_success_end_the_job(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MAX_LISTED", 3)
    # The first window (16) is whole, the second (16 to 31) makes four, the third (32 to 47) eight.
    with pytest.raises(JobError, match="20 of 60 shards failed; the others are done") as caught:
        run(storage, 60, writer=Picky)
    assert str(caught.value).count("cursed") == 3 and "and 17 more" in str(caught.value)
    assert len(shard_keys(storage, 60)) == 40
    assert status(storage, "r")["generated"][0]["shards_done"] == 40
    # Parts 2, 3 and 4 are not whole.
    assert sorted(records.list_parts(storage.sub(f"{PREFIX}-60"))) == [0, 1, 5, 6, 7]
    # Now 16 of the 20 are a window of their own, and none succeeds: the rest is not tried.
    with pytest.raises(JobError, match="20 of 20 shards failed; the others"):
        run(storage, 60, writer=Picky)
    (result,) = run(storage, 60)
    assert result["shards_made"] == 20 and verify(storage, result["prefix"]) == []

    class Never(TrivialWriter):
        def write(self, prefix: str, spec: ShardSpec) -> Any:
            raise InputError("the disk is full")

    with pytest.raises(JobError, match="70 of 70 shards failed or were not begun"):
        run(storage, 70, writer=Never)


def test_a_set_is_committed_as_soon_as_it_is_whole(storage: Storage) -> None:
    """Whatever becomes of the sets after it."""
    with pytest.raises(JobError, match="23 of 53 shards failed or were not begun"):
        run(storage, 10, 43, writer=Picky)
    assert read_manifest(storage, f"{PREFIX}-10").rows == 10
    first, second = run(storage, 10, 43)
    assert (first["shards_made"], second["shards_made"]) == (0, 23)


def test_sizes_are_of_this_plan_alone(storage_uri: str) -> None:
    storage = Storage(storage_uri)
    prepare(storage)
    specs = plan(request_of(storage, 5))
    for name, size in [
        (shard_sets.key_of(specs[1]), 7),
        (shard_sets.key_of(specs[4]), 3),
        (shard_sets.key_of(specs[2]).replace("000002", "000003"), 1),
        ("shards/000000-0123456789abcdef.parquet", 1),
        ("shards/999999-0123456789abcdef.parquet", 1),
        ("shards/note.txt", 1),
        (f"shards/old/{shard_sets.key_of(specs[0])}", 1),
    ]:
        storage.write(f"p/{name}", b"x" * size)
    assert list(stored_sizes(storage, "p", specs)) == [0, 7, 0, 0, 3]
    assert list(stored_sizes(storage.sub("p"), "", specs)) == [0, 7, 0, 0, 3]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"counts": 1}', b"[" * 100_000, b'{"counts": {"0": -1}}'])
def test_a_damaged_request_is_one_sentence(storage: Storage, data: bytes) -> None:
    claim(storage, "p", request_of(storage, 5))
    assert read_request(storage, "p") == request_of(storage, 5)
    storage.write("p/request.json", data)
    with pytest.raises(InputError, match="is not a request that motionsynth wrote, or it is damaged"):
        read_request(storage, "p")
