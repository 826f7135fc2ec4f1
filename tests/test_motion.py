from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth import motion as mo
from motionsynth.errors import InputError
from motionsynth.skeleton import Skeleton, get_skeleton, shipped

skeletons = st.sampled_from(shipped()).map(get_skeleton)
yaws = st.floats(-np.pi, np.pi)


def body(skeleton: Skeleton, rng: np.random.Generator, persons: int = 1, frames: int = 8) -> np.ndarray:
    """Bodies that face about +z: sideways joints are told by their names, the rest is noise of 10 cm."""
    x = np.zeros((skeleton.num_joints, 3))
    for i, name in enumerate(skeleton.joints):
        x[i, 0] = 0.4 * (name.startswith("left") - int(name.startswith("right")))
        x[i, 1] = 1.0 + 0.05 * i
    drift = np.cumsum(rng.normal(0, 0.01, (persons, frames, 1, 3)), axis=1) + rng.uniform(
        -2, 2, (persons, 1, 1, 3)
    )
    noise = rng.uniform(-0.05, 0.05, (persons, 1, skeleton.num_joints, 3))
    return (x + noise + drift).astype(np.float32)


@st.composite
def clips(draw: st.DrawFn) -> tuple[Skeleton, np.ndarray]:
    """Up to two persons; each may be absent for a stretch, but the first is there at some time."""
    skeleton = draw(skeletons)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    persons, frames = draw(st.integers(1, 2)), draw(st.integers(2, 12))
    x = body(skeleton, rng, persons, frames)
    for m in range(persons):
        a, b = sorted(rng.integers(0, frames + 1, 2))
        if (a, b) != (0, frames) or m > 0:
            x[m, a:b] = 0
    return skeleton, x


def as_motion(positions: np.ndarray, **changes) -> mo.Motion:
    fields: dict = {
        "fps": 30.0,
        "skeleton": "kinect20",
        "label": 0,
        "label_name": "wave",
        "sample_id": "c",
    } | changes
    return mo.Motion(positions=positions, **fields)


@given(clips())
def test_centre_puts_the_first_root_on_the_origin_and_keeps_presence(clip) -> None:
    skeleton, x = clip
    y = mo.centre(x, skeleton)
    first = int(np.argmax(mo.present(x)[0]))
    np.testing.assert_allclose(y[0, first, skeleton.root], 0, atol=1e-6)
    assert np.array_equal(mo.present(y), mo.present(x))
    np.testing.assert_allclose(mo.bone_lengths(y, skeleton), mo.bone_lengths(x, skeleton), atol=1e-5)


@given(clips(), st.tuples(*[st.floats(-3, 3)] * 3))
def test_centre_forgets_where_the_camera_stood(clip, shift) -> None:
    skeleton, x = clip
    moved = (x + np.float32(shift)) * mo.present(x)[..., None, None]
    np.testing.assert_allclose(
        mo.centre(moved.astype(np.float32), skeleton), mo.centre(x, skeleton), atol=1e-5
    )


@given(clips(), yaws)
def test_alignment_is_invariant_under_yaw(clip, yaw: float) -> None:
    skeleton, x = clip
    aligned = mo.align_heading(x, skeleton)
    assert abs(mo.heading(aligned, skeleton)) < 1e-3
    np.testing.assert_allclose(mo.align_heading(mo.rotate_y(x, yaw), skeleton), aligned, atol=1e-3)


@given(clips(), yaws)
def test_canonical_is_invariant_under_yaw_and_shift(clip, yaw: float) -> None:
    skeleton, x = clip
    turned = mo.rotate_y(x, yaw) + np.float32([1, 0.5, -2])
    turned = (turned * mo.present(x)[..., None, None]).astype(np.float32)
    np.testing.assert_allclose(mo.canonical(turned, skeleton), mo.canonical(x, skeleton), atol=1e-3)


@pytest.mark.parametrize("name", shipped())
def test_heading_measures_the_yaw(name: str) -> None:
    skeleton = get_skeleton(name)
    facing = mo.align_heading(body(skeleton, np.random.default_rng(1)), skeleton)
    for yaw in (-2.5, -0.3, 0.0, 1.2, 3.0):
        assert mo.heading(mo.rotate_y(facing, yaw), skeleton) == pytest.approx(yaw, abs=1e-3)
    assert mo.right_axis(facing[0], skeleton).mean(0) == pytest.approx([-1, 0, 0], abs=1e-2)


