"""What NTU RGB+D and NTU RGB+D 120 share: file names, class names, split lists, reading one file.

Neither dataset may be passed on, so everybody downloads the skeleton files from the ROSE Lab. Checked without
them: the split lists and the authors' list of clips without a usable skeleton (see `ntu_missing`), which
together fit the field's counts. Not checkable without them: that a download is complete (the authors publish
no list of all names), which listed clips cannot be parsed at all, and which persons the body selection picks.
"""

from __future__ import annotations

import logging
from pathlib import Path

from motionsynth.datasets.info import find_raw, parse_path
from motionsynth.datasets.ntu_missing import MISSING
from motionsynth.errors import InputError
from motionsynth.formats.ntu_skeleton import read_ntu_skeleton
from motionsynth.motion import Motion
from motionsynth.splits import Split

logger = logging.getLogger(__name__)

NAME = r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<repetition>\d{3})A(?P<action>\d{3})"
"""Setup, camera, performer, repetition, action."""
FPS = 30.0
TERMS = (
    "Free for academic research on request from the ROSE Lab, NTU Singapore (https://rose1.ntu.edu.sg); do not "
    "redistribute, no commercial use."
)
NTU60_TRAIN_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
NTU120_TRAIN_SUBJECTS = (
    *NTU60_TRAIN_SUBJECTS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89),
    *(91, 92, 93, 94, 95, 97, 98, 100, 103),
)
CLASS_NAMES = (
    "drink water",
    "eat meal/snack",
    "brushing teeth",
    "brushing hair",
    "drop",
    "pickup",
    "throw",
    "sitting down",
    "standing up (from sitting position)",
    "clapping",
    "reading",
    "writing",
    "tear up paper",
    "wear jacket",
    "take off jacket",
    "wear a shoe",
    "take off a shoe",
    "wear on glasses",
    "take off glasses",
    "put on a hat/cap",
    "take off a hat/cap",
    "cheer up",
    "hand waving",
    "kicking something",
    "put something inside pocket / take out something from pocket",
    "hopping (one foot jumping)",
    "jump up",
    "make a phone call/answer phone",
    "playing with phone/tablet",
    "typing on a keyboard",
    "pointing to something with finger",
    "taking a selfie",
    "check time (from watch)",
    "rub two hands together",
    "nod head/bow",
    "shake head",
    "wipe face",
    "salute",
    "put the palms together",
    "cross hands in front (say stop)",
    "sneeze/cough",
    "staggering",
    "falling",
    "touch head (headache)",
    "touch chest (stomachache/heart pain)",
    "touch back (backache)",
    "touch neck (neckache)",
    "nausea or vomiting condition",
    "use a fan (with hand or paper)/feeling warm",
    "punching/slapping other person",
    "kicking other person",
    "pushing other person",
    "pat on back of other person",
    "point finger at the other person",
    "hugging other person",
    "giving something to other person",
    "touch other person's pocket",
    "handshaking",
    "walking towards each other",
    "walking apart from each other",
    "put on headphone",
    "take off headphone",
    "shoot at the basket",
    "bounce ball",
    "tennis bat swing",
    "juggling table tennis balls",
    "hush (quiet)",
    "flick hair",
    "thumb up",
    "thumb down",
    "make ok sign",
    "make victory sign",
    "staple book",
    "counting money",
    "cutting nails",
    "cutting paper (using scissors)",
    "snapping fingers",
    "open bottle",
    "sniff (smell)",
    "squat down",
    "toss a coin",
    "fold paper",
    "ball up paper",
    "play magic cube",
    "apply cream on face",
    "apply cream on hand back",
    "put on bag",
    "take off bag",
    "put something into a bag",
    "take something out of a bag",
    "open a box",
    "move heavy objects",
    "shake fist",
    "throw up cap/hat",
    "hands up (both hands)",
    "cross arms",
    "arm circles",
    "arm swings",
    "running on the spot",
    "butt kicks (kick backward)",
    "cross toe touch",
    "side kick",
    "yawn",
    "stretch oneself",
    "blow nose",
    "hit other person with something",
    "wield knife towards other person",
    "knock over other person (hit with body)",
    "grab other person's stuff",
    "shoot at other person with a gun",
    "step on foot",
    "high-five",
    "cheers and drink",
    "carry something with other person",
    "take a photo of other person",
    "follow other person",
    "whisper in other person's ear",
    "exchange things with other person",
    "support somebody with one's hand (someone is sick, help him to walk)",
    "finger-guessing game (playing rock-paper-scissors)",
)
"""Official names of A001 to A120; the first 60 are NTU60's."""


def numbers(values: range | tuple[int, ...]) -> tuple[str, ...]:
    """As they stand in the file names: 3 digits."""
    return tuple(f"{v:03d}" for v in values)


def cross_subject(train: tuple[int, ...], num_subjects: int, note: str) -> Split:
    """The official cross-subject protocol: the listed performers train, all others test."""
    others = tuple(s for s in range(1, num_subjects + 1) if s not in train)
    return Split(name="cross_subject", by="subject", train=numbers(train), test=numbers(others), note=note)


def find_names(raw: Path, num_actions: int, expected: str) -> list[Path]:
    """The usable `.skeleton` files of the first `num_actions` actions below `raw`, sorted.

    Clips on the authors' list of missing or incomplete skeletons are left out, and counted in the log.

    Raises:
        InputError: there is none, or two files have the same name.
    """
    files = find_raw(raw, rf"(^|/){NAME}\.skeleton$", expected)
    files = [f for f in files if 1 <= int(f.stem[-3:]) <= num_actions]
    usable = sorted((f for f in files if f.stem not in MISSING), key=lambda f: f.stem)
    if not usable:
        raise InputError(f"Raw folder '{raw}' holds none of the expected files; it must hold {expected}.")
    for a, b in zip(usable, usable[1:], strict=False):
        if a.stem == b.stem:
            raise InputError(f"Raw folder '{raw}' holds '{a.name}' twice ('{a}', '{b}'); remove one of them.")
    if left_out := len(files) - len(usable):
        logger.info(
            "%d of %d files are on the authors' list of missing or incomplete skeletons and are left out.",
            left_out,
            len(files),
        )
    return usable


def read_clip(path: Path, dataset: str, num_actions: int) -> Motion:
    """One file as a `Motion` of one or two persons, float32 [M, T, 25, 3], metres, in the camera's frame.

    Raises:
        InputError: the name is not SsssCcccPpppRrrrAaaa, the action is not of this dataset, the file cannot
            be parsed, or holds no body (the message says if the clip is a listed one).
    """
    identity = parse_path(path, rf"(?P<sample_id>{NAME})\.skeleton$", "S001C001P001R001A001.skeleton")
    action = int(identity["action"])
    if not 1 <= action <= num_actions:
        raise InputError(
            f"File '{path}' is of action A{action:03d}; dataset '{dataset}' has A001 to A{num_actions:03d}."
        )
    try:
        positions = read_ntu_skeleton(path)
    except InputError as e:
        if identity["sample_id"] not in MISSING:
            raise
        raise InputError(
            f"{str(e).rstrip('.')}; it is on the authors' list of missing or incomplete skeletons."
        ) from None
    return Motion(
        positions=positions,
        fps=FPS,
        skeleton="kinect25",
        label=action - 1,
        label_name=CLASS_NAMES[action - 1],
        sample_id=identity["sample_id"],
        dataset=dataset,
        subject=identity["subject"],
        view=identity["view"],
        repetition=identity["repetition"],
    )
