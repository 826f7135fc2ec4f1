"""UTD-MHAD skeleton files: MATLAB 5 `.mat` with one variable `d_skel` [20, 3, T]. Needs the extra `mat`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

NUM_JOINTS = 20


def read_utd_mat(path: Path) -> np.ndarray:
    """Read one clip.

    Args:
        path: A file such as `a1_s1_t1_skeleton.mat`.

    Returns:
        Positions, float32 [T, 20, 3], metres in the Kinect's camera frame (y up, right-handed), in the
        head-first joint order of the file (skeleton `kinect20_head_first`).

    Raises:
        InputError: SciPy is not installed; the file is missing, empty, truncated, or holds no array
            `d_skel` of 20 joints by 3 coordinates by frames.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(
            "Reading .mat files needs SciPy, which is not installed; run pip install 'motionsynth[mat]'."
        ) from None
    try:
        content = loadmat(str(path), appendmat=False, variable_names=["d_skel"])
    except FileNotFoundError:
        raise InputError(f"File '{path}' does not exist; give an existing UTD-MHAD .mat file.") from None
    # A damaged file makes SciPy's parser fail in many ways, from zlib.error to MemoryError; they all mean the same to
    # the user.
    except Exception as e:
        raise InputError(
            f"File '{path}' is not a complete MATLAB 5 file ({type(e).__name__}: {e}); download it again."
        ) from None
    if "d_skel" not in content:
        raise InputError(f"File '{path}' has no variable 'd_skel'; it must be a skeleton file of UTD-MHAD.")
    array = content["d_skel"]
    if array.ndim == 2:
        array = array[..., None]  # MATLAB drops a last axis of length 1
    if (
        array.ndim != 3
        or array.shape[:2] != (NUM_JOINTS, 3)
        or not array.shape[2]
        or array.dtype.kind not in "fiu"
    ):
        raise InputError(
            f"File '{path}' holds d_skel as a {array.dtype} array of shape {array.shape}; it must be numbers "
            f"of shape [{NUM_JOINTS}, 3, frames]."
        )
    return np.ascontiguousarray(array.transpose(2, 0, 1), np.float32)
