"""Is the generated set distributed like the real one: distances between two sets of feature vectors.

Features are what a recogniser trained on the real *training* clips gives before its last layer, float [n, d].
Everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from motionsynth.errors import InputError

Features = np.ndarray | Tensor


def _double(x: Features) -> Tensor:
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(
            f"Got features of shape {tuple(x.shape)}; they must be [clips, dimensions], neither zero."
        )
    return x


def _pair(a: Features, b: Features, least: int = 2) -> tuple[Tensor, Tensor]:
    x, y = _double(a), _double(b)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"The feature sets have {x.shape[1]} and {y.shape[1]} dimensions; take both from one recogniser."
        )
    if min(len(x), len(y)) < least:
        raise InputError(
            f"The feature sets have {len(x)} and {len(y)} clips; at least {least} each are needed."
        )
    return x, y


def ledoit_wolf(x: Features) -> Tensor:
    """Covariance shrunk towards a multiple of the identity by the optimal amount (Ledoit and Wolf 2004).

    The sample covariance of few clips is singular, and the Frechet distance then biased upwards.

    Args:
        x: [n, d].

    Returns:
        float64 [d, d].
    """
    x = _double(x)
    n, d = x.shape
    x = x - x.mean(0)
    s = x.T @ x / n
    scale = s.trace() / d
    target = scale * torch.eye(d, dtype=torch.float64)
    spread = ((s - target) ** 2).sum() / d
    # Mean over clips of ||x x' - S||^2, without forming each outer product.
    noise = (((x * x).sum(1) ** 2).mean() - (s * s).sum()) / (n * d)
    weight = (noise / spread).clamp(0, 1) if spread > 0 else torch.tensor(0.0)
    return weight * target + (1 - weight) * s


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance; shrunk when there are fewer than five clips per dimension."""
    n, d = x.shape
    return x.mean(0), ledoit_wolf(x) if n < 5 * d else torch.cov(x.T).reshape(d, d)


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians: Dowson and Landau 1982.

    Tr sqrt(A B) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: no
    complex square root of a matrix, on which the public FID and FVD codes fail or drop an imaginary part.

    Args:
        mean_a, mean_b: float64 [d].
        cov_a, cov_b: float64 [d, d], symmetric positive semi-definite.
    """
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float(((mean_a - mean_b) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * cross))


def frechet_distance(a: Features, b: Features) -> float:
    """Squared Frechet distance between Gaussians fitted to two feature sets (the form of FID and FVD).

    Biased upwards, the more the smaller n: compare only values at equal n, see `frechet_motion_distance`.

    Args:
        a, b: [n, d], [m, d].
    """
    x, y = _pair(a, b)
    return gaussian_frechet(*_gaussian(x), *_gaussian(y))


def kernel_distance(a: Features, b: Features, degree: int = 3) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^degree: KID, Binkowski et al. 2018.

    Unbiased at any n, so usable from some tens of clips; can be slightly negative.

    Args:
        a, b: [n, d], [m, d].
    """
    x, y = _pair(a, b)
    d = x.shape[1]
    return _unbiased_mmd(
        (x @ x.T / d + 1) ** degree, (y @ y.T / d + 1) ** degree, (x @ y.T / d + 1) ** degree
    )


def rbf_mmd(a: Features, b: Features, bandwidth: float | None = None) -> float:
    """Unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 bandwidth^2)): Gretton et al. 2012, eq. 3.

    Also for flattened clips (`clip_vectors`). Kinetic-GAN's script compares only the first real with the
    first generated clip of each class, taking joints for samples, and reports the largest value over
    bandwidths.

    Args:
        a, b: [n, d], [m, d].
        bandwidth: By default the median distance between two different rows of both sets together.
    """
    x, y = _pair(a, b)
    if bandwidth is None:
        bandwidth = median_bandwidth(x, y)
    if bandwidth <= 0:
        raise InputError(f"The RBF bandwidth is {bandwidth:g}; it must be above 0.")
    xx, yy, xy = (rbf_kernel(p, q, bandwidth) for p, q in ((x, x), (y, y), (x, y)))
    return _unbiased_mmd(xx, yy, xy)


def median_bandwidth(x: Tensor, y: Tensor) -> float:
    """Median distance between two different rows of both sets together, [n, d] and [m, d]; 1 where it is 0."""
    return float(torch.pdist(torch.cat([x, y])).median()) or 1.0


