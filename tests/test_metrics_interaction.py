"""Closest approach on bodies placed by hand, and a report that notices wrong places and headings only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.metrics_interaction import closest_approach, interaction_beside_real, wasserstein
from motionsynth.motion import Motion, MotionSet, rotate_y
from tests.tiny_pairs import make_pair_set

PAIRS = make_pair_set()
STANDING = PAIRS.motions[-1].positions[:1, :1]


def facing_pair(distance: float, turn: float, frames: int = 6, approach: float = 0.0) -> Motion:
    """Person 1 stands `distance` in front of person 0, turned by `turn`, and is nearer by `approach` in frame 3."""
    first = np.repeat(STANDING, frames, 1)
    second = rotate_y(first, turn) + np.array([0, 0, distance], np.float32)
    second[:, 3, :, 2] -= approach
    return replace(PAIRS.motions[0], positions=np.concatenate([first, second]).astype(np.float32))


@pytest.mark.parametrize("turn", [0.0, np.pi / 2, np.pi])
def test_places_and_headings_are_read_off(turn: float) -> None:
    found = closest_approach(facing_pair(1.5, turn, approach=0.3), PAIRS.skeleton)
    assert found is not None and found.frame == 3
    # The body's root lies 1 cm off the axis that it is turned about.
    assert found.distance == pytest.approx(1.2, abs=0.03) and 0 < found.gap <= 1.2
    assert found.facing == pytest.approx(turn, abs=1e-3) and found.bearing == pytest.approx(0, abs=0.03)


def test_who_stands_behind_has_a_bearing_of_pi() -> None:
    found = closest_approach(facing_pair(-1.0, 0.0), PAIRS.skeleton)
    assert found is not None and found.bearing == pytest.approx(np.pi, abs=1e-3)


def test_a_clip_of_one_person_has_no_approach() -> None:
    alone = facing_pair(1.0, 0.0)
    assert closest_approach(replace(alone, positions=alone.positions[:1]), PAIRS.skeleton) is None
    never = alone.positions.copy()
    never[0, :3], never[1, 3:] = 0, 0
    assert closest_approach(replace(alone, positions=never), PAIRS.skeleton) is None


def scene(offset: float, turn: float, seed: int) -> MotionSet:
    rng = np.random.default_rng(seed)
    clips = [facing_pair(1.0 + offset + 0.1 * rng.standard_normal(), np.pi + turn) for _ in range(40)]
    return replace(PAIRS, motions=tuple(replace(m, sample_id=str(i)) for i, m in enumerate(clips)))


def test_the_report_names_what_is_wrong() -> None:
    real = scene(0, 0, 0)
    same = interaction_beside_real(real, scene(0, 0, 1))
    apart = interaction_beside_real(real, scene(0.5, 0, 1))
    turned = interaction_beside_real(real, scene(0, 0.8, 1))
    assert same.clips == same.real_clips == 40
    assert same.distance < 3 * same.distance_floor and same.facing < 0.01
    assert apart.distance == pytest.approx(0.5, abs=0.1) and apart.facing < 0.01
    assert turned.facing == pytest.approx(0.8, abs=0.05) and turned.distance < 3 * turned.distance_floor


def test_single_persons_cannot_interact(tiny_set: MotionSet) -> None:
    with pytest.raises(InputError, match="two persons together"):
        interaction_beside_real(tiny_set, tiny_set)


def test_wasserstein_on_a_line() -> None:
    assert wasserstein([0, 1, 2], [5, 3, 4]) == pytest.approx(3)
    assert wasserstein([0, 0, 0, 4], [0, 4]) == pytest.approx(1)
    assert wasserstein([1.0], [1.0, 2.0, 3.0]) == pytest.approx(1)
    with pytest.raises(InputError, match="at least 1"):
        wasserstein([], [1.0])
