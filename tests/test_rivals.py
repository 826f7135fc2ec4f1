"""The cheap rivals do what their name says: blends lie between their parents, features around their class."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from motionsynth.motion import MotionSet, canonical, present, repair_jumps, resample
from motionsynth.rivals import calibrated_features, interpolate_clips, lend_differences, refit_head
from tests.tiny_pairs import make_pair_set


def seen(motions: MotionSet, sample_id: str) -> np.ndarray:
    clip = next(m for m in motions.motions if m.sample_id == sample_id)
    return canonical(repair_jumps(clip.positions, clip.fps), motions.skeleton)


def one_view_of(motions: MotionSet) -> MotionSet:
    return motions.select(i for i, m in enumerate(motions.motions) if m.view == "01")


def test_a_blend_lies_between_its_parents(tiny_set: MotionSet) -> None:
    """On the line from the named parent to some other clip of the class, by 30 to 70 %."""
    one_view = one_view_of(tiny_set)  # the canonical forms of two views of a take are equal
    clips = interpolate_clips(one_view, {0: 6, 2: 4}, seed=3)
    assert [m.label for m in clips] == [0] * 6 + [2] * 4
    weights = []
    for clip in clips:
        x = seen(tiny_set, str(clip.parent_id))
        step = clip.positions - x
        assert clip.positions.shape == x.shape
        best = np.inf
        for other in (m for m in one_view.motions if m.label == clip.label and m.sample_id != clip.parent_id):
            whole = resample(seen(tiny_set, other.sample_id), clip.num_frames) - x
            w = float((step * whole).sum() / np.square(whole).sum())
            if (miss := float(np.abs(step - w * whole).max())) < best:
                best, weight = miss, w
        assert best < 1e-4
        weights.append(weight)
    assert min(weights) >= 0.3 - 1e-3 and max(weights) <= 0.7 + 1e-3 and np.std(weights) > 0.01


def test_a_lent_difference_is_that_of_two_common_clips(tiny_set: MotionSet) -> None:
    """In bone directions, before they are made of length 1 again, hence on the plane through parent and difference."""
    clips = lend_differences(tiny_set, (1,), {1: 6}, seed=3)
    assert {(m.label, m.generator, m.source, m.subject) for m in clips} == {
        (1, "difference", "synthetic", "")
    }
    child, parent = np.array(tiny_set.skeleton.bones).T
    unit = lambda x: (d := x[:, :, child] - x[:, :, parent]) / np.linalg.norm(d, axis=-1, keepdims=True)  # noqa: E731
    whole = {m.sample_id: unit(resample(seen(tiny_set, m.sample_id), 64)) for m in tiny_set.motions}
    common = [m for m in tiny_set.motions if m.label != 1]
    for clip in clips:
        start = next(m for m in tiny_set.motions if m.sample_id == clip.parent_id)
        assert start.label == 1 and start.num_frames == clip.num_frames
        new, old = unit(resample(clip.positions, 64)), whole[start.sample_id]
        fits = []
        for a in common:
            for b in common:
                if a.label == b.label and a is not b:
                    step = whole[a.sample_id] - whole[b.sample_id]
                    fits += [
                        float(
                            np.abs(
                                (d := old + u * step) / np.linalg.norm(d, axis=-1, keepdims=True) - new
                            ).max()
                        )
                        for u in np.linspace(0.05, 1, 20)
                    ]
        assert min(fits) < 0.12 and np.abs(new - old).max() > 1e-3
    again, other = (lend_differences(tiny_set, (1,), {1: 6}, seed=s) for s in (3, 4))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(clips, again, strict=True))
    assert any(a.parent_id != b.parent_id for a, b in zip(clips, other, strict=True))


def test_identity_of_a_blend(tiny_set: MotionSet) -> None:
    clips = interpolate_clips(tiny_set, {1: 5}, seed=0)
    assert len({m.sample_id for m in clips}) == 5
    assert {(m.source, m.generator, m.subject, m.view, m.label_name) for m in clips} == {
        ("synthetic", "interpolation", "", "", "wave left hand")
    }
    parents = {m.sample_id: m.label for m in tiny_set.motions}
    assert all(parents[str(m.parent_id)] == 1 for m in clips)
    again, other = (interpolate_clips(tiny_set, {1: 5}, seed=s) for s in (0, 1))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(clips, again, strict=True))
    assert [m.parent_id for m in clips] != [m.parent_id for m in other]


def test_a_class_without_a_pair_is_left_out(tiny_set: MotionSet) -> None:
    one = tiny_set.select([0, *np.flatnonzero(tiny_set.labels == 1)])
    assert Counter(m.label for m in interpolate_clips(one, {0: 3, 1: 3, 2: 3}, seed=0)) == {1: 3}


def test_absent_persons_stay_absent_and_do_not_shrink_the_others() -> None:
    pairs = make_pair_set()
    # The second person of half of the clips leaves after ten frames.
    motions = []
    for i, m in enumerate(pairs.motions):
        p = m.positions.copy()
        if m.label == 0 and i % 2:
            p[1, 10:] = 0
        motions.append(replace(m, positions=p))
    left = replace(pairs, motions=tuple(motions))
    blends = interpolate_clips(left, {0: 20, 2: 6}, seed=1)
    neck, torso = pairs.skeleton.index("neck"), pairs.skeleton.index("torso")
    for m in blends:
        there = present(m.positions)
        assert there[0].all()
        if m.label == 2:
            assert not there[1:].any()
        spine = np.linalg.norm(m.positions[:, :, neck] - m.positions[:, :, torso], axis=-1)[there]
        assert spine.min() > 0.3


def gaussian_classes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    spread = np.array([3.0, 1.0, 0.2, 0.1])
    centres = np.array([[0, 0, 0, 0], [2, 0, 0, 0], [40, 40, 0, 0], [0.5, 1, 0, 0]])
    sizes = (300, 300, 300, 4)
    x = np.concatenate(
        [c + rng.standard_normal((n, 4)) * spread for c, n in zip(centres, sizes, strict=True)]
    )
    return x.astype(np.float32), np.repeat(np.arange(4), sizes)


def test_calibrated_features_have_the_class_mean_and_the_common_spread() -> None:
    x, y = gaussian_classes()
    made, labels = calibrated_features(x, y, (3,), 4000, seed=0)
    assert made.shape == (4000, 4) and made.dtype == np.float32 and (labels == 3).all()
    np.testing.assert_allclose(made.mean(0), x[y == 3].mean(0), atol=0.15)
    # Four clips know nothing of a spread; the two nearest common classes lend theirs.
    common = np.mean([np.cov(x[y == c].T) for c in (0, 1)], 0)
    own = np.cov(x[y == 3].T)
    np.testing.assert_allclose(np.cov(made.T), (2 * common + own) / 3, atol=0.5)


def test_calibration_copes_without_common_classes_and_without_clips() -> None:
    x, y = gaussian_classes()
    made, labels = calibrated_features(x, y, (0, 1, 2, 3), 50, seed=0)
    assert Counter(labels.tolist()) == dict.fromkeys(range(4), 50) and np.isfinite(made).all()
    one = np.flatnonzero((y != 3) | (np.arange(len(y)) == len(y) - 1))
    assert np.isfinite(calibrated_features(x[one], y[one], (3,), 20, seed=0)[0]).all()
    none, empty = calibrated_features(x[y != 3], y[y != 3], (3,), 20, seed=0)
    assert none.shape == (0, 4) and empty.shape == (0,)


def test_calibration_follows_its_seed() -> None:
    x, y = gaussian_classes()
    a, b, c = (calibrated_features(x, y, (3,), 10, seed=s)[0] for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_the_head_learns_classes_it_was_blind_to() -> None:
    x, y = gaussian_classes()
    torch.manual_seed(0)
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.bias[2] -= 100  # never says class 2
    refit_head(head, x / 10, y, steps=300, batch=64, seed=0, smoothing=0.0)
    before = head.bias[2].item()
    assert before > -100
    again = nn.Linear(4, 4)
    torch.manual_seed(0)
    refit_head(again, x / 10, y, steps=400, batch=64, seed=0, smoothing=0.0)
    said = again(torch.from_numpy(x / 10)).argmax(1).numpy()
    assert (said[y == 2] == 2).mean() > 0.95


@pytest.mark.parametrize("low", [0.1, 0.5])
def test_low_bounds_the_weight(tiny_set: MotionSet, low: float) -> None:
    pair = one_view_of(tiny_set).select((4, 5))
    clips = interpolate_clips(pair, {1: 8}, seed=0, low=low)
    by_parent = {m.sample_id: seen(pair, m.sample_id) for m in pair.motions}
    for m in clips:
        x = by_parent[str(m.parent_id)]
        (other,) = (k for k in by_parent if k != m.parent_id)
        whole = resample(by_parent[other], m.num_frames) - x
        w = float(((m.positions - x) * whole).sum() / np.square(whole).sum())
        assert low - 1e-3 <= w <= 1 - low + 1e-3
