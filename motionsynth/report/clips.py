"""The clips that the player of a report shows: drawn by seed, packed small."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np

from motionsynth.motion import Motion, MotionSet, present, resample
from motionsynth.report.motions import Nearest, nearest_training_clips
from motionsynth.report.run import Run
from motionsynth.skeleton import Skeleton
from motionsynth.stick_figure import StickFigure, level, side_of

FRAMES_PER_SECOND = 15.0
"""Highest rate at which a clip is packed; the player interpolates."""
MOST_FRAMES, FEWEST_FRAMES = 90, 24
MOST_PER_CLASS = 4
"""Clips of a class and generator."""
BUDGET = 1_100_000
"""Characters of base64 for all clips together."""


def player_data(run: Run) -> dict[str, Any]:
    """What `assets/player.js` reads.

    Returns:
        `skeleton` (bones, hands and feet, head), `classes` (name, and indices of real and synthetic clips) and `clips`:
        int16 [persons, frames, joints, 3] as base64, times `scale` in metres, y up, floor at 0; a synthetic one names
        its nearest training clip.
    """
    skeleton = run.sets[0].bed.train.skeleton
    shown = {g: dict(run.shown(g)) for g in run.makers}
    labels = sorted(set().union(*shown.values()))
    persons = max(s.bed.train.num_persons for s in run.sets)
    labels, count, frames = _afford(labels, len(shown), persons * skeleton.num_joints)
    clips: list[dict[str, Any]] = []
    packed: dict[str, int] = {}

    def add(motion: Motion, title: str, generator: str = "") -> int:
        # A generator's clips of two beds may have equal names.
        key = f"{generator}/{motion.sample_id}" if generator else motion.sample_id
        if key not in packed:
            packed[key] = len(clips)
            clips.append({"title": title, "generator": generator, **_pack(motion, skeleton, frames)})
        return packed[key]

    classes = []
    for label in labels:
        entry: dict[str, Any] = {"label": label, "name": run.class_names[label], "real": [], "synthetic": []}
        for generator, sets in shown.items():
            if label not in sets:
                continue
            made = sets[label]
            near = nearest_training_clips(made, label)
            train = made.bed.train
            rng = np.random.default_rng([run.seed, label])
            for row in _draw(rng, len(near.clips), count):
                motion, parent = made.motions.motions[near.clips[row]], train.motions[near.parents[row]]
                at = add(motion, _made_title(motion), generator)
                clips[at] |= {
                    "nearest": add(parent, _real_title(parent)), "distance": round(float(near.distances[row]), 4)
                }  # fmt: skip
                entry["synthetic"].append(at)
            own = np.flatnonzero(train.labels == label)
            for row in _draw(rng, len(own), count):
                entry["real"].append(add(train.motions[own[row]], _real_title(train.motions[own[row]])))
            entry["real"] += [clips[at]["nearest"] for at in entry["synthetic"]]
            entry["floor"] = _median(near)
        entry["real"] = sorted(set(entry["real"]))
        classes.append(entry)
    return {"skeleton": _skeleton(run.sets[0].bed.train), "classes": classes, "clips": clips}


def _median(near: Nearest) -> float | None:
    return round(float(np.median(near.floor)), 4) if len(near.floor) else None


def _draw(rng: np.random.Generator, size: int, count: int) -> list[int]:
    return sorted(rng.permutation(size)[:count].tolist())


def _afford(labels: list[int], generators: int, width: int) -> tuple[list[int], int, int]:
    """Classes, clips per class and side, and frames per clip that fit the budget."""
    characters = width * 3 * 2 * 4 / 3
    for count in range(MOST_PER_CLASS, 0, -1):
        clips = len(labels) * count * (1 + generators)
        frames = int(BUDGET / (clips * characters))
        if frames >= (MOST_FRAMES // 2 if count > 2 else FEWEST_FRAMES):
            return labels, count, min(frames, MOST_FRAMES)
    return labels[: int(BUDGET / ((1 + generators) * FEWEST_FRAMES * characters))], 1, FEWEST_FRAMES


def _pack(motion: Motion, skeleton: Skeleton, most_frames: int) -> dict[str, Any]:
    seconds = (motion.num_frames - 1) / motion.fps
    frames = max(2, min(motion.num_frames, most_frames, 1 + round(seconds * FRAMES_PER_SECOND)))
    positions = resample(level(motion.positions, skeleton), frames)
    scale = max(float(np.abs(positions).max()), 1e-6) / 32767
    # The player knows an absent body by its zeros: nobody else may have them all.
    whole = np.round(positions / scale).astype("<i2")
    return {
        "persons": motion.num_persons,
        "frames": frames,
        "fps": round((frames - 1) / max(seconds, 1e-6), 4),
        "scale": scale,
        "data": base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode(),
    }


def _skeleton(motions: MotionSet) -> dict[str, Any]:
    s = motions.skeleton
    first = next((m for m in motions.motions if present(m.positions).any()), motions.motions[0])
    figure = StickFigure(s, level(first.positions, s))
    head = (
        [s.index("head"), s.index("head_tip" if "head_tip" in s.joints else "head")]
        if "head" in s.joints
        else None
    )
    return {
        "joints": s.num_joints,
        "root": s.root,
        "bones": [[child, parent, side_of(s.joints[child])] for child, parent in s.bones],
        "sides": [side_of(j) for j in s.joints],
        "ends": figure.limb_ends,
        "head": head,
        "headRadius": round(figure.head_radius, 4),
    }


def _real_title(motion: Motion) -> str:
    parts = (("subject", motion.subject), ("view", motion.view), ("take", motion.repetition))
    return ", ".join(f"{k} {v}" for k, v in parts if v) or motion.sample_id


def _made_title(motion: Motion) -> str:
    refused = ", refused by refine" if motion.accepted is False else ""
    numbered = re.search(r"-c\d+-(\d+)$", motion.sample_id)
    clip = f"clip {int(numbered[1])}" if numbered else motion.sample_id
    return f"{motion.generator or 'synthetic'}, {clip}{refused}"
