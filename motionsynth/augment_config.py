"""Strengths of the strong classical augmentation; `motionsynth.augment` does it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from motionsynth.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Strength of each augmentation; zeros (and crop 1) turn all of it off.

    Attributes:
        yaw: Rotation about the vertical, uniform in +-yaw (radians).
        tilt: Rotation about the two ground axes, uniform in +-tilt (radians).
        scale: Per-axis scale 1 + U(-scale, scale), the same for all persons and frames.
        crop: Smallest share of the clip that a temporal crop keeps.
        warp: Amplitude of a smooth time warp, as a share of the crop's length.
        jitter: Standard deviation of independent joint noise (metres).
        mirror: Probability of a left/right reflection where the class has a mirror class.
    """

    yaw: float = 0.5
    tilt: float = 0.15
    scale: float = 0.15
    crop: float = 0.6
    warp: float = 0.08
    jitter: float = 0.01
    mirror: float = 0.5

    def __post_init__(self) -> None:
        for name in ("yaw", "tilt", "scale", "warp", "jitter", "mirror"):
            value = getattr(self, name)
            top = {"yaw": math.pi, "tilt": math.pi, "scale": 0.9, "warp": 0.15, "jitter": 1.0, "mirror": 1.0}[
                name
            ]
            if not 0 <= value <= top:
                raise InputError(f"Augmentation {name} is {value}; it must lie between 0 and {top:g}.")
        if not 0 < self.crop <= 1:
            raise InputError(f"Augmentation crop is {self.crop}; it must lie above 0 and at most 1.")


NONE = AugmentConfig(yaw=0, tilt=0, scale=0, crop=1, warp=0, jitter=0, mirror=0)
"""No augmentation: the weak arm."""
