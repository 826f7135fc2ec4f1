"""Refinement: each rule refuses what it is for, thresholds come from real clips, nothing depends on the batch."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from motionsynth.arms import BedTensors, score_arm
from motionsynth.errors import InputError
from motionsynth.metrics_distribution import herd, rbf_mmd
from motionsynth.metrics_motion import foot_skate, peak_rates
from motionsynth.motion import Motion, MotionSet, canonical, resample
from motionsynth.plausibility import NOTICEABLE
from motionsynth.quality import quality_report
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.refine import (
    PUBLISHED_FRAMES,
    Refiner,
    _edges,
    fit_refiner,
    published_rule,
    refusals,
    signed_drift,
)
from motionsynth.refine_config import RefineConfig
from motionsynth.rivals import interpolate_clips
from motionsynth.skeleton import Skeleton
from tests.test_protocol import MOTIONS, SPLITS, BedSpec, make_bed
from tests.tiny_motion import CLASS_NAMES, animate, make_tiny_set

CONFIG = RefineConfig(folds=3, teacher=RecogniserTraining(steps=60, batch=16))
TRAIN = make_tiny_set(2)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return fit_refiner(TRAIN, CONFIG)


def new_clip(label: int, claimed: int | None = None, source: int = 0, seed: int = 0, **fields) -> Motion:
    """A good synthetic clip: a person of middling size moves as nobody in the training set does."""
    claimed = label if claimed is None else claimed
    parent = [m for m in TRAIN.motions if m.label == label][source]
    rng = np.random.default_rng([seed, label, source])
    p = animate(
        TRAIN.skeleton, label, frames=30, size=rng.uniform(0.95, 1.05), hertz=rng.uniform(0.9, 1.2),
        phase=rng.uniform(0.2, 1.0),
    )  # fmt: skip
    return replace(
        parent, positions=p, label=claimed, label_name=CLASS_NAMES[claimed], source="synthetic", subject="",
        sample_id=f"syn-{label}-{claimed}-{source}-{seed}", parent_id=parent.sample_id, **fields,
    )  # fmt: skip


def rules(motion: Motion) -> set[str]:
    return set((motion.rejected_by or "").split("+")) - {""}


def columns(motions: list[Motion]) -> list[tuple]:
    return [(m.class_confidence, m.physics_violation, m.novelty, m.accepted, m.rejected_by) for m in motions]


def test_good_clips_pass_and_are_otherwise_unchanged(refiner: Refiner) -> None:
    clips = [new_clip(c, source=s) for c in range(3) for s in range(0, 16, 3)]
    graded = refiner.grade(clips)
    assert sum(bool(m.accepted) for m in graded) >= 0.5 * len(clips)
    for before, after in zip(clips, graded, strict=True):
        assert after.positions is before.positions and after.sample_id == before.sample_id
        assert after.accepted == (after.rejected_by is None)
        assert 0 <= (after.class_confidence or -1) <= 1


def test_a_clip_of_another_class_is_refused_by_agreement(refiner: Refiner) -> None:
    assert refiner.must_agree.all()
    for label, claimed in ((0, 1), (1, 2), (2, 0)):
        (m,) = refiner.grade([new_clip(label, claimed)])
        assert {"agreement", "confidence"} <= rules(m) and not m.accepted


@pytest.mark.parametrize("named", [True, False])
def test_a_copy_is_refused_as_a_copy_whether_it_names_its_source_or_not(
    refiner: Refiner, named: bool
) -> None:
    for i in range(0, len(TRAIN), 7):
        m = TRAIN.motions[i]
        copy = replace(m, source="synthetic", sample_id="copy", parent_id=m.sample_id if named else None)
        (graded,) = refiner.grade([copy])
        assert "copy" in rules(graded) and "plausibility" not in rules(graded)
        assert graded.novelty is not None and graded.novelty < 0


def test_stretched_and_shaking_and_sliding_clips_are_refused_by_plausibility(refiner: Refiner) -> None:
    good = new_clip(1)
    rng = np.random.default_rng(0)
    p = good.positions
    slide = np.linspace(0, 8, p.shape[1], dtype=np.float32)[None, :, None, None] * np.array(
        [1, 0, 0], np.float32
    )
    bad = {
        "taller": p * 1.6,
        "stretching": p * np.linspace(1, 1.3, p.shape[1], dtype=np.float32)[None, :, None, None],
        "shaking": p + rng.normal(0, 0.03, p.shape).astype(np.float32),
        "sliding": p + slide,
    }
    assert "plausibility" not in rules(refiner.grade([good])[0])
    for name, positions in bad.items():
        (m,) = refiner.grade([replace(good, positions=positions)])
        assert "plausibility" in rules(m) and (m.physics_violation or 0) > 1, name


def test_a_clip_far_from_all_is_an_outlier_and_no_motion_at_all_is_invalid(refiner: Refiner) -> None:
    good = new_clip(0)
    frozen = replace(good, positions=np.repeat(good.positions[:, :1], 30, axis=1) * 0.3)
    assert "outlier" in rules(refiner.grade([frozen])[0])
    nothing = replace(good, positions=np.full_like(good.positions, np.nan), class_confidence=0.9)
    one, other = refiner.grade([nothing, good])
    assert columns([one]) == [(None, None, None, False, "invalid")] and other.rejected_by != "invalid"


def test_the_grade_does_not_depend_on_the_batch_and_is_the_same_again(refiner: Refiner) -> None:
    clips = [new_clip(c, source=s, seed=s) for c in range(3) for s in range(5)]
    clips += [replace(m, parent_id=None, sample_id=f"{m.sample_id}-free") for m in clips[::4]]
    together = columns(refiner.grade(clips))
    assert columns([refiner.grade([m])[0] for m in clips]) == together
    order = np.random.default_rng(0).permutation(len(clips))
    assert columns(refiner.grade([clips[i] for i in order])) == [together[i] for i in order]
    # Also in a worker to which the refiner travels, and with one that is fitted anew.
    assert columns(pickle.loads(pickle.dumps(refiner)).grade(clips[:4])) == together[:4]
    assert columns(fit_refiner(TRAIN, CONFIG).grade(clips[:4])) == together[:4]


def test_stricter_thresholds_accept_less(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [new_clip(c, source=s, seed=s) for c in range(3) for s in range(8)]
    clips += interpolate_clips(TRAIN, dict.fromkeys(range(3), 8), seed=0)
    monkeypatch.setattr("motionsynth.refine.fit_teachers", lambda *args: refiner.teachers)
    steps = {
        "confidence_percentile": (0, 20, 60, 100),
        "plausibility_percentile": (100, 90, 50, 0),
        "novelty_percentiles": ((0, 100), (5, 95), (40, 60)),
    }
    for name, values in steps.items():
        kept = []
        for value in values:
            graded = fit_refiner(TRAIN, replace(CONFIG, **{name: value})).grade(clips)
            kept.append({m.sample_id for m in graded if m.accepted})
        assert all(after <= before for before, after in zip(kept, kept[1:], strict=False)), name
        assert kept[-1] < kept[0], name


def test_columns_alone_allow_another_filter(refiner: Refiner) -> None:
    """What the rules said can be had again from the numbers, with one limit for all classes."""
    clips = [new_clip(c, source=s, seed=s) for c in range(3) for s in range(8)]
    clips += interpolate_clips(TRAIN, dict.fromkeys(range(3), 8), seed=0)
    for m in refiner.grade(clips):
        assert m.physics_violation is not None and m.novelty is not None and m.class_confidence is not None
        assert ("plausibility" in rules(m)) == (m.physics_violation > 1)
        assert ("copy" in rules(m), "outlier" in rules(m)) == (m.novelty < 0, m.novelty > 1)
        tau = refiner.thresholds()["classes"][m.label_name]["confidence"]
        assert ("confidence" in rules(m)) == (m.class_confidence < tau)


def test_a_class_whose_real_clips_are_misnamed_is_not_emptied(
    refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of two classes that no teacher can tell apart: one's few clips bear the name of the other."""
    real, low = refiner.teachers.held_out(), np.array([0.05, 0.06, 0.2])
    real.confidence[1], real.named[1] = low, np.array([False, False, True])
    monkeypatch.setattr(type(refiner.teachers), "held_out", lambda self: real)
    monkeypatch.setattr("motionsynth.refine.fit_teachers", lambda *args: refiner.teachers)
    hard = fit_refiner(TRAIN, CONFIG)
    # As many of its synthetic clips can pass as of its real ones, however sure the teachers are of other classes.
    assert hard.must_agree.tolist() == [True, False, True]
    assert hard.confidence[1] == np.percentile(low, 20) < hard.confidence[0] <= refiner.confidence[0]


