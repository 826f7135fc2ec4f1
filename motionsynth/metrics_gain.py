"""What a recogniser gained: improvement, gap closed, average precision, and intervals that tell it from chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from motionsynth.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: Point estimate.
        lo, hi: Bounds; NaN where `n` is too small for an interval.
        n: Number of independent values.
        level: Confidence level.
    """

    mean: float
    lo: float
    hi: float
    n: int
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero (False without an interval)."""
        return self.lo > 0 or self.hi < 0

    def __str__(self) -> str:
        """With signs and one decimal, as differences in points are written: `+1.5 [-0.2, +3.2]`."""
        bounds = f" [{self.lo:+.1f}, {self.hi:+.1f}]" if math.isfinite(self.lo) else ""
        return f"{self.mean:+.1f}{bounds}"


def improvement(augmented: float, baseline: float) -> float:
    """Relative gain in per cent: Galstyan 2025, eq. 7.

    It is large where the baseline is low (67.2 -> 83.1 is "23.7 %", in points 15.9), so report points and
    `gap_closed` beside it.

    Args:
        augmented, baseline: Accuracies in the same unit.

    Returns:
        100 * (augmented - baseline) / baseline; NaN for a baseline of 0.
    """
    return 100 * (augmented - baseline) / baseline if baseline else math.nan


def gap_closed(augmented: float, strong: float, ceiling: float) -> float:
    """Share of what could be won that was won: (augmented - strong) / (ceiling - strong).

    Args:
        augmented: Accuracy with synthetic clips.
        strong: Accuracy with real clips only, strongly augmented: the arm to beat.
        ceiling: Accuracy with all real clips.

    Returns:
        1 where the ceiling is reached, 0 for no gain, negative for a loss; NaN where the ceiling is not above
        the strong arm, since there is no gap to close.
    """
    return (augmented - strong) / (ceiling - strong) if ceiling > strong else math.nan


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve of one class against the rest, in steps (as scikit-learn has it).

    It asks in which order a recogniser puts clips, not where it draws the line: naming a class more readily raises its
    recall, and leaves this as it is.

    Args:
        scores: [n], such as the class's probability in each clip.
        positive: bool [n], whether a clip shows the class.

    Returns:
        In [0, 1]; NaN without a positive. Clips of equal score count together.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(positive[order]), scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # of a run of equal scores
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float((np.diff(hits[last], prepend=0) * precision).sum() / hits[-1])


def paired_interval(
    differences: Sequence[float] | np.ndarray,
    level: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
    by_draw: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean paired difference between two arms.

    A pair shares everything but the arm: draw of the rare classes, seed, steps. Published gains in this field
    compare unpaired single runs.

    Args:
        differences: [n], or [draws, seeds]; arm minus arm, NaN entries are left out.
        level: Confidence level.
        method: "t": Student's t; "bootstrap": percentiles of resampled means (too narrow below some 15
            values).
        by_draw: Treat the mean of each draw (row) as one value. Seeds of one draw share its clips and
            classes; the default counts them as independent, which describes these draws, while this
            describes new ones.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        The interval; with fewer than two values its bounds are NaN.

    Raises:
        InputError: no values, more than two axes, or an unknown method.
    """
    d = np.asarray(differences, float)
    if d.ndim not in (1, 2) or not np.isfinite(d).any():
        raise InputError(
            f"paired_interval got differences of shape {d.shape}; give [n] or [draws, seeds], not empty."
        )
    if method not in ("t", "bootstrap"):
        raise InputError(f"Unknown interval method '{method}'. Known: t, bootstrap.")
    if not 0 < level < 1:
        raise InputError(f"The confidence level is {level:g}; it must lie between 0 and 1.")
    if by_draw and d.ndim == 2:
        d = np.array([np.nanmean(row) for row in d if np.isfinite(row).any()])
    d = d[np.isfinite(d)].ravel()
    n, mean = len(d), float(d.mean())
    if n < 2:
        return Interval(mean=mean, lo=math.nan, hi=math.nan, n=n, level=level)
    if method == "t":
        half = student_t_quantile(0.5 + level / 2, n - 1) * float(d.std(ddof=1)) / math.sqrt(n)
        return Interval(mean=mean, lo=mean - half, hi=mean + half, n=n, level=level)
    means = d[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(1)
    lo, hi = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(mean=mean, lo=float(lo), hi=float(hi), n=n, level=level)


def leave_one_out_interval(whole: float, without: Sequence[float], level: float = 0.95) -> Interval | None:
    """The jackknife's interval of a figure that comes from n independent units, such as people.

    Args:
        whole: The figure from all of them.
        without: The figure with each of them left out in turn, [n]; one that is not finite cannot be left out.
        level: Confidence level.

    Returns:
        `whole` with Student's t for n - 1 degrees of freedom around it; None for fewer than two units.
    """
    d = np.asarray(without, float)
    d, n = d[np.isfinite(d)], int(np.isfinite(d).sum())
    if n < 2 or not math.isfinite(whole):
        return None
    error = math.sqrt((n - 1) / n * float(np.square(d - d.mean()).sum()))
    half = student_t_quantile(0.5 + level / 2, n - 1) * error
    return Interval(mean=whole, lo=whole - half, hi=whole + half, n=n, level=level)


def wilson_interval(successes: int, total: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927): also right near 0 and 1, unlike p +- z s.

    Args:
        successes, total: For example clips recognised out of clips tested.
        level: Confidence level.

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if total < 1 or not 0 <= successes <= total:
        raise InputError(
            f"wilson_interval got {successes} of {total}; it needs 0 <= successes <= total, total >= 1."
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Interval(mean=p, lo=max(0.0, centre - half), hi=min(1.0, centre + half), n=total, level=level)


def student_t_quantile(p: float, dof: int) -> float:
    """Quantile p >= 0.5 of Student's t with integer degrees of freedom, by bisection."""
    lo, hi = 0.0, 1.0
    while _student_t_cdf(hi, dof) < p:
        hi *= 2
    for _ in range(80):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if _student_t_cdf(middle, dof) < p else (lo, middle)
    return (lo + hi) / 2


def _student_t_cdf(t: float, dof: int) -> float:
    """For t >= 0: Abramowitz and Stegun 26.7.3 (odd degrees of freedom) and 26.7.4 (even)."""
    theta = math.atan(t / math.sqrt(dof))
    sin, cos = math.sin(theta), math.cos(theta)
    if dof % 2:
        total, term = 0.0, cos
        for k in range(1, dof - 1, 2):
            total += term
            term *= cos * cos * (k + 1) / (k + 2)
        area = 2 / math.pi * (theta + sin * total)
    else:
        total, term = 0.0, 1.0
        for k in range(0, dof - 1, 2):
            total += term
            term *= cos * cos * (k + 1) / (k + 2)
        area = sin * total
    return 0.5 + area / 2
