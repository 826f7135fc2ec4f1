"""AMASS-like files: forward kinematics over the stored poses, written as AMASS defines it, gives the joints back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.formats.amass_npz import amass_npz_bytes, axis_angle
from motionsynth.motion import MotionSet
from motionsynth.skeleton import get_skeleton, shipped
from tests.test_posing import rotation, wild


def load(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as f:
        return {k: f[k] for k in f.files}


def rodrigues(v: np.ndarray) -> np.ndarray:
    """Axis times angle [..., 3] -> [..., 3, 3]."""
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12), -1, 0)
    o = np.zeros_like(x)
    k = np.moveaxis(np.array([[o, -z, y], [z, o, -x], [-y, x, o]]), (0, 1), (-2, -1))
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def kinematics(f: dict[str, np.ndarray]) -> np.ndarray:
    """Joints [T, V, 3] as a reader of AMASS computes them, from poses, trans, parents and the rest pose."""
    t, parents = len(f["trans"]), f["parents"].tolist()
    local = rodrigues(f["poses"].reshape(t, len(parents), 3))
    rest = f["rest_joints"]
    order = [parents.index(-1)]
    for j in order:
        order += [c for c, p in enumerate(parents) if p == j]
    world, out = local.copy(), np.zeros((t, len(parents), 3))
    for j in order:
        p = parents[j]
        if p < 0:
            out[:, j] = f["trans"]
        else:
            world[:, j] = world[:, p] @ local[:, j]
            out[:, j] = out[:, p] + world[:, p] @ (rest[j] - rest[p])
    return out


def test_poses_rebuild_a_body_that_moves_rigidly(tiny_set: MotionSet) -> None:
    for m in tiny_set.motions[::5]:
        f = load(amass_npz_bytes(m.positions, tiny_set.skeleton, m.fps, extras={"label_name": m.label_name}))
        x = m.positions[0]
        z_up = np.stack([x[..., 0], -x[..., 2], x[..., 1]], -1)
        np.testing.assert_array_equal(f["joints"], z_up)
        np.testing.assert_allclose(kinematics(f), z_up, atol=1e-4)
        assert f["pose_error"] < 1e-4 and f["mocap_framerate"] == 30 and f["gender"] == "neutral"
        assert (
            f["poses"].shape == (m.num_frames, 60) and f["present"].all() and f["label_name"] == m.label_name
        )
        assert tuple(f["joint_names"]) == tiny_set.skeleton.joints


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(shipped()))
def test_any_rotations_of_any_skeleton_come_back(seed: int, name: str) -> None:
    skeleton, rng = get_skeleton(name), np.random.default_rng(seed)
    rest = rng.normal(0, 0.3, (skeleton.num_joints, 3))
    x, world = np.zeros((4, skeleton.num_joints, 3)), rotation(rng, (4, skeleton.num_joints))
    for j in skeleton.topological_order:
        if (p := skeleton.parents[j]) >= 0:
            x[:, j] = x[:, p] + world[:, p] @ rest[j]
    x += rng.normal(0, 1, (4, 1, 3))
    f = load(amass_npz_bytes(x[None].astype(np.float32), skeleton, 25.0))
    np.testing.assert_allclose(kinematics(f), f["joints"], atol=1e-4)
    assert f["pose_error"] < 1e-4


def test_what_one_rotation_per_joint_cannot_say_is_said(tiny_set: MotionSet) -> None:
    skeleton = get_skeleton("kinect25")
    f = load(amass_npz_bytes(wild(skeleton, 0), skeleton, 30.0))
    off = np.linalg.norm(kinematics(f) - f["joints"], axis=-1).max()
    assert f["pose_error"] == pytest.approx(off, rel=1e-5) and off > 0.1


@given(
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(a) > 0.01),
    angle=st.one_of(
        st.floats(0, np.pi), st.floats(3, np.pi), st.sampled_from([0, 1e-9, np.pi - 1e-9, np.pi])
    ),
)
def test_axis_angle_inverts_rodrigues_up_to_half_a_turn(axis: tuple[float, ...], angle: float) -> None:
    r = rodrigues(np.array(axis) / np.linalg.norm(axis) * angle)
    found = axis_angle(r)
    assert np.linalg.norm(found) <= np.pi + 1e-9
    np.testing.assert_allclose(rodrigues(found), r, atol=1e-6)


def test_the_same_clip_gives_the_same_bytes_and_absence_is_kept() -> None:
    skeleton = get_skeleton("sbu15")
    x = wild(skeleton, 1, persons=2, frames=6)
    x[1, :2] = 0
    one = amass_npz_bytes(x, skeleton, 15.0, person=1)
    assert one == amass_npz_bytes(x, skeleton, 15.0, person=1)
    assert load(one)["present"].tolist() == [False, False, True, True, True, True]
    with pytest.raises(InputError, match="positive number of frames per second; got nan"):
        amass_npz_bytes(x, skeleton, float("nan"))
