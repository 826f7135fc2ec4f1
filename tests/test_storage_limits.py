"""Limits on what is read: refused by its size alone, before it fills the memory; what we write is far below them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from storage import MissingError, Storage, checkpoints, limits
from storage.checkpoints import CONFIG, load_checkpoint, load_state, save_checkpoint
from storage.dataset import read_dataset, write_dataset
from storage.header import Header, canonical_json
from storage.limits import MAX_DECODED_BYTES, MAX_ROWS, decoded_bytes, parse_json
from storage.manifest import describe_stored
from storage.schema import decode, encode


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def never(*_: object, **__: object) -> NoReturn:
    raise AssertionError("it was decoded")


def refused(data: bytes, says: str, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reader of whole shards and by the one that looks up what a shard is."""
    storage.write("d/shards/a.parquet", data)
    with monkeypatch.context() as m:
        m.setattr(pq, "read_table", never)
        m.setattr(pq.ParquetFile, "read", never)
        for reader in (
            lambda: decode(data, "shard 'a'"),
            lambda: describe_stored(storage, "d", "shards/a.parquet"),
        ):
            with pytest.raises(InputError, match=says) as caught:
                reader()
            assert "\n" not in str(caught.value)


def test_an_object_is_read_up_to_its_limit(storage_uri: str) -> None:
    storage = Storage(storage_uri)
    storage.write("a", b"x" * 1000)
    storage.write("empty", b"")
    assert storage.read("a", 1000) == storage.read("a") == b"x" * 1000
    assert storage.read("empty", 0) == b""
    with pytest.raises(InputError, match="a' has 1,000 bytes, more than the 999 that are read of one; it is"):
        storage.read("a", 999)
    # The connection is of use afterwards.
    assert storage.read("a", 1000) == b"x" * 1000
    with pytest.raises(MissingError):
        storage.read("b", 10)


def test_a_text_of_gigabytes_in_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pa.array(["x" * (1 << 20)])
    rows = MAX_DECODED_BYTES // (1 << 20) + 1
    data = parquet(
        pa.table({"sample_id": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), one)})
    )
    assert len(data) < 100_000
    refused(data, r"bytes and would fill [\d,]{13,} in memory", Storage(tmp_path), monkeypatch)


def test_numbers_of_gigabytes_in_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = pa.array(np.zeros(1 << 20, np.float32))
    clip = pa.ListArray.from_arrays(pa.array([0, 1 << 20], pa.int32()), flat)
    data = parquet(pa.table({"motion": clip}))
    assert len(data) < 10_000
    monkeypatch.setattr(limits, "MAX_DECODED_BYTES", (4 << 20) - 1)
    says = "would fill 4,19[0-9],[0-9]{3} in memory, more than the 4,194,303"
    refused(data, says, Storage(tmp_path), monkeypatch)


def test_rows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = parquet(pa.table({"label": pa.array(np.zeros(MAX_ROWS + 1, np.int8))}))
    assert len(data) < 10_000
    refused(data, "has 1,048,577 rows, more than the 1,048,576", Storage(tmp_path), monkeypatch)


def test_a_footer_that_is_too_large(
    tmp_path: Path, tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = Header.of(tiny_set, note="x" * 100_000)
    data = encode(tiny_set.select([0]), header)
    footer = int.from_bytes(data[-8:-4], "little")
    monkeypatch.setattr(limits, "MAX_FOOTER_BYTES", footer)
    assert len(decode(data)[0]) == 1
    monkeypatch.setattr(limits, "MAX_FOOTER_BYTES", footer - 1)
    refused(data, f"The footer of shard .* has {footer:,} bytes, more than", Storage(tmp_path), monkeypatch)


def test_what_we_write_is_far_below_the_limits(tiny_set: MotionSet) -> None:
    for motions in (tiny_set, tiny_set.select([])):
        data = encode(motions, Header.of(tiny_set))
        fills = decoded_bytes(pq.read_metadata(pa.BufferReader(data)))
        floats = sum(m.positions.nbytes for m in motions.motions)
        assert floats <= fills < 50 * floats + 100_000
        assert fills < MAX_DECODED_BYTES / 100


def test_a_shard_that_grew_is_not_read(
    tmp_path: Path, tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage import dataset

    storage = Storage(tmp_path)
    (record,) = write_dataset(storage, "d", tiny_set, Header.of(tiny_set)).shards
    monkeypatch.setattr(dataset, "MAX_SHARD_BYTES", record.bytes)
    assert len(read_dataset(storage, "d")[0]) == 24
    storage.write(f"d/{record.key}", b"x" * (record.bytes + 1))
    with pytest.raises(InputError, match="more than the .* that are read of one"):
        read_dataset(storage, "d")


def test_the_config_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", {}, {"generator": "g"}, state={"step": 1})
    assert load_state(storage, "c") == {"step": 1}
    monkeypatch.setattr(checkpoints, "MAX_JSON_BYTES", 100)
    with pytest.raises(InputError, match=r"config\.json' has \d+ bytes, more than the 100 that"):
        load_checkpoint(storage, "c")


@pytest.mark.parametrize("name", ["../model-0123456789abcdef.safetensors", "/etc/passwd", "model.pkl", 7])
def test_files_of_a_checkpoint_that_lie_elsewhere(tmp_path: Path, name: object) -> None:
    """The digest of a config does not cover where its files lie."""
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", {}, {"generator": "g"})
    whole = json.loads(storage.read(f"c/{CONFIG}"))
    whole["files"][0]["name"] = name
    storage.write(f"c/{CONFIG}", canonical_json(whole).encode())
    with pytest.raises(InputError, match=r"config\.json' is damaged or not ours"):
        load_checkpoint(storage, "c")


def test_a_training_state_that_is_none_of_ours(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for bad in (b"[" * 100_000, b'{"tensor": "none"}', b'{"tuple": 5}', b"{"):
        save_checkpoint(storage, "c", {}, {"generator": "g"}, state={"step": 1})
        whole = json.loads(storage.read(f"c/{CONFIG}"))
        (entry,) = [f for f in whole["files"] if f["name"].endswith(".json")]
        storage.write(f"c/{entry['name']}", bad)
        entry |= {"bytes": len(bad), "sha256": checkpoints.sha256(bad)}
        storage.write(f"c/{CONFIG}", canonical_json(whole).encode())
        with pytest.raises(
            InputError, match="training state of checkpoint .* is none that motionsynth wrote"
        ):
            load_state(storage, "c")


def test_nesting_is_bad_json_and_nothing_worse() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
