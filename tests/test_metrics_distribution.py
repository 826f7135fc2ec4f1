"""Distances between feature sets against closed forms, independent formulas and known limits."""

import math

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.metrics import (
    frechet_distance,
    frechet_motion_distance,
    gaussian_frechet,
    kernel_distance,
    ledoit_wolf,
    principal_axes,
    rbf_mmd,
)

RNG = np.random.default_rng


def test_frechet_of_commuting_gaussians_has_its_closed_form():
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([0.5, 2.0, 3.0]).double()
    m1, m2 = torch.zeros(3).double(), torch.tensor([1.0, 0.0, 2.0]).double()
    expected = float(((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum())
    assert gaussian_frechet(m1, torch.diag(s1**2), m2, torch.diag(s2**2)) == pytest.approx(expected)


def test_frechet_agrees_with_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = RNG(0)
    a, b = (x @ x.T + 0.1 * np.eye(6) for x in (rng.normal(size=(6, 6)), rng.normal(size=(6, 6))))
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(linalg.sqrtm(a @ b)).real
    zero = torch.zeros(6).double()
    assert gaussian_frechet(zero, torch.tensor(a), zero, torch.tensor(b)) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_samples_approaches_the_distance_of_their_gaussians():
    rng = RNG(1)
    a, b = rng.normal(size=(20_000, 4)), 2 * rng.normal(size=(20_000, 4)) + [3, 0, 0, 0]
    assert frechet_distance(a, b) == pytest.approx(9 + 4, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_with_fewer_clips_than_dimensions_is_finite_and_shrunk():
    rng = RNG(2)
    a, b = rng.normal(size=(12, 40)), rng.normal(size=(12, 40))
    plain = gaussian_frechet(
        torch.tensor(a.mean(0)), torch.tensor(np.cov(a.T)), torch.tensor(b.mean(0)), torch.tensor(np.cov(b.T))
    )
    assert 0 < frechet_distance(a, b) < 0.5 * plain


def test_ledoit_wolf_agrees_with_its_definition_and_beats_the_sample_covariance():
    rng = RNG(3)
    truth = np.diag(np.linspace(0.5, 2, 10))
    x = rng.multivariate_normal(np.zeros(10), truth, 15)
    got = ledoit_wolf(x).numpy()
    y = x - x.mean(0)
    s = y.T @ y / 15
    target = np.trace(s) / 10 * np.eye(10)
    noise = np.mean([np.sum((np.outer(r, r) - s) ** 2) for r in y]) / 15
    weight = min(1.0, noise / np.sum((s - target) ** 2))
    assert np.allclose(got, weight * target + (1 - weight) * s)
    assert np.linalg.norm(got - truth) < np.linalg.norm(s - truth)


def test_kernel_distance_is_unbiased_and_grows_with_the_shift():
    """Mean over many pairs of samples of one distribution is 0, some are negative."""
    rng = RNG(4)
    same = [kernel_distance(rng.normal(size=(40, 5)), rng.normal(size=(40, 5))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert min(same) < 0
    near = kernel_distance(rng.normal(size=(200, 5)), rng.normal(size=(200, 5)) + 0.5)
    far = kernel_distance(rng.normal(size=(200, 5)), rng.normal(size=(200, 5)) + 1.0)
    assert np.std(same) < near < far


def test_kernel_distance_of_degree_one_is_the_squared_distance_of_means():
    rng = RNG(5)
    a, b = rng.normal(size=(4000, 8)), rng.normal(size=(4000, 8)) + 1.0
    assert kernel_distance(a, b, degree=1) == pytest.approx(8 / 8, rel=0.05)


def test_rbf_mmd_has_its_closed_form_for_gaussians():
    """E k(x, y) = (h^2 / (h^2 + 2))^(d/2) exp(-|m|^2 / (2 (h^2 + 2))) for unit Gaussians m apart."""
    rng = RNG(6)
    d, shift, h = 3, 1.2, 1.5
    a, b = rng.normal(size=(3000, d)), rng.normal(size=(3000, d)) + [shift, 0, 0]
    base = (h * h / (h * h + 2)) ** (d / 2)
    expected = 2 * base * (1 - math.exp(-(shift**2) / (2 * (h * h + 2))))
    assert rbf_mmd(a, b, bandwidth=h) == pytest.approx(expected, rel=0.08)


def test_rbf_mmd_uses_the_median_distance_and_ignores_scale():
    rng = RNG(7)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(60, 6)) + 0.7
    median = float(torch.pdist(torch.tensor(np.concatenate([a, b]))).median())
    assert rbf_mmd(a, b) == pytest.approx(rbf_mmd(a, b, bandwidth=median))
    assert rbf_mmd(100 * a, 100 * b) == pytest.approx(rbf_mmd(a, b), rel=1e-9)


def test_principal_axes_keep_the_largest_variance():
    x = RNG(8).normal(size=(300, 5)) * [1, 9, 1, 3, 1]
    mean, axes = principal_axes(x, dims=2)
    assert abs(axes[1, 0]) > 0.99 and abs(axes[3, 1]) > 0.95
    assert torch.allclose(axes.T @ axes, torch.eye(2).double(), atol=1e-9)
    assert principal_axes(x[:4], dims=64)[1].shape == (5, 3)
    assert np.allclose(mean, x.mean(0))


def test_a_perfect_generator_scores_the_floor_and_a_bad_one_far_above():
    rng = RNG(9)
    real, perfect = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
    good = frechet_motion_distance(real, perfect).pooled
    bad = frechet_motion_distance(real, perfect + 1.0).pooled
    assert good.n == 200
    assert abs(good.distance - good.floor) < 4 * max(good.distance_std, good.floor_std)
    assert bad.ratio > 5 and bad.floor == good.floor


@pytest.mark.parametrize("dims", [20, 200])
def test_a_perfect_generator_scores_the_floor_in_many_dimensions(dims):
    """Principal axes fitted on all real clips would put it 40 % above."""
    rng = RNG(15)
    labels = np.arange(400) % 4
    ratios = []
    for _ in range(6):
        real, perfect = rng.normal(size=(2, 400, dims))
        ratios.append(frechet_motion_distance(real, perfect, labels, labels, repeats=4))
    assert np.mean([r.pooled.ratio for r in ratios]) == pytest.approx(1.0, abs=0.05)
    assert np.mean([r.per_class[2].ratio for r in ratios]) == pytest.approx(1.0, abs=0.12)


def test_distance_and_floor_are_taken_at_the_same_small_n():
    """With 30 synthetic clips both are biased by 30 clips; comparing 400 real with 30 would not be fair."""
    rng = RNG(10)
    report = frechet_motion_distance(rng.normal(size=(400, 10)), rng.normal(size=(30, 10)), repeats=40)
    assert report.pooled.n == 30
    assert report.pooled.ratio == pytest.approx(1.0, abs=0.35)
    assert (
        report.pooled.floor > 1.5 * frechet_motion_distance(*RNG(10).normal(size=(2, 400, 10))).pooled.floor
    )


def test_a_class_that_lost_its_modes_is_seen_only_per_class():
    """Two classes swap places: the pooled distance is at its floor, the distance per class is not."""
    rng = RNG(11)
    labels = np.repeat([0, 1], 100)
    offset = np.where(labels == 0, -3.0, 3.0)[:, None]
    real, fake = rng.normal(size=(200, 6)) + offset, rng.normal(size=(200, 6)) - offset
    report = frechet_motion_distance(real, fake, labels, labels)
    assert report.pooled.ratio < 2
    assert set(report.per_class) == {0, 1} and all(r.ratio > 20 for r in report.per_class.values())


def test_the_same_seed_gives_the_same_report():
    real, fake = RNG(12).normal(size=(2, 60, 8))
    assert frechet_motion_distance(real, fake, seed=5) == frechet_motion_distance(real, fake, seed=5)
    assert frechet_motion_distance(real, fake, seed=5) != frechet_motion_distance(real, fake, seed=6)


def test_classes_with_too_few_clips_are_missing_from_the_report():
    real, fake = RNG(13).normal(size=(2, 20, 3))
    labels = np.array([0] * 17 + [1] * 3)
    assert set(frechet_motion_distance(real, fake, labels, labels).per_class) == {0}
    alone = frechet_motion_distance(real, fake, np.arange(20), np.arange(20))
    assert alone.pooled.n == 10 and not alone.per_class


def test_bad_input_is_one_sentence():
    x = RNG(14).normal(size=(10, 4))
    for call, words in [
        (lambda: frechet_distance(x, x[:, :3]), "4 and 3 dimensions"),
        (lambda: kernel_distance(x, x[:1]), "at least 2"),
        (lambda: frechet_distance(x[0], x), r"must be \[clips, dimensions\]"),
        (lambda: rbf_mmd(x, x, bandwidth=-1), "above 0"),
        (lambda: frechet_motion_distance(x[:3], x), "at least 4 real clips"),
        (lambda: frechet_motion_distance(x, x, np.zeros(9), np.zeros(10)), "give one each"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
