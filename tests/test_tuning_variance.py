"""Variance components and power, against worked examples, simulated data and scipy's noncentral t."""

from __future__ import annotations

import math

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.metrics_gain import paired_interval, student_t_quantile
from tuning.variance import MOST_DRAWS, READINGS, Components, components, detectable, needed, paired


def parts(between: float, within: float) -> Components:
    """Components given as standard deviations."""
    return Components(mean=0.0, between=between**2, within=within**2, draws=3, dof=6)


def test_components_of_a_worked_example() -> None:
    """Rows 1 2 3, 4 5 6, 7 8 9: MSW = 1, MSB = 27, so 1 within and (27 - 1) / 3 between."""
    got = components(np.arange(1.0, 10).reshape(3, 3))
    assert (got.mean, got.within, got.draws, got.dof) == (5.0, 1.0, 3, 6)
    assert got.between == pytest.approx(26 / 3)


def test_components_of_unequal_draws() -> None:
    """Sizes 3, 2: n0 = (5 - 13 / 5) / 1 = 2.4; SSW = 2 + 2 over 3; MSB = 3 (2 - 4.4)^2 + 2 (8 - 4.4)^2 = 43.2."""
    values = {("a", 0): 1.0, ("b", 0): 7.0, ("a", 1): 2.0, ("a", 2): 3.0, ("b", 1): 9.0}
    got = components(values)
    assert got.within == pytest.approx(4 / 3) and got.between == pytest.approx((43.2 - 4 / 3) / 2.4)
    table = np.array([[1.0, 2.0, 3.0], [7.0, 9.0, np.nan]])
    assert components(table) == got


def test_components_are_recovered_from_simulated_data() -> None:
    rng = np.random.default_rng(0)
    found = [components(3 * rng.normal(size=(4, 1)) + 2 * rng.normal(size=(4, 5)) + 60) for _ in range(2000)]
    assert np.mean([c.between for c in found]) == pytest.approx(9, rel=0.06)
    assert np.mean([c.within for c in found]) == pytest.approx(4, rel=0.03)
    assert np.mean([c.mean for c in found]) == pytest.approx(60, abs=0.1)


def test_a_negative_variance_between_draws_is_none() -> None:
    assert components(np.array([[1.0, 9.0], [9.0, 1.0]])).between == 0


def test_common_runs_take_out_what_both_share() -> None:
    """Both arms share each draw's and each seed's luck; only 1 point of noise is their own, so 2 in the difference."""
    rng = np.random.default_rng(1)
    keys = [(f"d{d}", s) for d in range(40) for s in range(10)]
    luck = dict(zip(keys, 5 * rng.normal(size=400), strict=True))
    one, two = ({k: luck[k] + rng.normal() for k in keys} for _ in range(2))
    assert components(one).within == pytest.approx(26, rel=0.2)
    assert paired(one, two).within == pytest.approx(2, rel=0.2)
    two.pop(("d0", 0))
    assert paired(one, two).dof == 400 - 1 - 40


def test_one_seed_is_refused_and_one_draw_says_nothing_of_others() -> None:
    with pytest.raises(InputError, match="at least 2"):
        components(np.ones((3, 1)))
    with pytest.raises(InputError, match="at least 2"):
        paired({("a", 0): 1.0, ("a", 1): 1.0}, {("b", 0): 1.0, ("b", 1): 1.0})
    single = components(np.array([[1.0, 2.0, 4.0]]))
    assert math.isnan(single.between) and single.within == pytest.approx(7 / 3)
    assert detectable(single, 3, 3).difference > 0
    with pytest.raises(InputError, match="One draw"):
        detectable(single, 3, 3, "random")


def test_standard_errors_by_hand() -> None:
    p = parts(between=3, within=2)
    assert detectable(p, 3, 4).error == pytest.approx(math.sqrt(4 / 12))
    assert detectable(p, 3, 4, "random").error == pytest.approx(math.sqrt(9 / 3 + 4 / 12))
    assert detectable(p, 3, 4, common=False).error == pytest.approx(math.sqrt(2 * 4 / 12))
    dofs = [detectable(p, 3, 4, r, c).dof for r in READINGS for c in (True, False)]
    assert dofs == [9, 18, 2, 4]
    assert detectable(p, 3, 1).difference == math.inf == detectable(p, 1, 9, "random").difference


