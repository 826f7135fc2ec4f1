"""Skeleton JSON of Northwestern-UCLA Multiview Action 3D: `{"label": 1, "skeletons": [T][20][3]}`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

NUM_JOINTS = 20


def read_nucla_json(path: Path) -> tuple[np.ndarray, int]:
    """Read one clip.

    Args:
        path: A file such as `a01_s01_e00_v01.json`.

    Returns:
        Positions, float32 [T, 20, 3], metres in the Kinect's camera frame (y up, right-handed); and the
        label as stored, from 1. The label is not the action number in the file name, which skips numbers.

    Raises:
        InputError: the file is missing, empty, truncated, or does not hold 20 joints of 3 numbers per frame.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as e:
        raise InputError(
            f"File '{path}' cannot be read ({e.strerror}); give an existing N-UCLA JSON file."
        ) from None
    except ValueError as e:
        raise InputError(f"File '{path}' is not complete JSON ({e}); download it again.") from None
    if not isinstance(content, dict) or not {"label", "skeletons"} <= content.keys():
        raise InputError(
            f"File '{path}' lacks the keys 'label' and 'skeletons'; it is not an N-UCLA JSON file."
        )
    try:
        positions = np.asarray(content["skeletons"], np.float32)
        label = int(content["label"])
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"File '{path}' holds frames of unequal size or entries that are not numbers; each frame must be "
            f"{NUM_JOINTS} joints of 3 numbers, and the label an integer."
        ) from None
    if positions.ndim != 3 or positions.shape[1:] != (NUM_JOINTS, 3) or not len(positions):
        raise InputError(
            f"File '{path}' holds an array of shape {positions.shape}; it must be at least one frame of "
            f"{NUM_JOINTS} joints of 3 numbers, [frames, {NUM_JOINTS}, 3]."
        )
    return positions, label
