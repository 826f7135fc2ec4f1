"""Each of the four figures falls for its own failure."""

from __future__ import annotations

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.metrics_coverage import coverage_beside_real, neighbourhood_shares


def cloud(n: int, seed: int, centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return centre + spread * np.random.default_rng(seed).standard_normal((n, 4))


REAL = np.concatenate([cloud(120, 0, -4), cloud(120, 1, 4)])


def test_the_same_distribution_scores_like_its_floor() -> None:
    report = coverage_beside_real(REAL, np.concatenate([cloud(60, 2, -4), cloud(60, 3, 4)]))
    ours = (report.precision, report.recall, report.density, report.coverage)
    np.testing.assert_allclose(ours, report.floor, atol=0.15)
    assert report.precision > 0.8 and report.coverage > 0.8


def test_a_lost_mode_costs_recall_and_coverage_but_no_precision() -> None:
    report = coverage_beside_real(REAL, cloud(120, 2, -4))
    assert report.precision > 0.8 and report.recall < 0.6 and report.coverage < 0.6


def test_clips_unlike_any_real_one_cost_precision_and_density() -> None:
    report = coverage_beside_real(REAL, np.concatenate([REAL[::4], cloud(60, 2, 40)]))
    assert report.precision < 0.65 and report.density < 0.7


def test_shares_against_a_count_by_hand() -> None:
    """k = 1 on a line: balls around 0, 1 and 10 reach 1, 1 and 9 far."""
    real = np.array([[0.0], [1.0], [10.0]])
    made = np.array([[1.5], [30.0]])
    precision, recall, density, coverage = neighbourhood_shares(real, made, 1)
    assert precision == 0.5  # 30 is in no ball
    assert recall == 1.0  # the balls of 1.5 and 30 are 28.5 wide
    assert density == pytest.approx(2 / (1 * 2))  # 1.5 lies in the balls of 1 and of 10
    assert coverage == pytest.approx(2 / 3)


def test_too_few_clips_is_one_sentence() -> None:
    with pytest.raises(InputError, match="5 neighbours need at least 12 and 6"):
        coverage_beside_real(REAL[:8], REAL[:20])
