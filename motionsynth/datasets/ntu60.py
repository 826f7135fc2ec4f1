"""NTU RGB+D: 60 actions (11 of two persons), 40 people, 3 Kinect v2 cameras at a time in 17 setups.

56,880 clips, 302 of them without a usable skeleton; 56,578 remain. See `ntu` for what is not checked.
"""

from __future__ import annotations

from pathlib import Path

from motionsynth.datasets import ntu
from motionsynth.datasets.info import DatasetInfo
from motionsynth.motion import Motion
from motionsynth.splits import Split

_EXPECTED = (
    "NTU RGB+D's skeleton files SsssCcccPpppRrrrAaaa.skeleton, S001 to S017, A001 to A060 (for example "
    "nturgb+d_skeletons/S001C001P001R001A001.skeleton, unpacked from nturgbd_skeletons_s001_to_s017.zip, your own "
    "download from the ROSE Lab)"
)


def find(raw: Path) -> list[Path]:
    """The usable `.skeleton` files of actions 1 to 60 below `raw`, sorted. Raises InputError if there are "
    "none."""
    return ntu.find_names(raw, 60, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip: float32 [M, T, 25, 3], metres, M = 1 or 2. Raises InputError as `ntu.read_clip` does."""
    return ntu.read_clip(path, "ntu60", 60)


NTU60 = DatasetInfo(
    name="ntu60",
    title="NTU RGB+D",
    skeleton="kinect25",
    class_names=ntu.CLASS_NAMES[:60],
    splits=(
        ntu.cross_subject(
            ntu.NTU60_TRAIN_SUBJECTS,
            40,
            "Official: 20 people train, 20 test; 40,091 and 16,487 usable clips.",
        ),
        Split(
            name="cross_view",
            by="view",
            train=("002", "003"),
            test=("001",),
            note="Official: cameras 2 and 3 train, camera 1 tests; 37,646 and 18,932 usable clips.",
        ),
    ),
    layout=f"{_EXPECTED}; in any folder below the raw folder.",
    citation=(
        "A. Shahroudy, J. Liu, T.-T. Ng, G. Wang: NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis. "
        "CVPR 2016."
    ),
    terms=ntu.TERMS,
    redistribution="forbidden",
    sensor="Kinect v2",
    find=find,
    read=read,
)
