"""What betrays an implausible motion: six figures of each clip, to be compared with those of real clips."""

from __future__ import annotations

import numpy as np

from motionsynth.limits import MotionLimits
from motionsynth.metrics_motion import (
    bone_length_medians,
    bone_length_variation,
    foot_skate,
    peak_rates,
    physics_violations,
)
from motionsynth.motion import MotionSet

NOTICEABLE = {
    "limits": 0.05,  # share of frames
    "bone_variation": 0.01,  # share of a bone's length
    "bone_length": 0.05,  # natural logarithm of a bone's length over its usual one
    "speed": 0.5,  # m/s
    "acceleration": 5.0,  # m/s^2
    "foot_skate": 0.05,  # m/s
}
"""The plausibility figures, and what each may always reach: bones of training clips without noise vary by nothing at
all, and nobody sees a clip whose bones vary by a millimetre."""


def plausibility_figures(motions: MotionSet, limits: MotionLimits, bones: np.ndarray) -> np.ndarray:
    """What betrays an implausible motion, higher is worse; columns as in `NOTICEABLE`.

    Args:
        motions: Clips.
        limits: Of angles and speeds.
        bones: [V-1], usual length of each bone, metres.

    Returns:
        float64 [N, 6]: share of frames beyond the limits; variation of bone lengths over time; mean distance of the
        bone lengths from the usual ones, as |ln|; speed (m/s) and acceleration (m/s^2) of the fastest joint; speed of
        standing feet (m/s). 0 where a figure cannot be had, such as skating without feet.
    """
    if not len(motions):
        return np.zeros((0, len(NOTICEABLE)))
    stretch = np.log(np.maximum(bone_length_medians(motions), 1e-6) / np.maximum(bones, 1e-6))
    columns = (
        physics_violations(motions, limits)[:, :1],
        bone_length_variation(motions)[:, None],
        np.abs(stretch).mean(1, keepdims=True),
        peak_rates(motions),
        foot_skate(motions)[:, None],
    )
    return np.nan_to_num(np.concatenate(columns, axis=1))
