"""Draws: who is trained on, who judges, and which classes are short of clips."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.beds import BedSpec, held_out_people, make_bed, rare_classes, spread_over
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

SPLITS = (
    Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),
    Split(name="cross_view", by="view", train=("01",), test=("02",)),
)
MOTIONS = make_tiny_set(3)  # 24 clips per class: 3 repetitions x 4 subjects x 2 views


def ids(motions: MotionSet) -> list[str]:
    return [m.sample_id for m in motions.motions]


@given(classes=st.integers(3, 130), rotation=st.integers(0, 5), seed=st.integers(0, 1000))
def test_three_draws_rotate_through_all_classes(classes: int, rotation: int, seed: int) -> None:
    draws = [rare_classes(classes, 3 * rotation + d, seed) for d in range(3)]
    assert sorted(sum(draws, ())) == list(range(classes))
    assert max(map(len, draws)) - min(map(len, draws)) <= 1


def test_seed_and_rotation_change_the_rare_classes() -> None:
    assert len({rare_classes(60, 0, seed) for seed in range(5)}) == 5
    assert rare_classes(60, 0, 0) != rare_classes(60, 3, 0)


specs = st.builds(
    BedSpec,
    protocol=st.sampled_from([s.name for s in SPLITS]),
    scarcity=st.sampled_from(["rare", "few", "fraction", "full"]),
    shots=st.integers(2, 30),
    fraction=st.floats(0.05, 1),
    draw=st.integers(0, 7),
    split=st.sampled_from(["validation", "test"]),
    seed=st.integers(0, 50),
)


@settings(max_examples=150)
@given(spec=specs)
def test_no_draw_leaks_and_every_class_has_its_share(spec: BedSpec) -> None:
    bed = make_bed(MOTIONS, SPLITS, spec)
    split = next(s for s in SPLITS if s.name == spec.protocol)
    train, full, evaluate = (set(ids(s)) for s in (bed.train, bed.full, bed.evaluate))
    assert train <= full and not full & evaluate and evaluate
    assert len(train) == len(bed.train) and len(evaluate) == len(bed.evaluate)  # nothing twice
    # Nobody (on test: no key of the split) is on both sides.
    sides = [{split.key(m) for m in s.motions} for s in (bed.full, bed.evaluate)]
    people = [{m.subject for m in s.motions} for s in (bed.full, bed.evaluate)]
    if spec.split == "test":
        assert not sides[0] & sides[1] and sides[1] <= set(split.test)
        assert full == {m.sample_id for m in MOTIONS.motions if split.side(m) == "train"}
    else:
        assert not people[0] & people[1]
        # The test half is not read: not for training and not for judging.
        assert all(split.side(m) == "train" for s in (bed.full, bed.evaluate) for m in s.motions)
    whole, kept = Counter(bed.full.labels.tolist()), Counter(bed.train.labels.tolist())
    for c in range(3):
        wanted = {
            "rare": min(spec.shots, whole[c]) if c in bed.rare else whole[c],
            "few": min(spec.shots, whole[c]),
            "fraction": min(max(2, round(spec.fraction * whole[c])), whole[c]),
            "full": whole[c],
        }[spec.scarcity]
        assert kept[c] == wanted
    assert len(bed.rare) == {"rare": 1, "few": 3, "fraction": 3, "full": 0}[spec.scarcity]
    assert ids(make_bed(MOTIONS, SPLITS, spec).train) == ids(bed.train)


def test_shots_are_spread_over_people() -> None:
    for draw in range(6):
        bed = make_bed(MOTIONS, SPLITS, BedSpec(shots=4, draw=draw, split="test"))
        (rare,) = bed.rare
        people = Counter(m.subject for m in bed.train.motions if m.label == rare)
        assert sorted(people.values()) == [1, 1, 2]


def test_spreading_takes_everyone_in_turn() -> None:
    people = ["a"] * 10 + ["b"] * 2 + ["c"]
    rng = np.random.default_rng(0)
    chosen = spread_over(people, np.arange(13), 6, rng)
    assert Counter(people[i] for i in chosen) == {"a": 3, "b": 2, "c": 1}
    assert list(chosen) == sorted(set(chosen))
    assert list(spread_over(people, np.arange(3), 5, rng)) == [0, 1, 2]
    # Which clips of a person it takes is left to chance.
    assert len({tuple(spread_over(people, np.arange(13), 3, np.random.default_rng(s))) for s in range(9)}) > 3


def test_draws_differ_and_test_draws_share_their_ceiling() -> None:
    beds = [make_bed(MOTIONS, SPLITS, BedSpec(shots=3, draw=d, split="test")) for d in (0, 3, 6)]
    assert all(ids(b.full) == ids(beds[0].full) and ids(b.evaluate) == ids(beds[0].evaluate) for b in beds)
    assert len({tuple(ids(b.train)) for b in beds}) == 3


def test_every_training_person_judges_once_in_three_draws() -> None:
    train = np.arange(len(MOTIONS))
    folds = [held_out_people(MOTIONS, train, draw, seed=1) for draw in range(3)]
    assert sorted(p for f in folds for p in f) == ["01", "02", "03", "04"]
    assert folds[0] == held_out_people(MOTIONS, train, 3, seed=1)


def test_keys_name_their_bed() -> None:
    base = BedSpec()
    changes = [
        {"protocol": "cross_view"}, {"scarcity": "few"}, {"scarcity": "full"}, {"scarcity": "natural"},
        {"scarcity": "fraction"}, {"shots": 5}, {"draw": 1}, {"split": "test"}, {"seed": 3},
        {"scarcity": "fraction", "fraction": 0.5},
    ]  # fmt: skip
    keys = {base.key, *(replace(base, **c).key for c in changes)}
    assert len(keys) == len(changes) + 1
    assert all(set(k) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") for k in keys)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scarcity": "none"}, "Unknown scarcity 'none'. Known: rare, few, fraction, natural, full"),
        ({"split": "train"}, "Unknown split 'train'. Known: validation, test"),
        ({"shots": 1}, "shots is 1; a rare class needs at least 2"),
        ({"fraction": 0.0}, "fraction is 0.0; it must lie above 0"),
        ({"fraction": 1.2}, "fraction is 1.2"),
        ({"draw": -1}, "draw is -1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_a_wrong_spec_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        BedSpec(**change)


def test_an_unknown_protocol_names_those_there_are() -> None:
    with pytest.raises(InputError, match="no protocol 'fold9'. Known: cross_subject, cross_view"):
        make_bed(MOTIONS, SPLITS, BedSpec(protocol="fold9"))
    with pytest.raises(InputError, match="Known: none"):
        make_bed(MOTIONS, (), BedSpec())


def test_too_few_people_or_classes_are_refused() -> None:
    lonely = (Split(name="cross_subject", by="subject", train=("01",), test=("02",)),)
    with pytest.raises(InputError, match="shows 1 person; validation needs at least 2"):
        make_bed(MOTIONS, lonely, BedSpec())
    assert len(make_bed(MOTIONS, lonely, BedSpec(split="test")).evaluate) == 18
    two = replace(
        MOTIONS, class_names=MOTIONS.class_names[:2], motions=tuple(m for m in MOTIONS.motions if m.label < 2)
    )
    with pytest.raises(InputError, match="has 2 classes; scarcity 'rare'"):
        make_bed(two, SPLITS, BedSpec())
    assert make_bed(two, SPLITS, BedSpec(scarcity="few", shots=2)).rare == (0, 1)


def test_an_empty_side_is_refused() -> None:
    nobody = (Split(name="cross_subject", by="subject", train=("01", "02"), test=("99",)),)
    with pytest.raises(InputError, match="leaves no test clip"):
        make_bed(MOTIONS, nobody, BedSpec(split="test"))
