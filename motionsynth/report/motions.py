"""What the clips show: projections, nearest training clips, violations of limits. Poses are canonical ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motionsynth.errors import InputError
from motionsynth.limits import MotionLimits, fit_limits
from motionsynth.metrics_motion import clip_vectors, physics_violations
from motionsynth.motion import Motion, MotionSet
from motionsynth.report.run import PROJECTIONS, GeneratedSet, Run

MOST_CLIPS = 40
"""Clips of a class and side that are measured or drawn; more are drawn from by seed."""


def of_class(motions: MotionSet, label: int, seed: int, most: int = MOST_CLIPS) -> MotionSet:
    """Clips of a class, at most so many of them, in their order."""
    at = np.flatnonzero(motions.labels == label)
    if len(at) > most:
        at = np.sort(np.random.default_rng([seed, label]).choice(at, most, replace=False))
    return motions.select(at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """Clips of one class in the plane.

    Attributes:
        seen, unseen, synthetic: [n, 2]: training clips, other clips of the training people, and generated ones.
        share: Of the real clips' variance in this plane; NaN for t-SNE.
    """

    label: int
    seen: np.ndarray
    unseen: np.ndarray
    synthetic: np.ndarray
    share: float


def projections(run: Run, generator: str) -> Iterator[Projection]:
    """One per class: PCA of its real clips, into which the synthetic ones are placed; or t-SNE of all together.

    Raises:
        InputError: t-SNE without scikit-learn, or an unknown projection.
    """
    if run.projection not in PROJECTIONS:
        raise InputError(f"Unknown projection '{run.projection}'. Known: {', '.join(PROJECTIONS)}.")
    for label, made in run.shown(generator):
        real = of_class(made.bed.full, label, run.seed)
        trained = {m.sample_id for m in made.bed.train.motions}
        at = {m.sample_id for m in real.motions}
        # The few clips that were trained on are always among those drawn.
        missing = [m for m in made.bed.train.motions if m.label == label and m.sample_id not in at][
            :MOST_CLIPS
        ]
        real = replace(real, motions=real.motions + tuple(missing))
        seen = np.array([m.sample_id in trained for m in real.motions])
        synthetic = of_class(made.motions, label, run.seed)
        width = max(real.num_persons, synthetic.num_persons)
        x, y = _vectors(real, width), _vectors(synthetic, width)
        if len(x) < 3:
            continue
        points, share = (_pca if run.projection == "pca" else _tsne)(x, y, run.seed)
        yield Projection(
            label=label, seen=points[: len(x)][seen], unseen=points[: len(x)][~seen], synthetic=points[len(x) :],
            share=share,
        )  # fmt: skip


def _vectors(motions: MotionSet, persons: int) -> np.ndarray:
    x = clip_vectors(motions)
    per_person = x.shape[1] // motions.num_persons
    return np.pad(x, ((0, 0), (0, per_person * (persons - motions.num_persons)))).astype(np.float64)


def _pca(real: np.ndarray, made: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    centre = real.mean(0)
    centred = real - centre
    # Few clips of many coordinates: the small matrix of their products has the same directions.
    size, vectors = np.linalg.eigh(centred @ centred.T)
    size, vectors = np.maximum(size[::-1], 0), vectors[:, ::-1]
    axes = vectors[:, :2].T @ centred / np.sqrt(np.maximum(size[:2, None], 1e-12))
    axes = axes * np.where(axes[:2].sum(1, keepdims=True) < 0, -1, 1)  # a sign that rounding cannot turn
    share = float(size[:2].sum() / size.sum()) if size.any() else 1.0
    return (np.concatenate([real, made]) - centre) @ axes.T, share


def _tsne(real: np.ndarray, made: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    try:
        from sklearn.manifold import TSNE  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            "The projection tsne needs scikit-learn, which is not installed; pip install 'motionsynth[tsne]', or "
            "take pca."
        ) from None
    x = np.concatenate([real, made])
    perplexity = min(15.0, (len(x) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x), float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """How far a class's synthetic clips lie from its real training clips; metres per joint, root-mean-square.

    Attributes:
        distances: [synthetic clips], to the nearest training clip.
        parents: [synthetic clips], the index of that clip in `bed.train`.
        clips: [synthetic clips], indices in the generated set.
        floor: Of the training clips, each to the nearest one of another take; empty where there is no other.
    """

    label: int
    distances: np.ndarray
    parents: np.ndarray
    clips: np.ndarray
    floor: np.ndarray


def nearest_training_clips(made: GeneratedSet, label: int) -> Nearest:
    """Compare a class's synthetic clips with the training clips of the class."""
    train, synthetic = made.bed.train, made.motions
    own, clips = np.flatnonzero(train.labels == label), np.flatnonzero(synthetic.labels == label)
    width = max(train.num_persons, synthetic.num_persons)
    x, y = _vectors(train.select(own), width), _vectors(synthetic.select(clips), width)
    squares = (y * y).sum(1)[:, None] + (x * x).sum(1) - 2 * y @ x.T
    at = squares.argmin(1)
    return Nearest(
        label=label,
        distances=np.sqrt(np.maximum(squares[np.arange(len(y)), at], 0)),
        parents=own[at],
        clips=clips,
        floor=_floor(x, [train.motions[i] for i in own]),
    )


def _floor(x: np.ndarray, motions: Sequence[Motion]) -> np.ndarray:
    """Distance of each clip from the nearest other one; another view of the same take is not another one."""
    squares = np.square(x).sum(1)[:, None] + np.square(x).sum(1) - 2 * x @ x.T
    takes = [(m.dataset, m.subject, m.repetition) if m.repetition else i for i, m in enumerate(motions)]
    same = np.array([[a == b for b in takes] for a in takes])
    least = np.where(same | np.eye(len(x), dtype=bool), np.inf, squares).min(1, initial=np.inf)
    return np.sqrt(np.maximum(least[np.isfinite(least)], 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Violations:
    """Share of a class's frames in which an angle or a speed is beyond the limits of the training clips."""

    label: int
    real: float
    synthetic: float


def violations(run: Run, generator: str) -> list[Violations]:
    """Every class that the generator made clips of; real clips are those of the training people."""
    out = []
    limits: dict[str, MotionLimits] = {}
    for label, made in run.shown(generator):
        key = made.bed.spec.key
        if key not in limits:
            limits[key] = fit_limits(made.bed.train)
        real, synthetic = (
            float(physics_violations(of_class(s, label, run.seed, MOST_CLIPS // 2), limits[key])[:, 0].mean())
            for s in (made.bed.full, made.motions)
        )
        out.append(Violations(label=label, real=real, synthetic=synthetic))
    return out
