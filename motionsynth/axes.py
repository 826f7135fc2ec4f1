"""Whether clips stand upright and are as tall as people, and how those of other axes or units are turned into ours.

Ours are metres, y up, right-handed. Whatever is turned stays right-handed: left and right are never exchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from motionsynth.errors import InputError
from motionsynth.skeleton import Skeleton

UP = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}
"""The axis that points up, and the rotation that turns it to y."""
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Metres of each."""

UPRIGHT = 0.7
"""Cosine between torso and an axis (45 degrees) above which a clip counts as standing along it."""
TORSO = (0.15, 1.2)
"""Metres from pelvis to chest that are taken for a person's."""


def check_axes(up: str, unit: str) -> None:
    """Refuse what is not known.

    Raises:
        InputError: an unknown axis or unit.
    """
    for option, given, known in (("--up", up, UP), ("--unit", unit, UNITS)):
        if given not in known:
            raise InputError(f"{option} is '{given}'; allowed: {', '.join(known)}.")


def to_metres_y_up(positions: np.ndarray, up: str, unit: str) -> np.ndarray:
    """Positions [..., 3] of other axes and units as float32 metres with y up; zeros (absent persons) stay zeros."""
    if (up, unit) == ("y", "m"):
        return positions.astype(np.float32, copy=False)
    turned = np.asarray(positions, np.float64) @ np.array(UP[up], float).T * UNITS[unit]
    return turned.astype(np.float32)


def torso(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """What leads from the pelvis to the chest of the first person: [3], as given, median over frames; 0 without any.

    Args:
        positions: [M, T, V, 3].
        skeleton: Names the two joints.
    """
    body = positions[0].astype(np.float64)
    leads = body[:, skeleton.torso["chest"]] - body[:, skeleton.torso["pelvis"]]
    leads = leads[np.isfinite(leads).all(-1) & leads.any(-1)]
    return np.median(leads, 0) if len(leads) else np.zeros(3)


def doubts(torsos: Sequence[Sequence[float]]) -> list[str]:
    """What is probably wrong with the axes or units of a dataset, a sentence each.

    Args:
        torsos: `torso` of every clip.
    """
    leads = np.array(torsos, float).reshape(-1, 3)
    size = np.linalg.norm(leads, axis=1)
    leads, size = leads[size > 0], size[size > 0]
    if not len(leads):
        return []
    out = []
    if not TORSO[0] <= (middle := float(np.median(size))) <= TORSO[1]:
        fits = [u for u, metres in UNITS.items() if TORSO[0] <= middle * metres <= TORSO[1]]
        cure = f"; if these are {fits[0]}, give --unit {fits[0]}" if fits else ""
        out.append(
            f"From pelvis to chest it is {middle:.3g} m in the median clip, which is no person's{cure}."
        )
    along = leads / size[:, None]
    axes = [
        name
        for name, rotation in UP.items()
        for cosine in along @ np.array(rotation[1], float)
        if cosine > UPRIGHT
    ]
    if axes and (often := Counter(axes).most_common(1)[0])[0] != "y" and often[1] > len(leads) / 2:
        stand = f"In {often[1]} of {len(leads)} clips people stand along {often[0]}"
        out.append(f"{stand}, and y is to point up; give --up {often[0]}.")
    return out
