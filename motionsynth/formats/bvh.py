"""BVH, the text format of animation tools: a hierarchy of rotating joints and one line of angles per frame.

How joints become rotations: `motionsynth.posing`. With constant bone lengths joint positions come back exactly; varying
ones are replaced by their median.
The file itself cannot state its unit: Blender and Maya assume centimetres, hence the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError
from motionsynth.posing import Node, held, hierarchy, rotations
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


def bvh_text(
    positions: np.ndarray, skeleton: Skeleton, fps: float, units: str = "cm", person: int = 0
) -> str:
    """One person of a clip as the content of a BVH file.

    The rest pose is the first frame in which the person is there; while absent, they keep their last pose.

    Args:
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
    x, _ = held(positions, skeleton, person)
    nodes = hierarchy(skeleton)
    rest, local = rotations(x, skeleton)
    scale = UNITS[units]
    lines = ["HIERARCHY"]
    _write_node(lines, nodes, 0, 0, {j: offset * scale for j, offset in rest.items()})
    lines += ["MOTION", f"Frames: {len(x)}", f"Frame Time: {1.0 / fps:.9g}"]
    angles = [_angles(local[node.name]) for node in nodes]
    table = np.concatenate([x[:, skeleton.root] * scale, *angles], axis=1)
    lines += [" ".join(f"{value:.6f}" for value in row) for row in table]
    return "\n".join(lines) + "\n"


def write_bvh(
    path: Path, positions: np.ndarray, skeleton: Skeleton, fps: float, units: str = "cm", person: int = 0
) -> None:
    """Write one person of a clip to a file, which is replaced if it exists; see `bvh_text`."""
    Path(path).write_text(bvh_text(positions, skeleton, fps, units, person))


def _angles(r: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] = Rz(a) Rx(b) Ry(c) as degrees [T, 3] (a, b, c)."""
    b = np.arctan2(r[:, 2, 1], np.hypot(r[:, 0, 1], r[:, 1, 1]))
    free = np.hypot(r[:, 0, 1], r[:, 1, 1]) > 1e-9
    # With b at a right angle only the sum of a and c counts: c is 0 there.
    a = np.where(free, np.arctan2(-r[:, 0, 1], r[:, 1, 1]), np.arctan2(r[:, 1, 0], r[:, 0, 0]))
    c = np.where(free, np.arctan2(-r[:, 2, 0], r[:, 2, 2]), 0.0)
    return np.degrees(np.stack([a, b, c], axis=1))


def _write_node(
    lines: list[str], nodes: list[Node], at: int, depth: int, rest: dict[int, np.ndarray]
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
