"""Joint angles: closed-form poses, invariance, gradients, the sign of "front" on real people."""

import math

import numpy as np
import pytest
import torch

from motionsynth.anatomy import ANATOMY, anatomical_range, speed_ceiling
from motionsynth.datasets import get_dataset
from motionsynth.errors import InputError
from motionsynth.joint_angles import angle_names, joint_angles
from motionsynth.motion import mirror
from motionsynth.skeleton import Skeleton, get_skeleton, shipped

KINECT = get_skeleton("kinect20")


def standing() -> np.ndarray:
    """[20, 3]: arms and legs straight down, facing +z (right side at -x)."""
    p = dict(pelvis=(0, 1, 0), spine=(0, 1.1, 0), chest=(0, 1.5, 0), head=(0, 1.7, 0))
    for side, s in (("left", 1), ("right", -1)):
        p |= {f"{side}_shoulder": (0.2 * s, 1.45, 0), f"{side}_elbow": (0.2 * s, 1.15, 0)}
        p |= {f"{side}_wrist": (0.2 * s, 0.9, 0), f"{side}_hand": (0.2 * s, 0.8, 0)}
        p |= {f"{side}_hip": (0.1 * s, 0.95, 0), f"{side}_knee": (0.1 * s, 0.5, 0)}
        p |= {f"{side}_ankle": (0.1 * s, 0.1, 0), f"{side}_foot": (0.1 * s, 0.05, 0.1)}
    return np.array([p[j] for j in KINECT.joints], np.float32)


def degrees(body: np.ndarray) -> dict[str, float]:
    return dict(
        zip(
            angle_names(KINECT), np.rad2deg(joint_angles(torch.from_numpy(body), KINECT).numpy()), strict=True
        )
    )


def put(body: np.ndarray, **offsets: tuple[str, tuple[float, float, float]]) -> np.ndarray:
    """Place joints at an offset from another joint, in the order given."""
    for joint, (base, offset) in offsets.items():
        body[KINECT.index(joint)] = body[KINECT.index(base)] + np.array(offset, np.float32)
    return body


def test_standing_straight_is_zero_everywhere():
    assert np.allclose(list(degrees(standing()).values()), 0, atol=0.1)


