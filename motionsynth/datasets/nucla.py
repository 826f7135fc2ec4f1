"""Northwestern-UCLA Multiview Action 3D: 10 actions, 10 people, 3 Kinects that film at the same time.

The cameras look down at different angles; `CAMERA_PITCH` is taken out, so that y is up in all three views.
Right-handed (in 1,480 of 1,484 clips the feet point to up x right). Tracking jumps stay: 266 clips have
one above 20 m/s and `motion.repair_jumps` cures 3 of them, because most are lasting displacements and not spikes.
Two traps are mended or named here: see `ACTOR` and the note of the split `cross_view`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from motionsynth.datasets.info import DatasetInfo, find_raw, parse_path
from motionsynth.errors import InputError
from motionsynth.formats.nucla_json import read_nucla_json
from motionsynth.motion import Motion
from motionsynth.splits import Split

CLASS_NAMES = (
    "pick up with one hand",
    "pick up with two hands",
    "drop trash",
    "walk around",
    "sit down",
    "stand up",
    "donning",
    "doffing",
    "throw",
    "carry",
)
FPS = 30.0

ACTOR = {"a01_s08_e00_v01": (0, 1), "a01_s08_e02_v01": (28, 28), "a01_s08_e03_v01": (8, 9)}
"""Clips in which a bystander was tracked as well, and stored in every second frame: (frames that hold the
actor alone, first of every second frame after them that holds the actor). The actor is the one who bends
down, as in the same take seen by cameras 2 and 3."""

CAMERA_PITCH = {"01": 13.0, "02": 14.5, "03": 17.5}
"""Degrees by which each camera looks down: two independent estimates over all clips (plane through the lowest ankles;
mean axis of the body) agree within 0.7 degrees. A constant of the recording room, not of an action or a person."""

_FILE = (
    r"(?P<sample_id>a(?P<action>\d{2})_s(?P<subject>\d{2})_e(?P<repetition>\d{2})_v(?P<view>\d{2}))\.json$"
)
_EXPECTED = "the 1,484 files aAA_sSS_eEE_vVV.json (for example all_sqe/a01_s01_e00_v01.json)"


def find(raw: Path) -> list[Path]:
    """The JSON files below `raw`, sorted. Raises InputError if there are none."""
    return find_raw(raw, _FILE, _EXPECTED)


def read(path: Path) -> Motion:
    """One clip: float32 [1, T, 20, 3], metres.

    Raises:
        InputError: the file cannot be read, or its name or label is not one of this dataset.
    """
    identity = parse_path(path, _FILE, "a01_s01_e00_v01.json")
    positions, label = read_nucla_json(path)
    if not 1 <= label <= len(CLASS_NAMES):
        raise InputError(f"File '{path}' has the label {label}; N-UCLA labels are 1 to {len(CLASS_NAMES)}.")
    if identity["sample_id"] in ACTOR:
        alone, first = ACTOR[identity["sample_id"]]
        positions = np.concatenate([positions[:alone], positions[first::2]])
    # Camera 3's clips of these two actions are copies of camera 2's (see the split `cross_view`).
    camera = "02" if identity["view"] == "03" and identity["action"] in ("02", "03") else identity["view"]
    turn = np.deg2rad(CAMERA_PITCH.get(camera, 15.0))
    c, s = np.cos(turn), np.sin(turn)
    level = np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)
    return Motion(
        positions=(positions @ level.T).astype(np.float32)[None],
        fps=FPS,
        skeleton="kinect20",
        label=label - 1,
        label_name=CLASS_NAMES[label - 1],
        sample_id=identity["sample_id"],
        dataset="nucla",
        subject=identity["subject"],
        view=identity["view"],
        repetition=identity["repetition"],
    )


NUCLA = DatasetInfo(
    name="nucla",
    title="Northwestern-UCLA Multiview Action 3D",
    skeleton="kinect20",
    class_names=CLASS_NAMES,
    splits=(
        Split(
            name="cross_subject",
            by="subject",
            train=("01", "03", "05", "07", "09"),
            test=("02", "04", "06", "08", "10"),
            note="Odd subjects train, even ones test; the original paper leaves one subject out at a time.",
        ),
        Split(
            name="cross_view",
            by="view",
            train=("01", "02"),
            test=("03",),
            note=(
                "Official protocol: cameras 1 and 2 train, camera 3 tests. Leaks: in the published files all "
                "95 clips of camera 3 for 'pick up with two hands' and 'drop trash' are copies of camera 2."
            ),
        ),
        Split(
            name="cross_view_no_copies",
            by="sample_id",
            pattern=r"^(?!a0[23]_s\d+_e\d+_v02)a\d+_s\d+_e\d+_(v\d+)$",
            train=("v01", "v02"),
            test=("v03",),
            note=(
                "cross_view without the training clips of camera 2 that camera 3 repeats (actions a02 and "
                "a03), so that no test clip is trained on."
            ),
        ),
    ),
    layout=f"{_EXPECTED}, in any folder below the raw folder.",
    citation=(
        "J. Wang, X. Nie, Y. Xia, Y. Wu, S.-C. Zhu: Cross-view Action Modeling, Learning and Recognition. "
        "CVPR 2014."
    ),
    terms="No licence is stated: research use with citation; do not redistribute.",
    redistribution="unstated",
    sensor="Kinect v1",
    find=find,
    read=read,
)