def test_few_values_are_loosened_towards_the_pooled_ones_and_never_tightened() -> None:
    rng = np.random.default_rng(0)
    many = rng.uniform(0, 1, 1000)
    values = [many, np.array([0.9, 0.9]), np.array([0.001, 0.001]), np.zeros(0)]
    common = np.percentile(np.concatenate(values), 20)
    low = _edges(values, 20, lower=True)
    assert low[0] == pytest.approx(np.percentile(many, 20), abs=1e-3) and low[2] == 0.001
    assert common < low[1] < 0.5 and low[3] == common
    high = _edges(values, 80, lower=False)
    assert high[1] == 0.9 and high[2] > 0.6
    with pytest.raises(InputError, match="No class has clips of two takes"):
        _edges([np.zeros(0)] * 3, 20, lower=True)


def test_a_class_of_a_single_clip_is_refined_too() -> None:
    only = TRAIN.labels.tolist().index(1)
    motions = TRAIN.select([only, *np.flatnonzero(TRAIN.labels != 1)])
    refiner = fit_refiner(motions, CONFIG)
    assert not refiner.must_agree[1] and np.isfinite(refiner.window[1]).all()
    good, wrong, copy = refiner.grade(
        [
            new_clip(1),
            new_clip(0, claimed=1),
            replace(TRAIN.motions[only], source="synthetic", sample_id="c", parent_id=None),
        ]
    )
    assert "confidence" not in rules(good) and "confidence" in rules(wrong) and "copy" in rules(copy)


