import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.formats.ctrgcn_npz import read_ctrgcn_npz

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
