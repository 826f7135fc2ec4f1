"""glTF 2.0 (.glb): a clip as a moving skeleton that Blender, three.js and game engines open.

Each person is a tree of nodes named after the joints (`motionsynth.posing`), turned by animated rotations. Where bone
lengths vary, as sensors make them, their translations are animated, too, so joint positions come back exactly in every
frame. Metres, y up, as glTF wants them. Bones are drawn as slim octahedra, since viewers show no bare nodes. A person
who is absent shrinks to nothing.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.posing import held, hierarchy, rotations
from motionsynth.skeleton import Skeleton

FLOAT, UINT16 = 5126, 5123
COLOURS = ((0.85, 0.35, 0.2, 1.0), (0.2, 0.5, 0.85, 1.0))
STEADY = 1e-6
"""Metres within which a bone's length counts as constant."""
_OCTAHEDRON = np.array(
    [[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [5, 1, 2], [5, 2, 3], [5, 3, 4], [5, 4, 1]], np.uint16
)


def glb_bytes(
    positions: np.ndarray, skeleton: Skeleton, fps: float, name: str = "clip", extras: dict[str, Any] | None = None
) -> bytes:  # fmt: skip
    """A clip as the content of a .glb file; persons who are never there are left out.

    Args:
        positions: float32 [M, T, V, 3], metres.
        skeleton: Its skeleton.
        fps: Frames per second.
        name: Of scene and animation.
        extras: JSON for whoever reads the file, such as the label.

    Raises:
        InputError: nobody is ever there, the joint count is wrong, a coordinate is not finite, or fps is not positive.
    """
    if not 0 < fps < np.inf:
        raise InputError(f"glTF needs a positive number of frames per second; got {fps}.")
    scene = _Scene(np.arange(positions.shape[1]) / fps)
    people = [m for m in range(len(positions)) if np.any(positions[m])]
    if not people:
        # Says which it is: nobody there, or not a clip at all.
        held(positions, skeleton, 0)
    roots = [scene.person(positions, skeleton, m, i) for i, m in enumerate(people)]
    return scene.to_bytes(roots, name, {"fps": fps, "skeleton": skeleton.name, **(extras or {})})


class _Scene:
    """Nodes, meshes and the animation, while they are put together."""

    def __init__(self, times: np.ndarray) -> None:
        self.binary = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []
        self.channels: list[dict[str, Any]] = []
        self.times = self.accessor(times.astype(np.float32)[:, None], "SCALAR", bounds=True)
        self.faces = self.accessor(_OCTAHEDRON.reshape(-1, 1), "SCALAR", target=34963)

    def person(self, positions: np.ndarray, skeleton: Skeleton, person: int, nth: int) -> int:
        """One person; returns their top node."""
        x, there = held(positions, skeleton, person)
        rest, local = rotations(x, skeleton)
        plan = hierarchy(skeleton)
        top = self.node(f"person_{person}")
        if not there.all():
            self.animate(top, "scale", np.repeat(there[:, None], 3, 1).astype(np.float32), "STEP")
        at = {i: self.node(node.name) for i, node in enumerate(plan)}
        for i, node in enumerate(plan):
            self.nodes[top if node.parent < 0 else at[node.parent]].setdefault("children", []).append(at[i])
            turn = _quaternions(local[node.name])
            if np.abs(turn - turn[0]).max() > 0:
                self.animate(at[i], "rotation", turn)
            self.nodes[at[i]]["rotation"] = turn[0].tolist()
            if node.bone < 0:
                moved = x[:, skeleton.root] if node.parent < 0 else np.zeros((1, 3))
            else:
                moved = _stretched(rest[node.bone], x[:, node.bone] - x[:, skeleton.parents[node.bone]])
                self.draw(at[node.parent], rest[node.bone], nth)
            if np.abs(moved - moved[0]).max() > STEADY:
                self.animate(at[i], "translation", moved.astype(np.float32))
            self.nodes[at[i]]["translation"] = moved[0].astype(np.float32).tolist()
        return top

    def node(self, name: str) -> int:
        """A new node."""
        self.nodes.append({"name": name})
        return len(self.nodes) - 1

    def animate(self, node: int, path: str, values: np.ndarray, interpolation: str = "LINEAR") -> None:
        """Values [T, 3 or 4] of a node over time."""
        kind = "VEC4" if values.shape[1] == 4 else "VEC3"
        output = self.accessor(values, kind)
        self.samplers.append({"input": self.times, "output": output, "interpolation": interpolation})
        self.channels.append(
            {"sampler": len(self.samplers) - 1, "target": {"node": node, "path": path}},
        )

    def draw(self, node: int, bone: np.ndarray, nth: int) -> None:
        """An octahedron from a node to the end of its bone [3]."""
        length = float(np.linalg.norm(bone))
        if length < 1e-4:
            return
        along = bone / length
        side = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        side *= 0.08 * length / np.linalg.norm(side)
        other, middle = np.cross(along, side), 0.2 * bone
        corners = np.stack([0 * bone, middle + side, middle + other, middle - side, middle - other, bone])
        position = self.accessor(corners.astype(np.float32), "VEC3", target=34962, bounds=True)
        part = {"attributes": {"POSITION": position}, "indices": self.faces, "material": nth % len(COLOURS)}
        self.nodes[node]["mesh"] = len(self.meshes)
        self.meshes.append({"primitives": [part]})

    def accessor(self, values: np.ndarray, kind: str, target: int = 0, bounds: bool = False) -> int:
        """Numbers [n, components], stored."""
        data = np.ascontiguousarray(values).tobytes()
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        self.binary += data + bytes(-len(data) % 4)
        limits = {"min": values.min(0).tolist(), "max": values.max(0).tolist()} if bounds else {}
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": UINT16 if values.dtype == np.uint16 else FLOAT,
                "count": len(values),
                "type": kind,
                **limits,
            }
        )
        return len(self.accessors) - 1

    def to_bytes(self, roots: list[int], name: str, extras: dict[str, Any]) -> bytes:
        """The file: header, JSON chunk, binary chunk."""
        whole = {
            "asset": {"version": "2.0", "generator": "motionsynth"},
            "scene": 0,
            "scenes": [{"name": name, "nodes": roots, "extras": extras}],
            "nodes": self.nodes,
            "meshes": self.meshes,
            "materials": [{"pbrMetallicRoughness": {"baseColorFactor": c, "metallicFactor": 0}} for c in COLOURS],
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.binary)}],
        }  # fmt: skip
        if self.channels:
            whole["animations"] = [{"name": name, "samplers": self.samplers, "channels": self.channels}]
        if not self.meshes:
            del whole["meshes"]
        text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(self.binary)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, size),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self.binary), b"BIN\0"),
                bytes(self.binary),
            ]
        )


