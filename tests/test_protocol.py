"""What a gain is measured with: equal steps, equal seeds, held-out clips, paired differences, stable names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth import protocol
from motionsynth.augment import NONE, AugmentConfig
from motionsynth.beds import BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.protocol import (
    BedTensors,
    ScoreRecord,
    adds_clips,
    arms_of,
    bed_digest,
    for_bed,
    format_ranking,
    format_table,
    generator_of,
    record_id,
    score_arm,
    summarise,
)
from motionsynth.recognition import RecogniserTraining
from motionsynth.rivals import interpolate_clips
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

MOTIONS = make_tiny_set(2)
SPLITS = (Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),)
QUICK = RecogniserTraining(steps=10, batch=8)


@pytest.fixture(scope="module")
def tensors() -> BedTensors:
    return BedTensors.of(make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test")))


@pytest.fixture(scope="module")
def made(tensors: BedTensors) -> MotionSet:
    """Clips such as a generator would give, for all classes."""
    train = tensors.bed.train
    return replace(train, motions=tuple(interpolate_clips(train, dict.fromkeys(range(3), 4), seed=0)))


EVERY_ARM = (*arms_of(("gan",), "rare"), "tstr:gan")


def test_arms_of_a_bed() -> None:
    assert EVERY_ARM == (
        "weak",
        "strong",
        "adjusted",
        "interpolation",
        "difference",
        "feature",
        "gan",
        "adjusted:gan",
        "ceiling",
        "tstr:gan",
    )
    assert arms_of(("a", "b"), "full") == ("weak", "strong", "a", "b", "tstr:a", "tstr:b")
    assert arms_of(("a", "b"), "few")[6:10] == ("a", "b", "adjusted:a", "adjusted:b")
    assert arms_of(("a", "refined:a"), "few")[6:] == ("a", "refined:a", "adjusted:a", "ceiling")
    assert arms_of(("a",), "rare", ("difference",)) == ("weak", "strong", "difference", "a", "ceiling")
    assert [a for a in EVERY_ARM if adds_clips(a)] == ["gan", "adjusted:gan"]
    assert {generator_of(a) for a in ("gan", "tstr:gan", "adjusted:gan")} == {"gan"}
    assert generator_of("refined:gan") == "refined:gan"


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
    original = protocol.train_recogniser

    def spy(real, info, names, config, seed, fake=None, adjusted=False, device="cpu"):
        calls.append((real, config, seed, fake, adjusted))
        return original(real, info, names, config, seed, fake, adjusted, device)

    monkeypatch.setattr(protocol, "train_recogniser", spy)
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


def test_record_ids_follow_every_ingredient() -> None:
    bed = make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test"))

    def name(arm="gan", bed=bed, training=QUICK, seed=0, digest="d", per_class=10) -> str:
        return record_id(bed_digest(bed, arm), arm, training, seed, digest, per_class)

    others = [
        name(arm="strong"), name(seed=1), name(digest="e"), name(training=replace(QUICK, steps=11)),
        name(training=replace(QUICK, recogniser="tacnn")), name(training=replace(QUICK, optimiser="sgd")),
        name(training=replace(QUICK, schedule="cosine")),
        name(training=replace(QUICK, augment=AugmentConfig(yaw=0.1))),
        name(bed=replace(bed, train=bed.train.select(range(20)))),
        name(bed=replace(bed, evaluate=bed.evaluate.select(range(5)))),
    ]  # fmt: skip
    assert len({name(), *others}) == len(others) + 1
    # What an arm does not use does not change its name: nothing is trained twice.
    assert name(per_class=20) == name() and name(arm="feature", per_class=20) != name(arm="feature")
    assert name(bed=replace(bed, full=bed.train)) == name()
    mixing = replace(
        QUICK, synthetic_share=0.2, real_only_tail=0.5, synthetic_weight=0.5, synthetic_decay=1.0, mixup=0.2
    )
    for arm in ("weak", "strong", "ceiling", "adjusted", "feature", "tstr:gan"):
        assert name(arm=arm, training=mixing) == name(arm=arm)
    assert name(training=mixing) != name()
    assert len({name(), name(arm="adjusted"), name(arm="adjusted:gan"), name(arm="strong")}) == 4
    assert name(bed=replace(bed, spec=replace(bed.spec, draw=3))) == name()
    assert name() == record_id(
        bed_digest(bed, "gan"), "gan", RecogniserTraining(steps=10, batch=8), 0, "d", 7
    )


def test_only_the_ceiling_is_shared_between_test_draws() -> None:
    beds = [make_bed(MOTIONS, SPLITS, BedSpec(shots=3, split="test", draw=d)) for d in range(3)]
    shared = {arm: len({bed_digest(b, arm) for b in beds}) for arm in ("strong", "feature", "gan", "ceiling")}
    assert shared == {"strong": 3, "feature": 3, "gan": 3, "ceiling": 1}
    held_out = [make_bed(MOTIONS, SPLITS, BedSpec(shots=3, draw=d)) for d in range(3)]
    assert len({bed_digest(b, "ceiling") for b in held_out}) == 3


def test_which_classes_are_rare_decides_the_arms_that_use_it() -> None:
    """Equal clips, other rare classes: the rivals add other clips, the real arms train the same."""
    bed = make_bed(MOTIONS, SPLITS, BedSpec(scarcity="full", split="test"))
    few = replace(bed, rare=(0,))
    differ = {arm: bed_digest(bed, arm) != bed_digest(few, arm) for arm in EVERY_ARM}
    assert differ == {
        "weak": False, "strong": False, "interpolation": True, "difference": True, "feature": True, "gan": True,
        "adjusted": False, "adjusted:gan": True, "ceiling": False, "tstr:gan": False,
    }  # fmt: skip


def records(recall: Callable[[str, int, int], float], draws: int = 3, seeds: int = 2) -> list[ScoreRecord]:
    out = []
    for arm in ("strong", "gan", "ceiling"):
        for draw in range(draws):
            for seed in range(seeds):
                r = recall(arm, draw, seed)
                out.append(
                    ScoreRecord(
                        protocol=1,
                        dataset="d",
                        bed=f"b{draw}",
                        draw=draw,
                        split="test",
                        arm=arm,
                        recogniser="tcn",
                        seed=seed,
                        top1=0.5,
                        macro=(1 + r) / 2,
                        rare_recall=r,
                        recalls=(1.0, r),
                        rare=(1,),
                        confusion=((1, 0), (0, 1)),
                        real_clips=1,
                        synthetic_clips=0,
                        steps=1,
                        seconds=0.0,
                    )  # fmt: skip
                )
    return out


def test_differences_are_paired_by_draw_and_seed() -> None:
    """Draws differ by far more than arms do; only pairing sees the gain."""
    base = {"strong": 0.1, "gan": 0.15, "ceiling": 0.3}

    def recall(arm: str, draw: int, seed: int) -> float:
        return base[arm] + 0.2 * draw + 0.01 * seed + (0.01 * (draw - 1) if arm == "gan" else 0)

    mixed = records(recall)
    mixed.reverse()  # the order of records has no say
    strong, gan, ceiling = (next(s for s in summarise(mixed) if s.arm == a) for a in base)
    assert strong.difference is None and gan.difference is not None and gan.macro_difference is not None
    assert gan.difference.mean == pytest.approx(5.0) and gan.difference.excludes_zero
    assert gan.difference.hi - gan.difference.lo < 3 < gan.rare_recall.hi - gan.rare_recall.lo
    assert gan.macro_difference.mean == pytest.approx(2.5)
    assert gan.gap_closed == pytest.approx(0.25) and gan.runs == 6
    assert gan.improvement == pytest.approx(100 * 5 / 30.5)
    assert ceiling.difference is not None and ceiling.difference.mean == pytest.approx(20)
    table = format_table([strong, gan, ceiling])
    assert "25 %" in table and table.count(" *") == 2


def test_average_precisions_are_compared_where_every_record_knows_them() -> None:
    base = {"strong": 0.5, "gan": 0.6, "ceiling": 0.7}
    old = records(lambda arm, draw, seed: base[arm])
    assert format_ranking(summarise(old)) == "" and all(s.rare_ap is None for s in summarise(old))
    new = [
        replace(r, average_precisions=tuple(base[r.arm] + 0.1 * (c in r.rare) for c in range(len(r.recalls))))
        for r in old
    ]
    strong, gan, ceiling = summarise(new)
    assert (
        strong.rare_ap is not None and strong.rare_ap.mean == pytest.approx(60) and not strong.ap_difference
    )
    assert gan.ap_difference is not None and gan.ap_difference.mean == pytest.approx(10)
    mixed = summarise([*(r for r in new if r.arm != "gan"), *(r for r in old if r.arm == "gan")])
    assert [s.rare_ap is None for s in mixed] == [False, False, True]
    shown = format_ranking(mixed)
    assert "60.0" in shown and "+20.0" in shown and "gan" not in shown


def test_readiness_is_how_often_rare_classes_are_named_by_how_often_they_come() -> None:
    (record, *_) = records(lambda arm, draw, seed: 0.5)
    confusion = ((8, 2, 0), (1, 8, 1), (6, 0, 4))
    one = replace(
        record, rare=(2,), recalls=(0.8, 0.8, 0.4), confusion=confusion, average_precisions=(0.5,) * 3
    )
    assert one.readiness == pytest.approx(5 / 10)
    assert replace(one, rare=(0, 2)).readiness == pytest.approx(20 / 20)
    unseen = replace(one, rare=(2,), confusion=((8, 2, 0), (1, 8, 1), (0, 0, 0)))
    assert np.isnan(replace(one, rare=()).readiness) and np.isnan(unseen.readiness)
    (summary,) = summarise([one, replace(one, seed=7, confusion=((8, 0, 2), (1, 8, 1), (6, 0, 4)))])
    assert summary.readiness == pytest.approx(0.6)
    assert "named / shown" in (shown := format_ranking([summary])) and shown.endswith(" 0.60")
    (whole,) = summarise([replace(one, rare=())])
    assert "named" not in format_ranking([whole])


def test_folds_that_are_pooled_are_paired_fold_by_fold() -> None:
    """Two folds have equal draws and seeds: 12 runs, not 6, and each difference within its fold."""

    def recall(fold: float) -> Callable[[str, int, int], float]:
        return lambda arm, draw, seed: fold + (0.05 + 0.002 * seed if arm == "gan" else 0) + 0.1 * draw

    pooled = [replace(r, bed=f"fold{i}-{r.bed}") for i in (0, 1) for r in records(recall(0.3 * i))]
    gan = next(s for s in summarise(pooled) if s.arm == "gan")
    assert gan.runs == 12 and gan.difference is not None and gan.difference.n == 12
    assert gan.difference.mean == pytest.approx(5.1) and gan.difference.hi - gan.difference.lo < 0.2


def test_a_recogniser_that_draws_share_counts_once_in_the_interval_of_its_accuracy() -> None:
    own = [
        replace(r, seconds=float(i), macro=0.5 + 0.01 * i)
        for i, r in enumerate(records(lambda arm, draw, seed: 0.1 * draw + 0.01 * seed))
    ]
    strong = [r for r in own if r.arm == "strong"]
    one, two = (r for r in own if r.arm == "ceiling" and r.draw == 0)
    shared = [replace(c, bed=s.bed, draw=s.draw) for s in strong for c in (one, two) if c.seed == s.seed]
    ceiling, base = (next(s for s in summarise(strong + shared) if s.arm == a) for a in ("ceiling", "strong"))
    assert (ceiling.runs, ceiling.macro.n, ceiling.top1.n, ceiling.rare_recall.n) == (6, 2, 2, 6)
    assert (base.runs, base.macro.n) == (6, 6)
    assert ceiling.macro.mean == pytest.approx(50 * (one.macro + two.macro))


def test_an_uncertain_gain_has_no_star() -> None:
    def recall(arm: str, draw: int, seed: int) -> float:
        return {"strong": 0.3, "gan": 0.3 + 0.1 * (seed - 0.4), "ceiling": 0.6}[arm]

    gan = next(s for s in summarise(records(recall)) if s.arm == "gan")
    assert gan.difference is not None and gan.difference.mean > 0 and not gan.difference.excludes_zero
    line = next(row for row in format_table([gan]).splitlines() if row.startswith("gan"))
    assert "*" not in line
    single = summarise([r for r in records(recall) if r.draw == 0 and r.seed == 1])
    lines = {row.split()[0]: row for row in format_table(single).splitlines()}
    assert "+6.0" in lines["gan"] and "nan" not in lines["gan"]


def test_a_missing_pair_is_left_out_of_the_difference() -> None:
    some = [
        r for r in records(lambda arm, d, s: 0.1 * d + (0.2 if arm == "gan" else 0)) if r.arm != "ceiling"
    ]
    some.remove(next(r for r in some if r.arm == "strong" and r.draw == 2))
    gan = next(s for s in summarise(some) if s.arm == "gan")
    assert gan.difference is not None and gan.difference.n == 5 and gan.difference.mean == pytest.approx(20)
    assert math.isnan(gan.gap_closed)  # without a ceiling there is no gap
