"""BVH, the text format of animation tools: a hierarchy of rotating joints and one line of angles per frame.

A joint of a skeleton is a point; BVH wants rotations. Each bone's rotation is the smallest one that turns it
from its rest direction, relative to its parent's, into its direction in the frame. A joint with several
children (pelvis, chest) gets the rotation that fits all its bones best, and each bone of it one extra
zero-length node `<joint>_to_<child>` with the rest, because bones there move against each other in recorded
bodies. With constant bone lengths joint positions come back exactly; varying ones are replaced by their median.
The file itself cannot state its unit: Blender and Maya assume centimetres, hence the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import present
from motionsynth.skeleton import Skeleton

UNITS = {"cm": 100.0, "m": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bvh:
    """What a BVH file says.

    Attributes:
        joints: Node names in file order, extra nodes included.
        parents: Index of each node's parent, -1 for the root.
        positions: float32 [T, N, 3], metres.
        fps: Frames per second.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    positions: np.ndarray
    fps: float


def write_bvh(
    path: Path, positions: np.ndarray, skeleton: Skeleton, fps: float, units: str = "cm", person: int = 0
) -> None:
    """Write one person of a clip.

    The rest pose is the first frame in which the person is there; while absent, they keep their last pose.

    Args:
        path: File to write; replaced if it exists.
        positions: float32 [M, T, V, 3], metres.
        skeleton: Its skeleton.
        fps: Frames per second.
        units: "cm" or "m": the unit of lengths in the file.
        person: Which person, from 0.

    Raises:
        InputError: unknown unit, no such person, the person is never there, the joint count is wrong, a
            coordinate is not finite, or fps is not positive.
    """
    if units not in UNITS:
        raise InputError(f"Unknown BVH unit '{units}'. Known: {', '.join(UNITS)}.")
    if not 0 < fps < np.inf:
        raise InputError(f"BVH needs a positive number of frames per second; got {fps}.")
    if positions.ndim != 4 or positions.shape[2:] != (skeleton.num_joints, 3):
        raise InputError(
            f"Positions have shape {positions.shape}; for skeleton '{skeleton.name}' they must be [persons, frames, "
            f"{skeleton.num_joints}, 3]."
        )
    if not 0 <= person < len(positions):
        raise InputError(f"The clip has {len(positions)} persons; there is no person {person}.")
    if not np.isfinite(positions[person]).all():
        raise InputError("The clip has coordinates that are not finite numbers; repair or drop it first.")
    seen = np.flatnonzero(present(positions)[person])
    if not len(seen):
        raise InputError(f"Person {person} is absent in every frame; there is nothing to write.")
    held = seen[np.maximum(np.searchsorted(seen, np.arange(positions.shape[1]), side="right") - 1, 0)]
    x = positions[person, held].astype(np.float64)

    nodes = _hierarchy(skeleton)
    rest, local = _rotations(x, skeleton)
    scale = UNITS[units]
    lines = ["HIERARCHY"]
    _write_node(lines, nodes, 0, 0, {j: offset * scale for j, offset in rest.items()})
    lines += ["MOTION", f"Frames: {len(x)}", f"Frame Time: {1.0 / fps:.9g}"]
    angles = [_angles(local[node.name]) for node in nodes]
    table = np.concatenate([x[:, skeleton.root] * scale, *angles], axis=1)
    lines += [" ".join(f"{value:.6f}" for value in row) for row in table]
    Path(path).write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    name: str
    parent: int
    bone: int
    """The joint whose bone leads to this node, or -1 for zero offset."""


def _hierarchy(skeleton: Skeleton) -> list[_Node]:
    """Nodes in depth-first order."""
    children: dict[int, list[int]] = {i: [] for i in range(skeleton.num_joints)}
    for child, parent in skeleton.bones:
        children[parent].append(child)
    nodes: list[_Node] = []

    def visit(joint: int, parent: int) -> None:
        name = skeleton.joints[joint]
        nodes.append(_Node(name=name, parent=parent, bone=joint if joint != skeleton.root else -1))
        at = len(nodes) - 1
        for child in children[joint]:
            if len(children[joint]) > 1:
                nodes.append(_Node(name=f"{name}_to_{skeleton.joints[child]}", parent=at, bone=-1))
                visit(child, len(nodes) - 1)
            else:
                visit(child, at)

    visit(skeleton.root, -1)
    return nodes


def _rotations(x: np.ndarray, skeleton: Skeleton) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
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
            here = _best_fit(np.stack([rest[c] for c in below]), np.stack([bone[c] for c in below], 1))
            local[name] = np.swapaxes(above, -1, -2) @ here
            for c in below:
                world[c] = _minimal(here @ rest[c], bone[c]) @ here
                local[f"{name}_to_{skeleton.joints[c]}"] = np.swapaxes(here, -1, -2) @ world[c]
        else:
            here = _minimal(above @ rest[below[0]], bone[below[0]]) @ above if below else above
            local[name] = np.swapaxes(above, -1, -2) @ here
            for c in below:
                world[c] = here
    return rest, local


def _minimal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
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


