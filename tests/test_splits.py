import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import Split, halve_people, partition


def clip(sample_id: str, subject: str = "1", view: str = "1") -> Motion:
    return Motion(
        positions=np.ones((1, 2, 20, 3), np.float32),
        fps=30.0,
        skeleton="kinect20",
        label=0,
        label_name="wave",
        sample_id=sample_id,
        subject=subject,
        view=view,
    )


def clips(*motions: Motion) -> MotionSet:
    return MotionSet(dataset="toy", skeleton=get_skeleton("kinect20"), class_names=("wave",), motions=motions)


def split(**changes) -> Split:
    fields: dict = {"name": "s", "by": "subject", "train": ("1", "3"), "test": ("2",)} | changes
    return Split(**fields)


def test_partition_by_subject_leaves_out_unlisted_keys() -> None:
    motions = clips(clip("a", "1"), clip("b", "2"), clip("c", "3"), clip("d", "4"), clip("e", "2"))
    train, test = partition(motions, split())
    assert train.tolist() == [0, 2] and test.tolist() == [1, 4]
    assert train.dtype == test.dtype == np.int64
    assert [split().side(m) for m in motions.motions] == ["train", "test", "train", "", "test"]


def test_partition_agrees_with_side_on_tiny_set(tiny_set) -> None:
    subjects = sorted({m.subject for m in tiny_set.motions})
    s = split(train=tuple(subjects[::2]), test=tuple(subjects[1::2]))
    train, test = partition(tiny_set, s)
    assert sorted([*train, *test]) == list(range(len(tiny_set)))
    assert all(s.side(tiny_set.motions[i]) == "train" for i in train)
    assert all(s.side(tiny_set.motions[i]) == "test" for i in test)


def test_pattern_takes_a_part_of_the_name() -> None:
    s = split(by="sample_id", pattern=r"S(\d{3})C", train=("002",), test=("001",))
    motions = clips(clip("S001C001P001R001A001"), clip("S002C001P001R001A001"), clip("other"))
    assert [s.key(m) for m in motions.motions] == ["001", "002", ""]
    train, test = partition(motions, s)
    assert train.tolist() == [1] and test.tolist() == [0]


def test_dict_round_trip_through_json() -> None:
    s = split(by="sample_id", pattern="(a)", note="a note")
    assert Split.from_dict(json.loads(json.dumps(s.to_dict()))) == s


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"by": "label"}, "by 'label'; allowed: subject, view, sample_id"),
        ({"train": ("1", "2")}, "1 keys on both sides (2)"),
        ({"pattern": "("}, "not a regular expression"),
        ({"pattern": "S"}, "without a group"),
    ],
)
def test_bad_split(changes: dict, sentence: str) -> None:
    with pytest.raises(InputError) as e:
        split(**changes)
    assert sentence in str(e.value)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"name": "x", "by": "view", "train": []}, "lacks ['test']"),
        ({"name": "x", "by": "view", "train": "12", "test": []}, "must be a list of keys"),
    ],
)
def test_bad_dict(broken: dict, sentence: str) -> None:
    with pytest.raises(InputError) as e:
        Split.from_dict(broken)
    assert sentence in str(e.value)


@pytest.mark.parametrize(("train", "test", "empty"), [(("9",), ("1",), "train"), (("1",), (), "test")])
def test_an_empty_side_is_refused(train: tuple, test: tuple, empty: str) -> None:
    with pytest.raises(InputError, match=f"no {empty} clip of the 1 in dataset 'toy'"):
        partition(clips(clip("a")), split(train=train, test=test))


@given(
    common=st.integers(2, 9),
    rare=st.lists(st.integers(2, 6), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_halves_have_everybody_and_every_class_on_both_sides(common: int, rare: list[int], order) -> None:
    """People who do what all do, and groups who each show one rare class besides."""
    shows = [(f"p{i}", {0, 1}) for i in range(common)]
    for c, n in enumerate(rare, start=2):
        shows += [(f"r{c}-{i}", {0, 1, c}) for i in range(n)]
    clips = [(who, c) for who, shown in shows for c in shown] + [("", 1)]
    made = halve_people(*zip(*clips, strict=True))
    assert made is not None and {*made.train, *made.test} == {who for who, _ in shows}
    for c in range(2 + len(rare)):
        sides = [sum(c in shown for who, shown in shows if who in side) for side in (made.train, made.test)]
        assert abs(sides[0] - sides[1]) <= 1 + (c < 2) * len(rare) and min(sides) > 0
    order.shuffle(clips)
    assert halve_people(*zip(*clips, strict=True)) == made


def test_halves_need_two_people() -> None:
    made = halve_people(["b", "", "a"], [0, 0, 0])
    assert made == split(name="cross_subject", train=("a",), test=("b",), note=made and made.note)
    assert halve_people(["a", "a", ""], [0, 1, 2]) is None and halve_people([], []) is None
