from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.formats.bvh import read_bvh, write_bvh
from motionsynth.skeleton import Skeleton, get_skeleton, shipped


def rigid(skeleton: Skeleton, rng: np.random.Generator, frames: int = 6) -> np.ndarray:
    """float32 [1, T, V, 3]: constant bone lengths, every bone turning freely on its own."""
    length = rng.uniform(0.05, 0.5, len(skeleton.bones))
    direction = rng.normal(size=(frames, len(skeleton.bones), 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    root = rng.normal(0, 2, (frames, 1, 3))
    return (root + skeleton.ancestors @ (direction * length[:, None]))[None].astype(np.float32)


def error(path: Path, x: np.ndarray, skeleton: Skeleton, units: str = "cm") -> float:
    got = read_bvh(path, units)
    order = [got.joints.index(j) for j in skeleton.joints]
    return float(np.linalg.norm(got.positions[:, order] - x, axis=-1).max())


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("units", ["cm", "m"])
def test_round_trip_of_wild_rigid_motion(tmp_path: Path, name: str, units: str) -> None:
    skeleton = get_skeleton(name)
    x = rigid(skeleton, np.random.default_rng(3), 20)
    write_bvh(tmp_path / "x.bvh", x, skeleton, 30.0, units)
    assert error(tmp_path / "x.bvh", x[0], skeleton, units) < 1e-4
    got = read_bvh(tmp_path / "x.bvh", units)
    assert got.fps == pytest.approx(30.0) and got.positions.dtype == np.float32
    parents = dict(zip(got.joints, got.parents, strict=True))
    for child, parent in skeleton.bones:
        above = got.joints[parents[skeleton.joints[child]]]
        assert above in (skeleton.joints[parent], f"{skeleton.joints[parent]}_to_{skeleton.joints[child]}")


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(shipped()))
def test_round_trip_property(tmp_path_factory, seed: int, name: str) -> None:
    skeleton = get_skeleton(name)
    x = rigid(skeleton, np.random.default_rng(seed), 4)
    path = tmp_path_factory.mktemp("bvh") / "x.bvh"
    write_bvh(path, x, skeleton, 25.0)
    assert error(path, x[0], skeleton) < 1e-3


def test_opposite_and_right_angled_bones(tmp_path: Path) -> None:
    """The bones' directions jump between the axes: half turns and gimbal lock."""
    skeleton = get_skeleton("kinect20")
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    direction = np.stack([np.roll(axes, k, 0)[np.arange(19) % 6] for k in range(6)])
    direction = np.concatenate([direction, -direction])
    x = (skeleton.ancestors @ (0.2 * direction))[None].astype(np.float32)
    write_bvh(tmp_path / "x.bvh", x, skeleton, 30.0)
    assert error(tmp_path / "x.bvh", x[0], skeleton) < 1e-3


def test_tiny_set(tiny_set, tmp_path: Path) -> None:
    for motion in tiny_set.motions[:3]:
        write_bvh(tmp_path / "x.bvh", motion.positions, tiny_set.skeleton, motion.fps)
        assert error(tmp_path / "x.bvh", motion.positions[0], tiny_set.skeleton) < 1e-3


def test_real_bodies_are_off_by_their_changing_bone_lengths_only(tmp_path: Path) -> None:
    skeleton = get_skeleton("kinect25")
    rng = np.random.default_rng(0)
    x = rigid(skeleton, rng)
    noisy = (x + rng.normal(0, 0.005, x.shape)).astype(np.float32)
    write_bvh(tmp_path / "x.bvh", noisy, skeleton, 30.0)
    assert error(tmp_path / "x.bvh", noisy[0], skeleton) < 0.1


def test_second_person_and_absent_frames(tmp_path: Path) -> None:
    skeleton = get_skeleton("sbu15")
    x = np.concatenate([rigid(skeleton, np.random.default_rng(k), 6) for k in range(2)])
    held = x[1].copy()
    x[1, :2] = x[1, 4] = 0
    held[:2], held[4] = held[2], held[3]
    write_bvh(tmp_path / "x.bvh", x, skeleton, 15.0, person=1)
    assert error(tmp_path / "x.bvh", held, skeleton) < 1e-3


def test_units_differ_by_a_hundred(tmp_path: Path) -> None:
    skeleton = get_skeleton("sbu15")
    x = rigid(skeleton, np.random.default_rng(0), 2)
    write_bvh(tmp_path / "cm.bvh", x, skeleton, 30.0)
    assert error(tmp_path / "cm.bvh", x[0] * 100, skeleton, "m") < 1e-2


def test_a_file_by_another_tool(tmp_path: Path) -> None:
    """Other channel order, a position channel in a child and an end site with an offset."""
    (tmp_path / "x.bvh").write_text(
        "HIERARCHY ROOT hips "
        "{ OFFSET 9 9 9 CHANNELS 6 Xposition Yposition Zposition Xrotation Yrotation Zrotation "
        "JOINT arm { OFFSET 0 100 0 CHANNELS 6 Yposition Xposition Zposition Zrotation Yrotation Xrotation "
        "JOINT hand { OFFSET 100 0 0 CHANNELS 3 Zrotation Yrotation Xrotation End Site { OFFSET 5 0 0 } } "
        "} } "
        "MOTION Frames: 1 Frame Time: 0.04\n100 0 0 90 0 0 200 0 0 90 0 0 0 0 0\n"
    )
    got = read_bvh(tmp_path / "x.bvh")
    assert (
        got.joints == ("hips", "arm", "hand") and got.parents == (-1, 0, 1) and got.fps == pytest.approx(25)
    )
    # The root's quarter turn about x sends y to z; the arm's about z sends x to y, which the root sends to z.
    np.testing.assert_allclose(got.positions[0], [[1, 0, 0], [1, 0, 2], [1, 0, 3]], atol=1e-6)


SBU = get_skeleton("sbu15")
GOOD = rigid(SBU, np.random.default_rng(0), 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": "inch"}, "Unknown BVH unit 'inch'. Known: cm, m."),
        ({"fps": 0.0}, "positive number of frames per second; got 0.0"),
        ({"positions": GOOD[:, :, :14]}, "[persons, frames, 15, 3]"),
        ({"person": 1}, "has 1 persons; there is no person 1"),
        ({"positions": GOOD * np.float32(np.nan)}, "not finite"),
        ({"positions": GOOD * 0}, "absent in every frame"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, changes: dict, sentence: str) -> None:
    arguments: dict = {"positions": GOOD, "skeleton": SBU, "fps": 30.0} | changes
    with pytest.raises(InputError) as e:
        write_bvh(tmp_path / "x.bvh", **arguments)
    assert sentence in str(e.value) and not (tmp_path / "x.bvh").exists()


@pytest.mark.parametrize("damage", ["empty", "head", "half", "frame", "word", "binary", "absent", "channel"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.bvh"
    write_bvh(path, GOOD, SBU, 30.0)
    text = path.read_text()
    match damage:
        case "empty":
            path.write_text("")
        case "head":
            path.write_text(text[:300])
        case "half":
            path.write_text(text[: text.index("MOTION") + 20])
        case "frame":
            path.write_text(text[: text.rindex(" ")])
        case "word":
            path.write_text(text.replace("CHANNELS", "CANALS", 1))
        case "channel":
            path.write_text(text.replace("Xposition", "Wposition", 1))
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
        case "absent":
            path.unlink()
    with pytest.raises(InputError, match="BVH file '.*x.bvh'"):
        read_bvh(path)
    with pytest.raises(InputError, match="Unknown BVH unit"):
        read_bvh(path, "mm")
