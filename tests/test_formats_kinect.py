"""Readers of the Kinect-era formats: hand-made files with known answers, and damaged ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from motionsynth.errors import InputError
from motionsynth.formats.nucla_json import read_nucla_json
from motionsynth.formats.sbu_txt import read_sbu_txt
from motionsynth.formats.ui_prmd_txt import PARENTS, forward_kinematics, read_ui_prmd_txt
from motionsynth.formats.utd_mat import read_utd_mat
from motionsynth.skeleton import get_skeleton


def write_nucla(path: Path, frames: int = 3, joints: int = 20) -> np.ndarray:
    clip = np.random.default_rng(0).normal(size=(frames, joints, 3)).round(5)
    path.write_text(json.dumps({"file_name": path.stem, "skeletons": clip.tolist(), "label": 7}))
    return clip


def write_lines(path: Path, table: np.ndarray) -> None:
    text = "".join(",".join(f"{x:.6f}" for x in row) + "\n" for row in table)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_ui_prmd(path: Path, frames: int = 3, joints: int = 22) -> np.ndarray:
    """A Positions file at `path`, an Angles file of zeros beside it."""
    table = np.random.default_rng(0).normal(size=(frames, joints * 3)).round(5)
    write_lines(path, table)
    write_lines(angles_of(path), np.zeros((frames, 66)))
    return table.reshape(frames, joints, 3)


def write_sbu(path: Path, frames: int = 3, joints: int = 15) -> np.ndarray:
    uvw = np.random.default_rng(0).uniform(size=(frames, 2, joints, 3)).round(5)
    write_lines(path, np.concatenate([np.arange(frames)[:, None], uvw.reshape(frames, -1)], axis=1))
    return uvw


def write_utd(path: Path, frames: int = 3, joints: int = 20) -> np.ndarray:
    from scipy.io import savemat

    clip = np.random.default_rng(0).normal(size=(joints, 3, frames))
    savemat(path, {"d_skel": clip}, do_compression=True)
    return clip


def angles_of(path: Path) -> Path:
    return path.with_name("angles" + "".join(path.suffixes))


def read_pair(path: Path) -> np.ndarray:
    return read_ui_prmd_txt(path, angles_of(path))


FORMATS: dict[str, tuple[str, Callable[..., np.ndarray], Callable[[Path], object]]] = {
    "nucla_json": ("clip.json", write_nucla, read_nucla_json),
    "ui_prmd_txt": ("clip.txt", write_ui_prmd, read_pair),
    "ui_prmd_txt_gz": ("clip.txt.gz", write_ui_prmd, read_pair),
    "sbu_txt": ("skeleton_pos.txt", write_sbu, read_sbu_txt),
    "utd_mat": ("clip.mat", write_utd, read_utd_mat),
}


def missing(path: Path, write: Callable[..., np.ndarray]) -> None:
    pass


def folder(path: Path, write: Callable[..., np.ndarray]) -> None:
    path.mkdir()


def empty(path: Path, write: Callable[..., np.ndarray]) -> None:
    write(path)
    path.write_bytes(b"")


def truncated(path: Path, write: Callable[..., np.ndarray]) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-90])


def flipped(path: Path, write: Callable[..., np.ndarray]) -> None:
    write(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff\x00\xff!zzzz"
    path.write_bytes(bytes(data))


def one_joint_less(path: Path, write: Callable[..., np.ndarray]) -> None:
    write(
        path, joints={"clip.json": 19, "clip.txt": 21, "clip.txt.gz": 21, "clip.mat": 19}.get(path.name, 14)
    )


def prose(path: Path, write: Callable[..., np.ndarray]) -> None:
    write(path)
    path.write_text("this is not motion at all\n")


@pytest.mark.parametrize("damage", [missing, folder, empty, truncated, flipped, one_joint_less, prose])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_file_gives_one_sentence(name: str, damage: Callable[..., None], tmp_path: Path) -> None:
    file, write, read = FORMATS[name]
    path = tmp_path / file
    damage(path, write)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")
    if damage is one_joint_less:
        assert str({"sbu_txt": 91, "ui_prmd_txt": 66, "ui_prmd_txt_gz": 66}.get(name, 20)) in message


def test_nucla_json_keeps_values_and_takes_the_label_from_the_content(tmp_path: Path) -> None:
    clip = write_nucla(tmp_path / "a99_s01_e00_v01.json")
    positions, label = read_nucla_json(tmp_path / "a99_s01_e00_v01.json")
    assert positions.dtype == np.float32 and label == 7
    np.testing.assert_allclose(positions, clip, rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    ["[]", '{"skeletons": []}', '{"skeletons": [], "label": 1}', '{"skeletons": [[1], [2, 3]], "label": 1}'],
)
def test_nucla_json_of_another_kind_gives_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text(content)
    with pytest.raises(InputError, match=r"clip\.json.*\.$"):
        read_nucla_json(tmp_path / "clip.json")


def test_ui_prmd_with_zero_angles_adds_offsets_along_the_tree(tmp_path: Path) -> None:
    offsets = write_ui_prmd(tmp_path / "p.txt.gz")
    positions = read_pair(tmp_path / "p.txt.gz")
    hand_chain = [0, 1, 2, 10, 11, 12, 13]
    np.testing.assert_allclose(positions[:, 13], offsets[:, hand_chain].sum(1) / 100, atol=1e-6)


def test_ui_prmd_parents_are_those_of_the_skeleton() -> None:
    assert get_skeleton("ui_prmd22").parents == PARENTS


@pytest.mark.parametrize(("order", "expected"), [("zxy", (1.0, 0.0, 0.0)), ("zyx", (0.0, -1.0, 0.0))])
def test_forward_kinematics_applies_rotations_in_the_named_order(
    order: str, expected: tuple[float, ...]
) -> None:
    offsets, angles = np.zeros((1, 22, 3)), np.zeros((1, 22, 3))
    offsets[0, 1] = (0.0, 0.0, 1.0)
    angles[0, 0] = (np.pi / 2, np.pi / 2, 0.0)
    np.testing.assert_allclose(forward_kinematics(offsets, angles, order)[0, 1], expected, atol=1e-12)


@settings(max_examples=25)
@given(arrays(np.float64, (2, 22, 3), elements=st.floats(-3, 3)), st.integers(0, 2**32 - 1))
def test_forward_kinematics_equals_a_slow_reference(angles: np.ndarray, seed: int) -> None:
    from scipy.spatial.transform import Rotation

    offsets = np.random.default_rng(seed).normal(size=(2, 22, 3))
    fast = forward_kinematics(offsets, angles)
    for t in range(2):
        place, turn = {}, {}
        for v, parent in enumerate(PARENTS):
            own = Rotation.from_euler("ZXY", angles[t, v, [2, 0, 1]])
            place[v] = offsets[t, v] if parent < 0 else place[parent] + turn[parent].apply(offsets[t, v])
            turn[v] = own if parent < 0 else turn[parent] * own
        np.testing.assert_allclose(fast[t], np.stack([place[v] for v in range(22)]), atol=1e-9)


def test_ui_prmd_halves_of_different_length_are_refused(tmp_path: Path) -> None:
    write_ui_prmd(tmp_path / "p.txt", frames=3)
    write_lines(angles_of(tmp_path / "p.txt"), np.zeros((4, 66)))
    with pytest.raises(InputError, match="3 frames but .* has 4"):
        read_pair(tmp_path / "p.txt")


def test_sbu_txt_centre_of_the_image_is_the_axis_of_the_camera(tmp_path: Path) -> None:
    table = np.zeros((2, 91))
    table[:, 1:] = np.tile([0.5, 0.5, 1.5625], 30)
    table[1, 1:4] = (0.25, 0.25, 1.5625)
    table[1, 46:49] = (0.5, 1.0, 0.78125)
    write_lines(tmp_path / "skeleton_pos.txt", table)
    positions = read_sbu_txt(tmp_path / "skeleton_pos.txt")
    assert positions.shape == (2, 2, 15, 3) and positions.dtype == np.float32
    np.testing.assert_allclose(positions[0, 0], np.tile([0, 0, 2.0], (15, 1)), atol=1e-6)
    np.testing.assert_allclose(positions[0, 1, 0], [0.64, 0.48, 2.0], atol=1e-6)
    np.testing.assert_allclose(positions[1, 1, 0], [0.0, -0.96, 1.0], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 5])
def test_utd_mat_puts_time_first(frames: int, tmp_path: Path) -> None:
    clip = write_utd(tmp_path / "clip.mat", frames)
    positions = read_utd_mat(tmp_path / "clip.mat")
    assert positions.dtype == np.float32
    np.testing.assert_allclose(positions, np.moveaxis(clip, -1, 0), rtol=1e-6)


def test_utd_mat_with_another_variable_gives_one_sentence(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "clip.mat", {"d_iner": np.zeros((5, 6))})
    with pytest.raises(InputError, match=r"no variable 'd_skel'.*\.$"):
        read_utd_mat(tmp_path / "clip.mat")


def test_utd_mat_without_scipy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_utd(tmp_path / "clip.mat")
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"pip install 'motionsynth\[mat\]'"):
        read_utd_mat(tmp_path / "clip.mat")
