"""What a human body can do, as data: ranges of joint angles and ceilings of speed, with their sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AnatomicalRange:
    """Range of one angle in healthy adults, with tolerance.

    Attributes:
        lo, hi: Degrees, as penalised: the published range plus 10 to 15 degrees for sensor error.
        source: Published range and where it stands.
    """

    lo: float
    hi: float
    source: str


ANATOMY: Mapping[str, AnatomicalRange] = {
    "elbow_flexion": AnatomicalRange(lo=-10, hi=160, source="AAOS flexion 150, extension 0; AMA 140, 0"),
    "knee_flexion": AnatomicalRange(
        lo=-15,
        hi=160,
        source="AAOS flexion 135, extension 10; squatting 149 (Hyodo 2017), 157 (Hemmerich 2006)",
    ),
    "shoulder_flexion": AnatomicalRange(lo=-75, hi=190, source="AAOS flexion 180, extension 60; AMA 180, 50"),
    "shoulder_abduction": AnatomicalRange(lo=-60, hi=190, source="AAOS abduction 180; AMA 170"),
    "hip_flexion": AnatomicalRange(lo=-40, hi=140, source="AAOS flexion 120, extension 30"),
    "hip_abduction": AnatomicalRange(lo=-40, hi=60, source="AAOS abduction 45, adduction 30"),
    "neck_bend": AnatomicalRange(lo=0, hi=60, source="ISRN 2012/751768 table 8: 45 in every direction"),
    "trunk_bend": AnatomicalRange(lo=0, hi=100, source="AAOS trunk flexion 80, extension 25, lateral 35"),
}
"""Keyed by angle name without its side. AAOS and AMA as quoted by a physical-therapy handbook (F. A. Davis,
table A.1). Population data: Soucie et al., Haemophilia 17:500-507, 2011."""

SPEED_CEILING: Mapping[str, float] = {"arm": 12.0, "leg": 16.0, "trunk": 8.0}
"""m/s that no joint of a person exceeds, even in sport (hands, feet, head and trunk)."""

_ARM = ("elbow", "wrist", "hand", "hand_tip", "thumb")
_LEG = ("knee", "ankle", "foot", "toes")


def anatomical_range(angle: str) -> tuple[float, float]:
    """(lo, hi) in radians of an angle named as in `angle_names`."""
    entry = ANATOMY[angle.removeprefix("left_").removeprefix("right_")]
    return math.radians(entry.lo), math.radians(entry.hi)


def speed_ceiling(joint: str) -> float:
    """m/s that a joint of this name never exceeds; elbows count as arm, knees as leg, all else as trunk."""
    part = joint.removeprefix("left_").removeprefix("right_")
    return SPEED_CEILING["arm" if part in _ARM else "leg" if part in _LEG else "trunk"]
