"""Intervals over the people who judge: what leaving each of them out changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionsynth.arms import BedTensors, score_arm
from motionsynth.beds import BedSpec, make_bed
from motionsynth.metrics_gain import average_precision, leave_one_out_interval, paired_interval
from motionsynth.people import difference_over_people, without_each
from motionsynth.protocol import ScoreRecord, format_people, summarise
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.splits import Split
from rayjobs import cli
from tests.tiny_motion import make_tiny_set

RARE = (1,)


def record(arm: str, shown: dict[str, tuple[int, int]], bed: str = "a", seed: int = 0) -> ScoreRecord:
    """Of two classes; for each person, how many clips of the rare class were shown and how many recognised."""
    people, total = tuple(sorted(shown)), np.array(list(shown.values())).sum(0)
    rest = [total - shown[p] for p in people]
    recall = lambda r: float(r[1] / r[0]) if r[0] else math.nan  # noqa: E731
    rows = tuple((1.0, recall(r)) for r in rest)
    return ScoreRecord(
        protocol=1, dataset="d", bed=bed, draw=0, split="test", arm=arm, recogniser="tcn", seed=seed, top1=0.5,
        macro=0.5, rare_recall=recall(total), recalls=(1.0, recall(total)), rare=RARE, confusion=((1, 0), (0, 1)),
        real_clips=9, synthetic_clips=0, steps=5, seconds=1.0, average_precisions=(1.0, recall(total)), people=people,
        recalls_without=rows, average_precisions_without=rows,
    )  # fmt: skip


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_of_a_mean_it_is_students_interval(values: list[float]) -> None:
    d = np.array(values)
    without = [(d.sum() - v) / (len(d) - 1) for v in d]
    made, meant = leave_one_out_interval(float(d.mean()), without), paired_interval(d)
    assert made is not None and made.n == meant.n
    np.testing.assert_allclose([made.mean, made.lo, made.hi], [meant.mean, meant.lo, meant.hi], atol=1e-6)


def test_it_needs_two_who_can_be_left_out() -> None:
    assert leave_one_out_interval(1.0, [1.0]) is None and leave_one_out_interval(1.0, [1.0, math.nan]) is None
    assert leave_one_out_interval(math.nan, [1.0, 2.0]) is None


@given(st.integers(0, 10_000))
def test_without_somebody_is_what_the_others_clips_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, truth = rng.dirichlet(np.ones(3), 20), rng.integers(0, 3, 20)
    who = rng.choice(["ann", "bob", "cy", ""], 20).tolist()
    people, recalls, precisions = without_each(p, truth, who)
    assert people == tuple(sorted({*who} - {""})) or len({*who} - {""}) < 2
    for i, person in enumerate(people):
        rest = [j for j in range(20) if who[j] != person]
        for c in range(3):
            of_c = [j for j in rest if truth[j] == c]
            meant = np.mean([p[j].argmax() == c for j in of_c]) if of_c else math.nan
            np.testing.assert_equal(recalls[i][c], meant)
            np.testing.assert_equal(precisions[i][c], average_precision(p[rest][:, c], truth[rest] == c))


def test_one_person_who_gains_all_is_no_gain_for_others() -> None:
    """Ten seeds agree to the last clip, but nobody gains except one of four."""
    strong = {"a": (10, 5), "b": (10, 5), "c": (10, 5), "d": (10, 5)}
    lucky, fair = {**strong, "a": (10, 10)}, {p: (10, 7) for p in strong}
    records = [
        record(arm, shown, seed=seed)
        for seed in range(10)
        for arm, shown in (("strong", strong), ("lucky", lucky), ("fair", fair))
    ]
    by_arm = {s.arm: s for s in summarise(records)}
    for arm, mean, holds in (("lucky", 12.5, False), ("fair", 20.0, True)):
        seeds, people = by_arm[arm].difference, by_arm[arm].people_difference
        assert seeds is not None and seeds.excludes_zero and people is not None
        assert people.mean == pytest.approx(mean) == pytest.approx(seeds.mean)
        assert people.excludes_zero == holds and people.n == 4
    assert by_arm["strong"].people_difference is None
    told = format_people(list(by_arm.values()))
    assert "over 4 people" in told and "+20.0 [+20.0, +20.0] *" in told and "+12.5 [-" in told


def test_draws_are_judged_by_different_people() -> None:
    """Whoever is left out changes only the draws in which he judges, and a draw of his alone drops out."""
    one = [record("strong", {"a": (10, 5), "b": (10, 5)}), record("gan", {"a": (10, 6), "b": (10, 9)})]
    two = [
        record("strong", {"c": (10, 2), "d": (0, 0)}, "b"),
        record("gan", {"c": (10, 8), "d": (0, 0)}, "b"),
    ]
    made = difference_over_people([*one, *two], "gan", "strong")
    assert made is not None and made.n == 4
    whole = (25 + 60) / 2
    # Without a: b alone, +40; without b: a alone, +10; without c nobody shows the class in draw b; without d nothing.
    meant = leave_one_out_interval(whole, [(40 + 60) / 2, (10 + 60) / 2, 25, whole])
    assert meant is not None
    np.testing.assert_allclose([made.mean, made.lo, made.hi], [whole, meant.lo, meant.hi])


def test_older_records_know_nobody() -> None:
    records = [record(a, {"a": (10, n), "b": (10, n)}) for a, n in (("strong", 5), ("gan", 6))]
    older = [replace(r, people=(), recalls_without=(), average_precisions_without=()) for r in records]
    assert difference_over_people([records[0], older[1]], "gan", "strong") is None
    assert format_people(summarise(older)) == ""
    d = older[0].to_dict()
    for field in ("people", "recalls_without", "average_precisions_without"):
        del d[field]
    assert ScoreRecord.from_dict(d) == older[0]


def test_a_scored_arm_knows_its_judges_and_keeps_them_in_json() -> None:
    split = Split(name="cross_subject", by="subject", train=("01", "02"), test=("03", "04"))
    bed = make_bed(make_tiny_set(), (split,), BedSpec(shots=2, split="test"))
    made = score_arm(BedTensors.of(bed), "strong", RecogniserTraining(steps=2, batch=8), 0)
    assert made.people == ("03", "04")
    both = np.array(made.confusion).sum(1)
    # Either half of the test people is what is left without the other.
    assert np.array(made.recalls_without).mean(0) == pytest.approx(made.recalls) and (both == 4).all()
    hidden = replace(made, recalls_without=((math.nan, 1.0, 1.0), *made.recalls_without[1:]))
    again = ScoreRecord.from_dict(json.loads(json.dumps(cli.plain(hidden.to_dict()))))
    assert repr(again) == repr(hidden)  # a NaN is not equal to itself
