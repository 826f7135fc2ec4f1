"""Augmentation changes what it says and nothing else: bones, labels, absent persons, the order of time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.augment import augment, crop_times, rotation, sample_times, whole
from motionsynth.augment_config import NONE, AugmentConfig
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet, bone_lengths, mirror, mirrored_labels, resample
from motionsynth.recognition import STORED_FRAMES, to_tensors
from motionsynth.skeleton import Skeleton
from tests.tiny_pairs import make_pair_set


def view(motions: MotionSet, config: AugmentConfig, seed: int = 0, frames: int = STORED_FRAMES):
    """Clips before, clips after, labels after."""
    clips = to_tensors(motions, motions.num_persons)
    rng = torch.Generator().manual_seed(seed)
    permutation = torch.from_numpy(motions.skeleton.mirror_permutation)
    twin = torch.from_numpy(mirrored_labels(motions.class_names))
    x, y = augment(clips.x, clips.y, frames, config, rng, permutation, twin)
    return clips, x, y


def lengths(x: torch.Tensor, skeleton: Skeleton) -> np.ndarray:
    return np.stack([bone_lengths(clip, skeleton) for clip in x.numpy()])


def test_none_is_the_identity(tiny_set: MotionSet) -> None:
    clips, x, y = view(tiny_set, NONE)
    torch.testing.assert_close(x, clips.x, atol=1e-6, rtol=0)
    assert torch.equal(y, clips.y)
    torch.testing.assert_close(view(tiny_set, NONE, frames=32)[1], whole(clips.x, 32), atol=1e-6, rtol=0)


def test_rotation_is_rigid(tiny_set: MotionSet) -> None:
    clips, x, _ = view(tiny_set, replace(NONE, yaw=3.0, tilt=0.5))
    np.testing.assert_allclose(lengths(x, tiny_set.skeleton), lengths(clips.x, tiny_set.skeleton), atol=1e-5)
    assert (x - clips.x).abs().amax((1, 2, 3, 4)).min() > 0.01
    r = rotation(torch.randn(20, 3))
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).expand(20, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(20))


def test_yaw_alone_keeps_heights(tiny_set: MotionSet) -> None:
    clips, x, _ = view(tiny_set, replace(NONE, yaw=1.0))
    torch.testing.assert_close(x[..., 1], clips.x[..., 1], atol=1e-6, rtol=0)


def test_scale_is_one_per_clip_and_within_its_range(tiny_set: MotionSet) -> None:
    clips, x, _ = view(tiny_set, replace(NONE, scale=0.2))
    moved = clips.x.abs() > 0.05
    ratio = (x / clips.x)[moved]
    assert 0.8 <= ratio.min() < 0.9 and 1.1 < ratio.max() <= 1.2
    one = (x[3, ..., 1] / clips.x[3, ..., 1])[moved[3, ..., 1]]
    torch.testing.assert_close(one, one[0].expand_as(one), atol=1e-4, rtol=0)


def test_mirror_swaps_body_and_label(tiny_set: MotionSet) -> None:
    clips, x, y = view(tiny_set, replace(NONE, mirror=1.0))
    expected = mirror(clips.x.numpy(), tiny_set.skeleton)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert y.tolist() == [{0: 0, 1: 2, 2: 1}[c] for c in clips.y.tolist()]


def test_a_handed_class_without_twin_is_never_mirrored(tiny_set: MotionSet) -> None:
    alone = replace(tiny_set, class_names=("walk around", "wave left hand", "jump"))
    clips, x, y = view(alone, replace(NONE, mirror=1.0))
    assert torch.equal(y, clips.y)
    torch.testing.assert_close(x[clips.y == 1], clips.x[clips.y == 1])
    assert not torch.allclose(x[clips.y == 0], clips.x[clips.y == 0])


def test_absent_persons_stay_zero() -> None:
    pairs = make_pair_set()
    clips, x, _ = view(pairs, AugmentConfig(jitter=0.1), frames=32)
    alone = clips.y == 2
    assert (x[alone, 1] == 0).all() and (x[alone, 0] != 0).any(-1).all()
    assert (x[~alone] != 0).any(-1).all()


def test_a_person_who_comes_late_is_never_half_there(tiny_set: MotionSet) -> None:
    """Interpolating between a body and zeros would show a dwarf."""
    x = to_tensors(tiny_set, 1).x[:3].repeat(1, 2, 1, 1, 1)
    x[:, 1, :20] = 0
    shown = sample_times(x, torch.linspace(0, 63, 97).expand(3, 97))
    size, late = (
        lengths(x[:, :1], tiny_set.skeleton).min((1, 2)),
        lengths(shown[:, 1:], tiny_set.skeleton)[:, 0],
    )
    there = (shown[:, 1] != 0).any(-1).any(-1).numpy()
    assert 0 < there.mean() < 1
    assert (late[there].reshape(3, -1, late.shape[-1]) > 0.97 * size[:, None]).all()
    for ours, clip in zip(shown.numpy(), x.numpy(), strict=True):
        np.testing.assert_allclose(ours, resample(clip, 97), atol=1e-5)


@settings(max_examples=60)
@given(
    crop=st.floats(0.05, 1),
    warp=st.floats(0, 0.15),
    frames=st.integers(2, 80),
    stored=st.integers(2, 80),
    seed=st.integers(0, 2**31),
)
def test_time_never_runs_backwards(crop: float, warp: float, frames: int, stored: int, seed: int) -> None:
    config = replace(NONE, crop=crop, warp=warp)
    at = crop_times(8, stored, frames, config, torch.Generator().manual_seed(seed))
    assert (at.diff(dim=1) >= -1e-4).all()
    assert at.min() >= -1e-4 and at.max() <= stored - 1 + 1e-4
    assert (at[:, -1] - at[:, 0] >= crop * (stored - 1) - 1e-3).all()


def test_the_seed_decides(tiny_set: MotionSet) -> None:
    config = AugmentConfig()
    torch.manual_seed(1)
    first = view(tiny_set, config, seed=5)
    torch.manual_seed(2)  # the global generator has no say
    again, other = view(tiny_set, config, seed=5), view(tiny_set, config, seed=6)
    assert torch.equal(first[1], again[1]) and torch.equal(first[2], again[2])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("yaw", -0.1),
        ("yaw", 4),
        ("scale", 1),
        ("warp", 0.2),
        ("mirror", 1.5),
        ("crop", 0),
        ("jitter", math.nan),
    ],
)
def test_strengths_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"Augmentation {name} is {value}; it must lie"):
        replace(NONE, **{name: value})
