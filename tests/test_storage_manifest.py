"""Manifests of one file and of parts: the same records back, every damage and every hostile name refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.skeleton import get_skeleton
from storage import ConflictError, Storage, manifest, records
from storage.dataset import read_dataset, read_shards, verify, write_dataset
from storage.header import Header
from storage.manifest import Manifest, read_manifest, write_manifest
from storage.records import (
    Part,
    ShardRecord,
    StoredRecords,
    Totals,
    decode_part,
    encode_part,
    list_parts,
    read_part,
    write_part,
)
from tests.test_storage_schema import assert_same

HEADER = Header(
    dataset="d", skeleton=get_skeleton("kinect20"), class_names=("a", "b", "c"), extra={"terms": "free"}
)


def some_records(n: int) -> tuple[ShardRecord, ...]:
    return tuple(
        ShardRecord(
            key=f"shards/{i:06d}-x.parquet",
            rows=2,
            bytes=100 + i,
            sha256=f"{i:064x}",
            counts={i % 3: 2},
            accepted=i % 2,
        )
        for i in range(n)
    )


def small_parts(monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    for module in (records, manifest):
        monkeypatch.setattr(module, "PART_SHARDS", shards)


def stored(storage: Storage, n: int, replace: bool = False) -> Manifest:
    """A manifest of shards that have the right sizes and nothing in them."""
    whole = Manifest(kind="generated", header=HEADER, shards=some_records(n), request={"seed": 1})
    for s in whole.shards:
        storage.write(f"d/{s.key}", b"x" * s.bytes)
    write_manifest(storage, "d", whole, replace=replace)
    return whole


def test_manifests_in_one_file_keep_their_bytes_for_ever() -> None:
    """Written down from the version before there were parts: datasets, scores and checkpoints name these digests."""
    generated = Manifest(
        kind="generated", header=HEADER, shards=some_records(5), request={"seed": 1}, extra={"x": [1.5]}
    )
    assert generated.digest == "4c7149678f0e2773c824659e4874b11c5d0c83db40c880ef60f1e5732bb6516b"
    prepared = Manifest(kind="prepared", header=HEADER, shards=some_records(2))
    assert prepared.digest == "8f32f334eec2bbae183da968b2f2c1303e8a0a7657e487d241ff1670ff62a4ee"
    assert Manifest.from_bytes(generated.to_bytes()) == generated


def test_many_shards_lie_in_parts(storage_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(storage_uri)
    small_parts(monkeypatch, 4)
    whole = stored(storage, 11)
    body = json.loads(storage.read("d/manifest.json"))
    assert body["manifest_version"] == 2 and "shards" not in body
    assert [p["shards"] for p in body["parts"]] == [4, 4, 3]
    assert sorted(p["key"] for p in body["parts"]) == [o.key for o in storage.sub("d").list("manifest")]
    again = read_manifest(storage, "d")
    assert again == whole and whole == again and again.digest == whole.digest
    assert hashlib.sha256(storage.read("d/manifest.json")).hexdigest() == whole.digest
    assert isinstance(again.shards, StoredRecords) and tuple(again.shards) == whole.shards
    assert [again.shards[i] for i in (0, 4, 10, -1)] == [whole.shards[i] for i in (0, 4, 10, -1)]
    assert again.shards[3:6] == whole.shards[3:6]
    assert (
        again.totals
        == whole.totals
        == Totals(shards=11, rows=22, bytes=1155, accepted=5, counts=whole.counts)
    )
    with pytest.raises(IndexError):
        again.shards[11]
    # Writing it again is no error, another one in its place is.
    write_manifest(storage, "d", whole)
    other = replace(whole, shards=whole.shards[:10])
    with pytest.raises(ConflictError, match="already holds another finished dataset"):
        write_manifest(storage, "d", other)
    assert read_manifest(storage, "d") == whole
    write_manifest(storage, "d", other, replace=True)
    assert read_manifest(storage, "d") == other != whole


def test_a_digest_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One digit of one shard's digest in a part changes the manifest's."""
    small_parts(monkeypatch, 4)
    whole = Manifest(kind="generated", header=HEADER, shards=some_records(11))
    shards = list(whole.shards)
    shards[6] = replace(shards[6], sha256="f" * 64)
    assert replace(whole, shards=tuple(shards)).digest != whole.digest


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12))
def test_parts_do_not_depend_on_how_they_are_cut(n: int, size: int) -> None:
    whole = some_records(n)
    cut = [encode_part(i, chunk) for i, chunk in enumerate(records.chunks(whole, size))]
    assert tuple(r for _, data in cut for r in decode_part(data)) == whole
    assert Totals.of(part.totals for part, _ in cut) == Totals.of(whole)
    assert len({part.key for part, _ in cut}) == len(cut) == -(-n // size)
    assert all(Part.from_dict(json.loads(json.dumps(part.to_dict()))) == part for part, _ in cut)


def test_readers_go_through_parts(
    tmp_path: Path, tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 2)
    storage, header = Storage(tmp_path), Header.of(tiny_set)
    made = write_dataset(storage, "d", tiny_set, header, rows_per_shard=5)
    assert len(made.shards) == 5 and len(storage.list("d/manifest")) == 3
    assert_same(tiny_set, read_dataset(storage, "d")[0])
    assert [len(part) for part in read_shards(storage, "d")] == [5, 5, 5, 5, 4]
    assert write_dataset(storage, "d", tiny_set, header, rows_per_shard=5).digest == made.digest
    assert verify(storage, "d") == []
    storage.delete(f"d/{made.shards[3].key}")
    (problem,) = verify(storage, "d")
    assert made.shards[3].key in problem and "is missing" in problem
    # It is not committed over missing shards either.
    storage.delete("d/manifest.json")
    with pytest.raises(InputError, match=f"1 of 5 shards .*{made.shards[3].key}"):
        write_manifest(storage, "d", made)


def test_records_are_read_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 4)
    storage = Storage(tmp_path)
    stored(storage, 11)
    read: list[str] = []
    original = Storage.read

    def watched(self: Storage, key: str, *limit: int) -> bytes:
        read.append(key)
        return original(self, key, *limit)

    monkeypatch.setattr(Storage, "read", watched)
    whole = read_manifest(storage, "d")
    assert (whole.rows, len(whole.shards), len(whole.digest)) == (22, 11, 64) and read == ["manifest.json"]
    one_by_one = iter(whole.shards)
    next(one_by_one)
    assert len(read) == 2
    assert len(list(one_by_one)) == 10 and len(read) == 4