def _stretched(rest: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """A rest offset [3] with the length that the bone [T, 3] has in each frame: [T, 3]."""
    length = np.linalg.norm(rest)
    return rest / max(float(length), 1e-12) * np.linalg.norm(bone, axis=-1)[:, None]


def _quaternions(r: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] as unit quaternions xyzw, float32 [T, 4], each on the side of the one before it."""
    # Four times the products of the components, by the largest of which one divides (Shepperd 1978).
    m = {(i, j): r[:, i, j] for i in range(3) for j in range(3)}
    x, y, z, w = 0, 1, 2, 3
    k = np.empty((len(r), 4, 4))
    k[:, w, w] = 1 + m[0, 0] + m[1, 1] + m[2, 2]
    for i in range(3):
        k[:, i, i] = 1 + 2 * m[i, i] - (m[0, 0] + m[1, 1] + m[2, 2])
    k[:, x, y] = k[:, y, x] = m[0, 1] + m[1, 0]
    k[:, x, z] = k[:, z, x] = m[0, 2] + m[2, 0]
    k[:, y, z] = k[:, z, y] = m[1, 2] + m[2, 1]
    k[:, x, w] = k[:, w, x] = m[2, 1] - m[1, 2]
    k[:, y, w] = k[:, w, y] = m[0, 2] - m[2, 0]
    k[:, z, w] = k[:, w, z] = m[1, 0] - m[0, 1]
    largest = np.argmax(np.einsum("tii->ti", k), 1)
    q = k[np.arange(len(r)), largest]
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    turned = np.einsum("ti,ti->t", q[1:], q[:-1]) < 0
    q[1:] *= np.where(np.cumsum(turned) % 2, -1.0, 1.0)[:, None]
    return q.astype(np.float32)
