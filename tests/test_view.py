"""Pictures are really rendered, then opened and looked at: size, ink, frames, colours where they belong."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from motionsynth.datasets import get_dataset
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet, bone_lengths, present
from motionsynth.skeleton import get_skeleton, shipped
from motionsynth.stick_figure import COLOURS, Camera, StickFigure, level, side_of
from motionsynth.view import LARGEST_GIF, animate, preview

Image = pytest.importorskip("PIL.Image")


def ink(image: np.ndarray, colour: str) -> int:
    """Pixels close to a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image[..., :3].astype(int) - wanted).max(-1) < 12).sum())


def pixels(buffer: BytesIO) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(buffer.getvalue())).convert("RGB"))


def test_preview_draws_both_sets_with_left_and_right_limbs(tiny_set, tmp_path):
    path = tmp_path / "preview.png"
    preview(tiny_set, tiny_set, path, dpi=80)
    image = np.asarray(Image.open(path).convert("RGB"))
    height, width = image.shape[:2]
    assert 880 < width < 940 and 300 < height < 900
    for half in (image[60:, : width // 2], image[60:, width // 2 :]):
        assert all(ink(half, colour) > 100 for colour in COLOURS[0].values())


def test_preview_without_synthetic_is_half_as_wide(tiny_set):
    one, two = BytesIO(), BytesIO()
    preview(tiny_set, None, one, dpi=50)
    preview(tiny_set, tiny_set, two, dpi=50)
    assert pixels(one).shape[1] < 0.55 * pixels(two).shape[1]


def test_more_poses_and_more_classes_draw_more(tiny_set):
    def drawn(**choice) -> tuple[int, int]:
        out = BytesIO()
        preview(tiny_set, None, out, dpi=60, **choice)
        image = pixels(out)
        return image.shape[0], ink(image[40:], COLOURS[0]["left"])

    assert drawn(classes=["walk around"])[0] < 0.6 * drawn(classes=[0, 1, 2])[0]
    assert drawn(classes=[0], frames=3) != drawn(classes=[0], frames=8)


def test_the_seed_chooses_the_clips(tiny_set):
    pictures = []
    for seed in (0, 0, 1):
        out = BytesIO()
        preview(tiny_set, tiny_set, out, seed=seed, dpi=50)
        pictures.append(out.getvalue())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_second_person_is_drawn_paler_and_an_absent_one_is_not(tiny_set):
    def paler(second: np.ndarray) -> int:
        pair = tuple(
            replace(m, positions=np.concatenate([m.positions, second * (m.positions + np.float32(0.8))]))
            for m in tiny_set.motions
        )
        out = BytesIO()
        preview(replace(tiny_set, motions=pair), None, out, dpi=80)
        return ink(pixels(out)[60:], COLOURS[1]["left"])

    assert paler(np.ones(1, np.float32)) > 150 > 50 > paler(np.zeros(1, np.float32))


@pytest.mark.parametrize("name", shipped())
def test_any_skeleton_can_be_drawn(tiny_set, name):
    """A scattered body: what counts is that every limb is found and nothing fails."""
    skeleton = get_skeleton(name)
    rng = np.random.default_rng(0)
    body = rng.normal(0, 0.4, (1, 1, skeleton.num_joints, 3)) + rng.normal(
        0, 0.05, (1, 9, skeleton.num_joints, 3)
    )
    motion = replace(tiny_set.motions[0], positions=body.astype(np.float32), skeleton=name)
    motions = replace(tiny_set, skeleton=skeleton, motions=(motion,))
    out = BytesIO()
    preview(motions, None, out, frames=4, dpi=60)
    assert all(ink(pixels(out)[40:], colour) > 20 for colour in COLOURS[0].values())
    figure = StickFigure(skeleton, body)
    assert sorted(b for bones in figure.chains.values() for b in bones) == sorted(skeleton.bones)
    assert len(figure.limb_ends) == 4
    assert all(len({side_of(skeleton.joints[c]) for c, _ in bones}) == 1 for bones in figure.chains.values())


def test_animation_moves_loops_and_is_small(tiny_set, tmp_path):
    path = tmp_path / "preview.gif"
    count = animate(tiny_set, tiny_set, path, fps=10, seconds=1.0)
    image = Image.open(path)
    assert image.n_frames == count == 10
    assert image.info["loop"] == 0 and image.info["duration"] == 100
    assert path.stat().st_size < LARGEST_GIF
    frames = []
    for k in (0, 5):
        image.seek(k)
        frames.append(np.asarray(image.convert("RGB")).astype(int))
    assert 200 < (np.abs(frames[0] - frames[1]).max(-1) > 60).sum() < 0.2 * frames[0][..., 0].size
    upper, lower = np.array_split(frames[0], 2)
    assert min(ink(upper, COLOURS[0]["left"]), ink(lower, COLOURS[0]["left"])) > 50


def test_a_large_animation_is_shrunk(tiny_set, monkeypatch):
    big, small = BytesIO(), BytesIO()
    animate(tiny_set, None, big, fps=5, seconds=1)
    monkeypatch.setattr("motionsynth.view.LARGEST_GIF", big.tell() // 2)
    animate(tiny_set, None, small, fps=5, seconds=1)
    assert small.tell() <= big.tell() // 2
    assert Image.open(small).size[0] < Image.open(big).size[0]


def test_camera_shows_the_left_side_on_the_right_of_a_body_that_faces_us(tiny_set):
    p = Camera(azimuth=0, elevation=0).project(np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]))
    assert np.allclose(p, np.eye(3) * [1, 2, 3])
    turned = Camera(azimuth=90, elevation=0).project(np.array([0.0, 0.0, 1.0]))
    assert np.allclose(turned, [1, 0, 0], atol=1e-9)


def test_level_undoes_the_tilt_of_a_camera_but_leaves_bodies_rigid(tiny_set):
    walk = next(m for m in tiny_set.motions if m.label == 0)
    tilt = np.deg2rad(15)
    r = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]], np.float32)
    long = np.concatenate([walk.positions, walk.positions + [0, 0, 1.5], walk.positions + [0, 0, 3.0]], 1)
    tilted = (long.astype(np.float32) @ r.T).astype(np.float32)
    got = level(tilted, tiny_set.skeleton)
    lowest = got[0][..., 1].min(-1)
    assert np.abs(lowest - np.median(lowest)).max() < 0.12
    assert np.abs(np.median(lowest)) < 0.05
    assert np.allclose(bone_lengths(got, tiny_set.skeleton), bone_lengths(long, tiny_set.skeleton), atol=1e-4)
    absent = np.concatenate([tilted, np.zeros_like(tilted)])
    assert not present(level(absent, tiny_set.skeleton))[1].any()


