"""Classes that are rare by nature: nothing is cut, and whoever shows one is spread over the draws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionsynth.arms import BedTensors, score_arm
from motionsynth.beds import Bed, BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.protocol import arms_of
from motionsynth.recipes import get_recipe
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

PEOPLE = ("01", "02", "03", "04", "05", "06", "07", "08", "09")
SPLIT = Split(name="cross_subject", by="subject", train=PEOPLE[:6], test=PEOPLE[6:])
RARE = 2


def crowd(shows: dict[str, int]) -> MotionSet:
    """Nine people; class 2 has so many clips of each of them, the others have six."""
    tiny = make_tiny_set(3)
    by_class = [[m for m in tiny.motions if m.label == c and m.subject == "01"] for c in range(3)]
    motions = [
        replace(m, subject=person, sample_id=f"{person}-{m.sample_id}")
        for person in PEOPLE
        for c in range(3)
        for m in by_class[c][: shows.get(person, 0) if c == RARE else 6]
    ]
    return replace(tiny, motions=tuple(motions))


# Eight clips by three people train at most, and two people judge on test.
FEW = crowd({"01": 3, "03": 3, "06": 2, "07": 4, "08": 1})
NATURAL = BedSpec(scarcity="natural", shots=8)


def subjects(motions: MotionSet, label: int | None = None) -> set[str]:
    return {m.subject for m in motions.motions if label in (None, m.label)}


def bed_of(motions: MotionSet, spec: BedSpec = NATURAL, official: Split = SPLIT, **changes) -> Bed:
    return make_bed(motions, (official,), replace(spec, **changes))


def test_nothing_is_cut_and_rare_is_what_few_clips_show() -> None:
    test = bed_of(FEW, split="test")
    assert test.rare == (RARE,) and (test.train.labels == RARE).sum() == 8
    assert [m.sample_id for m in test.train.motions] == [m.sample_id for m in test.full.motions]
    assert len(test.train) == 6 * 12 + 8 and subjects(test.evaluate) == {*SPLIT.test}
    # Counted over the whole training half, so that all draws agree on what is rare.
    assert [bed_of(FEW, draw=d).rare for d in range(3)] == [(RARE,)] * 3
    assert bed_of(FEW, split="test", shots=36).rare == (0, 1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_every_draw_has_somebody_who_shows_a_rare_class(seed: int) -> None:
    """Left to chance, one seed in three would hold out a draw's people without one of the three who fall."""
    judges = []
    for draw in range(3):
        bed = bed_of(FEW, draw=draw, seed=seed)
        assert len(subjects(bed.evaluate, RARE)) == 1 and len(subjects(bed.train, RARE)) == 2
        assert not subjects(bed.evaluate) & subjects(bed.train)
        judges.append(subjects(bed.evaluate))
    assert set().union(*judges) == {*SPLIT.train} and sum(map(len, judges)) == 6
    # Nothing but the people differs between draws, so a fourth would count twice.
    with pytest.raises(
        InputError, match="Draw 3 of 'cross_subject' would repeat .*--draws 3, and more --seeds"
    ):
        bed_of(FEW, draw=3, seed=seed)


def test_a_draw_without_a_judge_or_a_second_time_is_one_sentence() -> None:
    two = crowd({"01": 3, "03": 3, "07": 1})
    assert bed_of(two, draw=1).rare == (RARE,)
    with pytest.raises(
        InputError, match=r"held out in draw 2 show none of .*\(wave right hand\).*--draws 2, or"
    ):
        bed_of(two, draw=2)
    with pytest.raises(InputError, match="held out in draw 0 show none .* measured; score with --split test"):
        bed_of(crowd({"01": 3, "07": 1}))
    with pytest.raises(
        InputError, match="test half of 'cross_subject' shows none .* choose another --protocol"
    ):
        bed_of(crowd({"01": 3, "02": 3}), split="test")
    with pytest.raises(InputError, match="Draw 1 of 'cross_subject' would repeat one before it.*--draws 1"):
        bed_of(FEW, split="test", draw=1)
    # Of a hybrid dataset those judge whom its generator has not seen, in every draw.
    hybrid = replace(SPLIT, seen=PEOPLE[:4])
    assert subjects(bed_of(FEW, official=hybrid).evaluate) == {*PEOPLE[4:6]}
    with pytest.raises(InputError, match="would repeat one before it.*--draws 1"):
        bed_of(FEW, official=hybrid, draw=1)
    lists = replace(SPLIT, validation=PEOPLE[3:6], train=PEOPLE[:3])
    assert bed_of(FEW, official=lists).rare == (RARE,)
    with pytest.raises(InputError, match="would repeat one before it"):
        bed_of(FEW, official=lists, draw=1)


def test_without_a_rare_class_it_says_what_is_fewest() -> None:
    with pytest.raises(
        InputError,
        match=r"has at most 5 clips .*\(fewest: wave right hand 8, walk around 36, .*\); say with --shots",
    ):
        bed_of(FEW, shots=5)


def test_a_recipe_has_the_draws_that_differ_and_no_ceiling() -> None:
    recipe = get_recipe("motion_gan")
    own = replace(recipe, bed=NATURAL)
    assert [b.draw for b in own.beds] == [0, 1, 2] and {b.scarcity for b in own.beds} == {"natural"}
    on_test = replace(own, bed=replace(NATURAL, split="test"))
    assert [b.draw for b in on_test.beds] == [0] and on_test.scarce_draws == 1
    assert [b.scarcity for b in recipe.beds] == ["rare"] * 3 + ["full"] and recipe.scarce_draws == 3
    assert arms_of(("gan",), "natural") == arms_of(("gan",), "rare")[:-1]


def test_a_class_of_one_clip_is_judged_by_every_arm() -> None:
    """Whoever else shows it judges, and one clip is left to learn from."""
    bed = bed_of(crowd({"01": 1, "02": 1}))
    assert (bed.train.labels == RARE).sum() == 1
    made = [replace(m, source="synthetic") for m in bed.train.motions if m.label == RARE]
    tensors = BedTensors.of(bed)
    for arm in arms_of(("gan",), "natural"):
        record = score_arm(
            tensors,
            arm,
            RecogniserTraining(steps=3, batch=8),
            0,
            replace(FEW, motions=tuple(made)),
            per_class=4,
        )
        assert record.rare == (RARE,) and 0 <= record.rare_recall <= 1 and 0 <= record.rare_ap <= 1
