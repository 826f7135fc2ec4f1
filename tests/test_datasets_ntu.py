import logging
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from motionsynth.datasets.info import DatasetInfo
from motionsynth.datasets.ntu import CLASS_NAMES
from motionsynth.datasets.ntu60 import NTU60
from motionsynth.datasets.ntu120 import NTU120
from motionsynth.datasets.ntu120_harmful import ACTIONS, NTU120_HARMFUL
from motionsynth.datasets.ntu_missing import MISSING
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, invalid_reason
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import partition
from tests.test_formats_ntu_skeleton import frames_of, skeleton_text, standing

both = pytest.mark.parametrize("info", [NTU60, NTU120], ids=lambda d: d.name)


def named(name: str) -> Motion:
    """A clip that is only its name."""
    return Motion(
        positions=np.ones((1, 2, 25, 3), np.float32),
        fps=30.0,
        skeleton="kinect25",
        label=int(name[-3:]) - 1,
        label_name="",
        sample_id=name,
        subject=name[9:12],
        view=name[5:8],
        repetition=name[13:16],
    )


def clips(names: list[str] | frozenset[str], info: DatasetInfo) -> MotionSet:
    return MotionSet(
        dataset=info.name,
        skeleton=get_skeleton("kinect25"),
        class_names=info.class_names,
        motions=tuple(named(n) for n in names),
    )


def all_names(setups: int, subjects: int, actions: list[int]) -> list[str]:
    """Every performer in every setup, which is more than was recorded."""
    return [
        f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}"
        for s, c, p, r, a in product(
            range(1, setups + 1), range(1, 4), range(1, subjects + 1), range(1, 3), actions
        )
    ]


def test_class_names() -> None:
    assert len(CLASS_NAMES) == 120 and len(NTU60.class_names) == 60 and NTU120.class_names == CLASS_NAMES
    at = dict(zip(range(1, 121), CLASS_NAMES, strict=True))
    assert at[1] == "drink water" and at[43] == "falling" and at[49].startswith("use a fan")
    assert [at[k] for k in (50, 51, 52)] == [
        "punching/slapping other person",
        "kicking other person",
        "pushing other person",
    ]
    assert at[60] == "walking apart from each other" and at[61] == "put on headphone"
    assert [at[k].split()[0] for k in (106, 107, 108, 110, 120)] == [
        "hit",
        "wield",
        "knock",
        "shoot",
        "finger-guessing",
    ]


def test_cross_subject_lists_halve_the_people() -> None:
    for info, people in ((NTU60, 40), (NTU120, 106)):
        split = info.split("cross_subject")
        assert len(split.train) == len(split.test) == people // 2
        assert {*split.train, *split.test} == {f"{p:03d}" for p in range(1, people + 1)}
    ours = set(NTU120.split("cross_subject").train)
    assert set(NTU60.split("cross_subject").train) == {p for p in ours if p <= "040"}


@both
def test_splits_of_all_names_follow_from_the_parts_of_the_name(info: DatasetInfo) -> None:
    people, setups = (40, 17) if info is NTU60 else (106, 32)
    motions = clips(all_names(setups, people, [1, len(info.class_names)]), info)
    for split in info.splits:
        train, test = partition(motions, split)
        assert sorted([*train, *test]) == list(range(len(motions)))
        for indices, listed in ((train, split.train), (test, split.test)):
            assert {split.key(motions.motions[i]) for i in indices} == set(listed)
        share = {"cross_subject": 1 / 2, "cross_view": 2 / 3, "cross_setup": 1 / 2}[split.name]
        assert len(train) == pytest.approx(share * len(motions))
        # Nobody and nothing of the protocol's kind is on both sides.
        assert not {split.key(motions.motions[i]) for i in train} & {
            split.key(motions.motions[i]) for i in test
        }


# Usable clips per side, as the field counts them (pyskl, CTR-GCN).
USABLE = {
    ("ntu60", "cross_subject"): (40_091, 16_487),
    ("ntu60", "cross_view"): (37_646, 18_932),
    ("ntu120", "cross_subject"): (63_026, 50_919),
    ("ntu120", "cross_setup"): (54_468, 59_477),
}


def test_missing_list_has_the_published_lengths() -> None:
    assert len(MISSING) == 535
    assert sum(n[-3:] <= "060" for n in MISSING) == 302
    assert sum(n[1:4] <= "017" for n in MISSING) == 302