def spoil(storage: Storage, key: str) -> None:
    storage.write(key, storage.read(key).replace(b'"rows":2', b'"rows":3'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Storage.delete, "is missing; delete manifest and manifest.json and run"),
        (lambda s, k: s.write(k, s.read(k)[:-9]), "is damaged; delete manifest and manifest.json and run"),
        (spoil, "is damaged"),
        (
            lambda s, k: s.write(k, b"x" * 70_000),
            "has 70,000 bytes, more than the 60,000 that are read of one",
        ),
    ],
)
def test_a_damaged_part_is_named(
    tmp_path: Path, damage: Callable[[Storage, str], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 4)
    monkeypatch.setattr(records, "MAX_PART_BYTES", 60_000)
    storage = Storage(tmp_path)
    stored(storage, 11)
    key = storage.list("d/manifest")[1].key
    damage(storage, key)
    with pytest.raises(InputError, match=f"{key}'.* {says}") as caught:
        list(read_manifest(storage, "d").shards)
    assert "\n" not in str(caught.value)


def test_a_part_that_does_not_hold_what_its_entry_says(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    part = write_part(storage, 0, some_records(3))
    assert read_part(storage, part) == some_records(3)
    with pytest.raises(InputError, match="is damaged"):
        read_part(storage, replace(part, totals=replace(part.totals, rows=5)))


def test_parts_that_two_runs_left_are_not_told_apart(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first = write_part(storage, 0, some_records(3))
    second = write_part(storage, 1, some_records(2))
    storage.write("manifest/note.txt", b"?")
    assert list_parts(storage) == {0: first.key, 1: second.key}
    write_part(storage, 1, some_records(3))
    assert list_parts(storage) == {0: first.key}


ELSEWHERE = [
    "../other/shards/000000-x.parquet",
    "/etc/passwd",
    "shards/../../secret",
    "shards/./x",
    "runs/r/config.json",
    "shards",
    "shards\\x.parquet",
    "shards//x",
    "",
    7,
    None,
]


@pytest.mark.parametrize("key", ELSEWHERE)
@pytest.mark.parametrize("parted", [False, True])
def test_names_that_point_elsewhere_are_refused(
    tmp_path: Path, key: Any, parted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a manifest, as a part's name and inside of a part whose digest is right."""
    storage = Storage(tmp_path)
    if parted:
        small_parts(monkeypatch, 4)
    stored(storage, 9)
    body = json.loads(storage.read("d/manifest.json"))
    entries = body["parts" if parted else "shards"]
    good = entries[1]["key"]
    entries[1]["key"] = key
    storage.write("d/manifest.json", json.dumps(body).encode())
    with pytest.raises(InputError, match="Object key|lies outside of its") as caught:
        read_manifest(storage, "d")
    assert "\n" not in str(caught.value)
    if parted:
        lines = storage.read(f"d/{good}").splitlines()
        data = b"\n".join([json.dumps(json.loads(lines[0]) | {"key": key}).encode(), *lines[1:]])
        digest = hashlib.sha256(data).hexdigest()
        storage.write(f"d/{good}", data)
        entries[1] |= {"key": good, "bytes": len(data), "sha256": digest}
        storage.write("d/manifest.json", json.dumps(body).encode())
        with pytest.raises(InputError, match="Object key|lies outside of its"):
            list(read_manifest(storage, "d").shards)


def edit(change: dict[str, Any], of: str = "shards") -> Callable[[dict[str, Any]], Any]:
    def apply(body: dict[str, Any]) -> Any:
        entries = [body[of][0] | change, *body[of][1:]]
        return body | {of: entries}

    return apply


HOSTILE: list[Callable[[dict[str, Any]], Any]] = [
    edit({"rows": -1}),
    edit({"rows": "2"}),
    edit({"rows": True}),
    edit({"rows": 2**63}),
    edit({"bytes": 1.5}),
    edit({"accepted": None}),
    edit({"sha256": "short"}),
    edit({"sha256": 5}),
    edit({"counts": {"x": 1}}),
    edit({"counts": {"-1": 1}}),
    edit({"counts": [1]}),
    edit({"more": 1}),
    lambda body: body | {"shards": {"0": 1}},
    lambda body: body | {"shards": 5},
    lambda body: body | {"kind": "other"},
    lambda body: body | {"kind": []},
    lambda body: body | {"manifest_version": "1"},
    lambda body: body | {"manifest_version": None},
    lambda body: body | {"manifest_version": 2},
    lambda body: body | {"manifest_version": 2, "parts": [{"key": "manifest/x"}]},
    lambda body: [body],
]


@pytest.mark.parametrize("change", HOSTILE)
def test_what_is_no_manifest_is_one_sentence(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    storage = Storage(tmp_path)
    stored(storage, 3)
    storage.write("d/manifest.json", json.dumps(change(json.loads(storage.read("d/manifest.json")))).encode())
    with pytest.raises(InputError, match="is not one that motionsynth wrote, or it is damaged"):
        read_manifest(storage, "d")


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"manifest_version":' * 50_000, b"\xff\xfe", b"9" * 5_000]
)
def test_text_that_would_break_the_parser(tmp_path: Path, data: bytes) -> None:
    Storage(tmp_path).write("d/manifest.json", data)
    with pytest.raises(InputError, match="is not one that motionsynth wrote, or it is damaged"):
        read_manifest(Storage(tmp_path), "d")


def test_a_manifest_that_is_too_large_is_not_read(storage_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(storage_uri)
    stored(storage, 3)
    size = len(storage.read("d/manifest.json"))
    monkeypatch.setattr(manifest, "MAX_JSON_BYTES", size)
    assert read_manifest(storage, "d").rows == 6
    monkeypatch.setattr(manifest, "MAX_JSON_BYTES", size - 1)
    with pytest.raises(
        InputError, match=f"manifest.json' has {size:,} bytes, more than the {size - 1:,} that"
    ):
        read_manifest(storage, "d")


def test_a_shard_recorded_above_the_limit(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage, 3)
    body = edit({"bytes": 1 << 40})(json.loads(storage.read("d/manifest.json")))
    storage.write("d/manifest.json", json.dumps(body).encode())
    with pytest.raises(
        InputError, match="recorded with 1,099,511,627,776 bytes, more than the 2,147,483,648"
    ):
        read_manifest(storage, "d")