def rbf_kernel(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """exp(-|x - y|^2 / (2 bandwidth^2)) of every pair of rows, [n, d] and [m, d] -> [n, m]."""
    return torch.exp(-(torch.cdist(x, y) ** 2) / (2 * bandwidth**2))


def herd(pool: Features, real: Features, count: int) -> np.ndarray:
    """The subset of a pool whose mean embedding greedily matches that of real clips: kernel herding.

    Chen, Welling and Smola 2010, eq. 4, over a finite pool and without replacement; RBF kernel, median bandwidth.

    Args:
        pool, real: [n, d], [m, d], m at least 1.
        count: How many to choose; all of them where the pool has no more.

    Returns:
        int64, positions in the pool in ascending order.
    """
    if count < 1:
        raise InputError(f"herd is to choose {count} clips; it must be at least 1.")
    x, y = _pair(pool, real, least=1)
    if len(x) <= count:
        return np.arange(len(x))
    bandwidth = median_bandwidth(x, y)
    wanted, within = rbf_kernel(x, y, bandwidth).mean(1), rbf_kernel(x, x, bandwidth)
    chosen: list[int] = []
    crowded = torch.zeros_like(wanted)
    for step in range(1, count + 1):
        gain = wanted - crowded / step
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        crowded += within[:, chosen[-1]]
    return np.sort(np.array(chosen))


def _unbiased_mmd(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    n, m = xy.shape
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def principal_axes(real: Features, dims: int = 64) -> tuple[Tensor, Tensor]:
    """PCA fitted on real features.

    Args:
        real: [n, d].
        dims: Wanted dimensions; at most d and n - 1 are kept.

    Returns:
        mean [d] and orthonormal axes [d, k], by falling variance: `(x - mean) @ axes`.
    """
    x = _double(real)
    mean = x.mean(0)
    _, _, vt = torch.linalg.svd(x - mean, full_matrices=False)
    return mean, vt[: max(1, min(dims, x.shape[1], len(x) - 1))].T


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDistance:
    """A distance and its floor, both at `n` clips a side, over repeated random halves.

    Attributes:
        distance: Mean Frechet distance of n real to n synthetic clips.
        distance_std: Its standard deviation over repeats.
        floor: Mean Frechet distance of n real to n *other* real clips: what a perfect generator would score.
        floor_std: Its standard deviation over repeats.
        n: Clips a side.
    """

    distance: float
    distance_std: float
    floor: float
    floor_std: float
    n: int

    @property
    def ratio(self) -> float:
        """Distance in units of the floor; 1 is indistinguishable."""
        return self.distance / self.floor if self.floor > 0 else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class FrechetReport:
    """Frechet motion distance.

    Attributes:
        pooled: Over all classes.
        per_class: By class index; a class with fewer than 4 real or 2 synthetic clips is missing.
        dims: Dimensions after PCA.
        n_real, n_synthetic: Clips given.
    """

    pooled: PairedDistance
    per_class: Mapping[int, PairedDistance] = field(default_factory=dict)
    dims: int
    n_real: int
    n_synthetic: int


def frechet_motion_distance(
    real: Features,
    synthetic: Features,
    real_labels: np.ndarray | None = None,
    synthetic_labels: np.ndarray | None = None,
    dims: int = 64,
    repeats: int = 10,
    seed: int = 0,
) -> FrechetReport:
    """Frechet distance in features of a motion recogniser, with its real-versus-real floor.

    Never call it FID or FVD: those are defined by their networks (Inception, I3D). FID on skeletons drawn as
    images, as Kinetic-GAN reports it, has no floor and measures against the training set.

    Real clips are split at random into two halves, within each class. The first half is compared with the second
    (the floor) and with the synthetic clips (the distance), at the same n. The PCA is fitted on the first half
    alone, so that it favours neither: fitted on all real clips, it would place a perfect generator above the floor.

    Args:
        real, synthetic: [n, d], [m, d] features of one recogniser.
        real_labels, synthetic_labels: int [n], [m]; give both for the distances per class.
        dims: PCA dimensions.
        repeats: Random halves.
        seed: Of the halves.

    Raises:
        InputError: fewer than 4 real or 2 synthetic clips, or labels that do not fit.
    """
    x, y = _pair(real, synthetic)
    if len(x) < 4:
        raise InputError(f"The Frechet floor needs at least 4 real clips; got {len(x)}.")
    lx, ly = np.zeros(len(x), int), np.zeros(len(y), int)
    by_class = real_labels is not None and synthetic_labels is not None
    if by_class:
        lx, ly = np.asarray(real_labels), np.asarray(synthetic_labels)
        if lx.shape != (len(x),) or ly.shape != (len(y),):
            raise InputError(
                f"Got {lx.shape} and {ly.shape} labels for {len(x)} real and {len(y)} synthetic clips; "
                "give one each."
            )
    rng = np.random.default_rng(seed)
    pooled: list[tuple[float, float, int]] = []
    per_class: dict[int, list[tuple[float, float, int]]] = {}
    kept = 0
    for _ in range(repeats):
        order, other = rng.permutation(len(x)), rng.permutation(len(y))
        order = order[np.argsort(lx[order], kind="stable")]
        first, second = rng.permutation(order[::2]), rng.permutation(order[1::2])
        mean, axes = principal_axes(x[first], dims)
        a, b, z = (x[first] - mean) @ axes, (x[second] - mean) @ axes, (y[other] - mean) @ axes
        kept = axes.shape[1]
        pooled.append(_distance_and_floor(a, b, z))
        for c in np.unique(lx).tolist() if by_class else []:
            of_class = a[lx[first] == c], b[lx[second] == c], z[ly[other] == c]
            if min(map(len, of_class)) >= 2:
                per_class.setdefault(c, []).append(_distance_and_floor(*of_class))
    return FrechetReport(
        pooled=_summary(pooled),
        per_class={c: _summary(values) for c, values in per_class.items()},
        dims=kept,
        n_real=len(x),
        n_synthetic=len(y),
    )


def _distance_and_floor(a: Tensor, b: Tensor, z: Tensor) -> tuple[float, float, int]:
    """Of the first half a to synthetic z, and to the second half b, all cut to the length of the shortest."""
    n = min(len(a), len(b), len(z))
    reference = _gaussian(a[:n])
    return gaussian_frechet(*reference, *_gaussian(z[:n])), gaussian_frechet(*reference, *_gaussian(b[:n])), n


def _summary(values: list[tuple[float, float, int]]) -> PairedDistance:
    distance, floor, n = np.array(values).T
    return PairedDistance(
        distance=float(distance.mean()),
        distance_std=float(distance.std()),
        floor=float(floor.mean()),
        floor_std=float(floor.std()),
        n=int(n[0]),
    )
