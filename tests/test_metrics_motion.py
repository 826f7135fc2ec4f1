"""Smoothness, energy, physics and bone lengths on motions whose answer is known, and on real people."""

import math
from dataclasses import replace

import numpy as np
import pytest

from motionsynth.datasets import get_dataset
from motionsynth.errors import InputError
from motionsynth.limits import fit_limits
from motionsynth.metrics import (
    bone_length_variation,
    clip_vectors,
    consistency_beside_real,
    consistency_scale,
    frozen,
    mean_speed,
    memorisation,
    motion_energy_ratio,
    physics_violations,
    temporal_consistency,
    time_shuffled,
    violations_beside_real,
)
from motionsynth.motion import MotionSet, rotate_y
from motionsynth.skeleton import get_skeleton


def single(tiny_set: MotionSet, positions: np.ndarray, fps: float = 30.0) -> MotionSet:
    motion = replace(tiny_set.motions[0], positions=positions.astype(np.float32), fps=fps)
    return replace(tiny_set, motions=(motion,))


def accelerating(tiny_set: MotionSet, acceleration: float, frames: int = 12, fps: float = 30.0) -> MotionSet:
    """A still body that slides with a constant acceleration along x."""
    p = np.repeat(tiny_set.motions[0].positions[:, :1], frames, axis=1).astype(np.float64)
    p[..., 0] += (0.5 * acceleration * (np.arange(frames) / fps) ** 2)[:, None]
    return single(tiny_set, p, fps)


def test_consistency_of_constant_acceleration_has_its_closed_form(tiny_set):
    """v_t+1 - v_t = a / fps for every joint: TCS = exp(-(a / fps)^2 / sigma^2)."""
    clip = accelerating(tiny_set, 60.0)
    assert temporal_consistency(clip, 4.0)[0] == pytest.approx(math.exp(-1.0), rel=1e-3)
    assert consistency_scale(clip) == pytest.approx(4.0, rel=1e-2)


def test_the_published_form_divides_ten_terms_by_twelve_frames(tiny_set):
    clip = accelerating(tiny_set, 60.0)
    ratio = temporal_consistency(clip, 4.0, mode="published")[0] / temporal_consistency(clip, 4.0)[0]
    assert ratio == pytest.approx(10 / 12)


def test_a_frozen_clip_scores_the_maximum_and_only_the_energy_ratio_tells(tiny_set):
    report = consistency_beside_real(tiny_set, frozen(tiny_set))
    assert report.tcs == 1.0 and report.tcs > report.tcs_real
    assert report.energy_ratio == 0.0
    itself = consistency_beside_real(tiny_set, tiny_set)
    assert itself.gap == 0 and itself.energy_ratio == pytest.approx(1.0)


def test_shuffled_frames_score_far_below_real(tiny_set):
    report = consistency_beside_real(tiny_set, time_shuffled(tiny_set))
    assert report.tcs < 0.1 * report.tcs_real and report.energy_ratio > 2


def test_absent_frames_and_persons_do_not_change_consistency(tiny_set):
    p = accelerating(tiny_set, 60.0).motions[0].positions
    two = np.concatenate([p, np.zeros_like(p)])
    late = np.concatenate([np.zeros_like(p[:, :6]), p], axis=1)
    for positions in (two, late):
        assert temporal_consistency(single(tiny_set, positions), 4.0)[0] == pytest.approx(
            math.exp(-1.0), rel=1e-3
        )
    assert math.isnan(temporal_consistency(single(tiny_set, p[:, :2]), 4.0)[0])


def test_mean_speed_and_energy_ratio(tiny_set):
    p = np.repeat(tiny_set.motions[0].positions[:, :1], 31, axis=1).astype(np.float64)
    p[..., 2] += np.linspace(0, 2, 31)[:, None]
    slide = single(tiny_set, p)
    assert mean_speed(slide)[0] == pytest.approx(2.0, rel=1e-3)
    half = single(tiny_set, p, fps=15.0)
    assert motion_energy_ratio(half, slide) == pytest.approx(0.5, rel=1e-3)
    absent = single(tiny_set, np.concatenate([p, np.zeros_like(p)]))
    assert mean_speed(absent)[0] == pytest.approx(2.0, rel=1e-3)


