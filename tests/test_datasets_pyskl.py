import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motionsynth.datasets.pyskl import pyskl_motions, write_pyskl
from motionsynth.errors import InputError
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import Split, partition

KINECT20 = get_skeleton("kinect20")


@pytest.fixture
def write(tmp_path: Path):
    def write(names: list[str], split: Any = None, **fields: list) -> Path:
        """A pickle of one clip per name; labels count up to 2; further fields per clip."""
        annotations = []
        for i, name in enumerate(names):
            x = np.random.default_rng(i).normal(size=(1, 3 + i, 20, 3)).astype(np.float16)
            extra = {k: v[i] for k, v in fields.items() if v[i] is not None}
            annotations.append(
                {"frame_dir": name, "label": i % 3, "keypoint": x, "total_frames": 3 + i} | extra
            )
        if split is None:
            split = {"train": names[:1], "val": names[1:]}
        path = tmp_path / "clips.pkl"
        path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
        return path

    return write


def test_clips_and_defaults(write) -> None:
    motions, splits = pyskl_motions(write(["a", "b", "c"]), KINECT20)
    assert motions.dataset == "clips" and motions.skeleton is KINECT20
    assert motions.class_names == ("class 0", "class 1", "class 2")
    first = motions.motions[0]
    assert (first.sample_id, first.label, first.label_name, first.fps) == ("a", 0, "class 0", 30.0)
    assert first.positions.shape == (1, 3, 20, 3) and first.positions.dtype == np.float32
    assert first.subject == first.view == "" and first.source == "real"
    (split,) = splits
    assert split.name == "default" and split.by == "sample_id" and split.train == ("a",)
    train, test = partition(motions, split)
    assert train.tolist() == [0] and test.tolist() == [1, 2]


def test_options(write) -> None:
    path = write(["p1_cam1", "p2_cam2"])
    motions, _ = pyskl_motions(
        path, KINECT20, ["x", "y", "z"], subject_pattern=r"p(\d)", view_pattern=r"cam(\d)", fps=25
    )
    assert motions.class_names == ("x", "y", "z") and motions.num_classes == 3
    assert [(m.subject, m.view, m.fps) for m in motions.motions] == [("1", "1", 25), ("2", "2", 25)]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"xsub_train": ["a"], "xsub_val": ["b"]}, {"xsub": ("a", "b")}),
        (
            {"xsub_train": ["a"], "xsub_val": ["b"], "xview_train": ["b"], "xview_val": ["c"]},
            {"xsub": ("a", "b"), "xview": ("b", "c")},
        ),
        (
            {"train1": ["a"], "test1": ["b"], "train2": ["b"], "test2": ["a"]},
            {"split1": ("a", "b"), "split2": ("b", "a")},
        ),
        ({"train": ["a"], "test": ["b"]}, {"default": ("a", "b")}),
        ({"train": ["a"], "val": ["c"], "test": ["b"]}, {"default": ("a", "b")}),
        ({"fold_train_1": ["a"], "fold_test_1": ["b"]}, {"fold1": ("a", "b")}),
    ],
)
def test_pairs_of_lists_become_splits(write, split: dict, expected: dict) -> None:
    _, splits = pyskl_motions(write(["a", "b", "c"], split), KINECT20)
    assert {s.name: (s.train[0], s.test[0]) for s in splits} == expected


def test_unpaired_lists_and_lost_names_are_logged(write, caplog: pytest.LogCaptureFixture) -> None:
    split = {"train": ["a", "gone", "a"], "val": ["b"], "all": ["a", "b"]}
    with caplog.at_level(logging.WARNING):
        _, (only,) = pyskl_motions(write(["a", "b"], split), KINECT20)
    assert only.train == ("a",)
    assert "the lists all have no partner" in caplog.text and "1 names of list 'train'" in caplog.text


def test_ntu_names_tell_subject_and_view(write) -> None:
    motions, _ = pyskl_motions(write(["S001C002P003R001A005", "S001C003P004R001A005"]), KINECT20)
    assert [(m.subject, m.view) for m in motions.motions] == [("003", "002"), ("004", "003")]


