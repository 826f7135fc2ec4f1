"""Buckets that a stranger may write to: no checkpoint, dataset or score in them runs code when it is read."""

from __future__ import annotations

import io
import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from rayjobs.prepare import Options as PrepareOptions
from rayjobs.prepare import verb as prepare_verb
from rayjobs.train import Options as TrainOptions
from rayjobs.train import train
from storage import Storage
from storage.checkpoints import CONFIG, _digest, load_checkpoint, load_state, save_checkpoint
from storage.dataset import read_dataset, write_dataset
from storage.header import Header
from storage.manifest import MANIFEST, describe, describe_stored, read_manifest
from storage.objects import sha256
from storage.schema import decode, encode, plain_rows
from tests.hostile import Hostile
from tests.tiny_jobs import join, prepare, recipe_of


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that appears if a hostile pickle is read."""
    return tmp_path / "ran"


@pytest.fixture
def hostile(mark: Path) -> bytes:
    """The pickle."""
    data = pickle.dumps(Hostile(mark))
    pickle.loads(data)
    assert mark.exists(), "the pickle is harmless, so these tests would prove nothing"
    mark.unlink()
    return data


def torch_file(value: object) -> bytes:
    """As `torch.save` writes it: a zip with a pickle inside."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Storage:
    """A good one, with the state of an optimiser."""
    storage = Storage(tmp_path / "store")
    save_checkpoint(storage, "c", {"w": torch.ones(2)}, {"generator": "g"}, {"step": 3, "m": torch.ones(2)})
    return storage


def put(storage: Storage, role: str, ending: str, data: bytes) -> None:
    """Put other bytes in the place of one of a checkpoint's files, with a config that vouches for them."""
    config = json.loads(storage.read(f"c/{CONFIG}"))
    for file in config["files"]:
        if file["role"] == role and file["name"].endswith(ending):
            file |= {"bytes": len(data), "sha256": sha256(data)}
            storage.write(f"c/{file['name']}", data)
    body = {k: v for k, v in config.items() if k not in ("checkpoint_version", "files", "digest")}
    model = next(f["sha256"] for f in config["files"] if f["role"] == "model")
    storage.write(f"c/{CONFIG}", json.dumps(config | {"digest": _digest(body, model)}).encode())


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("place", ["model.safetensors", "state.safetensors", "state.json", "config.json"])
def test_a_hostile_checkpoint_is_refused_and_runs_nothing(
    place: str, form: str, checkpoint: Storage, hostile: bytes, mark: Path
) -> None:
    data = hostile if form == "pickle" else torch_file(Hostile(mark))
    mark.unlink(missing_ok=True)
    if place == CONFIG:
        checkpoint.write(f"c/{CONFIG}", data)
    else:
        role, _, ending = place.partition(".")
        put(checkpoint, role, ending, data)
    with pytest.raises(InputError):
        load_checkpoint(checkpoint, "c")
        load_state(checkpoint, "c")
    assert not mark.exists()


@pytest.mark.parametrize(
    "tree",
    [
        {"tensor": "none"},
        {"array": "state.1:m", "dtype": "O", "shape": [1]},
        {"array": "state.1:m", "dtype": "<f4", "shape": [3]},
        {"dict": [[[], 1]]},
        {"dict": 3},
        {"float": "x"},
        {"other": 1},
    ],
)
def test_a_state_of_another_form_is_one_sentence(tree: object, checkpoint: Storage) -> None:
    put(checkpoint, "state", "json", json.dumps(tree).encode())
    with pytest.raises(InputError, match=r"use an earlier checkpoint or train again"):
        load_state(checkpoint, "c")


def python_objects(data: bytes, rows: int) -> pa.Array:
    """A column of the type that Ray Data has for Python objects; reading a value unpickles it."""
    import ray.data  # noqa: F401  (registers the type, as in a driver)
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    storage = pa.array([data] * rows, pa.large_binary())
    return pa.ExtensionArray.from_storage(ArrowPythonObjectType(), storage)


def with_column(motions: MotionSet, name: str, column: pa.Array) -> bytes:
    """A Parquet file of clips with one column put in the place of its own, or added."""
    table = pq.read_table(pa.BufferReader(encode(motions, Header.of(motions))))
    at = table.column_names.index(name) if name in table.column_names else table.num_columns
    changed = (
        table.set_column(at, name, column) if at < table.num_columns else table.append_column(name, column)
    )
    sink = io.BytesIO()
    pq.write_table(changed, sink)
    return sink.getvalue()


@pytest.mark.parametrize("column", ["label", "accepted", "label_name", "motion", "seed"])
def test_a_hostile_shard_is_refused_and_runs_nothing(
    column: str, tiny_set: MotionSet, tmp_path: Path, hostile: bytes, mark: Path
) -> None:
    data = with_column(tiny_set, column, python_objects(hostile, len(tiny_set)))
    with pytest.raises(InputError, match=column):
        decode(data)
    storage = Storage(tmp_path / "store")
    storage.write("d/shards/x.parquet", data)
    if column in ("label", "accepted"):
        with pytest.raises(InputError, match="cannot be read"):
            describe_stored(storage, "d", "shards/x.parquet")
    else:
        assert describe("k", data).rows == len(tiny_set)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["arrow_tensor", "arrow_tensor_v2", "arrow_variable_shaped_tensor", "other"])