def test_bad_input_is_one_sentence(tiny_set, tmp_path):
    other = replace(tiny_set, skeleton=get_skeleton("kinect25"))
    empty = replace(tiny_set, motions=())
    for call, words in [
        (
            lambda: preview(tiny_set, None, tmp_path / "a.png", classes=["jump"]),
            "Unknown class 'jump'. Known: walk",
        ),
        (lambda: preview(tiny_set, None, tmp_path / "a.png", frames=0), "at least 1 pose"),
        (lambda: preview(tiny_set, other, tmp_path / "a.png"), "one skeleton"),
        (lambda: preview(tiny_set, empty, tmp_path / "a.png"), "share no class"),
        (lambda: preview(empty, None, tmp_path / "a.png", classes=[0]), "nothing to draw"),
        (lambda: animate(tiny_set, None, tmp_path / "a.gif", fps=0), "above 0"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
    assert not list(tmp_path.iterdir())


def test_a_class_without_synthetic_clips_is_shown_as_such(tiny_set):
    some = tiny_set.select(np.flatnonzero(tiny_set.labels != 1))
    out = BytesIO()
    preview(tiny_set, some, out, classes=[0, 1], dpi=60)
    image = pixels(out)
    empty_panel = image[image.shape[0] // 2 + 30 :, image.shape[1] // 2 + 10 :]
    assert ink(empty_panel, COLOURS[0]["left"]) == 0 < ink(image, COLOURS[0]["left"])


def test_real_people_make_a_readable_strip(shared_data):
    nucla = get_dataset("nucla")
    clips = tuple(nucla.read(f) for f in nucla.find(shared_data / "nucla")[::150])
    real = MotionSet(
        dataset="nucla", skeleton=get_skeleton(nucla.skeleton), class_names=nucla.class_names, motions=clips
    )
    out = BytesIO()
    preview(real, None, out, frames=6, dpi=80)
    image = pixels(out)
    assert all(0.002 < ink(image[60:], c) / image[60:, :, 0].size < 0.1 for c in COLOURS[0].values())
