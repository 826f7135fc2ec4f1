"""Two failures that one distance hides: clips that are not like real ones, and real ones that nothing is like.

Features are what a recogniser trained on the real *training* clips gives before its last layer, float [n, d].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageReport:
    """Precision and recall, density and coverage, each in [0, 1] but density, which may exceed 1.

    Attributes:
        precision: Share of synthetic clips that lie within some real clip's neighbourhood.
        recall: Share of real clips that lie within some synthetic clip's neighbourhood.
        density: Neighbourhoods of real clips that a synthetic clip lies in, over how many are expected.
        coverage: Share of real clips whose neighbourhood holds a synthetic clip.
        floor: The same four, of other real clips in place of the synthetic ones.
        neighbours: k that spans a neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    floor: tuple[float, float, float, float]
    neighbours: int


def coverage_beside_real(
    real: np.ndarray, synthetic: np.ndarray, neighbours: int = 5, repeats: int = 5, seed: int = 0
) -> CoverageReport:
    """Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    As in the Frechet report, half of the real clips stand against equally many synthetic ones and, for the floor,
    against the other half.

    Args:
        real: [n, d].
        synthetic: [m, d].
        neighbours: k.
        repeats: Random halves.
        seed: Of the halves.

    Raises:
        InputError: too few clips for k neighbours in each half.
    """
    n = min(len(real) // 2, len(synthetic))
    if n <= neighbours:
        raise InputError(
            f"Got {len(real)} real and {len(synthetic)} synthetic clips; {neighbours} neighbours need at least "
            f"{2 * (neighbours + 1)} and {neighbours + 1}."
        )
    rng = np.random.default_rng(seed)
    made, floor = [], []
    for _ in range(repeats):
        order = rng.permutation(len(real))
        reference, other = real[order[:n]], real[order[n : 2 * n]]
        made.append(
            neighbourhood_shares(reference, synthetic[rng.permutation(len(synthetic))[:n]], neighbours)
        )
        floor.append(neighbourhood_shares(reference, other, neighbours))
    precision, recall, density, coverage = np.mean(made, 0).tolist()
    return CoverageReport(
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        floor=tuple(np.mean(floor, 0).tolist()),
        neighbours=neighbours,
    )


def neighbourhood_shares(real: np.ndarray, made: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """(precision, recall, density, coverage) of [n, d] against [m, d] with balls up to the k-th neighbour."""
    between = _distances(real, made)
    real_radius, made_radius = _radius(real, k), _radius(made, k)
    in_real = between <= real_radius[:, None]
    return (
        float(in_real.any(0).mean()),
        float((between <= made_radius).any(1).mean()),
        float(in_real.sum() / (k * len(made))),
        float((between.min(1) <= real_radius).mean()),
    )


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(float), b.astype(float)
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.sqrt(squared.clip(0))


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th nearest other row."""
    between = _distances(x, x)
    np.fill_diagonal(between, -1.0)  # itself comes first whatever rounding does to its zero
    return np.partition(between, k, axis=1)[:, k]
