"""Do two people act on each other: how near they come, and how they stand to each other when they do.

A two-person generator that places bodies without regard to each other fails here and nowhere else: each body alone is
plausible. Every figure stands beside that of real clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, present, right_axis
from motionsynth.skeleton import Skeleton


@dataclass(frozen=True, kw_only=True, slots=True)
class Approach:
    """Two persons at the frame in which any of their joints come closest.

    Attributes:
        frame: That frame.
        gap: Smallest distance between a joint of one and a joint of the other, metres.
        distance: Between their roots on the ground, metres.
        facing: Angle between their headings, radians in [0, pi]: 0 side by side, pi face to face or back to back.
        bearing: Angle between person 0's heading and the direction to person 1, radians in [0, pi]: 0 in front.
    """

    frame: int
    gap: float
    distance: float
    facing: float
    bearing: float


def closest_approach(motion: Motion, skeleton: Skeleton) -> Approach | None:
    """The closest approach of persons 0 and 1; None where they are never there together."""
    if motion.num_persons < 2:
        return None
    both = np.flatnonzero(present(motion.positions)[:2].all(0))
    if not len(both):
        return None
    one, other = (p[both].astype(float) for p in motion.positions[:2])
    gaps = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min((1, 2))
    at = int(gaps.argmin())
    facing = [_forward(p[at : at + 1], skeleton)[0] for p in (one, other)]
    between = (other - one)[at, skeleton.root][[0, 2]]
    return Approach(
        frame=int(both[at]),
        gap=float(gaps[at]),
        distance=float(np.linalg.norm(between)),
        facing=_angle(*facing),
        bearing=_angle(facing[0], between),
    )


def _forward(positions_TVC: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Direction on the ground (x, z) in which a person faces, [T, 2], not normalised."""
    right = right_axis(positions_TVC, skeleton)
    return np.stack([right[:, 2], -right[:, 0]], -1)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b)))


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionReport:
    """Two-person figures of a synthetic set beside real clips.

    Attributes:
        clips, real_clips: Clips in which both persons are there at once.
        gap, distance, facing, bearing: Wasserstein-1 distance between the synthetic and the real distribution of each
            field of `Approach` (metres or radians), averaged over classes.
        gap_floor, distance_floor, facing_floor, bearing_floor: The same between random halves of the real clips.
    """

    clips: int
    real_clips: int
    gap: float
    gap_floor: float
    distance: float
    distance_floor: float
    facing: float
    facing_floor: float
    bearing: float
    bearing_floor: float


FIGURES = ("gap", "distance", "facing", "bearing")


def interaction_beside_real(
    real: MotionSet, synthetic: MotionSet, repeats: int = 20, seed: int = 0
) -> InteractionReport:
    """Compare closest approaches class by class, over classes of which both sets show at least 2 pairs of people.

    Raises:
        InputError: no such class: the data shows single persons.
    """
    approaches = [_by_class(s) for s in (real, synthetic)]
    shared = [c for c, a in sorted(approaches[0].items()) if len(a) > 1 and len(approaches[1].get(c, ())) > 1]
    if not shared:
        raise InputError(
            f"No class of '{real.dataset}' shows two persons together in at least 2 real and 2 synthetic clips; "
            "interaction is measured on two-person data such as sbu."
        )
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {k: [] for f in FIGURES for k in (f, f"{f}_floor")}
    for c in shared:
        ours, theirs = (a[c] for a in approaches)
        for name in FIGURES:
            x, y = (np.array([getattr(a, name) for a in s]) for s in (ours, theirs))
            floors, distances = [], []
            for _ in range(repeats):
                halves = np.array_split(rng.permutation(x), 2)
                floors.append(wasserstein(halves[0], halves[1]))
                # Of one half, like the floor: small sets lie further apart than large ones.
                distances.append(wasserstein(halves[0], rng.permutation(y)[: len(halves[1])]))
            values[name].append(float(np.mean(distances)))
            values[f"{name}_floor"].append(float(np.mean(floors)))
    return InteractionReport(
        clips=sum(len(approaches[1][c]) for c in shared),
        real_clips=sum(len(approaches[0][c]) for c in shared),
        **{k: float(np.mean(v)) for k, v in values.items()},
    )


def _by_class(motions: MotionSet) -> dict[int, list[Approach]]:
    out: dict[int, list[Approach]] = {}
    for m in motions.motions:
        if (a := closest_approach(m, motions.skeleton)) is not None:
            out.setdefault(m.label, []).append(a)
    return out


def wasserstein(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Wasserstein-1 distance of two samples on a line: the mean difference of their quantiles."""
    x, y = np.sort(np.asarray(x, float)), np.sort(np.asarray(y, float))
    if not len(x) or not len(y):
        raise InputError(f"Got {len(x)} and {len(y)} values; each sample needs at least 1.")
    cuts = np.unique(
        np.concatenate([np.arange(len(x) + 1) / len(x), np.arange(len(y) + 1) / len(y)]).round(12)
    )
    middle = (cuts[1:] + cuts[:-1]) / 2
    gap = np.abs(x[(middle * len(x)).astype(int)] - y[(middle * len(y)).astype(int)])
    return float((gap * np.diff(cuts)).sum())
