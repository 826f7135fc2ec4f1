"""Raw files to checked Parquet: the research datasets' counts, own data, and everything that can be wrong with it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionsynth.axes import UP
from motionsynth.errors import InputError
from motionsynth.formats.pyskl_pickle import Annotation, PysklFile, write_pyskl_pickle
from motionsynth.motion import MotionSet
from motionsynth.splits import Split, partition
from rayjobs.prepare import Options, plan_shards, rare_by_nature, report, verb
from rayjobs.sources import open_source
from storage import MissingError, Storage
from storage.dataset import read_dataset
from storage.header import Header
from storage.manifest import read_manifest
from storage.schema import encode

ROOT = Path(__file__).resolve().parents[1]
SPLIT = Split(name="cross_subject", by="subject", train=("01", "03"), test=("02", "04"))


def run(storage: str | Path, dataset: str, *raw: Path, **options) -> dict:
    """The verb in this process, on the session's Ray."""
    return verb(Options(storage=str(storage), dataset=dataset, raw=raw, **options))


@pytest.fixture
def parquet(tiny_set: MotionSet, tmp_path: Path) -> Path:
    """The tiny set as two files in our schema."""
    folder = tmp_path / "mine"
    folder.mkdir()
    header = Header.of(tiny_set, splits=(SPLIT.to_dict(),), terms="public domain")
    (folder / "a.parquet").write_bytes(encode(tiny_set.select(range(10)), header))
    (folder / "b.parquet").write_bytes(encode(tiny_set.select(range(10, 24)), header))
    return folder


@pytest.fixture
def nucla(tiny_set: MotionSet, tmp_path: Path) -> Path:
    """The tiny set's first 12 clips in N-UCLA's file layout."""
    folder = tmp_path / "raw" / "all_sqe"
    folder.mkdir(parents=True)
    for m in tiny_set.motions[:12]:
        name = f"a{m.label + 1:02d}_s{m.subject}_e00_v{m.view}.json"
        skeletons = m.positions[0].tolist()
        (folder / name).write_text(json.dumps({"label": m.label + 1, "skeletons": skeletons}))
    return folder


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Options, storage: Storage) -> NoReturn:
        raise AssertionError("Ray was asked for though there is nothing to do")

    monkeypatch.setattr(Options, "connect", never)


def test_own_parquet_comes_out_as_it_went_in(
    storage_uri: str,
    parquet: Path,
    tiny_set: MotionSet,
    ray_local: None,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture,
) -> None:
    result = run(storage_uri, "parquet", parquet, rows_per_shard=12)
    assert result["kept"] == result["found"] == 24 and result["shards"] == 2 and result["dropped"] == []
    assert result["splits"] == {"cross_subject": {"train": 12, "test": 12, "neither": 0}}
    assert "kept 24 of 24 clips" in capsys.readouterr().out
    storage = Storage(storage_uri)
    motions, header = read_dataset(storage, "data/tiny")
    assert [m.sample_id for m in motions.motions] == [m.sample_id for m in tiny_set.motions]
    for ours, theirs in zip(motions.motions, tiny_set.motions, strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        fields = [f.name for f in dataclasses.fields(ours) if f.name != "positions"]
        assert [getattr(ours, f) for f in fields] == [getattr(theirs, f) for f in fields]
    assert header.extra["terms"] == "public domain"
    assert [len(side) for side in partition(motions, Split.from_dict(header.splits[0]))] == [12, 12]

    # The same input again: nothing is read, Ray is not asked for.
    request.getfixturevalue("no_ray")
    again = run(storage_uri, "parquet", parquet, rows_per_shard=12)
    assert again["state"] == "already done" and again["manifest"] == result["manifest"]


def test_parquet_without_splits_has_its_people_halved(tiny_set: MotionSet, tmp_path: Path) -> None:
    """All files count, and workers, who read the header anew, find the same halves."""
    for name, clips in (("a", range(10)), ("b", range(10, 24))):
        (tmp_path / f"{name}.parquet").write_bytes(encode(tiny_set.select(clips), Header.of(tiny_set)))
    (halves,) = open_source("parquet", [tmp_path]).header().splits
    assert {*halves["train"], *halves["test"]} == {"01", "02", "03", "04"} and len(halves["train"]) == 2
    nobody = dataclasses.replace(
        tiny_set, motions=tuple(dataclasses.replace(m, subject="") for m in tiny_set.motions)
    )
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "a.parquet").write_bytes(encode(nobody, Header.of(nobody)))
    assert open_source("parquet", [tmp_path / "nobody"]).header().splits == ()
    # Whatever is wrong with the columns, reading the clips says it, in a sentence.
    whole = pq.read_table(tmp_path / "nobody" / "a.parquet")
    for number, change in enumerate(
        (lambda t: t.drop_columns(["subject"]), lambda t: t.drop_columns(["label"]))
    ):
        (folder := tmp_path / f"lacks{number}").mkdir()
        pq.write_table(change(whole), folder / "a.parquet")
        source = open_source("parquet", [folder])
        assert source.header().splits == ()
        with pytest.raises(InputError, match=("subject", "label")[number]):
            source.read(source.items()[0][0])


