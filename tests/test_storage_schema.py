"""Clips <-> Parquet, here and in the eyes of programs that have never heard of us."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import get_skeleton, shipped
from storage.schema import METADATA_KEY, Header, arrow_schema, decode, encode, from_table, to_table

ROOT = Path(__file__).resolve().parents[1]
FIELDS = [f for f in Motion.__slots__ if f != "positions"]


def assert_same(a: MotionSet, b: MotionSet) -> None:
    assert (a.dataset, a.skeleton, a.class_names, len(a)) == (b.dataset, b.skeleton, b.class_names, len(b))
    for x, y in zip(a.motions, b.motions, strict=True):
        assert {f: getattr(x, f) for f in FIELDS} == {f: getattr(y, f) for f in FIELDS}
        assert x.positions.shape == y.positions.shape and x.positions.tobytes() == y.positions.tobytes()
        assert y.positions.dtype == np.float32 and y.positions.flags.writeable


def table_of(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


def file_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_round_trip_of_a_real_set(tiny_set: MotionSet) -> None:
    splits = ({"name": "cross_subject", "by": "subject", "train": ["01"], "test": ["02"]},)
    header = Header.of(tiny_set, splits, terms="free", citation="Ä. Ü. 2026")
    again, header_again = decode(encode(tiny_set, header))
    assert_same(tiny_set, again)
    assert header_again == header


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOAT = st.none() | st.floats(allow_nan=False)


@st.composite
def motion_sets(draw: st.DrawFn) -> MotionSet:
    skeleton = get_skeleton(draw(st.sampled_from(shipped())))
    names = tuple(draw(st.lists(TEXT, min_size=1, max_size=3)))
    bits = np.random.default_rng(draw(st.integers(0, 2**32)))
    clips = []
    for i in range(draw(st.integers(0, 6))):
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), skeleton.num_joints, 3)
        # Any bit pattern: subnormals, infinities and every kind of NaN must come back as they went.
        positions = bits.integers(0, 2**32, shape, np.uint32).view(np.float32)
        label = draw(st.integers(0, len(names) - 1))
        clips.append(
            Motion(
                positions=positions,
                fps=draw(st.floats(1e-3, 1e4)),
                skeleton=skeleton.name,
                label=label,
                label_name=names[label],
                sample_id=f"{draw(TEXT)}-{i}",
                dataset=draw(TEXT),
                subject=draw(TEXT),
                view=draw(TEXT),
                repetition=draw(TEXT),
                source=draw(st.sampled_from(["real", "synthetic"])),
                parent_id=draw(st.none() | TEXT),
                generator=draw(st.none() | TEXT),
                checkpoint=draw(st.none() | TEXT),
                seed=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
                class_confidence=draw(FLOAT),
                physics_violation=draw(FLOAT),
                novelty=draw(FLOAT),
                accepted=draw(st.none() | st.booleans()),
                rejected_by=draw(st.none() | TEXT),
            )
        )
    return MotionSet(dataset=draw(TEXT), skeleton=skeleton, class_names=names, motions=tuple(clips))


@settings(max_examples=60)
@given(motion_sets(), st.integers(0, 3))
def test_round_trip_of_any_set(motions: MotionSet, cut: int) -> None:
    header = Header.of(motions)
    data = encode(motions, header)
    assert_same(motions, decode(data)[0])
    # Ray hands out slices of tables: offsets then do not start at 0.
    part, _ = from_table(to_table(motions, header).slice(cut))
    assert_same(motions.select(range(min(cut, len(motions)), len(motions))), part)


def test_equal_input_gives_equal_bytes_in_another_process(tiny_set: MotionSet) -> None:
    code = (
        "import hashlib; from tests.tiny_motion import make_tiny_set; from storage.schema import *\n"
        "s = make_tiny_set(); data = encode(s, Header.of(s, b=1, a={'y': 1, 'x': 2}))\n"
        "print(hashlib.sha256(data).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    here = encode(tiny_set, Header.of(tiny_set, a={"x": 2, "y": 1}, b=1))
    assert run.stdout.strip() == hashlib.sha256(here).hexdigest(), run.stderr


STRANGER = """
import json, sys
import numpy as np, pandas as pd, pyarrow.parquet as pq
path, want = sys.argv[1], np.load(sys.argv[2])
table = pq.read_table(path)
header = json.loads(table.schema.metadata[b"motionsynth"])
V = len(header["skeleton"]["joints"])
kind = str(table.schema.field("motion").type)
assert kind.startswith("list<element: list<element: fixed_size_list<"), kind
column = table["motion"].combine_chunks()
flat = column.flatten().flatten().flatten().flatten().to_numpy().reshape(-1, V, 3)
assert np.array_equal(flat, np.concatenate([want[k].reshape(-1, V, 3) for k in want.files]))
assert [header["class_names"][i] for i in table["label"].to_pylist()] == table["label_name"].to_pylist()

