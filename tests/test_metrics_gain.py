"""Improvement, gap closed and intervals against published and textbook values."""

import math

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.metrics import gap_closed, improvement, paired_interval, wilson_interval
from motionsynth.metrics_gain import average_precision, student_t_quantile


def test_improvement_reproduces_the_published_table():
    """Galstyan 2025: 67.2 -> 83.1 is 23.7 %, 71.3 -> 84.7 is 18.8 %."""
    assert improvement(83.1, 67.2) == pytest.approx(23.7, abs=0.05)
    assert improvement(84.7, 71.3) == pytest.approx(18.8, abs=0.05)
    assert math.isnan(improvement(0.5, 0.0))


def test_gap_closed():
    assert gap_closed(0.75, 0.65, 0.85) == pytest.approx(0.5)
    assert gap_closed(0.60, 0.65, 0.85) < 0
    assert math.isnan(gap_closed(0.75, 0.85, 0.80))


@pytest.mark.parametrize(
    ("p", "dof", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 4, 2.77645), (0.975, 14, 2.14479), (0.95, 9, 1.83311),
     (0.995, 29, 2.75639), (0.5, 3, 0.0)],
)  # fmt: skip
def test_student_t_quantiles_of_the_textbook(p, dof, value):
    assert student_t_quantile(p, dof) == pytest.approx(value, abs=2e-5)


def test_t_interval_of_a_worked_example():
    """1, 2, 3, 4, 5: mean 3, s = sqrt(2.5), half width 2.776 * s / sqrt(5) = 1.963."""
    got = paired_interval([1, 2, 3, 4, 5])
    assert (got.mean, got.n) == (3.0, 5)
    assert got.lo == pytest.approx(3 - 1.96324, abs=1e-4) and got.hi == pytest.approx(3 + 1.96324, abs=1e-4)
    assert got.excludes_zero and str(got) == "+3.0 [+1.0, +5.0]"


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_intervals_cover_the_true_mean_about_95_times_in_100(method):
    rng = np.random.default_rng(3)
    hits = 0
    for i in range(300):
        got = paired_interval(rng.normal(0.4, 1.0, 20), method=method, resamples=1000, seed=i)
        hits += got.lo <= 0.4 <= got.hi
    assert 0.90 <= hits / 300 <= 0.985


def test_draws_as_units_widen_the_interval_when_seeds_agree():
    differences = np.array([[1.0, 1.1, 0.9], [3.0, 3.1, 2.9], [5.0, 4.9, 5.1]])
    by_seed, by_draw = paired_interval(differences), paired_interval(differences, by_draw=True)
    assert (by_seed.n, by_draw.n) == (9, 3)
    assert by_draw.mean == pytest.approx(by_seed.mean)
    assert by_draw.hi - by_draw.lo > 2 * (by_seed.hi - by_seed.lo)
    assert by_seed.excludes_zero and not by_draw.excludes_zero


def test_missing_pairs_are_left_out_and_one_value_has_no_interval():
    assert paired_interval([1.0, math.nan, 3.0]).n == 2
    single = paired_interval([0.7])
    assert single.mean == 0.7 and math.isnan(single.lo) and not single.excludes_zero
    assert str(single) == "+0.7"


def test_wilson_interval_of_published_examples():
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for k, n, lo, hi in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                         (1, 29, 0.0061, 0.1718)]:  # fmt: skip
        got = wilson_interval(k, n)
        assert got.lo == pytest.approx(lo, abs=1e-4) and got.hi == pytest.approx(hi, abs=1e-4)


def test_bad_input_is_one_sentence():
    for call, words in [
        (lambda: paired_interval([]), "not empty"),
        (lambda: paired_interval([1, 2], method="normal"), "Known: t, bootstrap"),  # type: ignore[arg-type]
        (lambda: paired_interval([1, 2], level=95), "between 0 and 1"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def test_average_precision_is_the_area_of_the_steps_by_hand():
    """Ranks: +, -, +, (-, +) at once: precision 1 at recall 1/3, 2/3 at 2/3, 3/5 at 1."""
    scores = np.array([0.2, 0.9, 0.5, 0.2, 0.7])
    positive = np.array([True, True, True, False, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(scores, scores > 0.6) == 1 and math.isnan(average_precision(scores, scores > 1))


def test_average_precision_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for n in (3, 40, 500):
        scores, positive = rng.integers(0, n // 2 + 1, n) / n, rng.random(n) < 0.3
        positive[0] = True
        expected = metrics.average_precision_score(positive, scores)
        assert average_precision(scores, positive) == pytest.approx(expected)


def test_a_class_that_is_named_more_readily_keeps_its_average_precision():
    rng = np.random.default_rng(1)
    logits, truth = rng.standard_normal((200, 3)), rng.integers(0, 3, 200)
    readily = logits + [1.0, 0, 0]
    hits = lambda x: np.mean(x[truth == 0].argmax(1) == 0)  # noqa: E731
    assert hits(readily) > hits(logits) + 0.1
    probability = lambda x: (np.exp(x) / np.exp(x).sum(1, keepdims=True))[:, 0]  # noqa: E731
    before, after = (average_precision(probability(x), truth == 0) for x in (logits, readily))
    assert before == after
