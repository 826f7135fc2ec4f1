"""Is each generated clip a plausible motion: smoothness, energy, joint limits, bone lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from motionsynth.errors import InputError
from motionsynth.limits import MotionLimits, limit_excess
from motionsynth.motion import Motion, MotionSet, bone_lengths, canonical, joint_speed, present, resample


def _velocity_change(motion: Motion) -> np.ndarray:
    """Mean over joints and present persons of |v_t - v_(t+1)|^2, (m/s)^2, for each of the T - 2 pairs [n]."""
    p = motion.positions.astype(np.float64)
    there = present(motion.positions)
    change = (np.diff(p, n=2, axis=1) * motion.fps) ** 2
    ok = there[:, :-2] & there[:, 1:-1] & there[:, 2:]
    per_person = change.sum(-1).mean(-1) * ok
    count = ok.sum(0)
    return (per_person.sum(0) / np.maximum(count, 1))[count > 0]


def consistency_scale(real: MotionSet) -> float:
    """sigma^2 of the consistency score, (m/s)^2: median velocity change over all frames of real clips.

    Galstyan 2025 does not give its sigma. With the median, the middle real frame scores exp(-1), so that both
    jitter and over-smoothing show.

    Raises:
        InputError: no clip has three frames in which a person is there.
    """
    changes = [_velocity_change(m) for m in real.motions]
    values = np.concatenate(changes) if changes else np.zeros(0)
    if not len(values):
        raise InputError(
            f"Dataset '{real.dataset}' has no clip of three frames or more; consistency needs one."
        )
    return max(float(np.median(values)), 1e-12)


def temporal_consistency(
    motions: MotionSet, scale: float, mode: Literal["mean", "published"] = "mean"
) -> np.ndarray:
    """TCS of each clip [N]: mean of exp(-|flow_t - flow_(t+1)|^2 / sigma^2); Galstyan 2025, eq. 8.

    The flow is the velocity of the joints (m/s), its squared norm averaged over joints and persons. T frames
    give T - 1 flows and T - 2 differences, so the default divides by T - 2; the printed equation sums T - 1
    terms and divides by T: `mode="published"` divides the T - 2 terms by T. A frozen clip scores the maximum,
    which real clips do not reach: above the real value higher is *not* better; see `consistency_beside_real`.

    Args:
        motions: Clips.
        scale: sigma^2, (m/s)^2: `consistency_scale` of real clips.
        mode: "mean" or "published".

    Returns:
        float64 [N]; NaN for clips with fewer than three frames.
    """
    if mode not in ("mean", "published"):
        raise InputError(f"Unknown consistency mode '{mode}'. Known: mean, published.")
    out = []
    for m in motions.motions:
        terms = np.exp(-_velocity_change(m) / scale)
        count = len(terms) if mode == "mean" else m.num_frames
        out.append(terms.sum() / count if len(terms) else math.nan)
    return np.array(out)


def mean_speed(motions: MotionSet) -> np.ndarray:
    """Mean joint speed of each clip, m/s [N], over frames in which the person is there."""
    out = []
    for m in motions.motions:
        there = present(m.positions)
        both = there[:, 1:] & there[:, :-1]
        out.append(float(joint_speed(m.positions, m.fps)[both].mean()) if both.any() else 0.0)
    return np.array(out)


def motion_energy_ratio(synthetic: MotionSet, real: MotionSet) -> float:
    """Median mean-speed of synthetic over real clips, per class, then averaged over the classes in both sets.

    1 is right; near 0 is frozen, which no smoothness score punishes. NaN without a common class.
    """
    fast, true = mean_speed(synthetic), mean_speed(real)
    ratios = []
    for label in np.intersect1d(synthetic.labels, real.labels):
        reference = float(np.median(true[real.labels == label]))
        if reference > 0:
            ratios.append(float(np.median(fast[synthetic.labels == label])) / reference)
    return float(np.mean(ratios)) if ratios else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyReport:
    """TCS beside real.

    Attributes:
        tcs, tcs_real: Mean over clips.
        gap: |tcs - tcs_real|; lower is better.
        energy_ratio: See `motion_energy_ratio`: a good TCS counts only if this is near 1.
        scale: sigma^2, (m/s)^2, fitted on the real clips.
    """

    tcs: float
    tcs_real: float
    gap: float
    energy_ratio: float
    scale: float


def consistency_beside_real(real: MotionSet, synthetic: MotionSet) -> ConsistencyReport:
    """TCS of both sets at the sigma of the real one, with the guard against frozen clips."""
    scale = consistency_scale(real)
    tcs = float(np.nanmean(temporal_consistency(synthetic, scale)))
    tcs_real = float(np.nanmean(temporal_consistency(real, scale)))
    return ConsistencyReport(
        tcs=tcs,
        tcs_real=tcs_real,
        gap=abs(tcs - tcs_real),
        energy_ratio=motion_energy_ratio(synthetic, real),
        scale=scale,
    )


def physics_violations(motions: MotionSet, limits: MotionLimits) -> np.ndarray:
    """Shares of each clip that break the limits [N, 3].

    Args:
        motions: Clips.
        limits: See `motionsynth.limits.fit_limits`.

    Returns:
        float64 columns: frames in which any angle or speed of any person is beyond its limit; angles, over
        frames and persons; joint speeds, over frame steps and persons.
    """
    rows = []
    for m in motions.motions:
        x = torch.from_numpy(m.positions)[None]
        with torch.no_grad():
            e = limit_excess(
                x, torch.tensor([m.fps]), torch.ones(x.shape[0], x.shape[2]), limits, motions.skeleton
            )
        angle, speed = e.angle[0] > 0, e.speed[0] > 0
        bad = angle.any(-1).any(0)
        bad[1:] |= speed.any(-1).any(0)
        seen = e.angle_valid[0].any(0)
        rows.append(
            [
                float(bad[seen].double().mean()) if seen.any() else 0.0,
                float(angle[e.angle_valid[0]].double().mean()) if seen.any() else 0.0,
                float(speed[e.speed_valid[0]].double().mean()) if e.speed_valid.any() else 0.0,
            ]
        )
    return np.array(rows).reshape(-1, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViolationReport:
    """Physical plausibility beside real clips, means over clips.

    Real clips violate limits too (sensor noise, lost tracking): only the difference tells something.

    Attributes:
        frames, frames_real: Share of frames with any violation.
        angles, angles_real: Share of joint angles beyond their range.
        speeds, speeds_real: Share of joint speeds beyond their limit.
        bone_variation, bone_variation_real: See `bone_length_variation`.
    """

    frames: float
    frames_real: float
    angles: float
    angles_real: float
    speeds: float
    speeds_real: float
    bone_variation: float
    bone_variation_real: float


def violations_beside_real(real: MotionSet, synthetic: MotionSet, limits: MotionLimits) -> ViolationReport:
    """Violation rates and bone-length variation of both sets; `limits` fitted on training clips."""
    if not real.motions or not synthetic.motions:
        raise InputError(
            f"Got {len(real)} real and {len(synthetic)} synthetic clips; at least 1 each is needed."
        )
    frames, angles, speeds = physics_violations(synthetic, limits).mean(0).tolist()
    frames_real, angles_real, speeds_real = physics_violations(real, limits).mean(0).tolist()
    return ViolationReport(
        frames=frames,
        frames_real=frames_real,
        angles=angles,
        angles_real=angles_real,
        speeds=speeds,
        speeds_real=speeds_real,
        bone_variation=float(np.nanmean(bone_length_variation(synthetic))),
        bone_variation_real=float(np.nanmean(bone_length_variation(real))),
    )


def bone_length_variation(motions: MotionSet) -> np.ndarray:
    """Coefficient of variation of bone lengths over time, mean over bones and persons of each clip [N].

    0 for rigid bones; a few per cent for Kinect. NaN for a clip in which nobody is there for two frames.
    """
    out = []
    for m in motions.motions:
        values = []
        for lengths, seen in zip(
            bone_lengths(m.positions, motions.skeleton), present(m.positions), strict=True
        ):
            if seen.sum() > 1:
                x = lengths[seen].astype(np.float64)
                mean = x.mean(0)
                values.append((x.std(0)[mean > 1e-6] / mean[mean > 1e-6]).mean())
        out.append(float(np.mean(values)) if values else math.nan)
    return np.array(out)


def bone_length_medians(motions: MotionSet) -> np.ndarray:
    """Median length of each bone over the frames of its person, metres, float64 [N, V-1].

    Of several persons: their mean. NaN for a clip in which nobody is there.
    """
    out = np.full((len(motions), len(motions.skeleton.bones)), math.nan)
    for row, m in zip(out, motions.motions, strict=True):
        lengths, there = bone_lengths(m.positions, motions.skeleton), present(m.positions)
        people = [np.median(x[seen], axis=0) for x, seen in zip(lengths, there, strict=True) if seen.any()]
        if people:
            row[:] = np.mean(people, axis=0)
    return out


def peak_rates(motions: MotionSet, percentile: float = 95.0) -> np.ndarray:
    """How fast the fastest joint is, and how hard the hardest accelerated one, in nearly all frames of each clip.

    A percentile over frames, since a single jump of the tracker is no property of the motion.

    Args:
        motions: Clips.
        percentile: Over the frames (and persons) of a clip.

    Returns:
        float64 [N, 2]: m/s and m/s^2; 0 for a clip that is too short.
    """
    out = np.zeros((len(motions), 2))
    for row, m in zip(out, motions.motions, strict=True):
        there = present(m.positions)
        two = there[:, 1:] & there[:, :-1]
        three = two[:, 1:] & two[:, :-1]
        acceleration = np.linalg.norm(np.diff(m.positions, n=2, axis=1), axis=-1) * m.fps**2
        for i, (rate, seen) in enumerate(((joint_speed(m.positions, m.fps), two), (acceleration, three))):
            if seen.any():
                row[i] = np.percentile(rate[seen].max(-1), percentile)
    return out


FEET = ("left_foot", "right_foot")
CONTACT_HEIGHT = 0.05
"""Metres above its lowest place in the clip below which a foot counts as standing."""


def foot_skate(motions: MotionSet) -> np.ndarray:
    """Mean horizontal speed of standing feet, m/s [N]: a foot on the ground should not slide.

    The ground is unknown, so a foot stands where it is within `CONTACT_HEIGHT` of its lowest place. NaN for a skeleton
    without the joints `FEET`, or a clip in which nobody is there for two frames.
    """
    feet = [motions.skeleton.index(j) for j in FEET if j in motions.skeleton.joints]
    out = []
    for m in motions.motions:
        there = present(m.positions)
        sliding = []
        for person, seen in zip(m.positions[:, :, feet], there[:, 1:] & there[:, :-1], strict=True):
            if feet and seen.any():
                speed = np.linalg.norm(np.diff(person[..., [0, 2]], axis=0), axis=-1)[seen] * m.fps
                height = np.maximum(person[1:, :, 1], person[:-1, :, 1])[seen]
                sliding.append(speed[height <= height.min(0) + CONTACT_HEIGHT].mean())
        out.append(float(np.mean(sliding)) if sliding else math.nan)
    return np.array(out)


def clip_vectors(motions: MotionSet, frames: int = 32) -> np.ndarray:
    """Whole clips as vectors: canonical place and heading, resampled, flattened; float32 [N, M * frames * V
    * 3].

    For distances between clips without a recogniser (`memorisation`, `rbf_mmd`). Persons missing from a clip
    are zeros. Divided by sqrt(frames * V), so that distances are root-mean-square metres per joint.
    """
    persons = motions.num_persons
    out = np.zeros((len(motions), persons, frames, motions.skeleton.num_joints, 3), np.float32)
    for row, m in zip(out, motions.motions, strict=True):
        row[: m.num_persons] = resample(canonical(m.positions, motions.skeleton), frames)
    return out.reshape(len(motions), -1) / math.sqrt(frames * motions.skeleton.num_joints)


def frozen(motions: MotionSet) -> MotionSet:
    """The same clips standing still in their first frame: a sensitivity check for any metric."""
    return replace(
        motions,
        motions=tuple(
            replace(m, positions=np.repeat(m.positions[:, :1], m.num_frames, axis=1)) for m in motions.motions
        ),
    )


def time_shuffled(motions: MotionSet, seed: int = 0) -> MotionSet:
    """The same clips with their frames in random order: the poses are real, the motion is not."""
    rng = np.random.default_rng(seed)
    return replace(
        motions,
        motions=tuple(
            replace(m, positions=m.positions[:, rng.permutation(m.num_frames)]) for m in motions.motions
        ),
    )
