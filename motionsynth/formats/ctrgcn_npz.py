"""CTR-GCN `.npz` files: x_train, x_test [N, T, 150] and one-hot y_train, y_test of NTU RGB+D.

Columns are person (2), joint (25), coordinate (3), metres, y up; absent persons and the padding behind the
last frame are zeros. NTU60's x_train is 7 GB unpacked, so clips are streamed out of the archive one by one.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from motionsynth.errors import InputError

NUM_JOINTS = 25
COLUMNS = 2 * NUM_JOINTS * 3
SIDES = ("train", "test")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NpzClip:
    """One clip.

    Attributes:
        side: "train" or "test".
        index: Row in that side's array (the file stores no names).
        label: Class index, from 0.
        positions: float32 [M, T, 25, 3], M = 1 or 2, without the padding; an empty row is one all-zero frame.
    """

    side: str
    index: int
    label: int
    positions: np.ndarray


def read_ctrgcn_npz(path: Path) -> Iterator[NpzClip]:
    """All clips, training side first, in file order; at no time more than one is in memory.

    Raises:
        InputError: not an npz archive, an array is missing, truncated, has another shape, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if missing := [f"{k}_{s}" for s in SIDES for k in "xy" if f"{k}_{s}.npy" not in names]:
                raise InputError(
                    f"File '{path}' lacks the arrays {', '.join(missing)}; CTR-GCN's npz holds x_train, y_train, "
                    "x_test and y_test."
                )
            for side in SIDES:
                yield from _side(archive, path, side)
    except zipfile.BadZipFile as e:
        raise InputError(
            f"File '{path}' is not a complete npz archive ({e}); make or copy it again."
        ) from None
    except (EOFError, zlib.error) as e:
        raise InputError(f"File '{path}' is damaged ({e}); make or copy it again.") from None
    except OSError as e:
        raise InputError(f"File '{path}' cannot be read ({e.strerror}).") from None


def _side(archive: zipfile.ZipFile, path: Path, side: str) -> Iterator[NpzClip]:
    labels = _labels(archive, path, side)
    with archive.open(f"x_{side}.npy") as f:
        shape, dtype = _header(f, path, f"x_{side}")
        if len(shape) != 3 or shape[2] != COLUMNS:
            raise InputError(
                f"Array 'x_{side}' of '{path}' has shape {shape}; it must be [clips, frames, {COLUMNS}] (2 persons x "
                f"{NUM_JOINTS} joints x 3)."
            )
        if shape[0] != len(labels):
            raise InputError(
                f"File '{path}' has {shape[0]} clips in x_{side} but {len(labels)} labels in y_{side}."
            )
        frames = shape[1]
        size = frames * COLUMNS * dtype.itemsize
        for index in range(shape[0]):
            row = np.frombuffer(_exactly(f, size, path, f"x_{side}"), dtype).astype(np.float32)
            x = row.reshape(frames, 2, NUM_JOINTS, 3).transpose(1, 0, 2, 3)
            seen = np.flatnonzero(x.any((0, 2, 3)))
            x = x[: 2 if x[1].any() else 1, : seen[-1] + 1 if len(seen) else 1]
            yield NpzClip(side=side, index=index, label=int(labels[index]), positions=np.ascontiguousarray(x))


def _labels(archive: zipfile.ZipFile, path: Path, side: str) -> np.ndarray:
    """int64 [N] from one-hot [N, K] or indices [N]."""
    with archive.open(f"y_{side}.npy") as f:
        shape, dtype = _header(f, path, f"y_{side}")
        size = int(np.prod(shape)) * dtype.itemsize
        y = np.frombuffer(_exactly(f, size, path, f"y_{side}"), dtype).reshape(shape)
    if y.ndim == 2 and y.shape[1] and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
        return y.argmax(1).astype(np.int64)
    if y.ndim == 1 and (y >= 0).all() and (y == y.astype(np.int64)).all():
        return y.astype(np.int64)
    raise InputError(
        f"Array 'y_{side}' of '{path}' (shape {shape}) holds no labels; it must be one-hot [clips, classes] or class "
        "indices [clips]."
    )


def _header(f: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an npy member; numbers in C order only, so nothing is ever unpickled."""
    try:
        version = np.lib.format.read_magic(f)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(f)
    except ValueError as e:
        raise InputError(f"Array '{name}' of '{path}' has no valid npy header ({e}).") from None
    if dtype.kind not in "fiub":
        raise InputError(
            f"Array '{name}' of '{path}' is of type {dtype}, not numbers; it would have to be unpickled, which runs "
            "code, so it is refused: save it as float32."
        )
    if fortran and len(shape) > 1:
        raise InputError(f"Array '{name}' of '{path}' is in Fortran order; save np.ascontiguousarray of it.")
    return shape, dtype


def _exactly(f: IO[bytes], size: int, path: Path, name: str) -> bytes:
    data = f.read(size)
    if len(data) != size:
        raise InputError(f"Array '{name}' of '{path}' is truncated; make or copy the file again.")
    return data


def ctrgcn_npz_bytes(clips: Sequence[NpzClip], num_classes: int, frames: int = 0) -> bytes:
    """Clips as the content of a CTR-GCN npz file, compressed; each is padded with zeros at its end.

    Args:
        clips: In any order; each side keeps it. `index` is not used: a clip's place is its index.
        num_classes: K of the one-hot labels.
        frames: Length of the time axis (0: that of the longest clip; CTR-GCN's own files have 300).

    Raises:
        InputError: a clip has other joints than NTU's 25, more than two persons, more frames, or a label out of range.
    """
    length = frames or max((c.positions.shape[1] for c in clips), default=1)
    for c in clips:
        m, t, v = c.positions.shape[:3]
        if v != NUM_JOINTS or m > 2:
            raise InputError(
                f"Clip {c.index} has {m} persons of {v} joints; CTR-GCN's npz holds one or two of {NUM_JOINTS} joints "
                "(skeleton kinect25), so export these clips in another format."
            )
        if t > length:
            raise InputError(f"Clip {c.index} has {t} frames; the file is to have {length}: allow more.")
        if not 0 <= c.label < num_classes:
            raise InputError(f"Clip {c.index} has label {c.label}; the file has {num_classes} classes.")
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for side in SIDES:
            mine = [c for c in clips if c.side == side]
            with _member(archive, f"x_{side}") as f:
                _write_header(f, (len(mine), length, COLUMNS))
                for c in mine:
                    row = np.zeros((length, 2, NUM_JOINTS, 3), "<f4")
                    row[: c.positions.shape[1], : len(c.positions)] = c.positions.transpose(1, 0, 2, 3)
                    f.write(row.tobytes())
            with _member(archive, f"y_{side}") as f:
                _write_header(f, (len(mine), num_classes))
                f.write(np.eye(num_classes, dtype="<f4")[[c.label for c in mine]].tobytes())
    return sink.getvalue()


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # The default time of an entry is now; equal clips are to give equal bytes.
    entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(entry, "w", force_zip64=True)


def _write_header(f: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(f, header)
