"""UTD-MHAD: 27 actions, eight people, four repetitions each, one Kinect v1 (skeleton part).

Clips stay as recorded: 15 of 861 have a tracking jump above 20 m/s. In the classes whose name says "right
hand" or "right arm" the right hand is the one that moves (99 % of the clips); in the lunge the left foot
leads.
"""

from __future__ import annotations

from pathlib import Path

from motionsynth.datasets.info import DatasetInfo, find_raw, parse_path
from motionsynth.errors import InputError
from motionsynth.formats.utd_mat import read_utd_mat
from motionsynth.motion import Motion, reorder
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import Split

# The hand or foot stands in the name wherever the authors' list prescribes it, as a word of its own, so that
# mirroring knows that it would make another action.
CLASS_NAMES = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shoot",
    "right hand draw x",
    "right hand draw circle clockwise",
    "right hand draw circle counter clockwise",
    "right hand draw triangle",
    "right hand bowling",
    "front boxing",
    "baseball swing from right",
    "tennis right hand forehand swing",
    "arm curl with two arms",
    "tennis right hand serve",
    "two hand push",
    "right hand knock on door",
    "right hand catch an object",
    "right hand pick up and throw",
    "jogging in place",
    "walking in place",
    "sit to stand",
    "stand to sit",
    "left foot forward lunge",
    "squat with two arms stretched out",
)
FPS = 30.0
_FILE = r"(?P<sample_id>a(?P<action>\d{1,2})_s(?P<subject>\d)_t(?P<repetition>\d))_skeleton\.mat$"
_EXPECTED = "the 861 files aA_sS_tT_skeleton.mat (for example Skeleton/a1_s1_t1_skeleton.mat)"


def find(raw: Path) -> list[Path]:
    """The skeleton files below `raw`, sorted. Raises InputError if there are none."""
    return find_raw(raw, _FILE, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip: float32 [1, T, 20, 3], metres, in the joint order of `kinect20`.

    Raises:
        InputError: the file cannot be read, or its name is not one of this dataset.
    """
    identity = parse_path(path, _FILE, "a1_s1_t1_skeleton.mat")
    action = int(identity["action"])
    if not 1 <= action <= len(CLASS_NAMES):
        raise InputError(
            f"File '{path}' is of action {action}; UTD-MHAD actions are 1 to {len(CLASS_NAMES)}."
        )
    positions = reorder(read_utd_mat(path), get_skeleton("kinect20_head_first"), get_skeleton("kinect20"))
    return Motion(
        positions=positions[None],
        fps=FPS,
        skeleton="kinect20",
        label=action - 1,
        label_name=CLASS_NAMES[action - 1],
        sample_id=identity["sample_id"],
        dataset="utd_mhad",
        subject=identity["subject"],
        view="01",
        repetition=identity["repetition"],
    )


UTD_MHAD = DatasetInfo(
    name="utd_mhad",
    title="UTD Multimodal Human Action Dataset (skeleton part)",
    skeleton="kinect20",
    class_names=CLASS_NAMES,
    splits=(
        Split(
            name="cross_subject",
            by="subject",
            train=("1", "3", "5", "7"),
            test=("2", "4", "6", "8"),
            note="Official protocol (Chen et al. 2015): odd subjects train, even subjects test.",
        ),
    ),
    layout=f"{_EXPECTED}, in any folder below the raw folder.",
    citation=(
        "C. Chen, R. Jafari, N. Kehtarnavaz: UTD-MHAD: A Multimodal Dataset for Human Action Recognition "
        "Utilizing a Depth Camera and a Wearable Inertial Sensor. ICIP 2015."
    ),
    terms="The authors call it public domain but attach no licence text: use freely, cite; not bundled here.",
    redistribution="unstated",
    sensor="Kinect v1",
    find=find,
    read=read,
)