def test_a_hostile_type_is_refused_before_any_column_is_read(
    name: str, tiny_set: MotionSet, hostile: bytes, mark: Path
) -> None:
    """Types describe themselves in the file's schema, which Arrow reads on opening: of all columns."""
    import ray.data  # noqa: F401  (registers its types, as in a driver)

    class Lookalike(pa.ExtensionType):
        def __arrow_ext_serialize__(self) -> bytes:
            return hostile

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Lookalike:
            raise AssertionError("only Ray's own types are registered")

    kind = Lookalike(pa.list_(pa.float32()), f"ray.data.{name}")
    column = pa.ExtensionArray.from_storage(kind, pa.array([[1.0]] * len(tiny_set), kind.storage_type))
    data = with_column(tiny_set, "extra", column)
    if name == "other":
        assert len(decode(data)[0]) == len(tiny_set)  # a type that nobody knows is its plain content
    else:
        with pytest.raises(InputError, match="not a readable Parquet file"):
            decode(data)
    assert not mark.exists()


def test_a_hostile_column_that_is_not_ours_is_never_read(
    tiny_set: MotionSet, tmp_path: Path, hostile: bytes, mark: Path, ray_local: None
) -> None:
    """`prepare` reads strangers' Parquet in Ray workers, where Ray's types are known."""
    raw = tmp_path / "raw.parquet"
    raw.write_bytes(with_column(tiny_set, "other", python_objects(hostile, len(tiny_set))))
    prepare_verb(PrepareOptions(storage=str(tmp_path / "out"), dataset="parquet", raw=(raw,)))
    assert len(read_dataset(Storage(tmp_path / "out"), "data/tiny")[0]) == len(tiny_set)
    assert not mark.exists()


def test_hostile_records_of_a_score_are_refused(hostile: bytes, mark: Path) -> None:
    good, sink = pa.table({"arm": ["a"], "recall": [[0.5]]}), io.BytesIO()
    pq.write_table(good, sink)
    assert plain_rows(sink.getvalue(), "it") == [{"arm": "a", "recall": [0.5]}]
    objects = python_objects(hostile, 1)
    for column in (objects, pa.StructArray.from_arrays([objects], ["inner"])):
        sink = io.BytesIO()
        pq.write_table(good.append_column("x", column), sink)
        with pytest.raises(InputError, match="Column 'x' of it is of an extension type"):
            plain_rows(sink.getvalue(), "it")
    assert not mark.exists()


def test_a_hostile_manifest_is_refused(
    tiny_set: MotionSet, tmp_path: Path, hostile: bytes, mark: Path
) -> None:
    storage = prepare(Storage(tmp_path / "store"), tiny_set)
    storage.write(f"data/tiny/{MANIFEST}", hostile)
    with pytest.raises(InputError, match="is not one that motionsynth wrote"):
        read_manifest(storage, "data/tiny")
    assert not mark.exists()


# What Ray Train and Ray Tune leave in a run's folder, or might take up again from there.
RAY_STATE = ("tuner.pkl", "trainer.pkl", "searcher-state-x.pkl", ".validate_storage_marker", "checkpoint.pkl")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_lies_among_rays_own_files_is_not_read(
    tiny_set: MotionSet, tmp_path: Path, hostile: bytes, mark: Path, ray_local: None
) -> None:
    storage = prepare(Storage(tmp_path / "store"), tiny_set)
    recipe = recipe_of()
    ray_files = tmp_path / "store" / "runs" / "r" / "tiny" / "ray"
    # The folder that this training will use is there already, in whichever second it begins.
    name, now = f"{recipe.generator}-{recipe.beds[0].key}", int(time.time())
    for folder in (".", name, *(f"{name}-{now + i}" for i in range(600))):
        (ray_files / folder).mkdir(parents=True, exist_ok=True)
        for file in RAY_STATE:
            (ray_files / folder / file).write_bytes(hostile)
    assert train(storage, "tiny", "r", recipe, join)["trained"] == 1
    assert not mark.exists()


@pytest.mark.parametrize("text", ["../../outside", "/outside", "a\0b", "..", "C:\\outside", "x" * 300])
def test_names_inside_a_dataset_lead_nowhere(text: str, tiny_set: MotionSet, tmp_path: Path) -> None:
    """Class names and sample ids are content, never a path."""
    names = (text, *tiny_set.class_names[1:])
    motions = [replace(m, label_name=names[m.label]) for m in tiny_set.motions]
    motions[0] = replace(motions[0], sample_id=text)
    odd = replace(tiny_set, class_names=names, motions=tuple(motions))
    storage = Storage(tmp_path / "store")
    write_dataset(storage, "data/odd", odd, Header.of(odd))
    again, header = read_dataset(storage, "data/odd")
    assert again.motions[0].sample_id == text and header.class_names == names
    assert {p.name for p in tmp_path.iterdir()} == {"store"}


@pytest.mark.parametrize(
    "name", ["../outside", "/outside", "a/b", "..", ".hidden", "-x", "a\0b", "", "x" * 101]
)
@pytest.mark.parametrize("what", ["run", "dataset"])
def test_names_on_the_command_line_lead_nowhere(what: str, name: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "store")
    given = {"run": "r", "dataset": "tiny", what: name}
    with pytest.raises(InputError, match=f"The {what} name .* cannot be used"):
        TrainOptions(storage=storage.uri, **given).chosen(storage)
    assert not list(tmp_path.iterdir())