def test_classes_that_are_rare_by_nature_are_told(tiny_set: MotionSet, capsys: pytest.CaptureFixture) -> None:
    counts = {"walk": 90, "sit": 100, "fall": 8, "wave": 110, "slip": 44}
    assert rare_by_nature(counts) == [("fall", 8), ("slip", 44)]
    assert rare_by_nature({"walk": 20, "sit": 10}) == rare_by_nature({}) == []
    told = dict.fromkeys(("dataset", "state", "prefix", "terms", "citation"), "")
    told |= dict.fromkeys(("kept", "found", "subjects", "views", "mean_frames", "shards", "bytes"), 1) | {
        "doubts": []
    }
    report({**told, "splits": {}, "dropped": [], "counts": counts})
    assert "few clips of fall (8), slip (44): with --scarcity natural" in capsys.readouterr().out
    report({**told, "splits": {}, "dropped": [], "counts": {"walk": 90, "sit": 100}})
    assert "natural" not in capsys.readouterr().out


def test_other_content_of_the_same_name_needs_replace(
    parquet: Path, tmp_path: Path, ray_local: None, tiny_set: MotionSet
) -> None:
    out = tmp_path / "out"
    first = run(out, "parquet", parquet)
    # Touched but equal: read again, found equal, kept.
    (parquet / "a.parquet").touch()
    assert run(out, "parquet", parquet)["manifest"] == first["manifest"]
    (parquet / "b.parquet").unlink()
    with pytest.raises(InputError, match="another dataset of 24 clips .this one has 10.*--replace"):
        run(out, "parquet", parquet)
    assert read_manifest(Storage(out), "data/tiny").rows == 24
    assert run(out, "parquet", parquet, replace=True)["kept"] == 10
    assert len(read_dataset(Storage(out), "data/tiny")[0]) == 10


def test_all_problems_are_listed_at_once_and_mended_files_finish(
    nucla: Path, tmp_path: Path, ray_local: None
) -> None:
    out = Storage(tmp_path / "out")
    names = sorted(p.name for p in nucla.iterdir())
    good = {name: (nucla / name).read_text() for name in names}
    (nucla / names[1]).write_text("{")
    (nucla / names[5]).write_text('{"label": 99, "skeletons": []}')
    (nucla / names[9]).write_text("[]")
    with pytest.raises(InputError) as e:
        run(out.uri, "nucla", nucla, rows_per_shard=4)
    message = str(e.value)
    assert message.startswith("3 problems") and all(names[i] in message for i in (1, 5, 9))
    with pytest.raises(MissingError):
        read_manifest(out, "data/nucla")
    for name in names:
        (nucla / name).write_text(good[name])
    assert run(out.uri, "nucla", nucla, rows_per_shard=4)["kept"] == 12


def test_dropped_clips_are_named_with_the_reason(nucla: Path, tmp_path: Path, ray_local: None) -> None:
    path = sorted(nucla.iterdir())[3]
    content = json.loads(path.read_text())
    content["skeletons"] = content["skeletons"][:1]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"1 of 12 clips .* 1 frame.*--max-dropped"):
        run(tmp_path / "out", "nucla", nucla, max_dropped=0.05)
    result = run(tmp_path / "out", "nucla", nucla)
    assert result["kept"] == 11
    assert result["dropped"] == [
        {"sample_id": path.stem, "reason": "it has 1 frame; a motion needs at least 2"}
    ]
    # Kept for whoever reads the dataset later.
    assert read_manifest(Storage(tmp_path / "out"), "data/nucla").extra["dropped"][0][0] == path.stem


SKELETON = """
name = "stick"
joints = ["pelvis", "chest", "left_hip", "right_hip", "left_shoulder", "right_shoulder"]
parents = ["", "pelvis", "pelvis", "pelvis", "chest", "chest"]
mirror = [["left_hip", "right_hip"], ["left_shoulder", "right_shoulder"]]

[torso]
pelvis = "pelvis"
chest = "chest"
left_hip = "left_hip"
right_hip = "right_hip"
left_shoulder = "left_shoulder"
right_shoulder = "right_shoulder"
"""


