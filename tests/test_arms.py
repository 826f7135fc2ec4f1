"""Every arm takes equal steps from equal seeds and judges the same clips; nothing differs but what its name says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth import arms
from motionsynth.arms import BedTensors, score_arm
from motionsynth.augment_config import NONE
from motionsynth.beds import BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.protocol import ScoreRecord, arms_of, for_bed
from motionsynth.rivals import interpolate_clips
from tests.test_protocol import EVERY_ARM, MOTIONS, QUICK, SPLITS


@pytest.fixture(scope="module")
def tensors() -> BedTensors:
    return BedTensors.of(make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test")))


@pytest.fixture(scope="module")
def made(tensors: BedTensors) -> MotionSet:
    """Clips such as a generator would give, for all classes."""
    train = tensors.bed.train
    return replace(train, motions=tuple(interpolate_clips(train, dict.fromkeys(range(3), 4), seed=0)))


@pytest.mark.parametrize("draw", [0, 2])
def test_every_arm_copes_with_a_class_of_a_single_clip(draw: int) -> None:
    """Common in draw 0, rare in draw 2: its interpolations are left out, its features take others' covariance."""
    one = replace(
        MOTIONS, motions=tuple(m for m in MOTIONS.motions if m.label != 1 or m.sample_id == "c1_s01_r0_v01")
    )
    bed = make_bed(one, SPLITS, BedSpec(shots=3, split="test", draw=draw))
    assert bed.train.labels.tolist().count(1) == 1 and (1 in bed.rare) == (draw == 2)
    lonely = bed.train.motions[bed.train.labels.tolist().index(1)]
    made = replace(
        bed.train, motions=tuple(replace(lonely, source="synthetic", sample_id=f"m{i}") for i in range(3))
    )
    records = {
        arm: score_arm(BedTensors.of(bed), arm, QUICK, seed=0, synthetic=made, per_class=5)
        for arm in arms_of(("gan",), "rare")
    }
    assert all(0 <= r.macro <= 1 and np.isnan(r.recalls[1]) for r in records.values())
    assert records["interpolation"].synthetic_clips == (5 if draw == 0 else 0)
    assert records["feature"].synthetic_clips == 5 and records["gan"].synthetic_clips == 3


@pytest.fixture
def optimiser_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args, **kwargs):
        counted.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return counted


@pytest.mark.parametrize("arm", EVERY_ARM)
def test_every_arm_takes_the_same_steps_and_judges_the_same_clips(
    arm: str, tensors: BedTensors, made: MotionSet, optimiser_steps: list[int]
) -> None:
    r = score_arm(tensors, arm, QUICK, seed=1, synthetic=made, per_class=5)
    assert len(optimiser_steps) == r.steps == QUICK.steps
    confusion = np.array(r.confusion)
    assert confusion.sum(1).tolist() == np.bincount(tensors.bed.evaluate.labels).tolist()
    assert r.recalls == tuple(confusion.diagonal() / confusion.sum(1))
    assert r.macro == pytest.approx(np.mean(r.recalls)) and r.top1 == confusion.trace() / confusion.sum()
    assert r.rare_recall == pytest.approx(r.recalls[r.rare[0]]) and r.rare == tensors.bed.rare
    clips = {
        "interpolation": (27, 5), "difference": (27, 5), "feature": (27, 5), "gan": (27, 12),
        "adjusted:gan": (27, 12), "ceiling": (36, 0), "tstr:gan": (0, 12),
    }  # fmt: skip
    assert (r.real_clips, r.synthetic_clips) == clips.get(arm, (27, 0))
    assert (r.arm, r.seed, r.bed, r.split, r.dataset) == (arm, 1, tensors.bed.spec.key, "test", "tiny")


def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    calls: list[tuple] = []
    original = arms.train_recogniser

    def spy(real, info, names, config, seed, fake=None, adjusted=False, device="cpu"):
        calls.append((real, config, seed, fake, adjusted))
        return original(real, info, names, config, seed, fake, adjusted, device)

    monkeypatch.setattr(arms, "train_recogniser", spy)
    return calls


