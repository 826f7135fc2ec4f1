import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.formats.ctrgcn_npz import NpzClip, ctrgcn_npz_bytes, read_ctrgcn_npz

T = 8


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (3, T, 150)).astype(np.float32)
    x[0, 5:] = 0
    x[1, :, 75:] = 0
    return {
        "x_train": x,
        "y_train": np.eye(4, dtype=np.float32)[[2, 0, 3]],
        "x_test": x[1:2],
        "y_test": np.eye(4)[[1]],
    }


def save(path: Path, compress: bool = False, **changes: np.ndarray | None) -> Path:
    content = {k: v for k, v in (arrays() | changes).items() if v is not None}
    (np.savez_compressed if compress else np.savez)(path, **content)
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_clips_come_in_order_without_padding(tmp_path: Path, compress: bool) -> None:
    clips = list(read_ctrgcn_npz(save(tmp_path / "x.npz", compress)))
    assert [(c.side, c.index, c.label) for c in clips] == [
        ("train", 0, 2),
        ("train", 1, 0),
        ("train", 2, 3),
        ("test", 0, 1),
    ]
    assert [c.positions.shape for c in clips] == [(2, 5, 25, 3), (1, T, 25, 3), (2, T, 25, 3), (1, T, 25, 3)]
    row = arrays()["x_train"][2, 4]
    np.testing.assert_array_equal(clips[2].positions[0, 4], row[:75].reshape(25, 3))
    np.testing.assert_array_equal(clips[2].positions[1, 4], row[75:].reshape(25, 3))
    assert clips[0].positions.dtype == np.float32


def test_other_number_types_labels_as_indices_and_empty_rows(tmp_path: Path) -> None:
    x = arrays()["x_train"].astype(np.float16)
    x[0] = 0
    clips = list(read_ctrgcn_npz(save(tmp_path / "x.npz", x_train=x, y_train=np.array([5, 0, 1]))))
    assert clips[0].label == 5 and clips[0].positions.shape == (1, 1, 25, 3) and not clips[0].positions.any()
    assert clips[1].positions.dtype == np.float32


def test_an_empty_side(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", x_test=np.zeros((0, T, 150), np.float32), y_test=np.zeros((0, 4)))
    assert [c.side for c in read_ctrgcn_npz(path)] == ["train"] * 3


def test_clips_are_streamed(tmp_path: Path) -> None:
    """The first clip comes although the last one is cut off."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue()[: -40 if name == "x_train" else None])
    clips = read_ctrgcn_npz(path)
    assert next(clips).index == 0 and next(clips).index == 1
    with pytest.raises(InputError, match="Array 'x_train' of '.*' is truncated"):
        next(clips)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y_test": None, "x_test": None}, "lacks the arrays x_test, y_test"),
        (
            {"x_train": np.zeros((3, T, 75), np.float32)},
            "has shape (3, 8, 75); it must be [clips, frames, 150]",
        ),
        ({"x_train": np.zeros((3, 150), np.float32)}, "has shape (3, 150)"),
        ({"y_train": np.eye(4)[[0, 1]]}, "has 3 clips in x_train but 2 labels in y_train"),
        ({"y_train": np.ones((3, 4))}, "holds no labels"),
        ({"y_train": np.array([0.5, 1, 2])}, "holds no labels"),
        ({"x_train": np.asfortranarray(arrays()["x_train"])}, "is in Fortran order"),
        ({"x_train": np.full((3, T, 150), "a")}, "not numbers"),
    ],
)
def test_misfits(tmp_path: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(InputError) as e:
        list(read_ctrgcn_npz(save(tmp_path / "x.npz", **changes)))
    assert sentence in str(e.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (flag,))

    path = save(tmp_path / "x.npz", y_train=np.array([Evil(), Evil(), Evil()], object))
    with pytest.raises(InputError, match="unpickled, which runs code, so it is refused"):
        list(read_ctrgcn_npz(path))
    assert not flag.exists()


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    good = save(tmp_path / "x.npz", compress=True).read_bytes()
    for name, data in {"cut": good[: len(good) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="is not a complete npz archive"):
            list(read_ctrgcn_npz(tmp_path / name))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_ctrgcn_npz(tmp_path / "absent.npz"))
    broken = bytearray(good)
    broken[200:260] = bytes(60)
    (tmp_path / "broken").write_bytes(bytes(broken))
    with pytest.raises(InputError):
        list(read_ctrgcn_npz(tmp_path / "broken"))


def clip(side: str, label: int, persons: int, frames: int, seed: int = 0) -> NpzClip:
    x = np.random.default_rng(seed).normal(0, 1, (persons, frames, 25, 3)).astype(np.float32)
    return NpzClip(side=side, index=0, label=label, positions=x)


def test_what_is_written_is_read_and_is_as_numpy_reads_it(tmp_path: Path) -> None:
    clips = [clip("test", 1, 2, 3), clip("train", 0, 1, 5, 1), clip("train", 3, 2, 4, 2)]
    data = ctrgcn_npz_bytes(clips, num_classes=4)
    assert data == ctrgcn_npz_bytes(clips, num_classes=4)
    (tmp_path / "x.npz").write_bytes(data)
    got = list(read_ctrgcn_npz(tmp_path / "x.npz"))
    assert [(c.side, c.label) for c in got] == [("train", 0), ("train", 3), ("test", 1)]
    for a, b in zip(got, [*clips[1:], clips[0]], strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
    with np.load(tmp_path / "x.npz") as f:
        assert {k: f[k].shape for k in f.files} == {
            "x_train": (2, 5, 150), "y_train": (2, 4), "x_test": (1, 5, 150), "y_test": (1, 4),
        }  # fmt: skip
        assert not f["x_train"][1, 4].any() and f["y_test"].tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("bad", "given", "sentence"),
    [
        (clip("train", 0, 3, 2), {}, "3 persons of 25 joints"),
        (
            NpzClip(side="train", index=0, label=0, positions=np.ones((1, 2, 20, 3), np.float32)),
            {},
            "of 20 joints",
        ),
        (clip("train", 4, 1, 2), {}, "has label 4; the file has 4 classes"),
        (clip("train", 0, 1, 9), {"frames": 8}, "has 9 frames; the file is to have 8"),
    ],
)
def test_what_does_not_fit_is_not_written(bad: NpzClip, given: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ctrgcn_npz_bytes([bad], 4, **given)
