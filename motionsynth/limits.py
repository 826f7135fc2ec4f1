"""Limits of plausible motion: fitted to training clips, kept within anatomy; and the physics loss.

Shape letters: B clips, M persons, T frames, V joints, A angles; C = 3 (xyz). Radians, metres, seconds.

    limits = fit_limits(training_motions)
    loss_B = physics_loss(x_BMTVC, fps_B, mask_BT, limits, skeleton)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from motionsynth.anatomy import anatomical_range, speed_ceiling
from motionsynth.errors import InputError
from motionsynth.joint_angles import angle_names, joint_angles
from motionsynth.motion import MotionSet
from motionsynth.skeleton import Skeleton

SLACK = (0.01, 0.1, 1.0)
"""rad by which every fitted range is wider, and m/s and m/s^2 below which no limit falls: a joint that rests
in all training clips may still move a little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionLimits:
    """Limits that a plausible motion stays within, for one skeleton.

    Attributes:
        skeleton: Name of the skeleton.
        angles: Names of the A angles, as `angle_names` gives them.
        angle_lo, angle_hi: Radians, length A.
        max_speed: m/s, length V.
        max_acceleration: m/s^2, length V; None when it was not fitted.
    """

    skeleton: str
    angles: tuple[str, ...]
    angle_lo: tuple[float, ...]
    angle_hi: tuple[float, ...]
    max_speed: tuple[float, ...]
    max_acceleration: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.angles) == len(self.angle_lo) == len(self.angle_hi):
            raise InputError(
                f"Motion limits name {len(self.angles)} angles but give {len(self.angle_lo)} lower and "
                f"{len(self.angle_hi)} upper bounds; give one of each per angle."
            )
        for name, lo, hi in zip(self.angles, self.angle_lo, self.angle_hi, strict=True):
            if not lo < hi:
                raise InputError(
                    f"Motion limits give {name} the range {lo:g} to {hi:g}; the lower must be less."
                )
        if not min(self.max_speed, default=1.0) > 0:
            raise InputError(
                f"Motion limits hold the speed {min(self.max_speed):g} m/s; speeds must be above 0."
            )
        if self.max_acceleration is not None and len(self.max_acceleration) != len(self.max_speed):
            raise InputError(
                f"Motion limits hold {len(self.max_acceleration)} accelerations for {len(self.max_speed)} "
                "joints; give one per joint."
            )

    def to_dict(self) -> dict:
        """JSON-serialisable form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(d: Mapping) -> MotionLimits:
        """Inverse of `to_dict`.

        Raises:
            InputError: a key is missing or unknown, or the lengths disagree.
        """
        known = {f.name for f in fields(MotionLimits)}
        if wrong := known - {"max_acceleration"} - set(d) or set(d) - known:
            raise InputError(
                f"Motion limits have missing or unknown keys {sorted(wrong)}; known: {sorted(known)}."
            )
        acceleration = d.get("max_acceleration")
        return MotionLimits(
            skeleton=str(d["skeleton"]),
            angles=tuple(d["angles"]),
            angle_lo=tuple(d["angle_lo"]),
            angle_hi=tuple(d["angle_hi"]),
            max_speed=tuple(d["max_speed"]),
            max_acceleration=None if acceleration is None else tuple(acceleration),
        )


def fit_limits(motions: MotionSet, percentile: float = 99.9, widen: float = 0.10) -> MotionLimits:
    """Limits from training clips: percentiles, widened, intersected with anatomy.

    Left and right are pooled, so that a mirrored clip is as plausible as the original.

    Args:
        motions: Real clips of the *training* side only.
        percentile: Upper percentile of angles and speeds; the lower is 100 minus it.
        widen: Each end of an angle's range moves outwards by this share of the range (and `SLACK`); speeds
            and accelerations grow by this share.

    Raises:
        InputError: no clip, or a percentile or widening out of range.
    """
    if not motions.motions:
        raise InputError(
            f"Cannot fit motion limits to dataset '{motions.dataset}': it has no clips; give some."
        )
    if not 50 < percentile <= 100 or not 0 <= widen <= 10:
        raise InputError(
            f"fit_limits got percentile={percentile:g}, widen={widen:g}; allowed: 50 < percentile <= 100, "
            "0 <= widen <= 10."
        )
    skeleton = motions.skeleton
    angle, speed, acceleration = [], [], []
    for motion in motions.motions:
        x = torch.from_numpy(motion.positions)
        there = _presence(x)
        angle.append(joint_angles(x[there], skeleton).numpy())
        v, v_ok = _differences(x, there, motion.fps)
        a, a_ok = _differences(v, v_ok, motion.fps)
        speed.append(v[v_ok].norm(dim=-1).numpy())
        acceleration.append(a[a_ok].norm(dim=-1).numpy())
    names = angle_names(skeleton)
    values = np.concatenate(angle)
    lo, hi = [], []
    for name in names:
        pool = values[:, [names.index(name), names.index(_swap_side(name, names))]]
        bottom, top = np.percentile(pool, [100 - percentile, percentile])
        margin = widen * (top - bottom) + SLACK[0]
        table_lo, table_hi = anatomical_range(name)
        # An angle that lies wholly outside the table keeps a range of positive width.
        lo.append(float(np.clip(bottom - margin, table_lo, table_hi - SLACK[0])))
        hi.append(float(max(np.clip(top + margin, table_lo, table_hi), lo[-1] + SLACK[0])))
    ceiling = np.array([speed_ceiling(joint) for joint in skeleton.joints])
    top_speed = _pooled_percentile(speed, skeleton, percentile, widen)
    top_acceleration = _pooled_percentile(acceleration, skeleton, percentile, widen)
    return MotionLimits(
        skeleton=skeleton.name,
        angles=names,
        angle_lo=tuple(lo),
        angle_hi=tuple(hi),
        max_speed=tuple((ceiling if top_speed is None else np.clip(top_speed, SLACK[1], ceiling)).tolist()),
        max_acceleration=None
        if top_acceleration is None
        else tuple(np.maximum(top_acceleration, SLACK[2]).tolist()),
    )


def _swap_side(name: str, names: tuple[str, ...]) -> str:
    side, _, rest = name.partition("_")
    twin = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
    return twin if twin in names else name


def _pooled_percentile(
    values: list[np.ndarray], skeleton: Skeleton, percentile: float, widen: float
) -> np.ndarray | None:
    """Widened percentile per joint [V] over rows of arrays [n, V], mirror twins pooled; None without rows."""
    rows = np.concatenate(values)
    if not len(rows):
        return None
    return np.percentile(np.concatenate([rows, rows[:, skeleton.mirror_permutation]]), percentile, axis=0) * (
        1 + widen
    )


def _presence(x: Tensor) -> Tensor:
    """bool [..., T]: the person of [..., T, V, 3] is there."""
    return (x != 0).flatten(-2).any(-1)


def _differences(x: Tensor, valid: Tensor, fps: Tensor | float) -> tuple[Tensor, Tensor]:
    """Rate of change over time, [..., T-1, V, 3], and where both frames are valid, [..., T-1]."""
    return (x[..., 1:, :, :] - x[..., :-1, :, :]) * fps, valid[..., 1:] & valid[..., :-1]


@dataclass(frozen=True, slots=True)
class Excess:
    """By how much each quantity exceeds its limit; 0 within limits and wherever `*_valid` is False.

    Attributes:
        angle: [B, M, T, A], radians; `angle_valid` [B, M, T].
        speed: [B, M, T-1, V], m/s; `speed_valid` [B, M, T-1].
        acceleration: [B, M, T-2, V], m/s^2, None unless asked for; `acceleration_valid` [B, M, T-2].
    """

    angle: Tensor
    angle_valid: Tensor
    speed: Tensor
    speed_valid: Tensor
    acceleration: Tensor | None
    acceleration_valid: Tensor | None


def _length(v: Tensor) -> Tensor:
    return torch.sqrt((v * v).sum(-1) + 1e-12)


def limit_excess(
    x: Tensor,
    fps: Tensor,
    mask: Tensor,
    limits: MotionLimits,
    skeleton: Skeleton,
    acceleration: bool = False,
    mode: Literal["range", "published"] = "range",
) -> Excess:
    """Excess over the limits, unreduced; what `physics_loss` averages and the violation rate counts.

    Arguments as for `physics_loss`.
    """
    if mode not in ("range", "published"):
        raise InputError(f"Unknown physics mode '{mode}'. Known: range, published.")
    if limits.angles != angle_names(skeleton) or len(limits.max_speed) != skeleton.num_joints:
        raise InputError(
            f"Motion limits were fitted for skeleton '{limits.skeleton}' and do not fit '{skeleton.name}'; "
            "fit them again with fit_limits."
        )
    valid = _presence(x.detach()) & mask.bool()[:, None]
    theta = joint_angles(x, skeleton)
    lo, hi = x.new_tensor(limits.angle_lo), x.new_tensor(limits.angle_hi)
    if mode == "published":
        angle = (theta.abs() - torch.maximum(lo.abs(), hi.abs())).relu()
    else:
        angle = (theta - hi).relu() + (lo - theta).relu()
    rate = fps.to(x)[:, None, None, None, None]
    v, v_valid = _differences(x, valid, rate)
    speed = (_length(v) - x.new_tensor(limits.max_speed)).relu()
    a_excess = a_valid = None
    if acceleration:
        if limits.max_acceleration is None:
            raise InputError(
                "These motion limits hold no accelerations; fit them on clips of three frames or more, or "
                "pass acceleration=False."
            )
        a, a_valid = _differences(v, v_valid, rate)
        a_excess = (_length(a) - x.new_tensor(limits.max_acceleration)).relu() * a_valid[..., None]
    return Excess(angle * valid[..., None], valid, speed * v_valid[..., None], v_valid, a_excess, a_valid)


def physics_loss(
    x: Tensor,
    fps: Tensor,
    mask: Tensor,
    limits: MotionLimits,
    skeleton: Skeleton,
    acceleration: bool = False,
    mode: Literal["range", "published"] = "range",
) -> Tensor:
    """Penalty on impossible joint angles and speeds: L_physics of Galstyan 2025, eq. 3.

    Published: sum max(0, |theta| - theta_max) + sum max(0, |v| - v_max), with no values given. Here each sum
    is a *mean* over persons, frames and angles (joints), so that the weight does not depend on clip length or
    skeleton; and an angle has its own two bounds, since |theta| - theta_max lets a shoulder extend backwards
    as far as it flexes forwards. `mode="published"` keeps the symmetric form, with
    theta_max = max(|lo|, |hi|).
    The acceleration term, which the paper's text names and its equation omits, is optional.

    Args:
        x: [B, M, T, V, 3], metres; absent persons are zeros and are left out.
        fps: [B].
        mask: [B, T], true for frames of the clip, false for padding, which is left out.
        limits: See `fit_limits`.
        skeleton: The skeleton of x.
        acceleration: Add the mean of max(0, |a| - a_max).
        mode: "range" or "published".

    Returns:
        [B]: radians + m/s (+ m/s^2), unweighted; 0 for a clip without valid frames.

    Raises:
        InputError: unknown mode, limits of another skeleton, or acceleration limits that were not fitted.
    """
    e = limit_excess(x, fps, mask, limits, skeleton, acceleration, mode)
    loss = _masked_mean(e.angle, e.angle_valid) + _masked_mean(e.speed, e.speed_valid)
    if e.acceleration is not None and e.acceleration_valid is not None:
        loss = loss + _masked_mean(e.acceleration, e.acceleration_valid)
    return loss


def _masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """[B, M, T, n] (zero where invalid) and [B, M, T] -> mean per clip [B]."""
    count = valid.flatten(1).sum(1).clamp(min=1) * max(value.shape[-1], 1)
    return value.flatten(1).sum(1) / count