@given(clips(), st.integers(1, 40))
def test_resample_to_any_length(clip, frames: int) -> None:
    _, x = clip
    y = mo.resample(x, frames)
    assert y.shape == (x.shape[0], frames, *x.shape[2:]) and y.dtype == np.float32
    assert np.array_equal(y[:, 0], x[:, 0])
    if frames > 1:
        assert np.array_equal(y[:, -1], x[:, -1])
    # No half-faded body: what is there lies within the range of the frames where the person was there.
    for person, seen, out, out_seen in zip(x, mo.present(x), y, mo.present(y), strict=True):
        if not seen.any():
            assert not out_seen.any()
        elif out_seen.any():
            assert (out[out_seen].min(0) >= person[seen].min(0) - 1e-4).all()
            assert (out[out_seen].max(0) <= person[seen].max(0) + 1e-4).all()


@given(clips(), st.integers(1, 4))
def test_resample_keeps_the_frames_it_passes_through(clip, factor: int) -> None:
    _, x = clip
    finer = mo.resample(x, (x.shape[1] - 1) * factor + 1)
    assert np.array_equal(finer[:, ::factor], x)


def test_resample_is_linear_between_frames() -> None:
    x = np.ones((1, 2, 20, 3), np.float32)
    x[0, 1] = 3
    np.testing.assert_allclose(mo.resample(x, 5)[0, :, 0, 0], [1, 1.5, 2, 2.5, 3])


@given(clips())
def test_mirror_is_its_own_inverse_and_changes_the_body(clip) -> None:
    skeleton, x = clip
    y = mo.mirror(x, skeleton)
    assert np.array_equal(mo.mirror(y, skeleton), x)
    assert np.array_equal(mo.present(y), mo.present(x))
    left, right = skeleton.mirror[0]
    np.testing.assert_array_equal(y[..., left, :], x[..., right, :] * np.float32([-1, 1, 1]))


@given(clips())
def test_mirroring_reverses_the_heading(clip) -> None:
    skeleton, x = clip
    assert mo.heading(mo.mirror(x, skeleton), skeleton) == pytest.approx(-mo.heading(x, skeleton), abs=1e-4)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("wave left", "wave right", "sit"), [1, 0, 2]),
        (("Wave_Left-Hand", "wave_right-hand"), [1, 0]),
        (("kick (left)", "kick (right)"), [1, 0]),
        (("right hand up", "sit"), [-1, 1]),
        (("stand upright", "lefty"), [0, 1]),
        (("left bright lamp", "right bright lamp"), [1, 0]),
        (("right arm swipe to the left", "left arm swipe to the right"), [1, 0]),
    ],
)
def test_mirrored_labels(names: tuple[str, ...], expected: list[int]) -> None:
    assert mo.mirrored_labels(names).tolist() == expected


@given(clips(), st.integers(0, 2**32 - 1))
def test_repair_mends_a_single_jump_and_nothing_else(clip, seed: int) -> None:
    skeleton, _ = clip
    rng = np.random.default_rng(seed)
    x = body(skeleton, rng, 1, 12)
    assert np.array_equal(mo.repair_jumps(x, 30.0), x)
    t, v = rng.integers(2, 10), rng.integers(skeleton.num_joints)
    broken = x.copy()
    broken[0, t, v] += np.float32([3, -2, 1])
    mended = mo.repair_jumps(broken, 30.0)
    assert np.linalg.norm(mended[0, t, v] - x[0, t, v]) < 0.1
    others = np.ones(x.shape[:3], bool)
    others[0, t, v] = False
    assert np.array_equal(mended[others], x[others])


def test_repair_leaves_absent_frames_and_short_clips_alone() -> None:
    skeleton = get_skeleton("kinect20")
    x = body(skeleton, np.random.default_rng(0), 2, 12)
    x[1] = 0
    x[0, 4:6] = 0
    x[0, 8, 3] += 3
    mended = mo.repair_jumps(x, 30.0)
    assert not mended[1].any() and not mended[0, 4:6].any()
    assert np.linalg.norm(mended[0, 8, 3] - x[0, 7, 3]) < 0.2
    assert np.array_equal(mo.repair_jumps(x[:, :4], 30.0), x[:, :4])