def test_fields_win_over_ntu_names_and_patterns_over_fields(write) -> None:
    path = write(["S001C002P003R001A005", "S001C003P004R001A005"], subject=["anna", "ben"], view=[1, 2])
    motions, _ = pyskl_motions(path, KINECT20)
    assert [(m.subject, m.view) for m in motions.motions] == [("anna", "1"), ("ben", "2")]
    motions, _ = pyskl_motions(path, KINECT20, subject_pattern=r"R(\d{3})")
    assert [m.subject for m in motions.motions] == ["001", "001"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"skeleton": get_skeleton("kinect25")},
            "Clip 'a' of pickle '.*' has 20 joints; skeleton 'kinect25' has 25",
        ),
        ({"class_names": ["x"]}, "Clip 'c' of pickle '.*' has label 2, but there are only 1 class names"),
        ({"class_names": []}, "there are only 0 class names"),
        ({"class_names": ["x", "y", "x"]}, "are not unique"),
        ({"subject_pattern": "("}, r"The subject pattern '\(' is not a regular expression"),
        ({"subject_pattern": "a"}, "has 0 groups; put one pair of parentheses"),
        ({"view_pattern": "(.)(.)"}, "The view pattern .* has 2 groups"),
        ({"subject_pattern": "(a)"}, "does not find a subject in the clip name 'b'"),
        ({"view_pattern": "(x*)"}, "does not find a view in the clip name 'a'"),
        ({"fps": 0}, "must be a positive number; got 0"),
    ],
)
def test_options_that_do_not_fit(write, options: dict, sentence: str) -> None:
    path = write(["a", "b", "c"])
    with pytest.raises(InputError, match=sentence):
        pyskl_motions(path, **({"skeleton": KINECT20} | options))


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (
            {},
            "has no lists in 'split'; it needs a pair such as xsub_train and xsub_val.*; or name the subject",
        ),
        ({"xsub_train": ["a"], "xset_val": ["b"]}, "has only the lists xset_val, xsub_train in 'split'"),
        (
            {"train": ["a"], "val": ["x1", "x2"]},
            "Split list 'val' of pickle '.*' names no clip of the file; it begins",
        ),
        ({"train": [], "val": ["a"]}, "Split list 'train' of pickle '.*' names no clip"),
        ({"train": ["a"], "val": ["a", "b"]}, r"has 1 keys on both sides \(a\)"),
    ],
)
def test_lists_that_do_not_fit(write, split: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pyskl_motions(write(["a", "b", "c"], split), KINECT20)


def test_without_lists_people_are_halved(write) -> None:
    (halves,) = pyskl_motions(write(["a", "b", "c"], {}, subject=["ann", "bob", "cy"]), KINECT20)[1]
    assert (halves.name, halves.by) == ("cross_subject", "subject")
    assert {*halves.train, *halves.test} == {"ann", "bob", "cy"} and halves.train and halves.test
    with pytest.raises(InputError, match="has only the lists train"):
        pyskl_motions(write(["a", "b", "c"], {"train": ["a"]}, subject=["ann", "bob", "cy"]), KINECT20)


def test_a_field_that_only_some_clips_have(write) -> None:
    with pytest.raises(
        InputError, match="Clip 'b' of pickle '.*' lacks the field 'subject' that others have"
    ):
        pyskl_motions(write(["a", "b"], subject=["anna", None]), KINECT20)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_our_own_clips_come_back(tiny_set, tmp_path: Path, dtype: str) -> None:
    subjects = sorted({m.subject for m in tiny_set.motions})
    split = Split(name="cross_subject", by="subject", train=tuple(subjects[:2]), test=tuple(subjects[2:]))
    write_pyskl(tmp_path / "tiny.pkl", tiny_set, [split], dtype)
    got, (back,) = pyskl_motions(tmp_path / "tiny.pkl", tiny_set.skeleton, fps=tiny_set.motions[0].fps)
    assert got.class_names == tiny_set.class_names and back.name == "cross_subject"
    for a, b in zip(got.motions, tiny_set.motions, strict=True):
        assert (a.sample_id, a.label, a.label_name, a.subject, a.view) == (
            b.sample_id,
            b.label,
            b.label_name,
            b.subject,
            b.view,
        )
        np.testing.assert_allclose(a.positions, b.positions, atol=0 if dtype == "float32" else 2e-3)
    for ours, theirs in zip(partition(tiny_set, split), partition(got, back), strict=True):
        assert ours.tolist() == theirs.tolist()
