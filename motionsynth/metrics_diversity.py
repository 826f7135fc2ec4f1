"""Is the generated set varied, and is it new: spread within classes, distance to the training clips.

Vectors are recogniser features [n, d], or whole clips (`motionsynth.metrics_motion.clip_vectors`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError


def _matrix(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise InputError(f"Got vectors of shape {x.shape}; they must be [clips, dimensions].")
    return x


def standardise(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """z-score per dimension on the real set, divided by sqrt(d): two real clips are about sqrt(2) apart.

    Args:
        x: [n, d], what to standardise.
        real: [m, d], where mean and deviation come from. A constant dimension becomes 0.

    Returns:
        float64 [n, d].
    """
    x, real = _matrix(x), _matrix(real)
    std = real.std(0)
    return np.where(std > 0, (x - real.mean(0)) / np.where(std > 0, std, 1), 0.0) / math.sqrt(x.shape[1])


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m], in float64, at least 0."""
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0.0)


def nearest_distance(x: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distance of each row to its nearest row of the reference; [n, d], [m, d] -> [n].

    Args:
        x: Rows.
        reference: Other rows; None: the other rows of x (leave one out).
    """
    x = _matrix(x)
    if reference is None:
        if len(x) < 2:
            raise InputError(f"Leave-one-out distances need at least 2 clips; got {len(x)}.")
        d = _squared_distances(x, x)
        np.fill_diagonal(d, np.inf)
    else:
        d = _squared_distances(x, _matrix(reference))
    return np.sqrt(d.min(1))


def _by_class(n: int, labels: np.ndarray | None) -> list[np.ndarray]:
    if labels is None:
        return [np.arange(n)]
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise InputError(f"Got {labels.shape} labels for {n} clips; give one each.")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def movement_diversity_index(features: np.ndarray, labels: np.ndarray | None = None) -> float:
    """MDI: mean over clips of the squared distance to the nearest other clip; Galstyan 2025, eq. 9.

    The paper's 0.67 has no scale: it names no feature space, and the value falls as N grows. Pass
    `standardise`d features and compare at equal N: `diversity_beside_real`. Within each class, then
    averaged over classes, since over all classes a set with one clip per class would look diverse.

    Args:
        features: [n, d].
        labels: int [n]; None: one class. Classes with a single clip are left out.

    Returns:
        NaN if no class has two clips.
    """
    x = _matrix(features)
    values = [float((nearest_distance(x[i]) ** 2).mean()) for i in _by_class(len(x), labels) if len(i) > 1]
    return float(np.mean(values)) if values else math.nan


def diversity(features: np.ndarray, labels: np.ndarray | None = None) -> float:
    """Mean distance over all pairs of different clips (Guo et al. 2020, there over random pairs).

    Args:
        features: [n, d].
        labels: int [n]: within each class, averaged over classes ("multimodality"); None: over all clips.

    Returns:
        NaN if no class has two clips.
    """
    x = _matrix(features)
    values = []
    for i in _by_class(len(x), labels):
        if len(i) > 1:
            d = np.sqrt(_squared_distances(x[i], x[i]))
            np.fill_diagonal(d, 0.0)
            values.append(d.sum() / (len(i) * (len(i) - 1)))
    return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class DiversityReport:
    """Diversity of a synthetic set beside real clips, standardised features, equal counts per class.

    Attributes:
        mdi, mdi_real: Eq. 9.
        spread, spread_real: Mean pair distance within classes.
        per_class: Clips compared in each class (smallest of real and synthetic), by class index.
    """

    mdi: float
    mdi_real: float
    spread: float
    spread_real: float
    per_class: dict[int, int]

    @property
    def mdi_ratio(self) -> float:
        """1: as diverse as real; below: collapsed; far above: noise."""
        return self.mdi / self.mdi_real if self.mdi_real > 0 else math.nan


def diversity_beside_real(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_labels: np.ndarray,
    synthetic_labels: np.ndarray,
    repeats: int = 10,
    seed: int = 0,
) -> DiversityReport:
    """MDI and pair distance of both sets at equal N per class, averaged over random subsets.

    Args:
        real, synthetic: [n, d], [m, d], raw features of one recogniser.
        real_labels, synthetic_labels: int [n], [m]. Classes with fewer than 2 clips in either set are left
        out.
        repeats, seed: Of the subsets.
    """
    x, y = standardise(real, real), standardise(synthetic, real)
    lx, ly = np.asarray(real_labels), np.asarray(synthetic_labels)
    rows_x = {int(lx[i[0]]): i for i in _by_class(len(x), lx)}
    rows_y = {int(ly[i[0]]): i for i in _by_class(len(y), ly)}
    count = {c: min(len(rows_x[c]), len(rows_y[c])) for c in rows_x if c in rows_y}
    count = {c: n for c, n in count.items() if n > 1}
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats if count else 0):
        a = np.concatenate([rng.permutation(rows_x[c])[:n] for c, n in count.items()])
        b = np.concatenate([rng.permutation(rows_y[c])[:n] for c, n in count.items()])
        values.append(
            [
                movement_diversity_index(y[b], ly[b]),
                movement_diversity_index(x[a], lx[a]),
                diversity(y[b], ly[b]),
                diversity(x[a], lx[a]),
            ]
        )
    mdi, mdi_real, spread, spread_real = np.mean(values, axis=0).tolist() if values else [math.nan] * 4
    return DiversityReport(
        mdi=mdi, mdi_real=mdi_real, spread=spread, spread_real=spread_real, per_class=count
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorisationReport:
    """How close synthetic clips lie to training clips.

    Attributes:
        share: Share of synthetic clips closer to a training clip than `threshold`.
        expected: The share that new real clips would have, about percentile / 100.
        threshold: Percentile of the leave-one-out nearest distances among the training clips.
        median, median_real: Median nearest distance of synthetic clips, and leave-one-out of training clips.
    """

    share: float
    expected: float
    threshold: float
    median: float
    median_real: float


def memorisation(synthetic: np.ndarray, training: np.ndarray, percentile: float = 5.0) -> MemorisationReport:
    """Share of synthetic clips that are nearly copies of a training clip.

    Below some 20 clips per class a GAN mostly memorises, and no other metric here notices: copies have a
    perfect Frechet distance and diversity.

    Args:
        synthetic: [n, d].
        training: [m, d], the clips that the generator was trained on, at least 2.
        percentile: Of the training clips' leave-one-out distances; below it a clip counts as a copy. Views or
            repetitions of one take lower it: give one of each to be strict.
    """
    own = nearest_distance(training)
    to_training = nearest_distance(synthetic, training)
    threshold = float(np.percentile(own, percentile))
    return MemorisationReport(
        share=float((to_training < threshold).mean()),
        expected=percentile / 100,
        threshold=threshold,
        median=float(np.median(to_training)),
        median_real=float(np.median(own)),
    )
