"""UI-PRMD skeleton text (`.txt`, `.txt.gz`): a Positions and an Angles file per clip, 22 x 3 numbers a line.

Positions are centimetres: the first joint in the room, every other joint as an offset in its parent's frame.
Angles are Euler angles in degrees. Only both together give joints in space, by forward kinematics.

The order of the three rotations is R = Rz Rx Ry. The authors' animation script (`Animation.m`) multiplies
Rz Ry Rx, and with that the legs fold up in squats. Measured where both feet stay on the floor, as the root
mean square by which an ankle leaves its mean place (median over the 100 correct clips): deep squat 3.5 cm
with Rz Rx Ry against 25 cm with Rz Ry Rx, sit to stand 2.6 cm against 34 cm; none of the other four orders
stays below 20 cm.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

NUM_JOINTS = 22
PARENTS = (-1, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20)


def read_ui_prmd_txt(positions_path: Path, angles_path: Path) -> np.ndarray:
    """Read one clip.

    Args:
        positions_path: For example `Positions/m01_s01_e01_positions.txt`, or the same with `.gz`.
        angles_path: Its partner, for example `Angles/m01_s01_e01_angles.txt`.

    Returns:
        Positions in space, float32 [T, 22, 3], metres, y up, right-handed.

    Raises:
        InputError: a file is missing, empty, truncated, does not hold 66 numbers per line, or the two files
            have different numbers of frames.
    """
    offsets = _read_table(positions_path)
    angles = _read_table(angles_path)
    if len(offsets) != len(angles):
        raise InputError(
            f"File '{positions_path}' has {len(offsets)} frames but '{angles_path}' has {len(angles)}; they "
            "must be the two halves of one clip, so download them again."
        )
    return (forward_kinematics(offsets, np.deg2rad(angles)) / 100.0).astype(np.float32)


def forward_kinematics(offsets: np.ndarray, angles: np.ndarray, order: str = "zxy") -> np.ndarray:
    """Joint positions from offsets in the parents' frames and Euler angles.

    A joint's rotation is that of its own angles within its parent's frame; a joint's offset turns with its
    parent: p_v = p_parent + R_parent o_v.

    Args:
        offsets: [T, 22, 3], any unit; the root's is its position in space.
        angles: [T, 22, 3], radians about x, y, z.
        order: Order of the three factors: "zxy" is Rz Rx Ry; "zyx" is what the authors' script does.

    Returns:
        float64 [T, 22, 3], the unit of `offsets`.
    """
    first, second, third = (_rotation("xyz".index(axis), angles[..., "xyz".index(axis)]) for axis in order)
    rotations = first @ second @ third
    out = np.array(offsets, np.float64)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            out[:, joint] = out[:, parent] + np.einsum("tij,tj->ti", rotations[:, parent], out[:, joint])
            rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
    return out


def _rotation(axis: int, angles: np.ndarray) -> np.ndarray:
    """Rotation about one coordinate axis: [...] radians -> [..., 3, 3]."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.zeros((*angles.shape, 3, 3))
    out[..., axis, axis] = 1.0
    out[..., i, i] = out[..., j, j] = np.cos(angles)
    out[..., j, i] = np.sin(angles)
    out[..., i, j] = -out[..., j, i]
    return out


def _read_table(path: Path) -> np.ndarray:
    """float64 [T, 22, 3] of one text file."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("ascii")
    except OSError as e:
        reason = e.strerror or str(e)
        raise InputError(f"File '{path}' cannot be read ({reason}); download it again.") from None
    except (EOFError, zlib.error, UnicodeDecodeError) as e:
        raise InputError(f"File '{path}' is damaged or cut off ({e}); download it again.") from None
    if not text.strip():
        raise InputError(
            f"File '{path}' is empty; it must hold {NUM_JOINTS * 3} numbers per frame, one line each."
        )
    try:
        table = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as e:
        raise InputError(
            f"File '{path}' is not a table of comma-separated numbers ({str(e).split(';')[0]}); download it "
            "again."
        ) from None
    if table.shape[1] != NUM_JOINTS * 3:
        raise InputError(
            f"File '{path}' has {table.shape[1]} numbers per line; it must have {NUM_JOINTS * 3}, for "
            f"{NUM_JOINTS} joints."
        )
    return table.reshape(-1, NUM_JOINTS, 3)
