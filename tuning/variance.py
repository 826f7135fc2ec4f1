"""Between draws and between seeds: where the variance of a recall comes from, and what it takes to see through it.

A recall varies between draws and, within a draw, between seeds. Two settings that share draws and seeds (common random
numbers) are compared run by run, and only the variance of their difference counts. Draws can be read in two ways:

    fixed     the average over these very draws, of which three make every class rare once; only seeds are noise, so
              seeds alone make it as certain as one likes. This is what a search maximises.
    random    draws are a sample of those that there could be; their own variance is a floor that no seed lowers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from motionsynth.errors import InputError
from motionsynth.metrics_gain import student_t_quantile

Reading = Literal["fixed", "random"]
READINGS: tuple[Reading, ...] = ("fixed", "random")
Runs = Mapping[tuple[str, int], float]
"""A metric in points by bed and seed."""
MOST_DRAWS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Components:
    """Where the variance of one arm's metric, or of the paired difference of two, comes from; points squared.

    Attributes:
        mean: Mean of the draws' means.
        between: Variance between draws, beyond what seeds cause; NaN with a single draw.
        within: Variance between seeds of one draw.
        draws: Draws that it was estimated from.
        dof: Degrees of freedom of `within`.
    """

    mean: float
    between: float
    within: float
    draws: int
    dof: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Detectable:
    """What a number of draws and seeds can tell apart; points.

    Attributes:
        error: Standard error of the difference.
        dof: Degrees of freedom of its estimate.
        difference: Smallest one that is found with the wanted power; infinite without a degree of freedom.
    """

    error: float
    dof: int
    difference: float


def components(values: np.ndarray | Runs) -> Components:
    """Variance components by one-way random-effects analysis of variance.

    Searle, Casella & McCulloch 1992, "Variance Components", chapter 3: mean squares equated with their expectations,
    also for unequal numbers of seeds; a negative variance between draws is set to 0.

    Args:
        values: [draws, seeds] with NaN where a run is missing, or by (bed, seed); recalls or paired differences.

    Raises:
        InputError: no draw has two seeds.
    """
    if isinstance(values, Mapping):
        beds = dict.fromkeys(bed for bed, _ in values)
        groups = [np.array([v for (b, _), v in values.items() if b == bed]) for bed in beds]
    else:
        groups = list(np.atleast_2d(np.asarray(values, float)))
    groups = [kept for g in groups if len(kept := g[np.isfinite(g)])]
    sizes = np.array([len(g) for g in groups])
    draws, runs = len(groups), int(sizes.sum())
    if runs <= draws:
        raise InputError("The noise between seeds cannot be seen: no draw has 2 seeds; score at least 2.")
    means = np.array([g.mean() for g in groups])
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / (runs - draws)
    between = math.nan
    if draws > 1:
        grand = float(sizes @ means) / runs
        square = float(sizes @ (means - grand) ** 2) / (draws - 1)
        weight = (runs - float(sizes @ sizes) / runs) / (draws - 1)
        between = max(0.0, (square - within) / weight)
    return Components(mean=float(means.mean()), between=between, within=within, draws=draws, dof=runs - draws)


def paired(one: Runs, two: Runs) -> Components:
    """Components of `one` minus `two` over the (bed, seed) that both have.

    Raises:
        InputError: they share too few.
    """
    return components({k: one[k] - two[k] for k in one if k in two})


def detectable(
    parts: Components,
    draws: int,
    seeds: int,
    reading: Reading = "fixed",
    common: bool = True,
    power: float = 0.8,
    level: float = 0.05,
) -> Detectable:
    """The standard error of a difference, and the smallest difference that a two-sided t test finds.

    The test knows no variance beforehand. With fixed draws it estimates that within draws, with draws * (seeds - 1)
    degrees of freedom; with random draws, that of the draws' means, with draws - 1. Power counts only differences that
    are found with their right sign. The components are taken as known: those of few runs are uncertain themselves.

    Args:
        parts: Of the paired difference; without `common`, of one arm.
        draws, seeds: How many are scored for each of the two settings.
        reading: See the module.
        common: Both settings share draws and seeds; else each has its own seeds and, where draws are random, its own
            draws.
        power: Wanted probability of finding the difference.
        level: Probability of finding one where there is none.

    Raises:
        InputError: a number out of its range, or random draws and a variance between them that nobody has measured.
    """
    if draws < 1 or seeds < 1 or not 0 < level < 1 or not 0.5 <= power < 1:
        raise InputError(
            f"detectable got draws={draws}, seeds={seeds}, power={power:g}, level={level:g}; it needs at least 1 draw "
            "and 1 seed, a power from 0.5 to below 1 and a level between 0 and 1."
        )
    if reading not in READINGS:
        raise InputError(f"Unknown reading of draws '{reading}'. Known: fixed, random.")
    arms = 1 if common else 2
    variance = parts.within / (draws * seeds)
    dof = draws * (seeds - 1)
    if reading == "random":
        if math.isnan(parts.between):
            raise InputError(
                "One draw says nothing of the variance between draws; score several, or read them as fixed."
            )
        variance, dof = variance + parts.between / draws, draws - 1
    error = math.sqrt(arms * variance)
    difference = error * _shift(arms * dof, power, level) if dof else math.inf
    return Detectable(error=error, dof=arms * dof, difference=difference)


def needed(
    parts: Components,
    difference: float = 2.0,
    reading: Reading = "fixed",
    common: bool = True,
    power: float = 0.8,
    level: float = 0.05,
) -> dict[int, int | None]:
    """The smallest number of seeds that tells a difference apart, for 1 to `MOST_DRAWS` draws.

    Args:
        parts, reading, common, power, level: As for `detectable`.
        difference: Points.

    Returns:
        Seeds of each draw; None where no number is enough, since the draws' own variance is too large.

    Raises:
        InputError: as `detectable`, or a difference that is not above 0.
    """
    if not difference > 0:
        raise InputError(f"The difference to be told apart is {difference:g}; it must be above 0.")

    def enough(draws: int, seeds: int) -> bool:
        return detectable(parts, draws, seeds, reading, common, power, level).difference <= difference

    out: dict[int, int | None] = {}
    for draws in range(1, MOST_DRAWS + 1):
        out[draws] = None
        if reading == "random" and not _above_floor(parts, draws, difference, common, power, level):
            continue
        # What is told apart falls with the number of seeds: double it, then halve the gap.
        high = 1
        while not enough(draws, high):
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(draws, middle) else (middle, high)
        out[draws] = high
    return out


def _above_floor(
    parts: Components, draws: int, difference: float, common: bool, power: float, level: float
) -> bool:
    """Whether endless seeds would do."""
    endless = replace(parts, within=0.0)
    floor = detectable(endless, draws, 1, "random", common, power, level).difference
    return floor < difference or (parts.within == 0 and floor <= difference)


@lru_cache(maxsize=4096)
def _shift(dof: int, power: float, level: float) -> float:
    """Difference in standard errors that a t test finds with this power: the noncentral t's parameter.

    P(t > quantile) = E[Phi(shift - quantile * s)] with s * s * dof chi-squared, summed on a grid.
    """
    quantile = student_t_quantile(1 - level / 2, dof)
    spread = 8 / math.sqrt(2 * dof)
    s = np.linspace(max(1e-9, 1 - spread), 1 + spread, 801)
    density = (dof - 1) * np.log(s) - dof * s**2 / 2
    weight = np.exp(density - density.max())
    weight[[0, -1]] /= 2
    weight /= weight.sum()
    low, high = 0.0, 2.0
    while _found(high, quantile, s, weight) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _found(middle, quantile, s, weight) < power else (low, middle)
    return high


def _found(shift: float, quantile: float, s: np.ndarray, weight: np.ndarray) -> float:
    import torch

    return float(weight @ torch.special.ndtr(torch.from_numpy(shift - quantile * s)).numpy())
