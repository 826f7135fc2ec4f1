"""The canonical clip and what can be done to it.

Everywhere in this project: float32 `[M, T, V, 3]` (persons, frames, joints, xyz), metres, y up,
right-handed; seconds and radians; a body that faces +z has its right side at -x. A person that is absent
in a frame is all zeros there. Batches are `[B, M, T, V, 3]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.skeleton import Skeleton

MAX_SPEED = 20.0
"""m/s above which a joint's displacement between two frames is a tracking jump, not a motion (the fastest
hand in sport stays below 12 m/s, a foot below 16 m/s)."""

SIDE_WORD = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
""""left" or "right" as a word of its own: in "(left)" and "left_hand", not in "upright"."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Motion:
    """One clip, real or synthetic; the fields are the columns of the Parquet schema.

    Attributes:
        positions: float32 [M, T, V, 3], metres.
        fps: Frames per second.
        skeleton: Name of the skeleton (the definition travels with the `MotionSet` and the file header).
        label: Class index, from 0.
        label_name: Class name.
        sample_id: Unique within a dataset.
        dataset, subject, view, repetition: Identity, as text.
        source: "real" or "synthetic".
        parent_id: For a synthetic clip made from a real one: that clip's `sample_id`; from several: joined by "+".
        generator, checkpoint, seed: For a synthetic clip: what made it.
        class_confidence, physics_violation, novelty, accepted, rejected_by: Quality columns, None when not measured;
            `motionsynth.refine` fills them, on scales that are the same for every class, so that a set can be filtered
            anew from its columns alone.
        class_confidence: Probability in [0, 1] that recognisers which never saw the clip's source give to its label.
        physics_violation: Largest of the plausibility figures, each divided by its limit; above 1 it is refused.
        novelty: Where the distance to the nearest real training clip of the class lies between the class's limits:
            below 0 a copy, above 1 an outlier.
        accepted: False keeps the clip from every recogniser; None counts as accepted.
        rejected_by: Names of all rules that refuse the clip, joined by "+"; None where none does. Taking a rule back is
            accepting the clips that it alone refused.
    """

    positions: np.ndarray
    fps: float
    skeleton: str
    label: int
    label_name: str
    sample_id: str
    dataset: str = ""
    subject: str = ""
    view: str = ""
    repetition: str = ""
    source: str = "real"
    parent_id: str | None = None
    generator: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    class_confidence: float | None = None
    physics_violation: float | None = None
    novelty: float | None = None
    accepted: bool | None = None
    rejected_by: str | None = None

    def __post_init__(self) -> None:
        p = self.positions
        if p.ndim != 4 or p.shape[-1] != 3 or 0 in p.shape:
            raise InputError(
                f"Clip '{self.sample_id}' has shape {p.shape}; it must be [persons, frames, joints, 3], "
                "none empty."
            )
        if p.dtype != np.float32:
            raise InputError(f"Clip '{self.sample_id}' is {p.dtype}; positions must be float32 metres.")
        if self.source not in ("real", "synthetic"):
            raise InputError(f"Clip '{self.sample_id}' has source '{self.source}'; allowed: real, synthetic.")

    @property
    def num_persons(self) -> int:
        """M."""
        return self.positions.shape[0]

    @property
    def num_frames(self) -> int:
        """T."""
        return self.positions.shape[1]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionSet:
    """Clips that share a skeleton and a list of classes."""

    dataset: str
    skeleton: Skeleton
    class_names: tuple[str, ...]
    motions: tuple[Motion, ...]

    def __len__(self) -> int:
        return len(self.motions)

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]."""
        return np.array([m.label for m in self.motions], np.int64)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def num_persons(self) -> int:
        """Largest M of any clip."""
        return max((m.num_persons for m in self.motions), default=1)

    def select(self, indices: Iterable[int]) -> MotionSet:
        """The clips at these positions, in this order."""
        return replace(self, motions=tuple(self.motions[i] for i in indices))

    def accepted(self) -> MotionSet:
        """The clips that no filter refused: what a recogniser may train on."""
        return replace(self, motions=tuple(m for m in self.motions if m.accepted is not False))

    def extended(self, extra: Sequence[Motion]) -> MotionSet:
        """The same set with clips added at the end."""
        return replace(self, motions=self.motions + tuple(extra))


def present(positions: np.ndarray) -> np.ndarray:
    """bool [M, T]: where a person is there (any joint differs from zero)."""
    return np.any(positions != 0, axis=(-1, -2))


def invalid_reason(motion: Motion, skeleton: Skeleton, max_speed: float = MAX_SPEED) -> str | None:
    """Why a clip cannot be used, in one sentence, or None if it can.

    Checks, in this order: joint count, at least two frames, finite values, a first person that is there, no
    bone whose length is zero in every frame, no joint faster than `max_speed` (m/s) in more than half of the
    frames (single jumps are sensor noise: `repair_jumps` mends them).
    """
    p = motion.positions
    if p.shape[2] != skeleton.num_joints:
        return f"it has {p.shape[2]} joints where skeleton '{skeleton.name}' has {skeleton.num_joints}"
    if p.shape[1] < 2:
        return f"it has {p.shape[1]} frame; a motion needs at least 2"
    if not np.isfinite(p).all():
        return f"{int((~np.isfinite(p)).sum())} of its coordinates are not finite numbers"
    there = present(p)
    if not there[0].any():
        return "its first person is all zeros in every frame"
    for person, seen in zip(p, there, strict=True):
        for child, parent in skeleton.bones:
            if seen.any() and not np.any(person[seen, child] != person[seen, parent]):
                bone = f"{skeleton.joints[parent]}-{skeleton.joints[child]}"
                return f"the bone {bone} has zero length in every frame"
    fast = joint_speed(p, motion.fps) > max_speed
    share = fast.any(-1).mean(-1).max()
    if share > 0.5:
        return f"a joint moves faster than {max_speed:g} m/s in {share:.0%} of its frames"
    return None


def joint_speed(positions: np.ndarray, fps: float) -> np.ndarray:
    """float32 [M, T-1, V], m/s; 0 across a frame in which the person is absent."""
    there = present(positions)
    speed = np.linalg.norm(np.diff(positions, axis=1), axis=-1) * fps
    return speed * (there[:, 1:] & there[:, :-1])[..., None]


def repair_jumps(positions: np.ndarray, fps: float, max_speed: float = MAX_SPEED) -> np.ndarray:
    """Replace joints that jump away and come back by linear interpolation over time.

    A joint at frame t is bad when it is farther than `max_speed` allows from the running median of its
    neighbourhood (5 frames). Absent persons are left alone.

    Args:
        positions: float32 [M, T, V, 3], metres.
        fps: Frames per second.
        max_speed: m/s.

    Returns:
        float32 [M, T, V, 3], a copy.
    """
    out = positions.copy()
    for person, seen in zip(out, present(positions), strict=True):
        frames = np.flatnonzero(seen)
        if len(frames) < 5:
            continue
        x = person[frames]
        padded = np.concatenate([x[:1], x[:1], x, x[-1:], x[-1:]])
        median = np.median(np.stack([padded[i : i + len(x)] for i in range(5)]), axis=0)
        bad = np.linalg.norm(x - median, axis=-1) > max_speed / fps
        for v in np.flatnonzero(bad.any(0)):
            good = ~bad[:, v]
            if good.sum() >= 2:
                for c in range(3):
                    x[:, v, c] = np.interp(frames, frames[good], x[good, v, c])
        person[frames] = x
    return out


def centre(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Move the whole clip so that person 0's root starts above the origin, and at height 0.

    One translation for all persons and frames, so placement and trajectory are kept. Absent persons stay 0.
    """
    there = present(positions)
    first = int(np.argmax(there[0]))
    origin = positions[0, first, skeleton.root]
    return ((positions - origin) * there[..., None, None]).astype(np.float32)


