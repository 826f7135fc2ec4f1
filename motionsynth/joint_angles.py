"""Joint angles from joint positions, differentiable, for any skeleton with standard joint names. Radians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motionsynth.anatomy import anatomical_range
from motionsynth.errors import InputError
from motionsynth.skeleton import Skeleton

_POLE = math.sin(math.radians(20))
_CENTRE = {part: sum(anatomical_range(f"{part}_flexion")) / 2 for part in ("shoulder", "hip")}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which joints each angle is made of."""

    names: tuple[str, ...]
    bends: tuple[tuple[int, int, int, int], ...]
    limbs: tuple[tuple[int, int, int, str], ...]


def _plan(skeleton: Skeleton) -> _Plan:
    """Angles in order: bends, then (flexion, abduction) of each limb."""
    at = {name: i for i, name in enumerate(skeleton.joints)}
    t = skeleton.torso
    names: list[str] = []
    bends: list[tuple[int, int, int, int]] = []
    limbs: list[tuple[int, int, int, str]] = []
    limb_names: list[str] = []
    for side, sign in (("left", -1), ("right", 1)):
        for base, middle, ends in (
            ("shoulder", "elbow", ("wrist", "hand")),
            ("hip", "knee", ("ankle", "foot")),
        ):
            a = t[f"{side}_{base}"]
            if (b := at.get(f"{side}_{middle}")) is None:
                continue
            limbs.append((a, b, sign, base))
            limb_names += [f"{side}_{base}_flexion", f"{side}_{base}_abduction"]
            end = next((at[f"{side}_{e}"] for e in ends if f"{side}_{e}" in at), None)
            if end is not None:
                names.append(f"{side}_{middle}_flexion")
                bends.append((a, b, b, end))
    spine = next((at[s] for s in ("spine", "spine2") if s in at), t["pelvis"])
    neck = at.get("neck", t["chest"])
    if "head" in at:
        names.append("neck_bend")
        bends.append((spine, t["chest"], neck, at["head"]))
    if spine not in (t["pelvis"], t["chest"]):
        names.append("trunk_bend")
        bends.append((t["pelvis"], spine, spine, t["chest"]))
    return _Plan(tuple(names + limb_names), tuple(bends), tuple(limbs))


def angle_names(skeleton: Skeleton) -> tuple[str, ...]:
    """Names of the A angles that `joint_angles` returns for this skeleton, in order.

    Looked up by standard joint names: a skeleton without, say, a spine joint has no `trunk_bend`.
    """
    return _plan(skeleton).names


def _safe_atan2(y: Tensor, x: Tensor) -> Tensor:
    """atan2 with zero instead of NaN as the gradient at the origin."""
    return torch.atan2(y, torch.where(x * x + y * y < 1e-20, torch.ones_like(x), x))


def _unit(v: Tensor) -> Tensor:
    """[n, 3, ...] -> the same directions at length 1 along axis 1."""
    return v / torch.sqrt((v * v).sum(1, keepdim=True) + 1e-12)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along axis 1, [n, 3, ...]; `linalg.cross` walks that axis element by element."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def _between(x: Tensor, start: Sequence[int], end: Sequence[int]) -> Tensor:
    """Vectors from joints to joints, [V, 3, ...] -> [n, 3, ...]."""
    pick = lambda joints: x.index_select(0, torch.tensor(joints, device=x.device))  # noqa: E731
    return pick(end) - pick(start)


def joint_angles(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Joint angles of bodies given as positions; differentiable everywhere with finite gradients.

    * Elbow and knee flexion: angle between the two bones, 0 when straight (unsigned).
    * Shoulder and hip, in the frame of the torso (up = pelvis to chest; right = across the shoulders or the
      hips): flexion positive forwards, 0 along the trunk; abduction positive away from the body, -90 to 90
      degrees out of the sagittal plane. Within 20 degrees of the sideways axis flexion is undefined and fades
      to the middle of its range, so that it is never penalised there.
    * Neck and trunk bend: angle of the head against the upper trunk, of the upper against the lower trunk
      (unsigned).

    Left out: axial rotation of a limb, which positions do not show, and with it the direction in which an
    elbow or a knee bends. (Kinect v1 knees appear over-extended by more than 15 degrees in some 9 % of N-UCLA
    frames: a limit on that direction would measure the sensor.)

    Args:
        x: [..., V, 3], metres. Absent persons (all zeros) give meaningless but finite angles.
        skeleton: Names the joints; see `angle_names`.

    Returns:
        [..., A], radians, in the order of `angle_names`.

    Raises:
        InputError: the joint axis does not fit the skeleton.
    """
    if x.shape[-1] != 3 or x.shape[-2] != skeleton.num_joints:
        raise InputError(
            f"Got positions of shape {tuple(x.shape)} for skeleton '{skeleton.name}'; "
            f"the last two axes must be [{skeleton.num_joints}, 3]."
        )
    plan = _plan(skeleton)
    # Joints and coordinates first: all that follows then runs along contiguous memory.
    x = x.movedim((-2, -1), (0, 1)).contiguous()
    out: list[Tensor] = []
    if plan.bends:
        i, j, k, m = zip(*plan.bends, strict=True)
        a, b = _between(x, i, j), _between(x, k, m)
        across = _cross(a, b)
        out.append(_safe_atan2(torch.sqrt((across * across).sum(1) + 1e-14), (a * b).sum(1)))
    if plan.limbs:
        t = skeleton.torso
        up = _unit(_between(x, [t["pelvis"]], [t["chest"]]))
        right = _between(x, [t["left_shoulder"], t["left_hip"]], [t["right_shoulder"], t["right_hip"]])
        right = _unit(right - (right * up).sum(1, keepdim=True) * up)
        out.append(_ball_angles(x, plan, up, right))
    return torch.cat(out).movedim(0, -1) if out else x.new_zeros((*x.shape[2:], 0))


def _ball_angles(x: Tensor, plan: _Plan, up: Tensor, right: Tensor) -> Tensor:
    """Flexion and abduction of each limb, [2 * limbs, ...].

    x is [V, 3, ...], up [1, 3, ...], right [2 (arm, leg), 3, ...].
    """
    i, j, sign, part = zip(*plan.limbs, strict=True)
    d = _unit(_between(x, i, j))
    front = _cross(up.expand_as(right), right)
    side = torch.tensor([0 if p == "shoulder" else 1 for p in part], device=x.device)
    right, front = right.index_select(0, side), front.index_select(0, side)
    each = (-1, *[1] * (x.ndim - 2))
    forward, down = (d * front).sum(1), -(d * up).sum(1)
    outward = (d * right).sum(1) * x.new_tensor(sign).view(each)
    # Angles are measured from the middle of the allowed range, so that the jump by a full turn lies in the
    # middle of what is forbidden and the gradient always points to the nearer limit.
    centre = x.new_tensor([_CENTRE[p] for p in part]).view(each)
    cos, sin = torch.cos(centre), torch.sin(centre)
    from_centre = _safe_atan2(forward * cos - down * sin, down * cos + forward * sin)
    sagittal = torch.sqrt(forward * forward + down * down + 1e-12)
    s = (sagittal / _POLE).clamp(max=1.0)
    flexion = centre + from_centre * s * s * (3 - 2 * s)
    return torch.stack([flexion, _safe_atan2(outward, sagittal)], 1).flatten(0, 1)
