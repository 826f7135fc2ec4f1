"""MDI, diversity and memorisation on sets whose answer is known."""

import math

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.metrics import (
    diversity,
    diversity_beside_real,
    memorisation,
    movement_diversity_index,
    nearest_distance,
    standardise,
)

RNG = np.random.default_rng


def test_mdi_of_a_grid_is_its_squared_spacing():
    grid = np.stack(np.meshgrid(*[np.arange(4.0) * 0.5] * 2), -1).reshape(-1, 2)
    assert movement_diversity_index(grid) == pytest.approx(0.25)


def test_mdi_is_taken_within_classes():
    """Two classes of identical clips far apart: no diversity."""
    x = np.repeat([[0.0, 0.0], [5.0, 5.0]], 4, axis=0)
    labels = np.repeat([0, 1], 4)
    assert movement_diversity_index(x, labels) == 0
    assert movement_diversity_index(x[[0, 4]]) == pytest.approx(50)
    assert math.isnan(movement_diversity_index(x[[0, 4]], labels[[0, 4]]))


def test_mdi_falls_as_n_grows():
    x = RNG(0).normal(size=(800, 4))
    assert movement_diversity_index(x) < 0.6 * movement_diversity_index(x[:50])


def test_diversity_of_unit_gaussians_approaches_its_expectation():
    """Mean distance of two standard normals in one dimension: 2 / sqrt(pi)."""
    x = RNG(1).normal(size=(3000, 1))
    assert diversity(x) == pytest.approx(2 / math.sqrt(math.pi), rel=0.03)


def test_diversity_within_classes_ignores_the_distance_between_them():
    x = np.array([[0.0], [1.0], [100.0], [101.0]])
    assert diversity(x, np.array([0, 0, 1, 1])) == pytest.approx(1.0)
    assert diversity(x) > 60


def test_standardised_real_pairs_are_sqrt_two_apart():
    real = RNG(2).normal(size=(1000, 50)) * np.linspace(1, 30, 50) + 7
    z = standardise(real, real)
    assert diversity(z) == pytest.approx(math.sqrt(2), rel=0.02)
    assert np.isfinite(standardise(np.ones((3, 2)), np.ones((5, 2)))).all()


def test_report_at_equal_n_gives_real_like_clips_a_ratio_of_one():
    """300 real against 30 synthetic of the same distribution; unequal N would give MDI_fake >> MDI_real."""
    rng = RNG(3)
    real, fake = rng.normal(size=(600, 6)), rng.normal(size=(60, 6))
    lr, lf = np.arange(600) % 2, np.arange(60) % 2
    report = diversity_beside_real(real, fake, lr, lf)
    assert report.per_class == {0: 30, 1: 30}
    assert report.mdi_ratio == pytest.approx(1.0, abs=0.25)
    assert report.spread == pytest.approx(report.spread_real, rel=0.1)
    collapsed = diversity_beside_real(real, 0.2 * fake, lr, lf)
    assert collapsed.mdi_ratio < 0.1


def test_classes_without_two_clips_on_both_sides_are_left_out():
    x = RNG(4).normal(size=(6, 2))
    report = diversity_beside_real(x, x, np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 2, 2]))
    assert report.per_class == {0: 2}
    assert math.isnan(diversity_beside_real(x, x, np.zeros(6), np.ones(6)).mdi)


def test_nearest_distance_agrees_with_brute_force():
    a, b = RNG(5).normal(size=(7, 3)), RNG(6).normal(size=(9, 3))
    brute = [min(np.linalg.norm(p - q) for q in b) for p in a]
    assert np.allclose(nearest_distance(a, b), brute)
    own = [min(np.linalg.norm(a[i] - a[j]) for j in range(7) if j != i) for i in range(7)]
    assert np.allclose(nearest_distance(a), own)


def test_copies_are_memorised_and_new_clips_are_not():
    rng = RNG(7)
    training, new = rng.normal(size=(400, 6)), rng.normal(size=(400, 6))
    copies = training[:200] + 1e-3 * rng.normal(size=(200, 6))
    assert memorisation(copies, training).share == 1.0
    fresh = memorisation(new, training)
    assert fresh.share == pytest.approx(fresh.expected, abs=0.03)
    assert fresh.median == pytest.approx(fresh.median_real, rel=0.1)
    half = memorisation(np.concatenate([copies, new[:200]]), training)
    assert half.share == pytest.approx(0.52, abs=0.03)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="at least 2 clips; got 1"):
        nearest_distance(np.zeros((1, 3)))
    with pytest.raises(InputError, match="give one each"):
        movement_diversity_index(np.zeros((4, 2)), np.zeros(3))
    with pytest.raises(InputError, match=r"must be \[clips, dimensions\]"):
        memorisation(np.zeros((4, 2, 2)), np.zeros((4, 2)))
