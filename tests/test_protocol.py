"""What a gain is measured with: equal steps, equal seeds, held-out clips, paired differences, stable names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from motionsynth.augment_config import AugmentConfig
from motionsynth.beds import BedSpec, make_bed
from motionsynth.protocol import (
    ScoreRecord,
    adds_clips,
    arms_of,
    bed_digest,
    format_ranking,
    format_table,
    generator_of,
    record_id,
    summarise,
)
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

MOTIONS = make_tiny_set(2)
SPLITS = (Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),)
QUICK = RecogniserTraining(steps=10, batch=8)
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


def test_record_ids_follow_every_ingredient(monkeypatch: pytest.MonkeyPatch) -> None:
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
    # Clips that other classes lend to are other clips, which no digest tells where nobody keeps them.
    before = [name(arm=a) for a in ("difference", "interpolation", "gan")]
    monkeypatch.setattr("motionsynth.protocol.LENDERS", 3)
    assert [name(arm=a) == b for a, b in zip(("difference", "interpolation", "gan"), before, strict=True)] == [
        False, True, True,
    ]  # fmt: skip


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