def spoil(x: np.ndarray, cause: str) -> np.ndarray:
    match cause:
        case "joints":
            return x[:, :, :19]
        case "frames":
            return x[:, :1]
        case "nan":
            x[0, 0, 0] = np.nan
        case "absent":
            x[0] = 0
        case "bone":
            x[1, :, 3] = x[1, :, 2]
        case "fast":
            x[0, ::2] += 1
    return x


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("none", None),
        ("joints", "it has 19 joints where skeleton 'kinect20' has 20"),
        ("frames", "it has 1 frame; a motion needs at least 2"),
        ("nan", "3 of its coordinates are not finite numbers"),
        ("absent", "its first person is all zeros in every frame"),
        ("bone", "the bone chest-head has zero length in every frame"),
        ("fast", "a joint moves faster than 20 m/s in 100% of its frames"),
    ],
)
def test_invalid_reason(cause: str, reason: str | None) -> None:
    skeleton = get_skeleton("kinect20")
    x = spoil(body(skeleton, np.random.default_rng(0), 2), cause)
    assert mo.invalid_reason(as_motion(x), skeleton) == reason


def test_a_single_jump_and_a_second_person_that_is_absent_are_valid() -> None:
    skeleton = get_skeleton("kinect20")
    x = body(skeleton, np.random.default_rng(0), 2)
    x[0, 4, 2] += 4
    x[1] = 0
    assert mo.invalid_reason(as_motion(x), skeleton) is None


@given(clips())
def test_streams(clip) -> None:
    skeleton, x = clip
    bones = mo.bone_stream(x, skeleton)
    assert not bones[..., skeleton.root, :].any()
    child = [c for c, _ in skeleton.bones]
    np.testing.assert_allclose(
        np.linalg.norm(bones[..., child, :], axis=-1), mo.bone_lengths(x, skeleton), atol=1e-6
    )
    velocity = mo.velocity_stream(x)
    there = mo.present(x)
    assert velocity.shape == x.shape and not velocity[:, -1].any()
    both = there[:, 1:] & there[:, :-1]
    assert not velocity[:, :-1][~both].any()
    np.testing.assert_allclose((x[:, :-1] + velocity[:, :-1])[both], x[:, 1:][both], atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(velocity[:, :-1], axis=-1) * 25, mo.joint_speed(x, 25.0), atol=1e-4
    )


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_reorder_matches_joints_by_name(seed: int) -> None:
    a, b = get_skeleton("kinect20"), get_skeleton("kinect20_head_first")
    x = body(a, np.random.default_rng(seed))
    y = mo.reorder(x, a, b)
    assert np.array_equal(y[..., b.index("head"), :], x[..., a.index("head"), :])
    assert np.array_equal(mo.reorder(y, b, a), x)


def test_reorder_names_the_joint_that_is_missing() -> None:
    with pytest.raises(InputError, match="Skeleton 'sbu15' has no joint 'pelvis'"):
        mo.reorder(np.zeros((1, 2, 15, 3), np.float32), get_skeleton("sbu15"), get_skeleton("kinect20"))


@pytest.mark.parametrize(
    ("positions", "changes", "sentence"),
    [
        (np.ones((2, 20, 3), np.float32), {}, r"has shape \(2, 20, 3\)"),
        (np.ones((1, 0, 20, 3), np.float32), {}, "none empty"),
        (np.ones((1, 2, 20, 3)), {}, "is float64; positions must be float32"),
        (np.ones((1, 2, 20, 3), np.float32), {"source": "fake"}, "source 'fake'; allowed: real, synthetic"),
    ],
)
def test_a_bad_clip_is_refused(positions: np.ndarray, changes: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        as_motion(positions, **changes)


def test_motion_set_selects_and_extends() -> None:
    x = np.ones((2, 3, 20, 3), np.float32)
    a, b = as_motion(x[:1], sample_id="a"), as_motion(x, sample_id="b", label=1)
    motions = mo.MotionSet(
        dataset="toy", skeleton=get_skeleton("kinect20"), class_names=("wave", "sit"), motions=(a, b)
    )
    assert motions.labels.tolist() == [0, 1] and motions.num_classes == 2 and motions.num_persons == 2
    assert [m.sample_id for m in motions.select([1, 0, 1]).motions] == ["b", "a", "b"]
    longer = motions.extended([replace(a, sample_id="c")])
    assert len(longer) == 3 and len(motions) == 2
    assert replace(motions, motions=()).num_persons == 1