def test_a_skeleton_without_feet_works(refiner: Refiner) -> None:
    s = TRAIN.skeleton
    keep = [i for i, j in enumerate(s.joints) if "foot" not in j]
    at = {old: new for new, old in enumerate(keep)}
    footless = Skeleton(
        name="footless",
        joints=tuple(s.joints[i] for i in keep),
        parents=tuple(at.get(s.parents[i], -1) for i in keep),
        mirror=tuple((at[a], at[b]) for a, b in s.mirror if a in at),
        torso={k: at[v] for k, v in s.torso.items()},
    )

    def cut(m: Motion) -> Motion:
        return replace(m, positions=np.ascontiguousarray(m.positions[:, :, keep]), skeleton="footless")

    motions = replace(TRAIN, skeleton=footless, motions=tuple(cut(m) for m in TRAIN.motions))
    assert np.isnan(foot_skate(motions)).all() and not np.isnan(foot_skate(TRAIN)).any()
    quick = fit_refiner(motions, replace(CONFIG, teacher=RecogniserTraining(steps=3, batch=6)))
    (m,) = quick.grade([cut(new_clip(1))])
    assert m.physics_violation is not None and m.physics_violation <= 1
    assert quick.thresholds()["plausibility"]["foot_skate"] == NOTICEABLE["foot_skate"]


def test_feet_and_rates_are_in_metres_and_seconds() -> None:
    still = np.repeat(TRAIN.motions[0].positions[:, :1], 30, axis=1)
    time = np.arange(30, dtype=np.float32) / 30

    def moving(along: np.ndarray) -> MotionSet:
        offset = along.astype(np.float32)[None, :, None, None] * np.array([1, 0, 0], np.float32)
        m = replace(TRAIN.motions[0], positions=still + offset)
        return replace(TRAIN, motions=(m,))

    assert foot_skate(moving(2 * time)) == pytest.approx(2.0, rel=1e-3)
    assert peak_rates(moving(2 * time))[0, 0] == pytest.approx(2.0, rel=1e-3)
    assert peak_rates(moving(4 * time**2))[0, 1] == pytest.approx(8.0, rel=0.02)
    assert foot_skate(moving(0 * time)) == 0


def test_herding_matches_the_real_clips_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (60, 4))
    # Two thirds of the pool crowd in one corner, as a generator's modes do.
    pool = np.concatenate([rng.normal(1.5, 0.3, (120, 4)), rng.normal(0, 1, (60, 4))])
    chosen = herd(pool, real, 30)
    assert len(set(chosen.tolist())) == 30 and (np.diff(chosen) > 0).all()
    chance = [rbf_mmd(pool[rng.choice(180, 30, replace=False)], real, bandwidth=2.0) for _ in range(50)]
    assert rbf_mmd(pool[chosen], real, bandwidth=2.0) < min(chance)
    # Two ways of moving, three quarters to one quarter: the most typical clips alone would all be of the first.
    ways = [
        np.concatenate([rng.normal(0, 1, (n, 4)), rng.normal(5, 1, (m, 4))]) for n, m in ((45, 15), (60, 60))
    ]
    assert 5 <= (herd(ways[1], ways[0], 32) >= 60).sum() <= 11
    assert herd(pool, real, 500).tolist() == list(range(180))
    with pytest.raises(InputError, match="it must be at least 1"):
        herd(pool, real, 0)


