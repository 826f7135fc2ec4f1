"""Two people on SBU's 15 joints: classes with a partner, and one in which the second person is absent."""

from __future__ import annotations

import numpy as np

from motionsynth.motion import Motion, MotionSet, rotate_y
from motionsynth.skeleton import get_skeleton
from tests.tiny_motion import FPS, SUBJECTS
from tests.tiny_motion import animate as animate_kinect20

CLASS_NAMES = ("walk together", "wave at", "stand alone")

# The joint of the Kinect-20 body that stands for each of SBU's.
_FROM = {"neck": "chest", "torso": "spine"}
_FROM |= {f"{side}_hand": f"{side}_wrist" for side in ("left", "right")}
_FROM |= {f"{side}_foot": f"{side}_ankle" for side in ("left", "right")}


def _body(label: int, frames: int, size: float, phase: float) -> np.ndarray:
    kinect, sbu = get_skeleton("kinect20"), get_skeleton("sbu15")
    body = animate_kinect20(kinect, label, frames, size, 1.0, phase)
    return body[..., [kinect.index(_FROM.get(j, j)) for j in sbu.joints], :]


def make_pair_set() -> MotionSet:
    """3 classes x 4 subjects x 2 repetitions. "stand alone" is one person, every other time padded to two."""
    motions = []
    for label, name in enumerate(CLASS_NAMES):
        for s, subject in enumerate(SUBJECTS):
            for repetition in range(2):
                frames, size = 20 + 4 * label + s, 0.9 + 0.07 * s
                first = _body(min(label, 1), frames, size, 0.3 * s + repetition)
                second = rotate_y(_body(0, frames, 1.0, repetition), np.pi) + np.array(
                    [0, 0, 1.2], np.float32
                )
                if label == 2:
                    second = np.zeros_like(first) if repetition else first[:0]
                motions.append(
                    Motion(
                        positions=np.concatenate([first, second]).astype(np.float32),
                        fps=FPS,
                        skeleton="sbu15",
                        label=label,
                        label_name=name,
                        sample_id=f"p{label}_s{subject}_r{repetition}",
                        dataset="pairs",
                        subject=subject,
                        repetition=str(repetition),
                    )
                )
    return MotionSet(
        dataset="pairs", skeleton=get_skeleton("sbu15"), class_names=CLASS_NAMES, motions=tuple(motions)
    )
