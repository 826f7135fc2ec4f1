"""NTU RGB+D 120: 120 actions (26 of two persons), 106 people, 3 Kinect v2 cameras at a time in 32 setups.

114,480 clips, 535 of them without a usable skeleton; 113,945 remain. See `ntu` for what is not checked.
"""

from __future__ import annotations

from pathlib import Path

from motionsynth.datasets import ntu
from motionsynth.datasets.info import DatasetInfo
from motionsynth.motion import Motion
from motionsynth.splits import Split

_EXPECTED = (
    "NTU RGB+D 120's skeleton files SsssCcccPpppRrrrAaaa.skeleton, S001 to S032, A001 to A120 (for example "
    "S001C001P001R001A001.skeleton and S018C001P008R001A061.skeleton, unpacked from nturgbd_skeletons_s001_to_s017.zip "
    "and nturgbd_skeletons_s018_to_s032.zip, your own download from the ROSE Lab)"
)


def find(raw: Path) -> list[Path]:
    """The usable `.skeleton` files of actions 1 to 120 below `raw`, sorted. Raises InputError if there "
    "are none."""
    return ntu.find_names(raw, 120, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip: float32 [M, T, 25, 3], metres, M = 1 or 2. Raises InputError as `ntu.read_clip` does."""
    return ntu.read_clip(path, "ntu120", 120)


NTU120 = DatasetInfo(
    name="ntu120",
    title="NTU RGB+D 120",
    skeleton="kinect25",
    class_names=ntu.CLASS_NAMES,
    splits=(
        ntu.cross_subject(
            ntu.NTU120_TRAIN_SUBJECTS,
            106,
            "Official: 53 people train, 53 test; 63,026 and 50,919 usable clips.",
        ),
        Split(
            name="cross_setup",
            by="sample_id",
            pattern=r"^S(\d{3})C",
            train=ntu.numbers(range(2, 33, 2)),
            test=ntu.numbers(range(1, 33, 2)),
            note="Official: even setups train, odd setups test; 54,468 and 59,477 usable clips.",
        ),
    ),
    layout=f"{_EXPECTED}; both archives' files in any folders below the raw folder.",
    citation=(
        "J. Liu, A. Shahroudy, M. Perez, G. Wang, L.-Y. Duan, A. C. Kot: NTU RGB+D 120: A Large-Scale Benchmark for 3D "
        "Human Activity Understanding. TPAMI 2019."
    ),
    terms=ntu.TERMS,
    redistribution="forbidden",
    sensor="Kinect v2",
    find=find,
    read=read,
)
