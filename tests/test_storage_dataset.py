"""Datasets: complete when the manifest is there, read by the manifest only, every damage named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from storage import ConflictError, MissingError, Storage
from storage.manifest import Manifest, describe_stored, read_manifest, write_manifest
from storage.schema import Header, encode
from storage.shards import (
    GenerationRequest,
    ShardRecord,
    key_of,
    list_done,
    plan,
    read_dataset,
    read_shards,
    verify,
    write_dataset,
    write_shard,
)
from tests.test_storage_schema import assert_same

ROOT = Path(__file__).resolve().parents[1]


def test_round_trip(storage_uri: str, tiny_set: MotionSet) -> None:
    storage, header = Storage(storage_uri), Header.of(tiny_set, terms="free")
    manifest = write_dataset(storage, "data/tiny", tiny_set, header, rows_per_shard=10, extra={"dropped": []})
    assert [s.rows for s in manifest.shards] == [10, 10, 4] and manifest.rows == 24
    assert manifest.counts == {0: 8, 1: 8, 2: 8}
    again, header_again = read_dataset(storage, "data/tiny")
    assert_same(tiny_set, again)
    assert header_again == header and read_manifest(storage, "data/tiny") == manifest
    assert [len(part) for part in read_shards(storage, "data/tiny")] == [10, 10, 4]
    assert verify(storage, "data/tiny") == []
    # The prefix is not part of it: a copied folder is the same dataset.
    assert_same(tiny_set, read_dataset(storage.sub("data").sub("tiny"), "")[0])


def test_the_same_input_gives_the_same_objects_however_it_comes(tmp_path: Path, tiny_set: MotionSet) -> None:
    header = Header.of(tiny_set)
    a, b = Storage(tmp_path / "a"), Storage(tmp_path / "b")
    first = write_dataset(a, "d", tiny_set, header, rows_per_shard=10)
    pieces = (tiny_set.select(range(i, min(i + 7, 24))) for i in range(0, 24, 7))
    assert write_dataset(b, "d", pieces, header, rows_per_shard=10).digest == first.digest
    assert {o.key: a.read(o.key) for o in a.list()} == {o.key: b.read(o.key) for o in b.list()}
    # Running the command again changes nothing and is no error.
    assert write_dataset(a, "d", tiny_set, header, rows_per_shard=10) == first


def test_another_dataset_in_the_same_place(storage_uri: str, tiny_set: MotionSet) -> None:
    storage, header = Storage(storage_uri), Header.of(tiny_set)
    write_dataset(storage, "d", tiny_set, header)
    with pytest.raises(ConflictError, match="already holds another finished dataset"):
        write_dataset(storage, "d", tiny_set.select(range(5)), header)
    assert len(read_dataset(storage, "d")[0]) == 24
    write_dataset(storage, "d", tiny_set.select(range(5)), header, replace=True)
    assert len(read_dataset(storage, "d")[0]) == 5


def test_unfinished_and_absent(storage_uri: str, tiny_set: MotionSet) -> None:
    storage = Storage(storage_uri)
    with pytest.raises(MissingError, match="holds no dataset; run the `python -m rayjobs"):
        read_dataset(storage, "d")
    write_dataset(storage, "d", tiny_set, Header.of(tiny_set), rows_per_shard=8)
    storage.delete("d/manifest.json")
    for reader in (read_dataset, verify, lambda s, p: list(read_shards(s, p))):
        with pytest.raises(MissingError, match="has 3 shards but no manifest.json, so it is unfinished; run"):
            reader(storage, "d")


def test_readers_follow_the_manifest_not_the_folder(storage_uri: str, tiny_set: MotionSet) -> None:
    storage, header = Storage(storage_uri), Header.of(tiny_set)
    manifest = write_dataset(storage, "d", tiny_set, header, rows_per_shard=8)
    # A late duplicate of a retried task, a shard of another plan, and rubbish.
    storage.write("d/shards/000000-late.parquet", storage.read("d/" + manifest.shards[0].key))
    storage.write("d/shards/000099-old.parquet", encode(tiny_set, header))
    storage.write("d/shards/note.txt", b"?")
    assert_same(tiny_set, read_dataset(storage, "d")[0])
    assert verify(storage, "d") == []


def truncate(storage: Storage, key: str) -> None:
    storage.write(key, storage.read(key)[:-50])


def flip(storage: Storage, key: str) -> None:
    data = bytearray(storage.read(key))
    data[len(data) // 2] ^= 1
    storage.write(key, bytes(data))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, r"has \d+ bytes instead of \d+; delete it and run"),
        (flip, "differs from its recorded digest; delete it and run"),
        (Storage.delete, "is missing; run the same `python -m rayjobs.prepare` command again"),
    ],
)
def test_each_damage_is_named_and_its_cure_works(
    storage_uri: str, tiny_set: MotionSet, damage: Callable[[Storage, str], None], says: str
) -> None:
    storage, header = Storage(storage_uri), Header.of(tiny_set)
    manifest = write_dataset(storage, "d", tiny_set, header, rows_per_shard=5)
    keys = [f"d/{manifest.shards[i].key}" for i in (1, 3)]
    for key in keys:
        damage(storage, key)
    with pytest.raises(InputError, match=f"{keys[0]}' {says}"):
        read_dataset(storage, "d")
    problems = verify(storage, "d")
    assert len(problems) == 2 and all(key in p for key, p in zip(keys, problems, strict=True))
    for key in keys:
        storage.delete(key)
    write_dataset(storage, "d", tiny_set, header, rows_per_shard=5)
    assert verify(storage, "d") == []
    assert_same(tiny_set, read_dataset(storage, "d")[0])


def test_a_manifest_is_not_committed_over_missing_shards(storage_uri: str, tiny_set: MotionSet) -> None:
    storage, header = Storage(storage_uri), Header.of(tiny_set)
    specs = plan(REQUEST)
    records = [write_shard(storage, "run", key_of(s), tiny_set.select([s.index]), header) for s in specs]
    manifest = Manifest(kind="generated", header=header, shards=tuple(records), request=REQUEST.to_dict())
    storage.delete("run/" + key_of(specs[1]))
    with pytest.raises(
        InputError, match=f"1 of 3 shards .*{key_of(specs[1])}.* `python -m rayjobs.generate`"
    ):
        write_manifest(storage, "run", manifest)
    assert not storage.exists("run/manifest.json")
    # Resume: exactly the missing one is made again, as the record of the others is read from storage.
    todo = [s for s in specs if s.id not in list_done(storage, "run", specs)]
    assert todo == [specs[1]]
    write_shard(storage, "run", key_of(specs[1]), tiny_set.select([1]), header)
    assert [describe_stored(storage, "run", key_of(s)) for s in specs] == records
    write_manifest(storage, "run", manifest)
    assert GenerationRequest.from_dict(read_manifest(storage, "run").request or {}) == REQUEST
    with pytest.raises(ConflictError):
        write_shard(storage, "run", key_of(specs[1]), tiny_set.select([2]), header)


REQUEST = GenerationRequest(checkpoint="c", checkpoint_digest="d", counts={0: 3}, shard_size=1)


def test_records_count_labels_and_rejections(tmp_path: Path, tiny_set: MotionSet) -> None:
    motions = tuple(
        replace(m, accepted=(None, True, False)[i % 3]) for i, m in enumerate(tiny_set.motions[:9])
    )
    part = replace(tiny_set, motions=motions)
    record = write_shard(Storage(tmp_path), "", "shards/x.parquet", part, Header.of(part))
    assert record.rows == 9 and record.accepted == 6 and sum(record.counts.values()) == 9
    assert record.counts == {k: part.labels.tolist().count(k) for k in sorted(set(part.labels.tolist()))}
    assert ShardRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_describe_stored_of_a_broken_shard(storage_uri: str) -> None:
    storage = Storage(storage_uri)
    storage.write("d/shards/a.parquet", b"PAR1 cut off")
    with pytest.raises(InputError, match=r"a\.parquet' cannot be read as Parquet; delete it"):
        describe_stored(storage, "d", "shards/a.parquet")
    with pytest.raises(MissingError, match=r"b\.parquet' does not exist"):
        describe_stored(storage, "d", "shards/b.parquet")


def test_a_shard_of_another_dataset_under_a_matching_digest(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path)
    other = replace(tiny_set, class_names=(*tiny_set.class_names, "extra"))
    manifest = write_dataset(storage, "d", other, Header.of(other))
    write_manifest(storage, "d", replace(manifest, header=Header.of(tiny_set)), replace=True)
    with pytest.raises(InputError, match="does not fit the manifest's header"):
        read_dataset(storage, "d")


def test_a_clip_that_occurs_in_two_shards(tmp_path: Path, tiny_set: MotionSet) -> None:
    twice = (tiny_set.select(range(10)), tiny_set.select(range(5, 15)))
    write_dataset(Storage(tmp_path), "d", twice, Header.of(tiny_set), rows_per_shard=10)
    with pytest.raises(InputError, match="occurs in two shards"):
        read_dataset(Storage(tmp_path), "d")


def test_no_clips_at_all(tmp_path: Path, tiny_set: MotionSet) -> None:
    with pytest.raises(InputError, match="has no clips"):
        write_dataset(Storage(tmp_path), "d", tiny_set.select([]), Header.of(tiny_set))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"manifest_version": 1, "kind": "prepared"}'])
def test_a_damaged_manifest(tmp_path: Path, data: bytes) -> None:
    Storage(tmp_path).write("d/manifest.json", data)
    with pytest.raises(
        InputError, match=r"d/manifest\.json' is not one that motionsynth wrote, or it is damaged"
    ):
        read_manifest(Storage(tmp_path), "d")


def test_a_manifest_of_the_future(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path)
    write_dataset(storage, "d", tiny_set, Header.of(tiny_set))
    storage.write(
        "d/manifest.json",
        json.dumps({**json.loads(storage.read("d/manifest.json")), "manifest_version": 3}).encode(),
    )
    with pytest.raises(InputError, match="version 3 .* upgrade"):
        read_manifest(storage, "d")


KILLED_JOB = """
import os, signal, sys
from storage import Storage
from storage.schema import Header
from storage.shards import write_dataset
from tests.tiny_motion import make_tiny_set

puts, put_once = [], Storage.put_once
def put(self, key, data):
    if len(puts) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    puts.append(key)
    return put_once(self, key, data)

Storage.put_once = put
s = make_tiny_set()
write_dataset(Storage(sys.argv[1]), "d", s, Header.of(s), rows_per_shard=8)
"""


def test_a_job_killed_between_shards_is_finished_by_the_same_command(
    storage_uri: str, tiny_set: MotionSet
) -> None:
    storage = Storage(storage_uri)
    for already in (2, 3):
        run = subprocess.run(
            [sys.executable, "-c", KILLED_JOB, storage_uri, str(already)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == -9, run.stderr
        assert len(storage.list("d")) == already
        with pytest.raises(MissingError, match="unfinished"):
            read_dataset(storage, "d")
    write_dataset(storage, "d", tiny_set, Header.of(tiny_set), rows_per_shard=8)
    assert_same(tiny_set, read_dataset(storage, "d")[0])
    assert len(storage.list("d")) == 4
