from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.formats.ntu_skeleton import read_ntu_skeleton, read_tracks

Frame = dict[str, np.ndarray]


def standing(seed: int, motion: float, frames: int, width: float = 0.3) -> np.ndarray:
    """float32 [frames, 25, 3]: a body 1.7 m tall and `width` wide that sways by about `motion` metres."""
    rng = np.random.default_rng(seed)
    pose = np.stack(
        [rng.uniform(-0.5, 0.5, 25) * width, np.linspace(-0.85, 0.85, 25), np.full(25, 3.0)], axis=1
    )
    pose[0, 0], pose[1, 0] = -width / 2, width / 2
    sway = motion * np.sin(np.linspace(0, 6, frames))[:, None, None] * np.float32([1, 0, 0])
    return (pose + sway).astype(np.float32)


def skeleton_text(frames: list[Frame], joints: int = 25) -> str:
    lines = [str(len(frames))]
    for frame in frames:
        lines.append(str(len(frame)))
        for body, x in frame.items():
            lines += [f"{body} 0 1 1 0 1 0 0.01 -0.2 2", str(joints)]
            rest = list("123456782")  # depth x y, colour x y, orientation w x y z, state
            lines += [" ".join([*(f"{v:.7f}" for v in row), *rest]) for row in x[:joints]]
    return "\n".join(lines) + "\n"


def frames_of(length: int, **tracks: tuple[int, np.ndarray]) -> list[Frame]:
    """Frames in which each body appears from its start on."""
    out: list[Frame] = [{} for _ in range(length)]
    for body, (start, x) in tracks.items():
        for i, pose in enumerate(x):
            out[start + i][body.removeprefix("b")] = pose
    return out


@pytest.fixture
def write(tmp_path: Path):
    def write(frames: list[Frame] | str, joints: int = 25) -> Path:
        path = tmp_path / "S001C001P001R001A001.skeleton"
        path.write_text(frames if isinstance(frames, str) else skeleton_text(frames, joints))
        return path

    return write


def test_one_body(write) -> None:
    x = standing(0, 0.1, 5)
    path = write(frames_of(5, b72057594037931101=(0, x)))
    np.testing.assert_allclose(read_ntu_skeleton(path), x[None], atol=1e-6)
    (track,) = read_tracks(path)
    assert track.body_id == "72057594037931101" and track.frames.tolist() == [0, 1, 2, 3, 4]


def test_two_bodies_the_one_that_moves_more_comes_first(write) -> None:
    still, lively = standing(0, 0.01, 20), standing(1, 0.4, 20)
    out = read_ntu_skeleton(write(frames_of(20, b1=(0, still), b2=(0, lively))))
    assert out.shape == (2, 20, 25, 3) and out.dtype == np.float32
    np.testing.assert_allclose(out, np.stack([lively, still]), atol=1e-6)


def test_frames_without_bodies_are_cut_at_the_ends_and_kept_within(write) -> None:
    x = standing(0, 0.1, 20)
    frames = frames_of(30, b1=(4, x))
    frames[10] = {}
    out = read_ntu_skeleton(write(frames))
    assert out.shape == (1, 20, 25, 3)
    assert not out[0, 6].any()
    np.testing.assert_allclose(out[0, 7:], x[7:], atol=1e-6)
    np.testing.assert_allclose(out[0, :6], x[:6], atol=1e-6)


def test_a_person_with_a_new_id_goes_on_in_the_same_slot(write) -> None:
    whole, other = standing(0, 0.5, 40), standing(1, 0.1, 40)
    frames = frames_of(40, b1=(0, whole[:20]), b2=(20, whole[20:]), b3=(0, other))
    np.testing.assert_allclose(read_ntu_skeleton(write(frames)), np.stack([whole, other]), atol=1e-6)


def test_the_slots_swap_if_the_livelier_body_comes_later(write) -> None:
    early, late = standing(0, 0.05, 20), standing(1, 0.6, 15)
    out = read_ntu_skeleton(write(frames_of(20, b1=(0, early), b2=(5, late))))
    np.testing.assert_allclose(out[0], early, atol=1e-6)
    assert not out[1, :5].any()
    np.testing.assert_allclose(out[1, 5:], late, atol=1e-6)


