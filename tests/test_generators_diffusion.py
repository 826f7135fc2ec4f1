"""Noise schedule and solvers, against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from motionsynth.errors import InputError
from motionsynth.generators.diffusion import add_noise, cosine_schedule, solve, walk
from motionsynth.generators.diffusion_config import SOLVERS

SPREAD = 0.3
"""Standard deviation of the normal data for which the best prediction of x0 is known."""


def never() -> Tensor:
    raise AssertionError("a deterministic solver drew noise")


def test_cosine_schedule_against_its_equation() -> None:
    bar = cosine_schedule(1000)
    f = lambda t: torch.cos(torch.tensor((t / 1000 + 0.008) / 1.008 * torch.pi / 2)) ** 2  # noqa: E731
    for t in (1, 250, 500, 900):
        assert float(bar[t - 1]) == pytest.approx(float(f(t) / f(0)), rel=1e-4)
    assert (bar.diff() < 0).all() and bar[0] > 0.999 and bar[-1] < 1e-6
    assert (1 - bar[1:] / bar[:-1]).max() <= 0.999 + 1e-9


def test_at_the_last_time_a_clip_is_noise_of_unit_variance() -> None:
    bar = cosine_schedule(50)
    rng = torch.Generator().manual_seed(0)
    x0, noise = 5 + torch.zeros(2, 4000), torch.randn(2, 4000, generator=rng)
    last = add_noise(x0, noise, bar[-1:].expand(2))
    assert last.std() == pytest.approx(1, abs=0.03) and last.mean().abs() < 0.1
    assert torch.allclose(add_noise(x0, noise, torch.ones(2)), x0)
    mixed = add_noise(x0, noise, torch.tensor([0.64, 1.0]))
    assert torch.allclose(mixed[0], 0.8 * x0[0] + 0.6 * noise[0]) and torch.allclose(mixed[1], x0[1])


@given(times=st.integers(2, 1000), steps=st.integers(1, 1000), start=st.floats(0.01, 1))
def test_walks_fall_from_the_noisiest_time(times: int, steps: int, start: float) -> None:
    walked = walk(times, steps, start)
    assert walked[0] == max(0, round(times * start) - 1) and (steps == 1 or walked[-1] == 0)
    assert all(a > b for a, b in zip(walked, walked[1:], strict=False))
    assert len(walked) <= steps
    assert steps <= walked[0] or len(walked) == walked[0] + 1


def test_a_full_walk_visits_every_time() -> None:
    assert walk(50, 50) == list(range(49, -1, -1))
    assert walk(1000, 10) == [999, 789, 604, 444, 308, 197, 111, 49, 12, 0]
    assert walk(1000, 5, 0.5) == [499, 281, 125, 31, 0]


def best(bar: Tensor):
    """x0 that is expected given x_t, for data from N(0, SPREAD^2): linear in x_t."""

    def predict(x: Tensor, t: int) -> Tensor:
        a = float(bar[t])
        return a**0.5 * SPREAD**2 / (a * SPREAD**2 + 1 - a) * x

    return predict


def exact(x: Tensor, bar: Tensor) -> Tensor:
    """Where the probability flow of that data ends: x keeps its quantile."""
    a = float(bar[-1])
    return x * SPREAD / (a * SPREAD**2 + 1 - a) ** 0.5


def test_deterministic_solvers_follow_the_probability_flow() -> None:
    bar = cosine_schedule(1000)
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[None]
    error = {}
    for solver in ("ddim", "dpm++"):
        for steps in (10, 20, 1000):
            made = solve(best(bar), x, bar, walk(1000, steps), solver, never)
            error[solver, steps] = float((made - exact(x, bar)).abs().max())
    assert error["ddim", 1000] < 0.005 and error["dpm++", 1000] < 0.001
    # A second-order solver is why 10 evaluations are enough.
    assert error["dpm++", 10] < 0.7 * error["ddim", 10]
    assert error["dpm++", 20] < 0.3 * error["ddim", 20] and error["dpm++", 20] < 0.02


def test_shrinking_gaps_pay_where_data_are_narrow() -> None:
    """Two peaks at +-1 with a standard deviation of 0.1; the reference takes every step."""
    bar = cosine_schedule(1000)

    def predict(x: Tensor, t: int) -> Tensor:
        a = float(bar[t])
        spread = a * 0.01 + 1 - a
        of = lambda m: m + a**0.5 * 0.01 / spread * (x - a**0.5 * m)  # noqa: E731
        right = (1 + torch.tanh(a**0.5 * x / spread)) / 2
        return right * of(1.0) + (1 - right) * of(-1.0)

    x = torch.linspace(-3, 3, 400, dtype=torch.float64)[None]
    run = lambda walked: solve(predict, x, bar, walked, "dpm++", never)  # noqa: E731
    reference = run(walk(1000, 1000))
    error = lambda walked: float((run(walked) - reference).square().mean().sqrt())  # noqa: E731
    assert error(walk(1000, 10)) < 0.15 * error(list(range(999, 0, -100)))


def test_ancestral_steps_are_those_of_ddpm() -> None:
    """Posterior mean and variance of Ho et al. 2020, eq. 7, at neighbouring times."""
    bar = cosine_schedule(20)
    x = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x0 = torch.full_like(x, 0.4)
    drawn: list[float] = []

    def noise() -> Tensor:
        drawn.append(1.0)
        return torch.ones_like(x)

    asked: list[Tensor] = []

    def predict(x: Tensor, t: int) -> Tensor:
        asked.append(x)
        return x0

    made = solve(predict, x, bar, walk(20, 20), "ddpm", noise)
    assert torch.equal(made, x0) and len(drawn) == 19
    for i, t in enumerate(range(19, 1, -1)):
        beta, a, before = 1 - bar[t] / bar[t - 1], bar[t], bar[t - 1]
        mean = (
            before.sqrt() * beta / (1 - a) * x0 + (bar[t] / before).sqrt() * (1 - before) / (1 - a) * asked[i]
        )
        spread = ((1 - before) / (1 - a) * beta).sqrt()
        assert torch.allclose(asked[i + 1], mean + spread, atol=1e-9), t


def test_ancestral_sampling_gives_the_data_its_spread() -> None:
    bar = cosine_schedule(200)
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(1, 20_000, generator=rng)  # noqa: E731
    made = solve(best(bar), draw(), bar, walk(200, 200), "ddpm", draw)
    assert float(made.std()) == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_known_clip_is_found_from_anywhere(solver: str) -> None:
    bar = cosine_schedule(100)
    clip = torch.linspace(-1, 1, 7)[None]
    for start in (1.0, 0.3):
        walked = walk(100, 6, start)
        x = add_noise(clip, torch.ones_like(clip), bar[walked[0]].expand(1))
        made = solve(lambda x, t: clip, x, bar, walked, solver, lambda: torch.ones_like(clip))
        assert torch.equal(made, clip)


def test_unknown_solvers_are_named() -> None:
    with pytest.raises(InputError, match="Unknown solver 'euler'. Known: ddpm, ddim, dpm"):
        solve(lambda x, t: x, torch.zeros(1, 2), cosine_schedule(4), [3], "euler", never)
