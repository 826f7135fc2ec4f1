"""Every registered dataset, and the real files of those whose raw data are at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from motionsynth.datasets import DATASETS, get_dataset
from motionsynth.datasets.sbu import FOLDS
from motionsynth.errors import InputError
from motionsynth.formats.ui_prmd_txt import PARENTS
from motionsynth.motion import MotionSet, invalid_reason, mirrored_labels, right_axis
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import partition

RawSet = Callable[[str], MotionSet]

# Raw files, classes, subjects, and how many clips `invalid_reason` lets through.
COUNTS = {
    "nucla": (1484, 10, 10, 1482),
    "ui_prmd": (2000, 20, 10, 2000),
    "sbu": (282, 8, 21, 282),
    "utd_mhad": (861, 27, 8, 861),
}
SPLITS = {
    ("nucla", "cross_subject"): (724, 760),
    ("nucla", "cross_view"): (1020, 464),
    ("nucla", "cross_view_no_copies"): (925, 464),
    ("ui_prmd", "cross_subject"): (1000, 1000),
    ("utd_mhad", "cross_subject"): (431, 430),
    ("sbu", "fold1"): (227, 55),
    ("sbu", "fold5"): (217, 65),
}


@cache
def _read(name: str, data: Path) -> MotionSet:
    info = get_dataset(name)
    motions = tuple(info.read(path) for path in info.find(data / name))
    return MotionSet(
        dataset=name, skeleton=get_skeleton(info.skeleton), class_names=info.class_names, motions=motions
    )


@pytest.fixture(scope="module")
def raw_set(shared_data: Path) -> RawSet:
    """All clips of a dataset through its own reader, invalid ones included."""
    return lambda name: _read(name, shared_data)


def test_unknown_dataset_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^Unknown dataset 'nucl'\. Known: .*nucla.*\.$"):
        get_dataset("nucl")


@pytest.mark.parametrize("name", DATASETS)
def test_info_agrees_with_itself(name: str) -> None:
    info = DATASETS[name]
    assert info.name == name
    get_skeleton(info.skeleton)
    names = [split.name for split in info.splits]
    assert len(set(names)) == len(names) > 0
    assert [info.split(n).name for n in names] == names
    with pytest.raises(InputError, match=names[0]):
        info.split("no_such_split")


@pytest.mark.parametrize("name", DATASETS)
def test_folder_without_the_files_says_which_it_needs(name: str, tmp_path: Path) -> None:
    for raw in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            DATASETS[name].find(raw)
        assert str(raw) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", COUNTS)
def test_file_with_a_foreign_name_gives_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must look like .*\.$"):
        DATASETS[name].read(tmp_path / "holiday.json")


@pytest.mark.parametrize("name", COUNTS)
def test_all_raw_files_are_read(name: str, raw_set: RawSet) -> None:
    files, classes, subjects, kept = COUNTS[name]
    motions = raw_set(name)
    assert len(motions) == files
    assert len({m.sample_id for m in motions.motions}) == files
    assert len(set(motions.labels.tolist())) == motions.num_classes == classes
    assert len({m.subject for m in motions.motions}) == subjects
    assert all(m.dataset == name and m.label_name == motions.class_names[m.label] for m in motions.motions)
    reasons = {m.sample_id: invalid_reason(m, motions.skeleton) for m in motions.motions}
    dropped = {k: v for k, v in reasons.items() if v}
    assert len(motions) - len(dropped) == kept
    if name == "nucla":
        assert set(dropped) == {"a02_s09_e04_v02", "a02_s09_e04_v03"}
        assert all("1 frame" in reason for reason in dropped.values())


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_official_splits_have_their_sizes_and_do_not_overlap(name: str, split: str, raw_set: RawSet) -> None:
    train, test = partition(raw_set(name), get_dataset(name).split(split))
    assert (len(train), len(test)) == SPLITS[name, split]
    assert not set(train) & set(test)


@pytest.mark.parametrize("name", COUNTS)
def test_bodies_are_right_handed_upright_and_of_human_size(name: str, raw_set: RawSet) -> None:
    """Up x right is forward: where the toes point, and the side of hip and ankle on which a bent knee is."""
    motions = raw_set(name)
    s = motions.skeleton
    ankle = "ankle" if "left_ankle" in s.joints else "foot"
    ahead, size, upright = [], [], []
    for m in motions.motions:
        for p in m.positions:
            forward = np.cross([0.0, 1.0, 0.0], right_axis(p, s))
            to_front = np.zeros(len(p))
            for side in ("left", "right"):
                hip, knee, foot = (p[:, s.index(f"{side}_{j}")] for j in ("hip", "knee", ankle))
                toes = p[:, s.index(f"{side}_foot")] - foot if ankle == "ankle" else knee - (hip + foot) / 2
                to_front += (toes * forward).sum(-1)
            ahead.append(np.median(to_front) > 0 if ankle == "ankle" else np.percentile(to_front, 90) > 0)
            height = p[:, s.index("head"), 1] - np.minimum(
                p[:, s.index("left_foot"), 1], p[:, s.index("right_foot"), 1]
            )
            size.append(height.max())
            upright.append(np.median(p[:, s.index("head"), 1] - p[:, s.torso["pelvis"], 1]) > 0)
    assert np.mean(ahead) > 0.95
    assert np.mean(upright) > 0.95
    assert 1.2 < np.median(size) < 1.8


def test_nucla_test_camera_repeats_training_clips_unless_they_are_left_out(raw_set: RawSet) -> None:
    motions, info = raw_set("nucla"), get_dataset("nucla")
    repeated = {}
    for name in ("cross_subject", "cross_view", "cross_view_no_copies"):
        train, test = partition(motions, info.split(name))
        seen = {motions.motions[i].positions.tobytes() for i in train}
        repeated[name] = sum(motions.motions[i].positions.tobytes() in seen for i in test)
        assert set(motions.labels[train]) == set(motions.labels[test]) == set(range(10))
    assert repeated == {"cross_subject": 0, "cross_view": 95, "cross_view_no_copies": 0}


def test_nucla_holds_one_body_per_clip(raw_set: RawSet) -> None:
    """Where two people's frames alternate, a frame is far more like the one after the next."""
    for m in raw_set("nucla").motions:
        p = m.positions[0]
        next_one = np.linalg.norm(np.diff(p, axis=0), axis=-1).mean(-1)
        after_next = np.linalg.norm(p[2:] - p[:-2], axis=-1).mean(-1)
        alternating = (next_one[:-1] > 0.2) & (next_one[1:] > 0.2) & (after_next < 0.5 * next_one[:-1])
        assert alternating.sum() <= 1, m.sample_id