def sideways(positions: Any, skeleton: Skeleton) -> Any:
    """From left to right hip plus from left to right shoulder, of an array or tensor: [..., V, 3] -> [..., 3]."""
    t = skeleton.torso
    return (
        positions[..., t["right_hip"], :]
        - positions[..., t["left_hip"], :]
        + positions[..., t["right_shoulder"], :]
        - positions[..., t["left_shoulder"], :]
    )


def right_axis(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Unit right direction of a body on the ground, from hips and shoulders: [..., V, 3] -> [..., 3]."""
    across = sideways(positions, skeleton) * np.array([1.0, 0.0, 1.0], np.float32)
    return across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-8)


def rotate_y(positions: np.ndarray, angle: float) -> np.ndarray:
    """Rotate about the vertical axis by `angle` radians (counter-clockwise seen from above)."""
    c, s = np.cos(angle), np.sin(angle)
    r = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
    return (positions @ r.T).astype(np.float32)


def heading(positions: np.ndarray, skeleton: Skeleton, frames: int = 5) -> float:
    """Angle (radians) about y by which person 0 is turned from facing +z, over its first present frames."""
    seen = np.flatnonzero(present(positions)[0])[:frames]
    right = right_axis(positions[0, seen], skeleton).mean(0)
    return float(np.arctan2(right[2], -right[0]))


def align_heading(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Turn the clip about the vertical so that person 0 first faces +z.

    Uses the hips and shoulders *of this skeleton*. (pyskl's PreNormalize3D uses Kinect indices for every
    skeleton, which on a 22-joint body aligns a wrist; see its source.)
    """
    return rotate_y(positions, -heading(positions, skeleton))


def canonical(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Centred and heading-aligned: the pose in which generators and recognisers see a clip."""
    return align_heading(centre(positions, skeleton), skeleton)


def resample(positions: np.ndarray, frames: int) -> np.ndarray:
    """Linear interpolation in time to `frames` frames; first and last frame stay.

    A frame between one where the person is present and one where it is absent copies the present one.
    """
    t = positions.shape[1]
    # Rounded so that a sample meant to lie on a source frame does so exactly: floor and ceil are then that
    # frame, and a neighbour's presence cannot leak into it.
    at = np.round(np.linspace(0, t - 1, frames), 9)
    lo = np.floor(at).astype(int)
    hi = np.ceil(at).astype(int)
    w = (at - lo).astype(np.float32)[None, :, None, None]
    there = present(positions)
    only_lo, only_hi = there[:, lo] & ~there[:, hi], ~there[:, lo] & there[:, hi]
    w = np.where(only_lo[..., None, None], 0.0, np.where(only_hi[..., None, None], 1.0, w))
    return (positions[:, lo] * (1 - w) + positions[:, hi] * w).astype(np.float32)


def mirror(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Reflect left and right: x changes sign and mirror pairs swap. Its own inverse."""
    return (positions[..., skeleton.mirror_permutation, :] * np.array([-1, 1, 1], np.float32)).astype(
        np.float32
    )


def mirrored_labels(class_names: Sequence[str]) -> np.ndarray:
    """int64 [K]: the class that each class's mirror image belongs to; -1 where mirroring loses the label.

    "... left ..." and "... right ..." swap when both classes exist; a handed class without its twin gives -1;
    every other class maps to itself.
    """
    at = {name.lower(): i for i, name in enumerate(class_names)}
    out = []
    for i, name in enumerate(class_names):
        other, sides = SIDE_WORD.subn(lambda m: "right" if m[0] == "left" else "left", name.lower())
        out.append(at.get(other, -1) if sides else i)
    return np.array(out, np.int64)


def bone_lengths(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """float32 [M, T, V-1], metres, in `skeleton.bones` order."""
    child, parent = np.array(skeleton.bones).T
    return np.linalg.norm(positions[..., child, :] - positions[..., parent, :], axis=-1)


def bone_stream(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Joint minus parent, [..., V, 3] -> [..., V, 3]; the root's is zero."""
    parents = np.array([p if p >= 0 else i for i, p in enumerate(skeleton.parents)])
    return positions - positions[..., parents, :]


def velocity_stream(positions: np.ndarray) -> np.ndarray:
    """Next frame minus this one, [M, T, V, 3] -> [M, T, V, 3]; the last frame is zero. Metres per frame."""
    v = np.zeros_like(positions)
    v[:, :-1] = np.diff(positions, axis=1)
    there = present(positions)
    v[:, :-1] *= (there[:, 1:] & there[:, :-1])[..., None, None]
    return v


def reorder(positions: np.ndarray, source: Skeleton, target: Skeleton) -> np.ndarray:
    """The same body in another joint order, matched by joint name.

    Raises:
        InputError: the target has a joint that the source lacks.
    """
    return positions[..., [source.index(j) for j in target.joints], :]