def test_a_quota_keeps_the_best_and_says_why_the_others_are_left(refiner: Refiner) -> None:
    clips = refiner.grade([new_clip(c, source=s, seed=s) for c in range(3) for s in range(12)])
    some = replace(refiner, config=replace(CONFIG, quota=3))
    kept = some.select(clips)
    assert [m.sample_id for m in kept] == [m.sample_id for m in clips] and refiner.select(clips) == clips
    table = refusals(kept, CLASS_NAMES)
    for c, name in enumerate(CLASS_NAMES):
        good = sum(bool(m.accepted) for m in clips if m.label == c)
        assert table[name]["clips"] == 12 and table[name]["accepted"] == min(3, good)
        assert table[name]["refused"].get("quota", 0) == max(0, good - 3)
    assert any(t["refused"].get("quota") for t in table.values())
    for before, after in zip(clips, kept, strict=True):
        assert after.rejected_by == (before.rejected_by if not before.accepted or after.accepted else "quota")
        assert after.novelty == before.novelty


def test_the_published_rule_filters_drift_and_nothing_else() -> None:
    source = TRAIN.motions[0]
    p = resample(canonical(source.positions, TRAIN.skeleton), PUBLISHED_FRAMES)
    exact = replace(TRAIN, motions=(replace(source, positions=p),))
    made = replace(exact.motions[0], source="synthetic", sample_id="x", parent_id=source.sample_id)
    rng = np.random.default_rng(0)
    shaking = p + rng.normal(0, 0.03, p.shape).astype(np.float32)
    shaking[:, 0] = p[:, 0]  # place and heading are those of the first frame
    beside = p.copy()
    beside[:, 1:, :, 0] += 0.02
    clips = [replace(made, positions=x) for x in (p, shaking, beside)]
    graded = published_rule(clips, exact, threshold=5.0)
    # Every joint is 5 cm from where it was, and passes; 2 cm all to one side do not.
    assert np.linalg.norm(shaking - p, axis=-1)[:, 1:].mean() > 0.04
    assert [(m.accepted, m.rejected_by) for m in graded] == [(True, None), (True, None), (False, "drift")]
    moved = 0.02 * (PUBLISHED_FRAMES - 1) * TRAIN.skeleton.num_joints
    assert signed_drift(clips[2], exact.motions[0], exact) == pytest.approx(moved, rel=0.05)
    with pytest.raises(InputError, match="has no parent_id"):
        published_rule([replace(made, parent_id=None)], exact, 5.0)


def test_bad_settings_are_one_sentence() -> None:
    for wrong, says in (
        ({"folds": 1}, "folds is 1"),
        ({"confidence_percentile": 101}, "confidence_percentile is 101"),
        ({"plausibility_percentile": -1}, "plausibility_percentile is -1"),
        ({"novelty_percentiles": (95.0, 5.0)}, "novelty_percentiles are 95 and 5"),
        ({"quota": -1}, "quota is -1"),
        ({"published_threshold": 0.0}, "published_threshold is 0 m"),
    ):
        with pytest.raises(InputError, match=says):
            RefineConfig(**wrong)
    fake = replace(TRAIN, motions=(*TRAIN.motions, new_clip(0)))
    with pytest.raises(InputError, match="include synthetic ones"):
        fit_refiner(fake, CONFIG)


def test_refused_clips_reach_no_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = BedTensors.of(make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test")))
    train = tensors.bed.train
    clips = interpolate_clips(train, dict.fromkeys(range(3), 4), seed=0)
    marked = replace(
        train, motions=tuple(replace(m, accepted=(None, True, False)[i % 3]) for i, m in enumerate(clips))
    )
    alone = replace(train, motions=tuple(m for m in marked.motions if m.accepted is not False))
    quick = RecogniserTraining(steps=4, batch=8)
    for arm in ("refined:gan", "tstr:gan"):
        record = score_arm(tensors, arm, quick, seed=0, synthetic=marked)
        same = score_arm(tensors, arm, quick, seed=0, synthetic=alone)
        assert record.synthetic_clips == 8 and replace(record, seconds=0) == replace(same, seconds=0)
    assert quality_report(tensors, marked, quick)["synthetic_clips"] == 8
    refused = replace(train, motions=tuple(replace(m, accepted=False) for m in clips))
    with pytest.raises(InputError, match="all 12 were refused; generate more"):
        score_arm(tensors, "refined:gan", quick, seed=0, synthetic=refused)
    assert "no clip is accepted" in quality_report(tensors, refused, quick)["not_measured"]
