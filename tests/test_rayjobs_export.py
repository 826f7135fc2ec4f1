"""The verb: every format written from storage and read again, whatever the clips are called."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionsynth.datasets.pyskl import pyskl_motions
from motionsynth.errors import InputError
from motionsynth.formats.bvh import read_bvh
from motionsynth.formats.ctrgcn_npz import read_ctrgcn_npz
from motionsynth.motion import MotionSet
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import Split
from rayjobs import export
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
FORMATS = ("bvh", "pyskl", "amass", "glb", "rrd")


def odd() -> MotionSet:
    """The tiny set; the first clips have dangerous names, a second person, an absent one, and a refusal."""
    motions = list(make_tiny_set().motions)
    for i, name in enumerate(("../../escape", "/abs", "A", "a", "..")):
        motions[i] = replace(motions[i], sample_id=name)
    two = np.concatenate([motions[5].positions, motions[5].positions + 1]).astype(np.float32)
    motions[5] = replace(motions[5], positions=two)
    two = np.concatenate([motions[6].positions, 0 * motions[6].positions])
    motions[6] = replace(motions[6], positions=two)
    motions[7] = replace(motions[7], accepted=False)
    return replace(make_tiny_set(), motions=tuple(motions))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(tmp_path_factory.mktemp("export"))
    write_dataset(
        storage, "data/odd", odd(), Header.of(odd(), (SPLIT.to_dict(),), terms="Ask us."), rows_per_shard=5
    )
    return storage


def run(store: Storage, out: Path | str, kind: str, **given) -> tuple[dict, list[dict]]:
    options = export.Options(storage=store.uri, data="odd", format=kind, out=str(out), **given)
    result = export.verb(options)
    text = Storage(out).read("index.csv").decode()
    return result, list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_lies_in_the_folder_and_in_the_index(store: Storage, tmp_path: Path, kind: str) -> None:
    if kind == "rrd":
        pytest.importorskip("rerun", reason="pip install 'motionsynth[rerun]'")
    out = tmp_path / "deep" / "out"
    result, rows = run(store, out, kind)
    assert {p.relative_to(tmp_path).parts[:2] for p in tmp_path.rglob("*") if p.is_file()} == {
        ("deep", "out")
    }
    names = {p.name for p in out.iterdir()}
    assert names == {r["file"] for r in rows} | {"index.csv"} and result["files"] == len(names) - 1
    # 24 clips, one of them refused.
    assert result["clips"] == len({r["sample_id"] for r in rows}) == 23 and result["terms"] == "Ask us."
    assert len({n.lower() for n in names}) == len(names)
    if kind in ("bvh", "amass"):
        # A file for the second person who is there, none for the one who never is.
        assert len(names) == 23 + 1 + 1


def test_bvh_files_hold_their_clips(store: Storage, tmp_path: Path) -> None:
    _, rows = run(store, tmp_path / "out", "bvh")
    motions, skeleton = {m.sample_id: m for m in odd().motions}, get_skeleton("kinect20")
    for row in rows[::4]:
        got, m = read_bvh(tmp_path / "out" / row["file"]), motions[row["sample_id"]]
        order = [got.joints.index(j) for j in skeleton.joints]
        np.testing.assert_allclose(got.positions[:, order], m.positions[int(row["person"])], atol=1e-3)
        assert row["label_name"] == m.label_name and row["subject"] == m.subject


def test_pyskl_comes_back_with_its_split(store: Storage, tmp_path: Path) -> None:
    run(store, tmp_path / "out", "pyskl")
    motions, splits = pyskl_motions(tmp_path / "out" / "clips.pkl", get_skeleton("kinect20"))
    before = {m.sample_id: m for m in odd().motions}
    assert all(np.array_equal(m.positions, before[m.sample_id].positions) for m in motions.motions)
    assert [s.name for s in splits] == ["cross_subject"] and len(splits[0].test) == 5
    assert motions.class_names == odd().class_names


def test_ctrgcn_takes_its_own_skeleton_alone(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of 20 joints; .*kinect25"):
        run(store, tmp_path / "out", "ctrgcn")
    assert not (tmp_path / "out").exists()
    skeleton = get_skeleton("kinect25")
    wide = tuple(
        replace(m, skeleton="kinect25", positions=np.repeat(m.positions, 2, 2)[:, :, :25].copy())
        for m in odd().motions
    )
    motions = replace(odd(), skeleton=skeleton, motions=wide)
    storage = Storage(tmp_path / "store")
    write_dataset(storage, "data/odd", motions, Header.of(motions, (SPLIT.to_dict(),)))
    run(storage, tmp_path / "out", "ctrgcn", limit=20)
    got = list(read_ctrgcn_npz(tmp_path / "out" / "clips.npz"))
    kept = [m for m in motions.motions if m.accepted is not False][:20]
    sides = [(SPLIT.side(m), m.label) for m in kept]
    assert [(c.side, c.label) for c in got] == sorted(sides, key=lambda s: s[0] != "train")


def test_limits_and_classes_and_refused_clips(storage_uri: str, tmp_path: Path) -> None:
    storage = Storage(storage_uri)
    write_dataset(storage, "data/odd", odd(), Header.of(odd()))
    out = storage.sub("out").uri
    _, rows = run(storage, out, "bvh", limit=3, classes=("wave left hand", "2"))
    assert [r["label"] for r in rows] == ["1"] * 3
    with pytest.raises(InputError, match="is not empty"):
        run(storage, out, "bvh")
    result, rows = run(storage, out, "bvh", refused=True, replace=True, classes=("0",))
    assert result["clips"] == 8


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"classes": ("fly",)}, "There is no class 'fly'. Known: 0 to 2, or walk around"),
        ({"classes": ("3",)}, "There is no class '3'"),
        ({"limit": -1}, "--limit is -1"),
        ({"protocol": "fold1"}, "no protocol 'fold1'. Known: cross_subject"),
        ({"data": "none"}, "names no finished dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    store: Storage, tmp_path: Path, given: dict, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as e:
        fixed = {"storage": store.uri, "data": "odd", "format": "bvh", "out": str(tmp_path / "out")}
        export.verb(export.Options(**fixed | given))
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


def test_the_command(store: Storage, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rayjobs.export", "--storage", store.uri, "--data", "odd", "--json"]
    command += ["--out", str(tmp_path / "out"), "--limit", "2", "--format"]
    done = subprocess.run([*command, "glb"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["files"] == 2
    done = subprocess.run([*command, "fbx"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