@pytest.mark.parametrize("dof", [1, 2, 5, 30])
@pytest.mark.parametrize(("power", "level"), [(0.8, 0.05), (0.95, 0.01)])
def test_the_difference_is_that_of_the_noncentral_t(dof: int, power: float, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = detectable(parts(0, 1), 1, dof + 1, power=power, level=level)
    shift = found.difference / found.error
    assert stats.nct.sf(stats.t.ppf(1 - level / 2, dof), dof, shift) == pytest.approx(power, abs=1e-5)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("common", [True, False])
def test_the_power_is_what_simulated_studies_have(reading, common) -> None:
    """4000 studies with the promised difference: 80 % must find it, and 2.5 % where there is none."""
    rng = np.random.default_rng(5)
    draws, seeds, studies = 4, 3, 4000
    plan = detectable(parts(between=1.5, within=2), draws, seeds, reading, common)

    def runs() -> np.ndarray:
        """[studies, draws, seeds]: paired differences, or one arm's recalls."""
        random = 1.5 * rng.normal(size=(studies, draws, 1))
        fixed = np.array([4.0, -1.0, -3.0, 0.0])[:, None]
        return (random if reading == "random" else fixed) + 2 * rng.normal(size=(studies, draws, seeds))

    def squared_error(x: np.ndarray) -> np.ndarray:
        """Of the mean, as each study would estimate it."""
        if reading == "random":
            return x.mean(-1).var(1, ddof=1) / draws
        return x.var(-1, ddof=1).mean(1) / (draws * seeds)

    def found(true: float) -> float:
        sides = [runs() for _ in range(1 if common else 2)]
        means = [x.mean((1, 2)) for x in sides]
        seen = true + means[0] - (0 if common else means[1])
        error = np.sqrt(np.sum([squared_error(x) for x in sides], 0))
        return float((seen > student_t_quantile(0.975, plan.dof) * error).mean())

    assert found(plan.difference) == pytest.approx(0.8, abs=0.025)
    assert found(0.0) == pytest.approx(0.025, abs=0.01)


def test_random_draws_agree_with_the_interval_by_draw() -> None:
    """The reading `random` is the test of `paired_interval(by_draw=True)`."""
    rng = np.random.default_rng(6)
    plan = detectable(parts(between=1.0, within=1.0), 3, 2, "random")
    hits = 0
    for _ in range(400):
        x = plan.difference + rng.normal(size=(3, 1)) + rng.normal(size=(3, 2))
        hits += paired_interval(x, by_draw=True).lo > 0
    assert hits / 400 == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("common", [True, False])
def test_needed_is_the_smallest_number_that_is_enough(reading, common) -> None:
    p = parts(between=0.6, within=2)
    seeds = needed(p, 2.0, reading, common)
    assert list(seeds) == list(range(1, MOST_DRAWS + 1))
    for draws, n in seeds.items():
        if n is None:
            assert detectable(p, draws, 10**7, reading, common).difference > 2
            continue
        assert detectable(p, draws, n, reading, common).difference <= 2
        assert n == 1 or detectable(p, draws, n - 1, reading, common).difference > 2
    assert seeds[MOST_DRAWS] is not None and (seeds[1] is None) == (reading == "random")


@pytest.mark.parametrize("reading", READINGS)
def test_needed_falls_with_draws_and_with_the_difference_and_rises_with_the_noise(reading) -> None:
    many = lambda n: math.inf if n is None else n  # noqa: E731
    p = parts(between=0.5, within=2)
    by_draws = [many(n) for n in needed(p, 2.0, reading).values()]
    assert by_draws == sorted(by_draws, reverse=True) and by_draws[0] > by_draws[-1]
    by_difference = [many(needed(p, d, reading)[4]) for d in (1.0, 2.0, 4.0)]
    assert by_difference == sorted(by_difference, reverse=True) and by_difference[0] > by_difference[-1]
    by_noise = [many(needed(parts(0.5, w), 2.0, reading)[4]) for w in (1, 2, 4)]
    assert by_noise == sorted(by_noise) and by_noise[0] < by_noise[-1]


def test_the_draws_own_variance_is_a_floor() -> None:
    """With sd 2 between draws, no number of seeds makes up for so few random draws; of fixed ones 1 will do."""
    p = parts(between=2, within=2)
    assert set(needed(p, 2.0, "random").values()) == {None}
    assert None not in needed(p, 2.0, "fixed").values()
    assert needed(parts(between=0, within=2), 2.0, "random")[3] is not None


def test_bad_numbers_are_refused() -> None:
    p = parts(1, 1)
    for wrong in ({"draws": 0}, {"seeds": 0}, {"power": 1.0}, {"power": 0.2}, {"level": 0.0}):
        with pytest.raises(InputError, match="needs at least"):
            detectable(p, **{"draws": 3, "seeds": 3} | wrong)
    with pytest.raises(InputError, match="Known: fixed, random"):
        detectable(p, 3, 3, "both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="above 0"):
        needed(p, 0.0)
