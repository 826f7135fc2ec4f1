"""SBU Kinect Interaction skeleton text: per line a frame number, then 2 persons x 15 joints x 3 numbers.

The published "normalised image coordinates" are a linear scaling of the sensor's world coordinates in
millimetres: x = 1280 - 2560 u, y = 960 - 1920 v, z = 10000 w / 7.8125 gives them back, and no pinhole camera
is involved. Evidence: with this the 14 bones keep their lengths at any distance from the camera (slope of log
length against log distance 0.05 on average, coefficient of variation 0.10, lowest within 5 % of this ratio of
x, y to z), whereas back-projection of u, v as pixels makes them grow with distance (slope 0.81, 0.14).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

NUM_PERSONS = 2
NUM_JOINTS = 15
_COLUMNS = 1 + NUM_PERSONS * NUM_JOINTS * 3


def read_sbu_txt(path: Path) -> np.ndarray:
    """Read one clip.

    Args:
        path: A file `skeleton_pos.txt`.

    Returns:
        Positions, float32 [2, T, 15, 3], metres in the camera's frame: x to the left of the image, y up, z
        away from the camera (right-handed). Persons in the order of the file.

    Raises:
        InputError: the file is missing, empty, truncated, or does not hold 91 numbers per line.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError as e:
        raise InputError(
            f"File '{path}' cannot be read ({e.strerror}); give an existing skeleton_pos.txt."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"File '{path}' is not plain text; it must be a skeleton_pos.txt of SBU.") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"File '{path}' is empty; it must hold {_COLUMNS} numbers per frame, one line each.")
    for number, line in enumerate(lines, 1):
        if (got := len(line.strip().rstrip(",").split(","))) != _COLUMNS:
            raise InputError(
                f"File '{path}' has {got} numbers in line {number}; it must have {_COLUMNS}: the frame "
                f"number and {NUM_PERSONS} persons of {NUM_JOINTS} joints, so download it again."
            )
    try:
        table = np.array([line.strip().rstrip(",").split(",") for line in lines], np.float64)
    except ValueError as e:
        raise InputError(
            f"File '{path}' holds something that is not a number ({e}); download it again."
        ) from None
    u, v, w = np.moveaxis(table[:, 1:].reshape(-1, NUM_PERSONS, NUM_JOINTS, 3), -1, 0)
    millimetres = np.stack([1280.0 - 2560.0 * u, 960.0 - 1920.0 * v, w * 10000.0 / 7.8125], axis=-1)
    return np.ascontiguousarray(millimetres.swapaxes(0, 1) / 1000.0, np.float32)
