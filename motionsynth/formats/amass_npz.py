"""npz files laid out like those of AMASS (Mahmood et al. 2019): poses, trans, mocap_framerate, gender of one person.

It is **not SMPL**. Same keys and meaning of `trans` (metres, z up), `poses` (axis-angle of each joint against its
parent, the first one against the world), `mocap_framerate` and `gender`; but
  - joints are those of our skeleton (`joint_names`, `parents`), so `poses` is [T, 3 V] and not [T, 156];
  - rotations turn the rest pose `rest_joints`, which is the body's pose in its first frame, and not SMPL's T-pose;
  - `betas` are zeros: no body shape was fitted, and there is no mesh;
  - a joint turns all its children as one, so where bones of pelvis or chest move against each other the poses
    approximate (`pose_error`, metres); `joints` [T, V, 3] are the positions as they are;
  - how a limb turns about its own axis is not in the positions: it turns as little as possible.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.posing import best_fit, held, smallest
from motionsynth.skeleton import Skeleton

BETAS = 16
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Turns y up into z up."""


def amass_npz_bytes(
    positions: np.ndarray, skeleton: Skeleton, fps: float, person: int = 0, extras: Mapping[str, Any] | None = None
) -> bytes:  # fmt: skip
    """One person of a clip as the content of an npz file; while absent, they keep their last pose.

    Args:
        positions: float32 [M, T, V, 3], metres.
        skeleton: Its skeleton.
        fps: Frames per second.
        person: Which person, from 0.
        extras: Further texts and numbers, such as the label.

    Raises:
        InputError: see `motionsynth.posing.held`; or fps is not positive.
    """
    if not 0 < fps < np.inf:
        raise InputError(f"An AMASS file needs a positive number of frames per second; got {fps}.")
    x, there = held(positions, skeleton, person)
    x = x @ Z_UP.T
    rest, world = joint_rotations(x, skeleton)
    local = world.copy()
    for child, parent in skeleton.bones:
        local[:, child] = np.swapaxes(world[:, parent], -1, -2) @ world[:, child]
    rebuilt = forward(rest, world, x[:, skeleton.root], skeleton)
    arrays: dict[str, Any] = {
        "poses": axis_angle(local).reshape(len(x), -1),
        "trans": x[:, skeleton.root],
        "betas": np.zeros(BETAS),
        "gender": "neutral",
        "mocap_framerate": float(fps),
        "joints": x.astype(np.float32),
        "present": there,
        "joint_names": np.array(skeleton.joints),
        "parents": np.array(skeleton.parents),
        "rest_joints": _rest_joints(rest, skeleton),
        "pose_error": float(np.linalg.norm(rebuilt - x, axis=-1).max()),
        "skeleton": skeleton.name,
        "note": "Not SMPL: joints, rest pose and betas differ; see joint_names and rest_joints.",
        **(extras or {}),
    }
    return npz_bytes({k: np.asarray(v) for k, v in arrays.items()})


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as an npz file; equal arrays give equal bytes, and nothing in it needs unpickling."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            # The default time of an entry is now.
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as f:
                np.lib.format.write_array(f, array, allow_pickle=False)
    return sink.getvalue()


def joint_rotations(x: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """One rotation per joint, which turns all its children.

    Args:
        x: float64 [T, V, 3].
        skeleton: Its skeleton.

    Returns:
        Rest offset of each joint from its parent [V, 3] (the root's is zero), and world rotations [T, V, 3, 3].
    """
    rest = np.zeros((skeleton.num_joints, 3))
    bone = {c: x[:, c] - x[:, p] for c, p in skeleton.bones}
    for c, b in bone.items():
        length = np.linalg.norm(b, axis=-1)
        if (usable := np.flatnonzero(length > 1e-9)).size:
            rest[c] = b[usable[0]] / length[usable[0]] * np.median(length)
    world = np.broadcast_to(np.eye(3), (len(x), skeleton.num_joints, 3, 3)).copy()
    for j in skeleton.topological_order:
        above = world[:, skeleton.parents[j]] if skeleton.parents[j] >= 0 else world[:, j]
        below = [c for c, p in skeleton.bones if p == j]
        if len(below) > 1:
            world[:, j] = best_fit(rest[below], np.stack([bone[c] for c in below], 1))
        elif below:
            world[:, j] = smallest(above @ rest[below[0]], bone[below[0]]) @ above
        else:
            world[:, j] = above
    return rest, world


def forward(rest: np.ndarray, world: np.ndarray, root: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Joint positions [T, V, 3] of rest offsets [V, 3], world rotations [T, V, 3, 3] and the root [T, 3]."""
    x = np.repeat(root[:, None], skeleton.num_joints, 1)
    for j in skeleton.topological_order:
        if (p := skeleton.parents[j]) >= 0:
            x[:, j] = x[:, p] + world[:, p] @ rest[j]
    return x


def axis_angle(r: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] as axis times angle [..., 3], radians, at most pi."""
    skew = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    sine = np.linalg.norm(skew, axis=-1) / 2
    cosine = (np.trace(r, axis1=-2, axis2=-1) - 1) / 2
    angle = np.arctan2(sine, cosine)
    # Near half a turn the skew part vanishes: there the axis is a column of its own outer product, up to its sign.
    column = (r + np.swapaxes(r, -1, -2)) / 2 - cosine[..., None, None] * np.eye(3)
    longest = np.argmax(np.linalg.norm(column, axis=-2), -1)
    half = np.take_along_axis(column, longest[..., None, None], -1)[..., 0]
    sign = np.where(np.einsum("...i,...i->...", half, skew) < 0, -1.0, 1.0)
    half = half / np.maximum(np.linalg.norm(half, axis=-1, keepdims=True), 1e-12) * sign[..., None]
    axis = skew / np.maximum(2 * sine, 1e-12)[..., None]
    near = (cosine < -0.99)[..., None]
    return np.where(near, half, axis) * angle[..., None]


def _rest_joints(rest: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    out = np.zeros_like(rest)
    for j in skeleton.topological_order:
        if (p := skeleton.parents[j]) >= 0:
            out[j] = out[p] + rest[j]
    return out
