"""Joint positions -> a hierarchy of rotating nodes, as animation tools want it.

A joint of a skeleton is a point; tools want rotations. Each bone's rotation is the smallest one that turns it
from its rest direction, relative to its parent's, into its direction in the frame. A joint with several
children (pelvis, chest) gets the rotation that fits all its bones best, and each bone of it one extra
zero-length node `<joint>_to_<child>` with the rest, because bones there move against each other in recorded
bodies. How a limb turns about its own axis is not in the positions: it turns as little as possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import present
from motionsynth.skeleton import Skeleton


def held(positions: np.ndarray, skeleton: Skeleton, person: int) -> tuple[np.ndarray, np.ndarray]:
    """One person who, while absent, keeps the last pose (before the first one: that one).

    Args:
        positions: float32 [M, T, V, 3], metres.
        skeleton: Its skeleton.
        person: Which person, from 0.

    Returns:
        float64 [T, V, 3], and bool [T]: where they are there.

    Raises:
        InputError: no such person, never there, another joint count, or a coordinate that is not finite.
    """
    if positions.ndim != 4 or positions.shape[2:] != (skeleton.num_joints, 3):
        raise InputError(
            f"Positions have shape {positions.shape}; for skeleton '{skeleton.name}' they must be [persons, frames, "
            f"{skeleton.num_joints}, 3]."
        )
    if not 0 <= person < len(positions):
        raise InputError(f"The clip has {len(positions)} persons; there is no person {person}.")
    if not np.isfinite(positions[person]).all():
        raise InputError("The clip has coordinates that are not finite numbers; repair or drop it first.")
    there = present(positions)[person]
    seen = np.flatnonzero(there)
    if not len(seen):
        raise InputError(f"Person {person} is absent in every frame; there is nothing to write.")
    at = seen[np.maximum(np.searchsorted(seen, np.arange(positions.shape[1]), side="right") - 1, 0)]
    return positions[person, at].astype(np.float64), there


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node of the hierarchy: a joint, or `<joint>_to_<child>`."""

    name: str
    parent: int
    bone: int
    """The joint whose bone leads to this node, or -1 for zero offset."""


def hierarchy(skeleton: Skeleton) -> list[Node]:
    """Nodes in depth-first order."""
    children: dict[int, list[int]] = {i: [] for i in range(skeleton.num_joints)}
    for child, parent in skeleton.bones:
        children[parent].append(child)
    nodes: list[Node] = []

    def visit(joint: int, parent: int) -> None:
        name = skeleton.joints[joint]
        nodes.append(Node(name=name, parent=parent, bone=joint if joint != skeleton.root else -1))
        at = len(nodes) - 1
        for child in children[joint]:
            if len(children[joint]) > 1:
                nodes.append(Node(name=f"{name}_to_{skeleton.joints[child]}", parent=at, bone=-1))
                visit(child, len(nodes) - 1)
            else:
                visit(child, at)

    visit(skeleton.root, -1)
    return nodes


def rotations(x: np.ndarray, skeleton: Skeleton) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    """Rest offset [3] per joint, metres, and local rotations [T, 3, 3] per node name."""
    frames = len(x)
    bone = {c: x[:, c] - x[:, p] for c, p in skeleton.bones}
    rest = {}
    for c, b in bone.items():
        length = np.linalg.norm(b, axis=-1)
        usable = np.flatnonzero(length > 1e-9)
        rest[c] = b[usable[0]] / length[usable[0]] * np.median(length) if len(usable) else np.zeros(3)
    children: dict[int, list[int]] = {i: [] for i in range(skeleton.num_joints)}
    for child, parent in skeleton.bones:
        children[parent].append(child)
    world = {skeleton.root: np.broadcast_to(np.eye(3), (frames, 3, 3))}
    local: dict[str, np.ndarray] = {}
    for joint in skeleton.topological_order:
        above, name, below = world[joint], skeleton.joints[joint], children[joint]
        if len(below) > 1:
            here = best_fit(np.stack([rest[c] for c in below]), np.stack([bone[c] for c in below], 1))
            local[name] = np.swapaxes(above, -1, -2) @ here
            for c in below:
                world[c] = smallest(here @ rest[c], bone[c]) @ here
                local[f"{name}_to_{skeleton.joints[c]}"] = np.swapaxes(here, -1, -2) @ world[c]
        else:
            here = smallest(above @ rest[below[0]], bone[below[0]]) @ above if below else above
            local[name] = np.swapaxes(above, -1, -2) @ here
            for c in below:
                world[c] = here
    return rest, local


def smallest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation that turns the direction of a into that of b: [T, 3], [T, 3] -> [T, 3, 3]."""
    la, lb = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    ok = (la > 1e-9) & (lb > 1e-9)
    a = np.where(ok[:, None], a / np.maximum(la, 1e-9)[:, None], [1.0, 0, 0])
    b = np.where(ok[:, None], b / np.maximum(lb, 1e-9)[:, None], [1.0, 0, 0])
    # Half a turn about a, then half a turn about the bisector; unlike Rodrigues' formula this stays exact up
    # to nearly opposite vectors, for which half a turn about any perpendicular will do.
    half = a + b
    norm = np.linalg.norm(half, axis=-1, keepdims=True)
    aside = np.cross(a, np.eye(3)[np.abs(a).argmin(-1)])
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    opposite = norm < 1e-7
    half = np.where(opposite, aside, half / np.maximum(norm, 1e-12))
    about_half = 2 * half[:, :, None] * half[:, None, :] - np.eye(3)
    about_a = 2 * a[:, :, None] * a[:, None, :] - np.eye(3)
    return np.where(opposite[..., None], about_half, about_half @ about_a)


def best_fit(rest: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Rotation that best turns rest offsets [K, 3] into bones [T, K, 3] (Kabsch 1976): [T, 3, 3]."""
    u, _, vt = np.linalg.svd(np.einsum("tki,kj->tij", bones, rest))
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[..., None]
    return u @ vt
