"""Tiny real motion for tests: an analytic Kinect-20 body that walks or waves, with rigid bones.

Facing +z, y up, right side at -x. People differ in size and speed, views in heading.
"""

from __future__ import annotations

import numpy as np

from motionsynth.motion import Motion, MotionSet, rotate_y
from motionsynth.skeleton import Skeleton, get_skeleton

CLASS_NAMES = ("walk around", "wave left hand", "wave right hand")
SUBJECTS = ("01", "02", "03", "04")
VIEWS = ("01", "02")
FPS = 30.0

# Offset of each joint from its parent at rest, metres, left side; the right side is its reflection.
_REST = {
    "pelvis": (0, 0.95, 0),
    "spine": (0, 0.12, 0.01),
    "chest": (0, 0.38, 0.0),
    "head": (0, 0.22, 0.02),
    "left_shoulder": (0.18, -0.06, 0),
    "left_elbow": (0.04, -0.27, 0),
    "left_wrist": (0.01, -0.25, 0.02),
    "left_hand": (0, -0.08, 0.01),
    "left_hip": (0.09, -0.06, 0),
    "left_knee": (0, -0.41, 0.01),
    "left_ankle": (0, -0.40, -0.01),
    "left_foot": (0.01, -0.06, 0.13),
}


def _rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """[T] radians about x, y or z -> [T, 3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    r = np.tile(np.eye(3), (len(angle), 1, 1))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    r[:, i, i], r[:, i, j], r[:, j, i], r[:, j, j] = c, -s, s, c
    return r


def _rest_offset(joint: str) -> np.ndarray:
    if joint.startswith("right_"):
        return np.array(_REST["left_" + joint.removeprefix("right_")]) * (-1, 1, 1)
    return np.array(_REST[joint], float)


def animate(
    skeleton: Skeleton, label: int, frames: int, size: float, hertz: float, phase: float
) -> np.ndarray:
    """One person: float32 [1, T, V, 3], metres. `size` scales every bone; bones keep their length."""
    beat = 2 * np.pi * hertz * np.arange(frames) / FPS + phase
    # (axis, angle): about x is forwards, about z is sideways.
    turns: dict[str, tuple[int, np.ndarray]] = {"chest": (0, 0.03 * np.sin(beat))}
    if label == 0:
        swing = 0.5 * np.sin(beat)
        turns |= {"left_knee": (0, swing), "right_knee": (0, -swing)}
        turns |= {"left_elbow": (0, -swing), "right_elbow": (0, swing)}
        turns |= {
            "left_ankle": (0, 0.3 * (1 + np.sin(beat - 1))),
            "right_ankle": (0, 0.3 * (1 - np.sin(beat - 1))),
        }
    else:
        side, sign = ("left", 1.0) if label == 1 else ("right", -1.0)
        turns |= {
            f"{side}_elbow": (2, np.full(frames, sign * 2.2)),
            f"{side}_wrist": (2, sign * 0.6 * np.sin(2 * beat)),
        }
    turned: dict[int, np.ndarray] = {}
    out = np.zeros((frames, skeleton.num_joints, 3))
    for v in skeleton.topological_order:
        joint, parent = skeleton.joints[v], skeleton.parents[v]
        base = np.tile(np.eye(3), (frames, 1, 1)) if parent < 0 else turned[parent]
        turned[v] = base @ _rotation(*turns[joint]) if joint in turns else base
        origin = np.zeros((frames, 3)) if parent < 0 else out[:, parent]
        out[:, v] = origin + turned[v] @ (_rest_offset(joint) * size)
    if label == 0:
        out[..., 2] += (0.9 * np.arange(frames) / FPS)[:, None]
    return out[None].astype(np.float32)


def make_tiny_set(repetitions: int = 1) -> MotionSet:
    """3 classes x 4 subjects x 2 views x repetitions clips of 24 to 39 frames."""
    skeleton = get_skeleton("kinect20")
    motions = []
    for label, name in enumerate(CLASS_NAMES):
        for s, subject in enumerate(SUBJECTS):
            for repetition in range(repetitions):
                # Views of one take film the same motion.
                take = animate(
                    skeleton,
                    label,
                    frames=24 + (5 * s + 3 * label + 7 * repetition) % 16,
                    size=0.9 + 0.07 * s,
                    hertz=0.8 + 0.15 * s + 0.05 * repetition,
                    phase=0.7 * repetition + 0.3 * s,
                )
                for v, view in enumerate(VIEWS):
                    motions.append(
                        Motion(
                            positions=rotate_y(take, 0.6 * v),
                            fps=FPS,
                            skeleton=skeleton.name,
                            label=label,
                            label_name=name,
                            sample_id=f"c{label}_s{subject}_r{repetition}_v{view}",
                            dataset="tiny",
                            subject=subject,
                            view=view,
                            repetition=str(repetition),
                        )
                    )
    return MotionSet(dataset="tiny", skeleton=skeleton, class_names=CLASS_NAMES, motions=tuple(motions))