def test_own_pickle_on_an_own_skeleton(tmp_path: Path, tiny_set: MotionSet, ray_local: None) -> None:
    (tmp_path / "stick.toml").write_text(SKELETON)
    (tmp_path / "names.txt").write_text("walk\nwave left\nwave right\n")
    at = [tiny_set.skeleton.index(j) for j in ("pelvis", "chest")]
    at += [tiny_set.skeleton.index(f"{side}_{j}") for j in ("hip", "shoulder") for side in ("left", "right")]
    clips = tuple(
        Annotation(name=m.sample_id, label=m.label, keypoint=m.positions[:, :, at]) for m in tiny_set.motions
    )
    train = tuple(c.name for c in clips if "_s01" in c.name)
    test = tuple(c.name for c in clips if "_s02" in c.name)
    pickle = tmp_path / "my clips.pkl"
    write_pyskl_pickle(pickle, PysklFile(annotations=clips, split={"xsub_train": train, "xsub_val": test}))

    options = {
        "skeleton": str(tmp_path / "stick.toml"),
        "subject_pattern": r"_s(\d+)",
        "view_pattern": r"_v(\d+)",
        "fps": 20.0,
        "class_names": tmp_path / "names.txt",
    }
    result = run(tmp_path / "out", "pyskl", pickle, **options)
    assert result["dataset"] == "my_clips" and result["subjects"] == 4 and result["views"] == 2
    assert result["splits"] == {"xsub": {"train": 6, "test": 6, "neither": 12}}
    motions, _ = read_dataset(Storage(tmp_path / "out"), "data/my_clips")
    assert motions.class_names == ("walk", "wave left", "wave right")
    assert motions.skeleton.joints[:2] == ("pelvis", "chest")
    m, original = motions.motions[5], tiny_set.motions[5]
    assert (m.sample_id, m.subject, m.fps) == (original.sample_id, original.subject, 20.0)
    np.testing.assert_array_equal(m.positions, original.positions[:, :, at])

    # A skeleton with other joints is the user's mistake, not 24 dropped clips.
    options["skeleton"] = "kinect25"
    with pytest.raises(InputError, match="has 6 joints; skeleton 'kinect25' has 25"):
        run(tmp_path / "out", "pyskl", pickle, name="wrong", **options)


def test_own_pickle_of_other_axes_and_units(
    tmp_path: Path, tiny_set: MotionSet, ray_local: None, capsys: pytest.CaptureFixture
) -> None:
    """z up and millimetres: refused with the cure, or told and kept; with both options the clips are those meant."""
    turned = [m.positions @ np.array(UP["z"], np.float32) for m in tiny_set.motions]

    def pickled(scale: float) -> Path:
        clips = tuple(
            Annotation(name=m.sample_id, label=m.label, keypoint=x * scale, subject=m.subject)
            for m, x in zip(tiny_set.motions, turned, strict=True)
        )
        path = tmp_path / "mine.pkl"
        write_pyskl_pickle(path, PysklFile(annotations=clips, split={}))
        return path

    out, path = tmp_path / "out", pickled(1000)
    with pytest.raises(
        InputError, match=r"faster than 20 m/s.* these are mm, give --unit mm\. In 24 of 24 .*--up z"
    ):
        run(out, "pyskl", path, skeleton="kinect20")
    assert run(out, "pyskl", path, skeleton="kinect20", up="z", unit="mm")["doubts"] == []
    motions, _ = read_dataset(Storage(out), "data/mine")
    for ours, meant in zip(motions.motions, tiny_set.motions, strict=True):
        np.testing.assert_allclose(ours.positions, meant.positions, atol=1e-5)
    # In metres it can be used as it is, but not without a word; and other settings are another dataset.
    capsys.readouterr()
    assert len(run(out, "pyskl", pickled(1), skeleton="kinect20", name="lying")["doubts"]) == 1
    assert "CHECK: In 24 of 24 clips people stand along z" in capsys.readouterr().out
    with pytest.raises(InputError, match="already holds another dataset .* --replace it"):
        run(out, "pyskl", path, skeleton="kinect20", name="lying", up="z")
    assert run(out, "pyskl", path, skeleton="kinect20", name="lying", up="z", replace=True)["doubts"] == []