def _best_fit(rest: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Rotation that best turns rest offsets [K, 3] into bones [T, K, 3] (Kabsch 1976): [T, 3, 3]."""
    u, _, vt = np.linalg.svd(np.einsum("tki,kj->tij", bones, rest))
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[..., None]
    return u @ vt


def _angles(r: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] = Rz(a) Rx(b) Ry(c) as degrees [T, 3] (a, b, c)."""
    b = np.arctan2(r[:, 2, 1], np.hypot(r[:, 0, 1], r[:, 1, 1]))
    free = np.hypot(r[:, 0, 1], r[:, 1, 1]) > 1e-9
    # With b at a right angle only the sum of a and c counts: c is 0 there.
    a = np.where(free, np.arctan2(-r[:, 0, 1], r[:, 1, 1]), np.arctan2(r[:, 1, 0], r[:, 0, 0]))
    c = np.where(free, np.arctan2(-r[:, 2, 0], r[:, 2, 2]), 0.0)
    return np.degrees(np.stack([a, b, c], axis=1))


def _write_node(
    lines: list[str], nodes: list[_Node], at: int, depth: int, rest: dict[int, np.ndarray]
) -> None:
    node, pad = nodes[at], "  " * depth
    offset = rest[node.bone] if node.bone >= 0 else np.zeros(3)
    rotation = "Zrotation Xrotation Yrotation"
    channels = f"6 Xposition Yposition Zposition {rotation}" if node.parent < 0 else f"3 {rotation}"
    lines.append(f"{pad}{'ROOT' if node.parent < 0 else 'JOINT'} {node.name}")
    lines += [
        f"{pad}{{",
        f"{pad}  OFFSET {' '.join(f'{v:.6f}' for v in offset)}",
        f"{pad}  CHANNELS {channels}",
    ]
    below = [i for i, n in enumerate(nodes) if n.parent == at]
    for i in below:
        _write_node(lines, nodes, i, depth + 1, rest)
    if not below:
        lines += [
            f"{pad}  End Site",
            f"{pad}  {{",
            f"{pad}    OFFSET 0.000000 0.000000 0.000000",
            f"{pad}  }}",
        ]
    lines.append(f"{pad}}}")


def read_bvh(path: Path, units: str = "cm") -> Bvh:
    """Joint positions of a BVH file by forward kinematics; any channel order, one root.

    Args:
        path: The file.
        units: "cm" or "m": the unit of lengths in the file, which it cannot state itself.

    Raises:
        InputError: unknown unit, or the file is not a complete BVH file.
    """
    if units not in UNITS:
        raise InputError(f"Unknown BVH unit '{units}'. Known: {', '.join(UNITS)}.")
    try:
        words = Path(path).read_text().split()
    except OSError as e:
        raise InputError(f"BVH file '{path}' cannot be read ({e.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"BVH file '{path}' is not text.") from None
    try:
        return _parse(words, UNITS[units])
    except (IndexError, ValueError) as e:
        raise InputError(f"BVH file '{path}' is truncated or damaged ({e}); export it again.") from None


def _parse(words: list[str], scale: float) -> Bvh:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    i = 1
    if words[:1] != ["HIERARCHY"]:
        raise ValueError("it does not begin with HIERARCHY")
    while words[i] != "MOTION":
        word = words[i]
        if word in ("ROOT", "JOINT"):
            names.append(words[i + 1])
            parents.append(stack[-1] if stack else -1)
            offsets.append([0.0, 0.0, 0.0])
            channels.append([])
            stack.append(len(names) - 1)
            i += 3
        elif word == "End":
            i = words.index("}", i) + 1
        elif word == "OFFSET":
            offsets[stack[-1]] = [float(w) for w in words[i + 1 : i + 4]]
            i += 4
        elif word == "CHANNELS":
            n = int(words[i + 1])
            channels[stack[-1]] = words[i + 2 : i + 2 + n]
            i += 2 + n
        elif word == "}":
            stack.pop()
            i += 1
        else:
            raise ValueError(f"'{word}' is not expected in the hierarchy")
    if parents.count(-1) != 1 or stack:
        raise ValueError("its hierarchy is not one tree")
    frames, frame_time = int(words[i + 2]), float(words[i + 5])
    width = sum(map(len, channels))
    values = np.array([float(w) for w in words[i + 6 :]])
    if frames < 1 or frame_time <= 0 or len(values) != frames * width:
        raise ValueError(
            f"it has {len(values)} numbers where {frames} frames of {width} channels are announced"
        )
    columns = iter(values.reshape(frames, width).T)
    world = np.zeros((len(names), frames, 3, 3))
    out = np.zeros((frames, len(names), 3))
    for j, parent in enumerate(parents):
        shift = np.broadcast_to(np.array(offsets[j]), (frames, 3)).copy()
        turn = np.broadcast_to(np.eye(3), (frames, 3, 3))
        moved = False
        for channel in channels[j]:
            axis = "XYZ".index(channel[0])
            if channel[1:] == "position":
                # Position channels replace the offset.
                shift, moved = shift if moved else np.zeros((frames, 3)), True
                shift[:, axis] = next(columns)
            elif channel[1:] == "rotation":
                turn = turn @ _about(axis, np.radians(next(columns)))
            else:
                raise ValueError(f"channel '{channel}' is unknown")
        if parent < 0:
            out[:, j], world[j] = shift, turn
        else:
            out[:, j] = out[:, parent] + np.einsum("tij,tj->ti", world[parent], shift)
            world[j] = world[parent] @ turn
    return Bvh(
        joints=tuple(names),
        parents=tuple(parents),
        positions=(out / scale).astype(np.float32),
        fps=1.0 / frame_time,
    )


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about x, y or z by angles [T], radians: [T, 3, 3]."""
    j, k = (axis + 1) % 3, (axis + 2) % 3
    r = np.zeros((len(angle), 3, 3))
    r[:, axis, axis] = 1.0
    r[:, j, j] = r[:, k, k] = np.cos(angle)
    r[:, k, j] = np.sin(angle)
    r[:, j, k] = -r[:, k, j]
    return r