@both
def test_missing_clips_and_splits_give_the_fields_counts(info: DatasetInfo) -> None:
    """A side is made of whole recordings: 60 actions by 2 repetitions (by 3 cameras) less the missing clips.

    So each usable count plus the listed clips on that side must be a multiple; one wrong subject, one wrong
    side or one mistyped name breaks it. The totals are the datasets' 56,880 and 114,480 clips.
    """
    missing = clips([n for n in sorted(MISSING) if int(n[-3:]) <= len(info.class_names)], info)
    for split in info.splits:
        lost = [len(part) for part in partition(missing, split)]
        usable = USABLE[info.name, split.name]
        assert sum(lost) == len(missing)
        block = 120 if split.name == "cross_view" else 360
        recorded = [u + n for u, n in zip(usable, lost, strict=True)]
        assert all(n % block == 0 for n in recorded)
        assert sum(recorded) == (56_880 if info is NTU60 else 114_480)
        if split.name == "cross_view":
            assert recorded[0] == 2 * recorded[1]


def test_missing_clips_of_the_seven_harmful_actions() -> None:
    """Usable clips per class as counted from CTR-GCN's name list; 948 or 960 were recorded."""
    usable = {50: 941, 51: 945, 52: 946, 106: 959, 107: 960, 108: 959, 110: 958}
    for action, count in usable.items():
        lost = sum(int(n[-3:]) == action for n in MISSING)
        assert count + lost == (948 if action <= 60 else 960)


# Usable clips of the seven harmful actions per (train, test), as counted from CTR-GCN's name list.
HARMFUL = {
    "cross_subject": {
        50: (667, 274), 51: (669, 276), 52: (670, 276), 106: (384, 575), 107: (384, 576), 108: (383, 576),
        110: (383, 575),
    },
    "cross_view": {
        50: (628, 313), 51: (631, 314), 52: (631, 315), 106: (639, 320), 107: (640, 320), 108: (640, 319),
        110: (638, 320),
    },
    "cross_setup": {
        50: (442, 499), 51: (443, 502), 52: (443, 503), 106: (468, 491), 107: (468, 492), 108: (468, 491),
        110: (468, 490),
    },
}  # fmt: skip
HARMFUL_TOTAL = {"cross_subject": (3540, 3128), "cross_view": (4447, 2221), "cross_setup": (3200, 3468)}


@pytest.mark.parametrize("split", HARMFUL)
def test_the_seven_harmful_actions_fit_the_fields_counts(split: str) -> None:
    """As above, class by class: usable plus missing clips of a side are whole recordings (2 repetitions x cameras)."""
    official = NTU120_HARMFUL.split(split)
    table = HARMFUL[split]
    assert tuple(sum(side) for side in zip(*table.values(), strict=True)) == HARMFUL_TOTAL[split]
    assert f"{HARMFUL_TOTAL[split][0]:,} and {HARMFUL_TOTAL[split][1]:,}" in official.note
    for action, usable in table.items():
        lost = Counter(official.side(named(n)) for n in MISSING if int(n[-3:]) == action)
        recorded = [usable[0] + lost["train"], usable[1] + lost["test"]]
        assert sum(recorded) == (948 if action <= 60 else 960)
        if split == "cross_view":
            assert recorded[0] == 2 * recorded[1]
        else:
            assert all(n % 6 == 0 for n in recorded)