def test_a_clip_given_twice_is_named(
    parquet: Path, tmp_path: Path, ray_local: None, tiny_set: MotionSet
) -> None:
    (parquet / "c.parquet").write_bytes((parquet / "a.parquet").read_bytes())
    with pytest.raises(InputError, match=f"10 clips .* more than once .*{tiny_set.motions[0].sample_id}"):
        run(tmp_path / "out", "parquet", parquet, rows_per_shard=10)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: {"dataset": "nucl"}, "Unknown dataset 'nucl'. Known: nucla, .*pyskl, parquet, sample"),
        (
            lambda p: {"dataset": "nucla"},
            "needs --raw with one path, got 0: the folder with .*aAA_sSS_eEE_vVV.json",
        ),
        (lambda p: {"dataset": "nucla", "raw": [p]}, "holds none of the expected files"),
        (lambda p: {"dataset": "sample", "raw": [p]}, "leave --raw out"),
        (lambda p: {"dataset": "parquet"}, "needs --raw"),
        (lambda p: {"dataset": "parquet", "raw": [p]}, "holds no .parquet file"),
        (lambda p: {"dataset": "parquet", "raw": [p / "x"]}, "does not exist"),
        (lambda p: {"dataset": "parquet", "raw": [p / "text"]}, "not a readable Parquet file"),
        (lambda p: {"dataset": "pyskl", "raw": [p / "text"]}, "needs --skeleton"),
        (lambda p: {"dataset": "pyskl", "raw": [p], "skeleton": "kinect26"}, "Unknown skeleton 'kinect26'"),
        (lambda p: {"dataset": "pyskl", "raw": [p], "skeleton": "kinect25", "fps": 0}, "Frames per second"),
        (lambda p: {"dataset": "pyskl", "raw": [p / "text"], "skeleton": "kinect25"}, "text"),
        (lambda p: {"dataset": "pyskl", "raw": [p / "x.pkl"], "skeleton": "kinect25"}, "x.pkl"),
        (
            lambda p: {"dataset": "nucla", "raw": [p], "skeleton": "kinect20"},
            "--skeleton belongs to --dataset pyskl",
        ),
        (lambda p: {"dataset": "nucla", "raw": [p], "up": "z"}, "--up belongs to --dataset pyskl"),
        (
            lambda p: {"dataset": "pyskl", "raw": [p], "skeleton": "kinect25", "up": "Z"},
            "--up is 'Z'; allowed: y,",
        ),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, change: Callable[[Path], dict], match: str) -> None:
    (tmp_path / "text").write_text("no Parquet")
    options = change(tmp_path)
    with pytest.raises(InputError, match=match) as e:
        open_source(options.pop("dataset"), options.pop("raw", []), **options).items()
    assert len(str(e.value).splitlines()) == 1


def test_parquet_files_of_different_datasets_are_refused(parquet: Path, tiny_set: MotionSet) -> None:
    other = Header.of(tiny_set, splits=())
    (parquet / "c.parquet").write_bytes(encode(tiny_set.select([0]), other))
    with pytest.raises(InputError, match=r"c.parquet' has another header"):
        open_source("parquet", [parquet]).header()


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 25))
def test_shards_keep_every_item_once_and_in_order(sizes: list[int], rows: int) -> None:
    items = [(str(i), n) for i, n in enumerate(sizes)]
    shards = plan_shards(items, rows)
    assert [item for shard in shards for item in shard] == items
    for shard in shards:
        assert len(shard) == 1 or sum(n for _, n in shard) <= rows
    # No two neighbours would fit into one.
    for a, b in zip(shards, shards[1:], strict=False):
        assert sum(n for _, n in a) + b[0][1] > rows


def test_the_bundled_sample(tmp_path: Path, ray_local: None) -> None:
    result = run(tmp_path / "out", "sample")
    assert result["prefix"] == "data/sample" and result["kept"] == 2000 and result["subjects"] == 10
    assert len(result["counts"]) == 20 and "cross_subject" in result["splits"]


RESEARCH = {"nucla": (1482, 1484), "sbu": (282, 282), "utd_mhad": (861, 861), "ui_prmd": (2000, 2000)}


@pytest.mark.parametrize("name", RESEARCH)
def test_research_datasets_keep_what_they_should(
    name: str, shared_data: Path, tmp_path: Path, ray_local: None
) -> None:
    result = run(tmp_path / "out", name, shared_data / name)
    assert (result["kept"], result["found"]) == RESEARCH[name]
    if name == "nucla":
        reason = "it has 1 frame; a motion needs at least 2"
        assert result["dropped"] == [{"sample_id": f"a02_s09_e04_v0{v}", "reason": reason} for v in (2, 3)]


def test_the_command(parquet: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rayjobs.prepare",
        "--storage",
        str(tmp_path / "out"),
        "--dataset",
        "parquet",
    ]
    files = [str(p) for p in sorted(parquet.iterdir())]
    done = subprocess.run(
        [*command, "--raw", *files, "--name", "own", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["prefix"] == "data/own" and result["kept"] == 24
    assert "prepare: 24/24 clips (100%)" in done.stderr