def test_nucla_actor_of_mended_clips_is_the_one_who_bends_down(raw_set: RawSet) -> None:
    mended = {m.sample_id: m for m in raw_set("nucla").motions if m.sample_id.startswith("a01_s08")}
    assert [mended[f"a01_s08_e{e}_v01"].num_frames for e in ("00", "02", "03")] == [21, 115, 36]
    for e in ("00", "02", "03"):
        height = mended[f"a01_s08_e{e}_v01"].positions[0, :, 0, 1]
        assert height[0] - height.min() > 0.3


def test_ui_prmd_feet_stay_on_the_floor_in_squats_and_sit_to_stand(raw_set: RawSet) -> None:
    motions = raw_set("ui_prmd")
    ankles = [motions.skeleton.index(j) for j in ("left_ankle", "right_ankle")]
    for name, limit in (("deep squat correct", 0.05), ("sit to stand correct", 0.04)):
        wander = []
        for m in motions.motions:
            if m.label_name == name:
                p = m.positions[0][:, ankles]
                wander.append(np.sqrt(((p - p.mean(0)) ** 2).sum(-1).mean(0)).mean())
        assert len(wander) == 100 and np.median(wander) < limit


def test_ui_prmd_bones_are_as_long_as_the_offsets_in_the_file(shared_data: Path) -> None:
    info = get_dataset("ui_prmd")
    path = info.find(shared_data / "ui_prmd")[7]
    raw = np.loadtxt(path, delimiter=",").reshape(-1, 22, 3)
    p = info.read(path).positions[0]
    for v, parent in enumerate(PARENTS):
        if parent >= 0:
            got, want = (
                np.linalg.norm(p[:, v] - p[:, parent], axis=-1),
                np.linalg.norm(raw[:, v], axis=-1) / 100,
            )
            np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("name", ["ui_prmd", "nucla", "sbu"])
def test_class_names_do_not_speak_of_sides_by_accident(name: str) -> None:
    """A clip and its mirror image are the same class here; "incorrect" must not count as "right"."""
    names = get_dataset(name).class_names
    assert mirrored_labels(names).tolist() == list(range(len(names)))


def test_ui_prmd_classes_pair_up_by_movement() -> None:
    names = get_dataset("ui_prmd").class_names
    assert len(names) == 20
    for movement in range(10):
        correct, incorrect = names[2 * movement : 2 * movement + 2]
        assert incorrect == correct.removesuffix("correct") + "incorrect"


def test_sbu_folds_cover_every_pair_of_the_data_once(raw_set: RawSet) -> None:
    pairs = [pair for fold in FOLDS for pair in fold]
    assert len(pairs) == len(set(pairs)) == 21
    assert set(pairs) == {m.subject for m in raw_set("sbu").motions}


def test_sbu_people_face_each_other(raw_set: RawSet) -> None:
    motions = raw_set("sbu")
    facing = []
    for m in motions.motions:
        place = m.positions[:, :, motions.skeleton.root]
        for i in (0, 1):
            forward = np.cross([0.0, 1.0, 0.0], right_axis(m.positions[i], motions.skeleton))
            facing.append(((place[1 - i] - place[i]) * forward).sum(-1).mean() > 0)
    assert np.mean(facing) > 0.85


def test_sbu_bones_do_not_grow_with_distance_from_the_camera(raw_set: RawSet) -> None:
    motions = raw_set("sbu")
    frames = np.concatenate([m.positions.reshape(-1, 15, 3) for m in motions.motions])
    trunk = np.linalg.norm(
        frames[:, motions.skeleton.index("neck")] - frames[:, motions.skeleton.root], axis=-1
    )
    slope = np.polyfit(np.log(frames[:, motions.skeleton.root, 2]), np.log(trunk), 1)[0]
    assert abs(slope) < 0.1


def test_utd_mhad_moves_the_hand_that_the_class_names(raw_set: RawSet) -> None:
    motions = raw_set("utd_mhad")
    hands = [motions.skeleton.index(j) for j in ("left_hand", "right_hand")]
    right, lunge = [], []
    for m in motions.motions:
        moved = np.ptp(m.positions[0][:, hands], axis=0).max(-1)
        if m.label_name.startswith("right"):
            right.append(moved[1] > moved[0])
        if m.label_name == "left foot forward lunge":
            p = m.positions[0]
            ahead = p[:, motions.skeleton.index("left_foot")] - p[:, motions.skeleton.index("right_foot")]
            lunge.append(
                (ahead * np.cross([0.0, 1.0, 0.0], right_axis(p, motions.skeleton))).sum(-1).max() > 0.3
            )
    assert np.mean(right) > 0.95 and np.mean(lunge) == 1.0