def test_the_harmful_subset_is_found_among_other_files_and_relabelled(raw: Path) -> None:
    assert ACTIONS == (50, 51, 52, 106, 107, 108, 110) and len(NTU120_HARMFUL.class_names) == 7
    (found,) = NTU120_HARMFUL.find(raw)
    clip = NTU120_HARMFUL.read(found)
    assert (clip.sample_id, clip.label, clip.dataset) == ("S002C003P003R002A050", 0, "ntu120_harmful")
    last = found.rename(found.with_name("S020C001P045R001A110.skeleton"))
    clip = NTU120_HARMFUL.read(last)
    assert (clip.label, clip.label_name) == (6, NTU120_HARMFUL.class_names[6])
    assert clip.label_name.startswith("shoot")
    assert {s.name: s.side(clip) for s in NTU120_HARMFUL.splits} == {
        "cross_subject": "train", "cross_view": "test", "cross_setup": "train",
    }  # fmt: skip
    other = last.rename(last.with_name("S020C001P045R001A109.skeleton"))
    with pytest.raises(InputError, match="action A109; dataset 'ntu120_harmful' has A050, A051"):
        NTU120_HARMFUL.read(other)
    with pytest.raises(InputError, match="holds none of the expected files.*A106"):
        NTU120_HARMFUL.find(raw)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A small download: two archives unpacked side by side, one listed clip, one stray file."""
    for name in (
        "nturgb+d_skeletons/S001C001P001R001A001",
        "nturgb+d_skeletons/S002C003P003R002A050",
        "nturgb+d_skeletons/S001C002P005R002A008",
        "nturgb+d_skeletons120/S018C001P008R001A061",
    ):
        path = tmp_path / f"{name}.skeleton"
        path.parent.mkdir(exist_ok=True)
        x = {"b1": (0, standing(0, 0.3, 15)), "b2": (0, standing(1, 0.1, 15))}
        path.write_text(skeleton_text([{}] * 15 if name.endswith("A008") else frames_of(15, **x)))
    (tmp_path / "nturgb+d_skeletons" / "README.txt").write_text("hello")
    return tmp_path


def test_find_takes_the_usable_files_of_the_dataset(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert [p.stem for p in NTU60.find(raw)] == ["S001C001P001R001A001", "S002C003P003R002A050"]
    assert "1 of 3 files are on the authors' list" in caplog.text
    assert [p.stem for p in NTU120.find(raw)] == [
        "S001C001P001R001A001",
        "S002C003P003R002A050",
        "S018C001P008R001A061",
    ]


def test_read_gives_identity_and_a_valid_motion(raw: Path) -> None:
    motion = NTU60.read(NTU60.find(raw)[1])
    assert (motion.sample_id, motion.subject, motion.view, motion.repetition) == (
        "S002C003P003R002A050",
        "003",
        "003",
        "002",
    )
    assert motion.label == 49 and motion.label_name == "punching/slapping other person"
    assert motion.positions.shape == (2, 15, 25, 3) and motion.dataset == "ntu60" and motion.fps == 30
    assert invalid_reason(motion, get_skeleton("kinect25")) is None
    sides = {s.name: s.side(motion) for s in NTU60.splits}
    assert sides == {"cross_subject": "test", "cross_view": "train"}
    last = NTU120.read(NTU120.find(raw)[2])
    assert last.label == 60 and last.label_name == "put on headphone" and last.dataset == "ntu120"
    assert NTU120.split("cross_setup").side(last) == "train"


def test_a_missing_skeleton_says_so(raw: Path) -> None:
    listed = raw / "nturgb+d_skeletons" / "S001C002P005R002A008.skeleton"
    with pytest.raises(
        InputError, match="holds no body .*on the authors' list of missing or incomplete skeletons"
    ):
        NTU60.read(listed)
    unlisted = listed.with_name("S001C001P002R001A001.skeleton")
    unlisted.write_text("3\n0\n0\n0\n")
    with pytest.raises(InputError, match="holds no body") as e:
        NTU60.read(unlisted)
    assert "list" not in str(e.value)


def test_files_of_other_datasets_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of action A061; dataset 'ntu60' has A001 to A060"):
        NTU60.read(raw / "nturgb+d_skeletons120" / "S018C001P008R001A061.skeleton")
    (tmp_path / "a.skeleton").write_text("")
    with pytest.raises(InputError, match="must look like S001C001P001R001A001.skeleton"):
        NTU120.read(tmp_path / "a.skeleton")


@both
def test_an_absent_download_names_the_files_expected(info: DatasetInfo, tmp_path: Path) -> None:
    expected = "SsssCcccPpppRrrrAaaa.skeleton"
    with pytest.raises(InputError, match=expected):
        info.find(tmp_path)
    with pytest.raises(InputError, match=expected):
        info.find(tmp_path / "absent")
    assert expected in info.layout and "own download" in info.layout and not info.may_redistribute


def test_only_other_actions(tmp_path: Path) -> None:
    (tmp_path / "S018C001P008R001A061.skeleton").write_text("0\n")
    with pytest.raises(InputError, match="A001 to A060"):
        NTU60.find(tmp_path)


def test_the_same_clip_twice(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "S001C001P001R001A001.skeleton").write_text("0\n")
    with pytest.raises(InputError, match="holds 'S001C001P001R001A001.skeleton' twice"):
        NTU60.find(tmp_path)