def test_arms_differ_in_their_clips_and_the_adjusted_in_how_they_weigh_them(
    tensors: BedTensors, made: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trained_on(monkeypatch)
    for arm in EVERY_ARM:
        score_arm(tensors, arm, QUICK, seed=4, synthetic=made, per_class=5)
    by_arm = dict(zip(EVERY_ARM, calls, strict=True))
    assert {c[2] for c in calls} == {4}
    assert by_arm["weak"][1] == replace(QUICK, augment=NONE)
    assert by_arm["feature"][1] == replace(QUICK, steps=7)
    assert all(by_arm[a][1] == QUICK for a in set(EVERY_ARM) - {"weak", "feature"})
    for arm in set(EVERY_ARM) - {"ceiling", "tstr:gan"}:
        assert by_arm[arm][0] is tensors.train
    assert {a for a in EVERY_ARM if by_arm[a][4]} == {"adjusted", "adjusted:gan"}
    assert torch.equal(by_arm["adjusted:gan"][3].x, by_arm["gan"][3].x) and by_arm["adjusted"][3] is None
    assert by_arm["ceiling"][0] is tensors.full
    assert all(by_arm[a][3] is None for a in ("weak", "strong", "feature", "ceiling", "tstr:gan"))
    # Blends and lent differences are of the rare class only; train-on-synthetic sees no real clip.
    for arm in ("interpolation", "difference"):
        assert by_arm[arm][3].y.tolist() == [tensors.bed.rare[0]] * 5
    assert torch.equal(by_arm["tstr:gan"][0].x, by_arm["gan"][3].x) and len(by_arm["gan"][3].y) == 12


def test_the_bed_is_converted_clip_for_clip(tensors: BedTensors) -> None:
    again = BedTensors.of(replace(tensors.bed, full=tensors.bed.train))
    assert torch.equal(again.train.x, tensors.train.x)
    assert tensors.train.y.tolist() == tensors.bed.train.labels.tolist()
    assert tensors.evaluate.y.tolist() == tensors.bed.evaluate.labels.tolist()


def test_same_seed_same_record(tensors: BedTensors) -> None:
    same = [replace(score_arm(tensors, "feature", QUICK, seed=s), seconds=0.0) for s in (0, 0)]
    assert same[0] == same[1]


def test_clips_that_are_no_synthetic_ones_are_refused(tensors: BedTensors, made: MotionSet) -> None:
    with pytest.raises(InputError, match="Arm 'gan' was given real clips as synthetic"):
        score_arm(tensors, "gan", QUICK, seed=0, synthetic=tensors.bed.train)
    with pytest.raises(InputError, match="Arm 'tstr:gan' was given real clips"):
        score_arm(tensors, "tstr:gan", QUICK, 0, made.extended(tensors.bed.train.motions[:1]))
    for nothing in (None, made.select(())):
        with pytest.raises(InputError, match="Arm 'gan' needs synthetic clips and there are none"):
            score_arm(tensors, "gan", QUICK, seed=0, synthetic=nothing)


def test_a_record_survives_json_with_a_class_that_nobody_shows(tensors: BedTensors) -> None:
    """JSON has no NaN: `score` stores null."""
    bed = tensors.bed
    shown = bed.evaluate.select(np.flatnonzero(bed.evaluate.labels != bed.rare[0]))
    r = score_arm(BedTensors.of(replace(bed, evaluate=shown)), "strong", QUICK, seed=0)
    assert math.isnan(r.recalls[bed.rare[0]]) and 0 <= r.macro <= 1
    assert [math.isnan(p) for p in r.average_precisions] == [c == bed.rare[0] for c in range(3)]
    stored = json.loads(json.dumps(r.to_dict()), parse_constant=lambda _: None)
    assert stored["recalls"][bed.rare[0]] is None and stored["rare_recall"] is None
    back = ScoreRecord.from_dict(stored)
    assert repr(back) == repr(r)
    other = next(c for c in range(3) if c != bed.rare[0])
    assert for_bed(back, replace(bed, rare=(bed.rare[0], other))).rare_recall == r.recalls[other]


def test_a_shared_record_takes_the_rare_classes_of_its_bed(tensors: BedTensors) -> None:
    r = score_arm(tensors, "ceiling", QUICK, seed=0)
    for draw in range(3):
        bed = make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test", draw=draw))
        seen = for_bed(r, bed)
        assert seen.rare == bed.rare and seen.rare_recall == r.recalls[bed.rare[0]]
        assert seen.rare_ap == r.average_precisions[bed.rare[0]]
        assert (seen.draw, seen.bed, seen.top1, seen.macro) == (draw, bed.spec.key, r.top1, r.macro)


def test_how_synthetic_clips_are_mixed_in_says_nothing_to_arms_without_any() -> None:
    tensors = BedTensors.of(make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test")))
    mixing = replace(
        QUICK, synthetic_share=0.2, real_only_tail=0.5, synthetic_weight=0.5, synthetic_decay=1.0, mixup=0.2
    )
    for arm in ("strong", "feature"):
        one, other = (score_arm(tensors, arm, t, seed=0) for t in (QUICK, mixing))
        assert replace(one, seconds=0) == replace(other, seconds=0)
