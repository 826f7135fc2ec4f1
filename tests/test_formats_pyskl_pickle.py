import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.formats.pyskl_pickle import Annotation, PysklFile, read_pyskl_pickle, write_pyskl_pickle


def poses(persons: int = 1, frames: int = 4, joints: int = 25, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, (persons, frames, joints, 3)).astype(np.float32)


def content() -> PysklFile:
    return PysklFile(
        annotations=(
            Annotation(name="a", label=0, keypoint=poses(), subject="anna", view="1"),
            Annotation(name="b", label=2, keypoint=poses(2, 7, seed=1), subject="ben", view="2"),
        ),
        split={"xsub_train": ("a",), "xsub_val": ("b",)},
        class_names=("x", "y", "z"),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 2e-3)])
def test_round_trip(tmp_path: Path, dtype: str, tolerance: float) -> None:
    path = tmp_path / "x.pkl"
    write_pyskl_pickle(path, content(), dtype)
    got = read_pyskl_pickle(path)
    assert got.split == content().split and got.class_names == ("x", "y", "z")
    for a, b in zip(got.annotations, content().annotations, strict=True):
        assert (a.name, a.label, a.subject, a.view) == (b.name, b.label, b.subject, b.view)
        assert a.keypoint.dtype == np.float32
        np.testing.assert_allclose(a.keypoint, b.keypoint, atol=tolerance)


def test_plain_pickle_reads_what_we_write_as_numpy_1_names_it(tmp_path: Path) -> None:
    write_pyskl_pickle(tmp_path / "x.pkl", content(), "float16")
    data = (tmp_path / "x.pkl").read_bytes()
    assert b"numpy._core" not in data and b"cnumpy.core.multiarray\n_reconstruct\n" in data
    got = pickle.load(io.BytesIO(data))
    assert got["split"] == {"xsub_train": ["a"], "xsub_val": ["b"]}
    second = got["annotations"][1]
    assert second["frame_dir"] == "b" and second["total_frames"] == 7 and second["label"] == 2
    assert second["keypoint"].dtype == np.float16 and second["keypoint"].shape == (2, 7, 25, 3)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_file_as_pyskl_makes_it(tmp_path: Path, protocol: int) -> None:
    name = "S001C002P003R001A005"
    x = poses(2).astype(np.float16)
    whole = {
        "split": {"xsub_train": [name], "xsub_val": np.array(["other"])},
        "annotations": [
            {"frame_dir": name, "label": np.int64(4), "keypoint": x, "total_frames": 4, "extra": None}
        ],
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(whole, protocol))
    got = read_pyskl_pickle(tmp_path / "x.pkl")
    assert got.split == {"xsub_train": (name,), "xsub_val": ("other",)} and got.class_names == ()
    (clip,) = got.annotations
    assert clip.name == name and clip.label == 4 and clip.subject == clip.view == ""
    assert np.array_equal(clip.keypoint, x.astype(np.float32))


def test_filename_stands_in_for_frame_dir_and_ids_may_be_integers(tmp_path: Path) -> None:
    clip = {"filename": "a", "label": 0, "keypoint": poses(), "subject": 3}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"annotations": [clip]}))
    got = read_pyskl_pickle(tmp_path / "x.pkl")
    assert got.split == {} and got.annotations[0].name == "a" and got.annotations[0].subject == "3"


def clip(**changes: Any) -> dict:
    good = {"frame_dir": "a", "label": 0, "keypoint": poses(), "total_frames": 4}
    return {"annotations": [{k: v for k, v in (good | changes).items() if v is not None}]}


@pytest.mark.parametrize(
    ("whole", "sentence"),
    [
        ([1, 2], "holds a list; pyskl's format is a dict"),
        ({"split": {}}, "holds a dict of ['split']; pyskl's format"),
        ({"annotations": []}, "'annotations' without clips"),
        ({"annotations": {"a": 1}}, "'annotations' without clips"),
        ({"annotations": [5]}, "Clip 0 of pickle"),
        (clip(frame_dir=None), "has no name"),
        (clip(label=None), "has the label None"),
        (clip(label=-1), "has the label -1"),
        (clip(label=1.5), "has the label 1.5"),
        (clip(label=True), "has the label True"),
        (clip(keypoint=None), "has no 'keypoint'"),
        (clip(keypoint=None, raw_file="x.npy"), "the Kinetics form"),
        (clip(keypoint=[[1, 2]]), "a keypoint of a list"),
        (clip(keypoint=poses()[0]), "a keypoint of shape (4, 25, 3)"),
        (clip(keypoint=poses()[:0]), "a keypoint of shape (0, 4, 25, 3)"),
        (clip(keypoint=np.array([["a"]])), "type <U1"),
        (clip(keypoint=poses(1, 4, 17)[..., :2]), "holds 2-D poses (keypoint (1, 4, 17, 2))"),
        (clip(keypoint=poses()[..., :1]), "has 1 numbers per joint"),
        (clip(total_frames=5), "says total_frames 5 but its keypoint has 4"),
        (clip(subject=[1]), "has subject = [1]"),
        ({"annotations": clip()["annotations"] * 2}, "names two clips 'a'"),
        (clip() | {"split": ["a"]}, "a 'split' that is a list"),
        (clip() | {"split": {"train": "a"}}, "a split 'train' that is not a list of clip names"),
        (clip() | {"split": {"train": [1]}}, "a split 'train' that is not a list of clip names"),
        (clip() | {"class_names": "walk"}, "'class_names' that are not a list"),
    ],
)
def test_misfits(tmp_path: Path, whole: Any, sentence: str) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(InputError) as e:
        read_pyskl_pickle(tmp_path / "x.pkl")
    assert sentence in str(e.value) and str(tmp_path / "x.pkl") in str(e.value)


def test_only_two_keypoint_types_are_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown keypoint type 'int8'. Known: float16, float32"):
        write_pyskl_pickle(tmp_path / "x.pkl", content(), "int8")