@pytest.mark.parametrize("angle", [20, 60, 90, 150])
def test_elbow_and_knee_flexion_equal_the_angle_put_in(angle):
    a = math.radians(angle)
    body = put(standing(), right_wrist=("right_elbow", (0, -0.25 * math.cos(a), 0.25 * math.sin(a))))
    body = put(body, left_ankle=("left_knee", (0, -0.4 * math.cos(a), -0.4 * math.sin(a))))
    got = degrees(body)
    assert got["right_elbow_flexion"] == pytest.approx(angle, abs=0.05)
    assert got["left_knee_flexion"] == pytest.approx(angle, abs=0.05)
    assert got["left_elbow_flexion"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("angle", [-60, -20, 45, 90, 170, 185])
def test_shoulder_flexion_is_positive_forwards_and_does_not_wrap_within_its_range(angle):
    a = math.radians(angle)
    body = put(standing(), left_elbow=("left_shoulder", (0, -0.3 * math.cos(a), 0.3 * math.sin(a))))
    assert degrees(body)["left_shoulder_flexion"] == pytest.approx(angle, abs=0.05)
    assert degrees(body)["left_shoulder_abduction"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("angle", [-30, 30, 60])
def test_abduction_is_away_from_the_body_on_both_sides(angle):
    a = math.radians(angle)
    for side, s in (("left", 1), ("right", -1)):
        body = put(
            standing(), **{f"{side}_knee": (f"{side}_hip", (s * 0.4 * math.sin(a), -0.4 * math.cos(a), 0))}
        )
        got = degrees(body)
        assert got[f"{side}_hip_abduction"] == pytest.approx(angle, abs=0.05)
        assert got[f"{side}_hip_flexion"] == pytest.approx(0, abs=0.1)


def test_an_arm_straight_to_the_side_has_flexion_at_the_middle_of_its_range():
    body = put(standing(), left_elbow=("left_shoulder", (0.3, 0, 0)))
    assert degrees(body)["left_shoulder_flexion"] == pytest.approx((190 - 75) / 2, abs=0.1)
    assert degrees(body)["left_shoulder_abduction"] == pytest.approx(90, abs=0.1)


def test_trunk_and_neck_bend():
    body = put(standing(), head=("chest", (0, 0.2 * math.cos(0.5), 0.2 * math.sin(0.5))))
    assert degrees(body)["neck_bend"] == pytest.approx(math.degrees(0.5), abs=0.05)
    body = put(standing(), spine=("pelvis", (0, 0, 0.1)), chest=("spine", (0, 0.4, 0)))
    assert degrees(body)["trunk_bend"] == pytest.approx(90, abs=0.05)


def test_angles_ignore_place_heading_and_size(tiny_set):
    x = torch.from_numpy(tiny_set.motions[0].positions)
    c, s = math.cos(1.1), math.sin(1.1)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    moved = 1.3 * x @ turn.T + torch.tensor([0.5, -0.2, 3.0])
    assert torch.allclose(joint_angles(x, KINECT), joint_angles(moved, KINECT), atol=2e-4)


def test_a_mirrored_body_swaps_left_and_right(tiny_set):
    x = tiny_set.motions[-1].positions
    names = angle_names(KINECT)
    swapped = [n.replace("left_", "?").replace("right_", "left_").replace("?", "right_") for n in names]
    a = joint_angles(torch.from_numpy(x), KINECT)
    b = joint_angles(torch.from_numpy(mirror(x, KINECT)), KINECT)
    assert torch.allclose(a, b[..., [names.index(n) for n in swapped]], atol=1e-4)


@pytest.mark.parametrize("name", shipped())
def test_every_skeleton_has_elbows_knees_shoulders_and_hips_with_a_range(name):
    names = angle_names(get_skeleton(name))
    for part in ("elbow_flexion", "knee_flexion", "shoulder_flexion", "hip_abduction"):
        assert f"left_{part}" in names and f"right_{part}" in names
    assert all(lo < hi for lo, hi in map(anatomical_range, names))
    out = joint_angles(torch.randn(2, 3, get_skeleton(name).num_joints, 3), get_skeleton(name))
    assert out.shape == (2, 3, len(names))


def test_a_skeleton_without_elbows_has_fewer_angles():
    joints = [
        "pelvis",
        "chest",
        "left_hip",
        "right_hip",
        "left_shoulder",
        "right_shoulder",
        "left_knee",
        "right_knee",
    ]
    parents = ["", "pelvis", "pelvis", "pelvis", "chest", "chest", "left_hip", "right_hip"]
    torso = {j: j for j in joints[:6]}
    bare = Skeleton.from_dict(dict(name="bare", joints=joints, parents=parents, mirror=[], torso=torso))
    assert set(angle_names(bare)) == {
        f"{s}_hip_{m}" for s in ("left", "right") for m in ("flexion", "abduction")
    }


@pytest.mark.parametrize("pose", ["straight", "absent", "collinear", "sideways", "one_point"])
def test_gradients_are_finite_at_degenerate_poses(pose):
    body = standing()
    if pose == "absent":
        body[:] = 0
    elif pose == "collinear":
        body = np.outer(np.arange(20), [0, 0.1, 0]).astype(np.float32)
    elif pose == "sideways":
        body = put(body, left_elbow=("left_shoulder", (0.3, 0, 0)))
    elif pose == "one_point":
        body[:] = 1.7
    x = torch.from_numpy(body).requires_grad_()
    angles = joint_angles(x, KINECT)
    angles.sum().backward()
    assert torch.isfinite(angles).all() and x.grad is not None and torch.isfinite(x.grad).all()


def test_gradient_agrees_with_finite_differences(tiny_set):
    x = torch.from_numpy(tiny_set.motions[3].positions[0, 5]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: joint_angles(p, KINECT), x, atol=1e-4)


def test_wrong_joint_count_is_one_sentence():
    with pytest.raises(InputError, match=r"must be \[20, 3\]"):
        joint_angles(torch.zeros(4, 25, 3), KINECT)


def test_speed_ceilings_follow_the_body_part():
    assert speed_ceiling("left_hand") == 12 and speed_ceiling("right_foot") == 16
    assert speed_ceiling("head") == 8 and speed_ceiling("pelvis") == 8
    assert all(entry.lo < entry.hi and entry.source for entry in ANATOMY.values())


def test_real_people_who_sit_flex_hips_and_knees_forwards(shared_data):
    """Fixes the sign of "front": a body frame with the wrong hand would show the hips extended backwards."""
    nucla = get_dataset("nucla")
    files = [f for f in nucla.find(shared_data / "nucla") if f.name.startswith("a05_")][:12]
    names = angle_names(KINECT)
    angles = np.concatenate(
        [joint_angles(torch.from_numpy(nucla.read(f).positions[0]), KINECT).numpy() for f in files]
    )
    median = dict(zip(names, np.rad2deg(np.median(angles, axis=0)), strict=True))
    assert nucla.read(files[0]).label_name == "sit down"
    assert median["left_hip_flexion"] > 25 and median["left_knee_flexion"] > 35