def dense(x):
    return np.stack([dense(v) for v in x]) if x.dtype == object else x

frame = pd.read_parquet(path)
for name, row in zip(want.files, frame.itertuples(), strict=True):
    assert dense(row.motion).shape == (row.num_persons, row.num_frames, V, 3)
    assert np.array_equal(dense(row.motion), want[name])
assert not {"ray", "storage", "motionsynth", "torch"} & set(sys.modules)
subset = pq.read_table(path, columns=["label", "motion"], filters=[("label", "==", 1)])
assert set(subset["label"].to_pylist()) == {1} and len(subset) < len(table)
print("read", len(frame))
"""


def test_plain_pyarrow_and_pandas_read_it(tiny_set: MotionSet, tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pip install pandas")
    (tmp_path / "set.parquet").write_bytes(encode(tiny_set, Header.of(tiny_set)))
    want: Any = {m.sample_id: m.positions for m in tiny_set.motions}
    np.savez(tmp_path / "want.npz", **want)
    # -I and another directory: our packages cannot be found even by accident.
    run = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, "set.parquet", "want.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == f"read {len(tiny_set)}", run.stderr


def test_the_schema_is_the_published_one(tiny_set: MotionSet) -> None:
    table = table_of(encode(tiny_set, Header.of(tiny_set)))
    published = (
        "sample_id label label_name motion num_persons num_frames fps skeleton dataset subject view "
        "repetition source parent_id generator checkpoint seed class_confidence physics_violation novelty accepted "
        "rejected_by"
    )
    assert table.schema.names == published.split()
    assert table.schema.equals(arrow_schema(Header.of(tiny_set)), check_metadata=True)


def test_columns_of_others_are_ignored_and_missing_quality_is_none(tiny_set: MotionSet) -> None:
    table = table_of(encode(tiny_set, Header.of(tiny_set)))
    other = table.drop_columns(["accepted", "novelty", "seed", "rejected_by"]).append_column(
        "mine", pa.array(range(len(table)))
    )
    assert_same(tiny_set, decode(file_of(other))[0])


def test_the_types_of_other_writers_are_accepted(tiny_set: MotionSet) -> None:
    """pandas and Polars write large strings and lists; what counts is the value."""
    table = table_of(encode(tiny_set, Header.of(tiny_set)))
    v = tiny_set.skeleton.num_joints
    wide = pa.large_list(pa.large_list(pa.list_(pa.list_(pa.float32(), 3), v)))
    at = {"motion": wide, "label": pa.int64(), "view": pa.large_string(), "fps": pa.float32()}
    fields = [pa.field(f.name, at.get(f.name, f.type)) for f in table.schema]
    other = table.cast(pa.schema(fields, metadata=table.schema.metadata))
    assert_same(tiny_set, decode(file_of(other))[0])


def change(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.names.index(name), name, values)


def test_what_is_not_our_file_is_refused_in_one_sentence(tiny_set: MotionSet) -> None:
    data = encode(tiny_set, Header.of(tiny_set))
    table, n = table_of(data), len(tiny_set)
    header = json.loads(table.schema.metadata[METADATA_KEY])

    def with_header(value: object) -> bytes:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return file_of(table.replace_schema_metadata({METADATA_KEY: raw}))

    flat = pa.array([[0.0] * 3] * n, pa.list_(pa.float32()))
    fewer = pa.array([[[[[0.0] * 3] * 19]]] * n, pa.list_(pa.list_(pa.list_(pa.list_(pa.float32(), 3), 19))))
    ragged = pa.array(
        [[[[[0.0] * 3] * 20], []]] * n, pa.list_(pa.list_(pa.list_(pa.list_(pa.float32(), 3), 20)))
    )
    holes = pa.array([None] * n, table.schema.field("motion").type)
    ids = [m.sample_id for m in tiny_set.motions]
    cases = [
        (b"", "not a readable Parquet file"),
        (b"PAR1 nonsense PAR1", "not a readable Parquet file"),
        (file_of(table.replace_schema_metadata(None)), "no 'motionsynth' header"),
        (with_header(b"{"), "not JSON"),
        (with_header([1]), "must be a JSON object"),
        (with_header({**header, "schema_version": 99}), "schema version 99 .* upgrade"),
        (with_header({**header, "schema_version": "1"}), "schema_version '1'"),
        (with_header({k: v for k, v in header.items() if k != "skeleton"}), r"lacks \['skeleton'\]"),
        (with_header({**header, "class_names": "abc"}), "'class_names'"),
        (with_header({**header, "class_names": header["class_names"][:1]}), "label 1"),
        (file_of(table.drop_columns(["fps", "view"])), r"lacks the columns \['fps', 'view'\]"),
        (file_of(change(table, "label", pa.array(["x"] * n))), "Column 'label'.* must be int32"),
        (file_of(change(table, "label", pa.array([2**40] * n))), "Column 'label'.* must be int32"),
        (file_of(change(table, "view", pa.array([None] * n, pa.string()))), f"'view'.* has {n} empty cells"),
        (file_of(change(table, "sample_id", pa.array([ids[0]] * n))), "occurs twice"),
        (file_of(change(table, "source", pa.array(["made"] * n))), "source 'made'"),
        (file_of(change(table, "motion", flat)), "Column 'motion'.* must be list<list<"),
        (file_of(change(table, "motion", fewer)), r"Column 'motion'.*\[20\]"),
        (file_of(change(table, "motion", ragged)), "same number"),
        (file_of(change(table, "motion", holes)), "empty cells"),
    ]
    for bad, says in cases:
        with pytest.raises(InputError, match=says) as caught:
            decode(bad, "shard 'a.parquet'")
        assert "shard 'a.parquet'" in str(caught.value).replace("Shard", "shard") or "Clip" in str(
            caught.value
        )
        assert "\n" not in str(caught.value)


@settings(max_examples=30)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(share: float) -> None:
    from tests.tiny_motion import make_tiny_set

    motions = make_tiny_set().select(range(2))
    data = encode(motions, Header.of(motions))
    with pytest.raises(InputError, match="truncated or corrupt"):
        decode(data[: int(len(data) * share)])


def test_encode_refuses_what_decode_would(tiny_set: MotionSet) -> None:
    header = Header.of(tiny_set)
    first = tiny_set.motions[0]
    cases = [
        (replace(first, label=7), "label 7"),
        (replace(first, label=-1), "label -1"),
        (replace(first, label_name="other"), "'other'"),
        (replace(first, skeleton="kinect25"), "kinect25"),
        (replace(first, positions=first.positions[:, :, :19]), "19 joints"),
        (replace(first, seed=2**63), "64-bit"),
        (replace(first, fps=0.0), "frames per second"),
        (replace(first, sample_id=tiny_set.motions[1].sample_id), "occurs twice"),
    ]
    for bad, says in cases:
        with pytest.raises(InputError, match=says):
            encode(replace(tiny_set, motions=(bad, *tiny_set.motions[1:])), header)
    with pytest.raises(InputError, match="Header.of"):
        encode(tiny_set, replace(header, class_names=("a", "b", "c")))
    with pytest.raises(InputError, match="JSON"):
        encode(tiny_set, Header.of(tiny_set, extra=float("nan")))
    with pytest.raises(InputError, match="belong to the header itself"):
        Header.of(tiny_set, schema_version=2)


def test_a_slice_that_is_not_contiguous_in_memory(tiny_set: MotionSet) -> None:
    half = [replace(m, positions=m.positions[:, ::2]) for m in tiny_set.motions]
    mirrored = [replace(m, positions=m.positions[:, ::-1]) for m in half]
    motions = replace(tiny_set, motions=tuple(mirrored))
    assert_same(motions, decode(encode(motions, Header.of(motions)))[0])
