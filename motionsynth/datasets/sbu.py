"""SBU Kinect Interaction: eight interactions of two people, 21 ordered pairs out of seven people.

Persons keep the file's order. It tells neither who acts (in kicking the first person is the one whose foot
comes nearer to the other's torso in 23 of 39 clear clips, in punching in 8 of 22: the two take turns) nor,
judged by body size, whose id comes first in the pair; so models should treat the two persons alike.
"""

from __future__ import annotations

from pathlib import Path

from motionsynth.datasets.info import DatasetInfo, find_raw, parse_path
from motionsynth.errors import InputError
from motionsynth.formats.sbu_txt import read_sbu_txt
from motionsynth.motion import Motion
from motionsynth.splits import Split

CLASS_NAMES = (
    "approaching",
    "departing",
    "kicking",
    "pushing",
    "shaking hands",
    "hugging",
    "exchanging object",
    "punching",
)
FPS = 15.0
FOLDS = (
    ("s01s02", "s03s04", "s05s02", "s06s04"),
    ("s02s03", "s02s07", "s03s05", "s05s03"),
    ("s01s03", "s01s07", "s07s01", "s07s03"),
    ("s02s01", "s02s06", "s03s02", "s03s06"),
    ("s04s02", "s04s03", "s04s06", "s06s02", "s06s03"),
)
"""The five sets of pairs between which everybody cross-validates on this dataset."""
_FILE = r"(?P<pair>s\d{2}s\d{2})/(?P<action>\d{2})/(?P<repetition>\d{3})/skeleton_pos\.txt$"
_EXPECTED = "the 282 files sXXsYY/AA/RRR/skeleton_pos.txt (for example s01s02/01/001/skeleton_pos.txt)"


def find(raw: Path) -> list[Path]:
    """The skeleton files below `raw`, sorted. Raises InputError if there are none."""
    return find_raw(raw, _FILE, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip: float32 [2, T, 15, 3], metres; `subject` is the pair, such as "s01s02".

    Raises:
        InputError: the file cannot be read, or its folders are not those of this dataset.
    """
    identity = parse_path(path, _FILE, "s01s02/01/001/skeleton_pos.txt")
    action = int(identity["action"])
    if not 1 <= action <= len(CLASS_NAMES):
        raise InputError(f"File '{path}' is of action {action}; SBU actions are 1 to {len(CLASS_NAMES)}.")
    return Motion(
        positions=read_sbu_txt(path),
        fps=FPS,
        skeleton="sbu15",
        label=action - 1,
        label_name=CLASS_NAMES[action - 1],
        sample_id=f"{identity['pair']}_a{identity['action']}_r{identity['repetition']}",
        dataset="sbu",
        subject=identity["pair"],
        view="01",
        repetition=identity["repetition"],
    )


def _fold(index: int) -> Split:
    """Fold `index` (from 0) tests, the other four train."""
    return Split(
        name=f"fold{index + 1}",
        by="subject",
        train=tuple(pair for i, fold in enumerate(FOLDS) if i != index for pair in fold),
        test=FOLDS[index],
        note=(
            "Usual five-fold cross-validation over ordered pairs: no pair crosses, but people do, since "
            "each of them acts in pairs of several folds; report the mean of all five."
        ),
    )


SBU = DatasetInfo(
    name="sbu",
    title="SBU Kinect Interaction (clean version)",
    skeleton="sbu15",
    class_names=CLASS_NAMES,
    splits=tuple(_fold(i) for i in range(len(FOLDS))),
    layout=f"{_EXPECTED}, in any folder below the raw folder.",
    citation=(
        "K. Yun, J. Honorio, D. Chattopadhyay, T. L. Berg, D. Samaras: Two-person Interaction Detection "
        "Using Body-Pose Features and Multiple Instance Learning. CVPR Workshops 2012."
    ),
    terms="No licence is stated: research use with citation; do not redistribute.",
    redistribution="unstated",
    sensor="Kinect v1",
    find=find,
    read=read,
)