def test_violations_count_frames_joints_and_persons(tiny_set):
    limits = fit_limits(tiny_set)
    assert physics_violations(tiny_set, limits)[:, 0].max() < 0.15
    p = np.repeat(tiny_set.motions[0].positions[:, :1], 11, axis=1).copy()
    p[:, 5:, :, 0] += 5.0
    frames, angles, speeds = physics_violations(single(tiny_set, p), limits)[0]
    assert frames == pytest.approx(1 / 11) and angles == 0 and speeds == pytest.approx(1 / 10)
    two = np.concatenate([p, np.zeros_like(p)])
    assert np.allclose(physics_violations(single(tiny_set, two), limits)[0], [frames, angles, speeds])
    steady = np.concatenate([p, np.repeat(p[:, :1], 11, axis=1) + np.array([0, 0, 2], np.float32)])
    assert np.allclose(physics_violations(single(tiny_set, steady), limits)[0], [frames, 0, speeds / 2])


def test_bone_variation_is_the_coefficient_of_variation(tiny_set):
    assert bone_length_variation(tiny_set).max() < 1e-3
    p = np.repeat(tiny_set.motions[0].positions[:, :1], 40, axis=1).astype(np.float64)
    breathing = 1 + 0.1 * np.sin(2 * np.pi * np.arange(40) / 40)
    p = p * breathing[:, None, None]
    assert bone_length_variation(single(tiny_set, p))[0] == pytest.approx(0.1 / math.sqrt(2), rel=1e-3)
    two = np.concatenate([p, np.zeros_like(p)])
    assert bone_length_variation(single(tiny_set, two))[0] == pytest.approx(0.1 / math.sqrt(2), rel=1e-3)


def test_clip_vectors_measure_root_mean_square_metres(tiny_set):
    p = tiny_set.motions[0].positions
    shifted = p.copy()
    shifted[:, 1:, :, 1] += 0.3
    t = p.shape[1]
    a, b = (clip_vectors(single(tiny_set, x), frames=t) for x in (p, shifted))
    assert np.linalg.norm(a - b) == pytest.approx(0.3 * math.sqrt(1 - 1 / t), rel=1e-3)
    turned = clip_vectors(single(tiny_set, rotate_y(p, 1.0) + np.array([3, 0, 1], np.float32)), frames=t)
    assert np.allclose(a, turned, atol=1e-4)


def test_a_view_of_a_training_clip_counts_as_memorised(tiny_set):
    """Both views of a take are one motion after alignment: training on view 1, view 2 is a copy."""
    first = [i for i, m in enumerate(tiny_set.motions) if m.view == "01"]
    second = [i for i, m in enumerate(tiny_set.motions) if m.view == "02"]
    report = memorisation(clip_vectors(tiny_set.select(second)), clip_vectors(tiny_set.select(first)))
    assert report.share == 1.0 and report.median < 1e-3 < report.median_real


def test_bad_input_is_one_sentence(tiny_set):
    with pytest.raises(InputError, match="no clip of three frames"):
        consistency_scale(replace(tiny_set, motions=()))
    with pytest.raises(InputError, match="Known: mean, published"):
        temporal_consistency(tiny_set, 1.0, mode="sum")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="24 real and 0 synthetic"):
        violations_beside_real(tiny_set, replace(tiny_set, motions=()), fit_limits(tiny_set))


def test_real_people_beside_broken_copies_of_themselves(shared_data):
    """Each metric must separate real N-UCLA clips from frozen, shuffled and noisy ones."""
    nucla = get_dataset("nucla")
    clips = [nucla.read(f) for f in nucla.find(shared_data / "nucla")[::12]]
    clips = tuple(c for c in clips if c.num_frames >= 3)
    real = MotionSet(
        dataset="nucla", skeleton=get_skeleton(nucla.skeleton), class_names=nucla.class_names, motions=clips
    )
    rng = np.random.default_rng(0)
    noisy = replace(
        real,
        motions=tuple(
            replace(c, positions=c.positions + rng.normal(0, 0.05, c.positions.shape).astype(np.float32))
            for c in clips
        ),
    )
    limits = fit_limits(real)
    v = violations_beside_real(real, noisy, limits)
    assert v.bone_variation > 1.5 * v.bone_variation_real > 0.02
    assert v.angles > v.angles_real and v.frames_real < 0.25
    assert consistency_beside_real(real, noisy).tcs < 0.5 * consistency_beside_real(real, noisy).tcs_real
    assert 0.25 < consistency_beside_real(real, real).tcs_real < 0.75
    assert consistency_beside_real(real, frozen(real)).energy_ratio == 0
