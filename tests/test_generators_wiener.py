"""The linear guess at a clean clip: the textbook's posterior mean, and better than any multiple of the noised clip."""

from __future__ import annotations

import numpy as np
import torch

from motionsynth.generators.diffusion import add_noise
from motionsynth.generators.wiener import WienerGuess

FRAMES, DIMS = 16, 3


def walks(n: int, seed: int = 0) -> torch.Tensor:
    """Smooth rows about a mean that moves: random walks, float32 [n, FRAMES, DIMS]."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(n, FRAMES, DIMS)).cumsum(1) / 4
    return torch.from_numpy(steps + np.linspace(0, 1, FRAMES)[:, None]).float()


def fitted(z: torch.Tensor, mask: torch.Tensor | None = None) -> WienerGuess:
    guess = WienerGuess(FRAMES, DIMS)
    guess.fit(z, torch.ones(len(z), 1, DIMS, dtype=torch.bool) if mask is None else mask)
    return guess


def test_it_is_the_posterior_mean_of_a_gaussian() -> None:
    """Against E[x0 | xt] = m + S a (a^2 S + (1 - a^2) I)^-1 (xt - a m), a = sqrt(alpha_bar), by dense matrices."""
    guess = fitted(walks(4000))
    x, a = walks(5, seed=1), torch.tensor([0.9, 0.5, 0.1, 0.01, 0.999])
    made = guess(x, a, torch.zeros_like(x))
    basis = guess.basis.double()
    for d in range(DIMS):
        cov = basis.T @ torch.diag(guess.power[:, d].double()) @ basis
        mean = guess.mean[:, d].double()
        for i, s in enumerate(a.double()):
            gain = s.sqrt() * cov @ torch.linalg.inv(s * cov + (1 - s) * torch.eye(FRAMES))
            want = mean + gain @ (x[i, :, d].double() - s.sqrt() * mean)
            torch.testing.assert_close(made[i, :, d].double(), want, atol=1e-4, rtol=1e-4)


def test_it_beats_every_multiple_of_the_noised_clip() -> None:
    guess, z = fitted(walks(4000)), walks(1000, seed=2)
    for a in (0.9, 0.5, 0.1):
        level = torch.full((len(z),), a)
        x = add_noise(z, torch.randn(z.shape, generator=torch.Generator().manual_seed(0)), level)
        error = (guess(x, level, torch.zeros_like(x)) - z).square().mean()
        scaled = min((m * x - z).square().mean() for m in np.linspace(0, 1.2, 60))
        assert error < 0.7 * scaled


def test_the_answer_is_in_units_of_what_is_unknown() -> None:
    """White answers of unit spread make up for the guess's error."""
    z = walks(4000)
    guess = fitted(z)
    x, noise = (
        walks(2000, seed=3),
        torch.randn(2000, FRAMES, DIMS, generator=torch.Generator().manual_seed(0)),
    )
    for a in (0.999, 0.5, 0.0):
        level = torch.full((len(x),), a)
        noised = add_noise(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), level)
        base = guess(noised, level, torch.zeros_like(x))
        added = (guess(noised, level, noise) - base).square().mean()
        torch.testing.assert_close(added, (base - x).square().mean(), rtol=0.05, atol=1e-4)


def test_features_that_do_not_count_do_not_count() -> None:
    z = walks(400)
    mask = torch.ones(400, 1, DIMS, dtype=torch.bool)
    mask[200:, :, 2] = False
    spoilt = z.clone()
    spoilt[200:, :, 2] = 1e6
    one, two = fitted(spoilt, mask), fitted(z[:200])
    torch.testing.assert_close(one.mean[:, 2], two.mean[:, 2])
    torch.testing.assert_close(one.power[:, 2], two.power[:, 2])
