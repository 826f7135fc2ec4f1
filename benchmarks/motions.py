"""Clips to measure with: the bundled sample, and random bodies of any shape."""

from __future__ import annotations

import numpy as np

from motionsynth.datasets import SAMPLE
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import get_skeleton
from storage import Storage
from storage.dataset import read_dataset


def bundled_sample(every: int = 1) -> MotionSet:
    """The sample that comes with the package, or every n-th clip of it."""
    motions, _ = read_dataset(Storage(SAMPLE), "")
    return motions.select(range(0, len(motions), every))


def random_bodies(skeleton: str, persons: int, frames: int, classes: int = 10, clips: int = 100) -> MotionSet:
    """Bodies whose joints sway about random places: right in shape and size, meaningless as motions."""
    definition = get_skeleton(skeleton)
    rng = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(classes))
    places = np.zeros((definition.num_joints, 3))
    for child, parent in definition.bones:
        away = rng.standard_normal(3)
        places[child] = places[parent] + 0.25 * away / np.linalg.norm(away)
    time = np.linspace(0, 2 * np.pi, frames)[:, None, None]
    motions = []
    for i in range(clips):
        phase = rng.uniform(0, 2 * np.pi, (persons, 1, definition.num_joints, 3))
        beside = np.arange(persons)[:, None, None, None] * np.array([0.8, 0, 0])
        body = places + beside + 0.05 * np.sin(time + phase)
        motions.append(
            Motion(
                positions=body.astype(np.float32),
                fps=30.0,
                skeleton=skeleton,
                label=i % classes,
                label_name=names[i % classes],
                sample_id=f"body-{i:05d}",
                dataset="random",
                subject=f"s{i % 4}",
            )
        )
    return MotionSet(dataset="random", skeleton=definition, class_names=names, motions=tuple(motions))
