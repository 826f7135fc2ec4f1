"""UI-PRMD: ten rehabilitation movements, each done correctly and incorrectly by ten people (Kinect v2 part).

The task with a class per movement is nearly solved; here a class is a movement in one of its two qualities,
20 in all. Subjects 7 and 10 use their left arm and leg where the others use the right one. Clips stay as
recorded: 64 of 2,000 have a tracking jump above 20 m/s.
"""

from __future__ import annotations

from pathlib import Path

from motionsynth.datasets.info import DatasetInfo, find_raw, parse_path
from motionsynth.errors import InputError
from motionsynth.formats.ui_prmd_txt import read_ui_prmd_txt
from motionsynth.motion import Motion
from motionsynth.splits import Split

MOVEMENTS = (
    "deep squat",
    "hurdle step",
    "inline lunge",
    "side lunge",
    "sit to stand",
    "standing active straight leg raise",
    "standing shoulder abduction",
    "standing shoulder extension",
    "standing shoulder internal-external rotation",
    "standing shoulder scaption",
)
CLASS_NAMES = tuple(f"{movement} {quality}" for movement in MOVEMENTS for quality in ("correct", "incorrect"))
"""Index = 2 * (movement - 1) + (1 if incorrect)."""
FPS = 30.0
_FILE = (
    r"(?P<folder>[^/]*/Positions|Positions)/(?P<clip>m(?P<movement>\d{2})_s(?P<subject>\d{2})_e(?P<repetition>\d{2}))"
    r"_positions(?P<incorrect>_inc)?\.txt(\.gz)?$"
)
_EXPECTED = (
    "the files Positions/mMM_sSS_eEE_positions.txt and Angles/mMM_sSS_eEE_angles.txt of the folders "
    "'Segmented Movements/Kinect' and 'Incorrect Segmented Movements/Kinect' (there with '_inc' before "
    "'.txt'), plain or '.gz'"
)


def find(raw: Path) -> list[Path]:
    """The Positions files below `raw`, sorted. Raises InputError if there are none."""
    return find_raw(raw, _FILE, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip from its Positions file and the Angles file beside it: float32 [1, T, 22, 3], metres.

    Raises:
        InputError: a file cannot be read, or its name is not one of this dataset.
    """
    path = Path(path)
    identity = parse_path(path, _FILE, "Positions/m01_s01_e01_positions.txt")
    movement = int(identity["movement"])
    if not 1 <= movement <= len(MOVEMENTS):
        raise InputError(
            f"File '{path}' is of movement {movement}; UI-PRMD movements are 1 to {len(MOVEMENTS)}."
        )
    incorrect = identity["incorrect"] is not None
    angles = path.parent.parent / "Angles" / path.name.replace("_positions", "_angles")
    label = 2 * (movement - 1) + incorrect
    return Motion(
        positions=read_ui_prmd_txt(path, angles)[None],
        fps=FPS,
        skeleton="ui_prmd22",
        label=label,
        label_name=CLASS_NAMES[label],
        sample_id=identity["clip"] + ("_incorrect" if incorrect else "_correct"),
        dataset="ui_prmd",
        subject=identity["subject"],
        view="01",
        repetition=identity["repetition"],
    )


UI_PRMD = DatasetInfo(
    name="ui_prmd",
    title="University of Idaho Physical Rehabilitation Movement Data, Kinect part, segmented",
    skeleton="ui_prmd22",
    class_names=CLASS_NAMES,
    splits=(
        Split(
            name="cross_subject",
            by="subject",
            train=("01", "03", "05", "07", "09"),
            test=("02", "04", "06", "08", "10"),
            note="Odd subjects train, even subjects test; the authors publish no train and test lists.",
        ),
    ),
    layout=f"{_EXPECTED}; 2,000 clips.",
    citation=(
        "A. Vakanski, H.-P. Jun, D. Paul, R. Baker: A Data Set of Human Body Movements for Physical "
        "Rehabilitation Exercises. Data 3(1):2, 2018. doi:10.3390/data3010002"
    ),
    terms="Open Data Commons Public Domain Dedication and License (PDDL) 1.0: free for any use.",
    redistribution="allowed",
    licence="PDDL-1.0",
    sensor="Kinect v2",
    find=find,
    read=read,
)
