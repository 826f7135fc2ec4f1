"""One body drawn as a stick figure on matplotlib axes, for any skeleton with standard joint names.

Left limbs are blue, right limbs orange, the trunk dark; a second person is paler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from motionsynth.motion import canonical, present
from motionsynth.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: tuple[Mapping[str, str], ...] = (
    {"left": "#1769aa", "right": "#e4761b", "trunk": "#39424e"},
    {"left": "#74aedb", "right": "#f2b583", "trunk": "#9aa3af"},
)
"""By person, repeated for more than two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """Orthographic view of a canonical clip (its first person faces +z).

    Attributes:
        azimuth: Degrees by which the body turns from facing the viewer to its own left.
        elevation: Degrees from which the viewer looks down.
    """

    azimuth: float = 38.0
    elevation: float = 10.0

    def project(self, positions: np.ndarray) -> np.ndarray:
        """[..., 3] metres -> [..., 3]: rightwards and upwards on the page, and towards the viewer."""
        a, e = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        x, y, z = np.moveaxis(positions, -1, 0)
        right, near = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
        return np.stack([right, y * np.cos(e) - near * np.sin(e), near * np.cos(e) + y * np.sin(e)], -1)


def level(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Canonical clip with its floor made horizontal and put at height 0; float32 [M, T, V, 3].

    Raw clips often keep the tilt of their camera, which shows as soon as a person walks. The floor is a plane
    fitted to the lowest joint of each frame; a person who stays in place gives no slope and is not turned.
    """
    p = canonical(positions, skeleton)
    there = present(positions)
    if not there.any():
        return p
    frames = p[there]
    lowest = frames[np.arange(len(frames)), frames[..., 1].argmin(-1)].astype(np.float64)
    slope = np.zeros(2)
    for _ in range(3):
        across = lowest[:, [0, 2]] - lowest[:, [0, 2]].mean(0)
        rise = lowest[:, 1] - lowest[:, 1].mean()
        # The ridge stands for a spread of 0.3 m: less movement than that says nothing about the slope.
        slope = np.linalg.solve(across.T @ across + 0.09 * len(lowest) * np.eye(2), across.T @ rise)
        off = rise - across @ slope
        keep = off <= np.quantile(off, 0.8)
        if keep.sum() < 3:
            break
        lowest = lowest[keep]
    up = np.array([-slope[0], 1.0, -slope[1]]) / np.sqrt(1 + slope @ slope)
    right = np.array([1.0, slope[0], 0.0]) / np.hypot(1, slope[0])
    p = p @ np.stack([right, up, np.cross(right, up)], -1)
    return ((p - [0, np.median(lowest @ up), 0]) * there[..., None, None]).astype(np.float32)


class StickFigure:
    """Draws the bodies of one clip.

    Args:
        skeleton: Its skeleton.
        positions: [M, T, V, 3], from which the size of the head is taken.
    """

    def __init__(self, skeleton: Skeleton, positions: np.ndarray) -> None:
        self.skeleton = skeleton
        self._positions = positions

    @cached_property
    def head_radius(self) -> float:
        """Metres: a fifth of the trunk, the same in every frame."""
        t = self.skeleton.torso
        hips = (self._positions[..., t["left_hip"], :] + self._positions[..., t["right_hip"], :]) / 2
        up = self._positions[..., t["chest"], :] - hips
        there = present(self._positions)
        trunk = np.linalg.norm(up[there], axis=-1)
        return float(np.clip(0.2 * np.median(trunk), 0.06, 0.12)) if there.any() else 0.1

    @cached_property
    def chains(self) -> dict[int, list[tuple[int, int]]]:
        """Bones (child, parent) of each limb by its first joint; the trunk's under the root."""
        s = self.skeleton
        first: dict[int, int] = {}
        out: dict[int, list[tuple[int, int]]] = {}
        for v in s.topological_order:
            parent = s.parents[v]
            if side_of(s.joints[v]) == "trunk":
                first[v] = s.root
            elif parent >= 0 and side_of(s.joints[parent]) == side_of(s.joints[v]):
                first[v] = first[parent]
            else:
                first[v] = v
            if parent >= 0:
                out.setdefault(first[v], []).append((v, parent))
        return out

    @cached_property
    def limb_ends(self) -> list[int]:
        """Hands and feet: the joint of each side that ends at a standard name, outermost first."""
        s = self.skeleton
        return [
            next(s.index(f"{side}_{n}") for n in names if f"{side}_{n}" in s.joints)
            for side in ("left", "right")
            for names in (("hand", "wrist"), ("foot", "ankle"))
            if any(f"{side}_{n}" in s.joints for n in names)
        ]

    def draw(self, axes: Axes, body: np.ndarray, person: int, width: float) -> list:
        """One projected body [V, 3]: limbs from far to near, each rimmed where it passes in front of another.

        Args:
            axes: With equal scales.
            body: From `Camera.project`.
            person: Chooses the colours.
            width: Of a bone, points.

        Returns:
            The artists, to be removed for the next frame of an animation.
        """
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Circle

        s, palette, paper = self.skeleton, COLOURS[person % len(COLOURS)], axes.get_facecolor()
        # One collection draws its segments in their order, many times as fast as one for each limb.
        segments, colours, widths = [], [], []
        for bones in sorted(
            self.chains.values(), key=lambda bones: float(body[[c for c, _ in bones], 2].mean())
        ):
            colour = palette[side_of(s.joints[bones[0][0]])]
            for tint, thickness in ((paper, 1.8 * width), (colour, width)):
                segments += [body[[parent, child], :2] for child, parent in bones]
                colours += [tint] * len(bones)
                widths += [thickness] * len(bones)
        lines = LineCollection(segments, colors=colours, linewidths=widths, capstyle="round", zorder=3)
        artists: list = [axes.add_collection(lines, autolim=False)]
        if "head" in s.joints:
            tip = "head_tip" if "head_tip" in s.joints else "head"
            head = (body[s.index("head")] + body[s.index(tip)]) / 2
            circle = Circle((head[0], head[1]), self.head_radius, fc=palette["trunk"], ec=paper, zorder=5)
            artists.append(axes.add_patch(circle))
        return artists


def side_of(joint: str) -> str:
    """ "left", "right" or "trunk", by the joint's name."""
    return joint.partition("_")[0] if joint.startswith(("left_", "right_")) else "trunk"