def test_a_third_overlapping_body_is_dropped(write) -> None:
    bodies = [standing(i, m, 20) for i, m in enumerate((0.3, 0.1, 0.2))]
    out = read_ntu_skeleton(write(frames_of(20, b1=(0, bodies[0]), b2=(0, bodies[1]), b3=(0, bodies[2]))))
    np.testing.assert_allclose(out, np.stack([bodies[0], bodies[2]]), atol=1e-6)


@pytest.mark.parametrize(("frames", "persons"), [(11, 1), (12, 2)])
def test_short_tracks_are_noise(write, frames: int, persons: int) -> None:
    tracks = frames_of(30, b1=(0, standing(0, 0.1, 30)), b2=(3, standing(1, 0.9, frames)))
    assert len(read_ntu_skeleton(write(tracks))) == persons


@pytest.mark.parametrize(("wide", "persons"), [(20, 2), (21, 1)])
def test_bodies_wider_than_tall_are_furniture(write, wide: int, persons: int) -> None:
    """The limit is 69.754 % of the frames: 20 of 30 are below it, 21 above."""
    table = np.concatenate([standing(1, 0.4, wide, width=1.7), standing(1, 0.4, 30 - wide)])
    tracks = frames_of(30, b1=(0, standing(0, 0.1, 30)), b2=(0, table))
    assert len(read_ntu_skeleton(write(tracks))) == persons


def test_wide_frames_do_not_count_as_motion(write) -> None:
    """A body that is furniture in some frames does not win slot 0 by the jumps to these frames."""
    flicker = standing(1, 0.01, 20)
    flicker[::2] = standing(2, 0.0, 10, width=3.0) + np.float32([2, 0, 0])
    steady = standing(0, 0.2, 20)
    out = read_ntu_skeleton(write(frames_of(20, b1=(0, flicker), b2=(0, steady))))
    np.testing.assert_allclose(out[0], steady, atol=1e-6)


def test_a_lone_body_is_kept_however_short_and_wide(write) -> None:
    assert read_ntu_skeleton(write(frames_of(3, b1=(0, standing(0, 0.1, 3, width=3))))).shape == (1, 3, 25, 3)
    two_short = frames_of(9, b1=(0, standing(0, 0.1, 5)), b2=(2, standing(1, 0.5, 7)))
    assert read_ntu_skeleton(write(two_short)).shape == (1, 7, 25, 3)


def test_an_id_listed_twice_in_a_frame_counts_once(write) -> None:
    x = standing(0, 0.1, 1)
    text = skeleton_text([{"7": x[0], "8": x[0] + 1}]).replace("8 0 1 1 0 1", "7 0 1 1 0 1")
    (track,) = read_tracks(write(text))
    assert track.frames.tolist() == [0]
    np.testing.assert_allclose(track.positions, x, atol=1e-6)


GOOD = skeleton_text([{"1": standing(0, 0.1, 1)[0]}] * 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (skeleton_text([{}, {}, {}]), "holds no body in any frame"),
        ("0\n", "holds no body in any frame"),
        (
            "\n".join(GOOD.split("\n")[:40]),
            "ends at line 40 within the joints of frame 2 of 3; it is truncated",
        ),
        ("\n".join(GOOD.split("\n")[:29]), "within the number of bodies of frame 2 of 3"),
        ("\n".join(GOOD.split("\n")[:30]), "within a body of frame 2 of 3"),
        (skeleton_text([{"1": np.ones((20, 3))}], joints=20), "has 20 joints in line 4; NTU bodies have 25"),
        (GOOD + GOOD, "goes on after its 3 frames (line 86)"),
        ("hello\nworld\n", "'hello' in line 1 where the number of frames"),
        (GOOD.replace(" 8 2\n", " 8\n", 1), "has 11 numbers in line 5"),
        (GOOD.replace("3.0000000", "3.0x"), "in lines 5-29 that is no number"),
    ],
)
def test_bad_files(write, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as e:
        read_ntu_skeleton(write(text))
    assert sentence in str(e.value) and "\n" not in str(e.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_tracks(tmp_path / "absent.skeleton")
    (tmp_path / "binary.skeleton").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match="is not text; unpack the download first"):
        read_tracks(tmp_path / "binary.skeleton")
