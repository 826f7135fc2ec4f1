"""glTF files: valid by their structure, and their animation, evaluated by its definition, gives the joints back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.formats.gltf import glb_bytes
from motionsynth.motion import MotionSet
from motionsynth.skeleton import Skeleton, get_skeleton, shipped
from tests.test_formats_bvh import rigid
from tests.test_posing import wild

pygltflib = pytest.importorskip("pygltflib")
NUMBERS = {5126: np.float32, 5123: np.uint16}
SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def read(gltf, index: int) -> np.ndarray:
    """An accessor's numbers, [n, components]."""
    accessor = gltf.accessors[index]
    view = gltf.bufferViews[accessor.bufferView]
    start = view.byteOffset + (accessor.byteOffset or 0)
    kind, size = np.dtype(NUMBERS[accessor.componentType]), SIZES[accessor.type]
    data = gltf.binary_blob()[start : start + accessor.count * size * kind.itemsize]
    assert start % kind.itemsize == 0 and start + len(data) <= view.byteOffset + view.byteLength
    return np.frombuffer(data, kind).reshape(accessor.count, size)


def matrix(q: np.ndarray) -> np.ndarray:
    """Unit quaternions xyzw [T, 4] -> [T, 3, 3], by the formula of the standard's appendix."""
    x, y, z, w = q.astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def evaluate(data: bytes, skeleton: Skeleton, frames: int) -> dict[str, np.ndarray]:
    """Joint positions [T, V, 3] of each person at the key frames."""
    gltf = pygltflib.GLTF2().load_from_bytes(data)
    moved: dict[tuple[int, str], np.ndarray] = {}
    for animation in gltf.animations:
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            times, values = read(gltf, sampler.input)[:, 0], read(gltf, sampler.output)
            assert len(times) == len(values) == frames and (np.diff(times) > 0).all()
            moved[channel.target.node, channel.target.path] = values
    out: dict[str, np.ndarray] = {}

    def value(node: int, path: str, default: list[float]) -> np.ndarray:
        own = getattr(gltf.nodes[node], path)
        return moved.get((node, path), np.tile(np.array(own or default, np.float64), (frames, 1)))

    def visit(node: int, linear: np.ndarray, at: np.ndarray, person: str) -> None:
        at = at + np.einsum("tij,tj->ti", linear, value(node, "translation", [0, 0, 0]))
        q = value(node, "rotation", [0, 0, 0, 1])
        np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-5)
        linear = linear @ (matrix(q) * value(node, "scale", [1, 1, 1])[:, None, :])
        if (name := gltf.nodes[node].name) in skeleton.joints:
            out[person][:, skeleton.index(name)] = at
        for child in gltf.nodes[node].children or []:
            visit(child, linear, at, person)

    for root in gltf.scenes[gltf.scene].nodes:
        person = gltf.nodes[root].name
        out[person] = np.full((frames, skeleton.num_joints, 3), np.nan)
        visit(root, np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3)), person)
    return out


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(shipped()), rigid_bones=st.booleans())
def test_joints_come_back_in_every_frame(seed: int, name: str, rigid_bones: bool) -> None:
    skeleton = get_skeleton(name)
    x = rigid(skeleton, np.random.default_rng(seed)) if rigid_bones else wild(skeleton, seed, frames=6)
    got = evaluate(glb_bytes(x, skeleton, 25.0), skeleton, 6)
    np.testing.assert_allclose(got["person_0"], x[0], atol=1e-4)


def test_real_motion_and_its_label(tiny_set: MotionSet, tmp_path: Path) -> None:
    m = tiny_set.motions[9]
    data = glb_bytes(m.positions, tiny_set.skeleton, m.fps, m.sample_id, {"label_name": m.label_name})
    got = evaluate(data, tiny_set.skeleton, m.num_frames)
    np.testing.assert_allclose(got["person_0"], m.positions[0], atol=1e-4)
    (tmp_path / "x.glb").write_bytes(data)
    gltf = pygltflib.GLTF2().load(str(tmp_path / "x.glb"))
    assert gltf.asset.version == "2.0" and gltf.scenes[0].extras["label_name"] == m.label_name
    times = gltf.accessors[gltf.animations[0].samplers[0].input]
    assert times.min == [0] and times.max == [pytest.approx((m.num_frames - 1) / m.fps)]
    # Bones of constant length are not animated: only the root moves.
    paths = [c.target.path for c in gltf.animations[0].channels]
    assert paths.count("translation") <= 1 < paths.count("rotation")


def test_the_structure_is_that_of_the_standard(tiny_set: MotionSet) -> None:
    data = glb_bytes(tiny_set.motions[0].positions, tiny_set.skeleton, 30.0)
    magic, version, size = data[:4], int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")
    assert (magic, version, size) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    whole = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    parents = [c for n in whole["nodes"] for c in n.get("children", [])]
    assert len(parents) == len(set(parents)) and not set(parents) & set(whole["scenes"][0]["nodes"])
    gltf = pygltflib.GLTF2().load_from_bytes(data)
    for mesh in gltf.meshes:
        (part,) = mesh.primitives
        corners, faces = read(gltf, part.attributes.POSITION), read(gltf, part.indices)
        bounds = gltf.accessors[part.attributes.POSITION]
        np.testing.assert_allclose([bounds.min, bounds.max], [corners.min(0), corners.max(0)])
        assert faces.max() < len(corners) and len(faces) % 3 == 0
        # Faces look outwards, else viewers would not draw them.
        a, b, c = corners[faces.reshape(-1, 3)].astype(np.float64).transpose(1, 0, 2)
        outwards = np.einsum("fi,fi->f", np.cross(b - a, c - a), (a + b + c) / 3 - corners.mean(0))
        assert (outwards > 0).all()
    assert len(gltf.meshes) == len(tiny_set.skeleton.bones)


def test_two_persons_one_of_whom_comes_later() -> None:
    skeleton = get_skeleton("sbu15")
    x = np.concatenate([wild(skeleton, k, frames=6) for k in range(3)])
    x[1, :2], x[2] = 0, 0
    got = evaluate(glb_bytes(x, skeleton, 15.0), skeleton, 6)
    assert set(got) == {"person_0", "person_1"}
    np.testing.assert_allclose(got["person_0"], x[0], atol=1e-4)
    np.testing.assert_allclose(got["person_1"][2:], x[1, 2:], atol=1e-4)
    # Absent: shrunk to one point.
    assert np.ptp(got["person_1"][:2], axis=1).max() < 1e-6


def test_one_frame_has_no_animation_to_evaluate_but_is_a_pose() -> None:
    skeleton = get_skeleton("sbu15")
    x = wild(skeleton, 0, frames=1)
    np.testing.assert_allclose(
        evaluate(glb_bytes(x, skeleton, 15.0), skeleton, 1)["person_0"], x[0], atol=1e-4
    )


def test_what_cannot_be_written() -> None:
    skeleton = get_skeleton("sbu15")
    x = wild(skeleton, 0)
    for positions, fps, sentence in [
        (x, 0.0, "positive number"),
        (x * 0, 30.0, "absent"),
        (x[:, :, 1:], 30.0, "15, 3"),
    ]:
        with pytest.raises(InputError, match=sentence):
            glb_bytes(positions, skeleton, fps)
