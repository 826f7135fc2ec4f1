"""Seven harmful mutual actions of NTU RGB+D 120, as in Islamgozhayev et al. 2024: a named subset of its files.

6,668 usable clips, 941 to 960 of each class. (The paper speaks of 106 people x 10 repetitions, "at least 1060" clips of
each: three classes were filmed with 40 people, four with 69, so there are not as many.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from motionsynth.datasets import ntu
from motionsynth.datasets.info import DatasetInfo
from motionsynth.datasets.ntu120 import NTU120
from motionsynth.errors import InputError
from motionsynth.motion import Motion
from motionsynth.splits import Split

ACTIONS = (50, 51, 52, 106, 107, 108, 110)
"""NTU's action numbers in the order of our labels 0 to 6."""
_LISTED = ", ".join(f"A{a:03d}" for a in ACTIONS)
_EXPECTED = (
    f"NTU RGB+D 120's skeleton files SsssCcccPpppRrrrAaaa.skeleton of the actions {_LISTED} (for example "
    "S001C001P001R001A050.skeleton and S018C001P008R001A106.skeleton, from your own download from the ROSE Lab)"
)


def find(raw: Path) -> list[Path]:
    """The usable `.skeleton` files of the seven actions below `raw`, sorted. Raises InputError if there are none."""
    files = [f for f in ntu.find_names(raw, 120, _EXPECTED) if int(f.stem[-3:]) in ACTIONS]
    if not files:
        raise InputError(f"Raw folder '{raw}' holds none of the expected files; it must hold {_EXPECTED}.")
    return files


def read(path: Path) -> Motion:
    """One clip: float32 [M, T, 25, 3], metres, M = 1 or 2. Raises InputError as `ntu.read_clip` does."""
    clip = ntu.read_clip(path, "ntu120_harmful", 120)
    action = clip.label + 1
    if action not in ACTIONS:
        raise InputError(f"File '{path}' is of action A{action:03d}; dataset 'ntu120_harmful' has {_LISTED}.")
    return replace(clip, label=ACTIONS.index(action))


NTU120_HARMFUL = DatasetInfo(
    name="ntu120_harmful",
    title="NTU RGB+D 120, seven harmful mutual actions",
    skeleton="kinect25",
    class_names=tuple(ntu.CLASS_NAMES[a - 1] for a in ACTIONS),
    splits=(
        replace(
            NTU120.split("cross_subject"),
            note="NTU RGB+D 120's official 53 and 53 people; 3,540 and 3,128 usable clips.",
        ),
        Split(
            name="cross_view",
            by="view",
            train=("002", "003"),
            test=("001",),
            note="Cameras 2 and 3 train, camera 1 tests, as in NTU RGB+D 60; 4,447 and 2,221 usable clips.",
        ),
        replace(
            NTU120.split("cross_setup"),
            note="NTU RGB+D 120's official even and odd setups; 3,200 and 3,468 usable clips.",
        ),
    ),
    layout=f"{_EXPECTED}; in any folders below the raw folder, beside any other files of the dataset.",
    citation=NTU120.citation,
    terms=ntu.TERMS,
    redistribution="forbidden",
    sensor="Kinect v2",
    find=find,
    read=read,
)
