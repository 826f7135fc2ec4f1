"""Style transfer: a clip of its own class, changed as clips of one common class differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.generators import (
    Context,
    Generator,
    SampleRequest,
    build_config,
    fit_context,
    sampling_fields,
    transfer,
)
from motionsynth.generators.motion_gan import MotionGAN
from motionsynth.generators.transfer import Anchors, Body, fill_absent
from motionsynth.motion import MotionSet, canonical, resample
from motionsynth.recognition import to_tensors
from tests.tiny_generators import ready_generator
from tests.tiny_pairs import make_pair_set


def wanted(labels: list[int]) -> list[SampleRequest]:
    return [SampleRequest(sample_id=f"s{i}", label=c, seed=i) for i, c in enumerate(labels)]


def ready(motions: MotionSet, **changes: object) -> MotionGAN:
    model: Generator = ready_generator("motion_gan", motions, style_prior="transfer", **changes)  # type: ignore[arg-type]
    assert isinstance(model, MotionGAN)
    return model


def test_a_rigid_body_comes_back_from_its_parts(tiny_set: MotionSet) -> None:
    x = to_tensors(tiny_set, 1).x[:, :, :1].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(Body.split(x, tiny_set.skeleton).join(tiny_set.skeleton), x, atol=1e-5, rtol=0)


def test_joining_turns_bones_and_keeps_their_length(tiny_set: MotionSet) -> None:
    body = Body.split(to_tensors(tiny_set, 1).x, tiny_set.skeleton)
    bent = replace(body, direction=body.direction + 0.3 * torch.randn_like(body.direction))
    again = Body.split(bent.join(tiny_set.skeleton), tiny_set.skeleton)
    torch.testing.assert_close(again.length, body.length, atol=1e-5, rtol=1e-4)
    assert (again.direction - body.direction).abs().max() > 0.1


def test_an_absent_person_holds_the_nearest_pose() -> None:
    x = torch.zeros(1, 2, 6, 3, 3)
    x[0, 0, 1], x[0, 0, 4] = 1.0, 2.0
    filled = fill_absent(x)
    assert filled[0, 0, :, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert not filled[0, 1].any()  # who is never there stays away


def test_a_rare_class_borrows_from_common_ones_only(tiny_set: MotionSet) -> None:
    anchors = Anchors(fit_context(tiny_set, rare=(1,)), 16, 4)
    label = np.concatenate([np.full(len(m), c) for c, m in enumerate(anchors.members)])
    lenders = set()
    for seed in range(60):
        at, one, other = anchors.draw(1, np.random.default_rng(seed))
        assert label[at] == 1 and label[one] == label[other] and one != other
        lenders.add(int(label[one]))
    assert lenders == {0, 2}


def test_the_most_similar_common_classes_may_be_the_only_ones_that_lend(tiny_set: MotionSet) -> None:
    context = fit_context(tiny_set, rare=(1,))
    assert context.similar[1][0] == context.nearest[1] and sorted(context.similar[1]) == [0, 2]
    assert context.similar[0] == (0, 2)  # itself first, and no rare class
    near, every, one_more = (Anchors(context, 16, 4, lenders=n) for n in (1, 0, 5))
    assert near.lenders[1] == [context.nearest[1]] and every.lenders[1] == [0, 2]
    assert one_more.lenders[1] == list(context.similar[1])
    # Checkpoints from before similarity was kept are sampled as they were.
    old = Context.from_dict({k: v for k, v in context.to_dict().items() if k != "similar"})
    assert old.similar == ((), (), ()) and Anchors(old, 16, 4, lenders=1).lenders == every.lenders


@pytest.mark.parametrize("name", ["motion_gan", "part_mix", "skel_diffusion"])
def test_every_generator_that_lends_asks_who_may(tiny_set: MotionSet, name: str) -> None:
    context = fit_context(tiny_set, rare=(1,))
    for lenders in (0, 1):
        model: Any = ready_generator(name, tiny_set, (1,), lenders=lenders)
        assert model.anchors.lenders == Anchors(context, 16, 4, lenders=lenders).lenders
        assert "lenders" in sampling_fields(name)
    with pytest.raises(InputError, match="lenders"):
        build_config(name, {"lenders": -1})


def test_without_a_common_class_rare_ones_lend_and_without_pairs_nobody_does(tiny_set: MotionSet) -> None:
    rng = np.random.default_rng(0)
    assert Anchors(fit_context(tiny_set, rare=(0, 1, 2)), 16, 4).lenders == [[0, 1, 2]] * 3
    singles = tiny_set.select([int(np.flatnonzero(tiny_set.labels == c)[0]) for c in range(3)])
    lonely = Anchors(fit_context(singles), 16, 4)
    assert lonely.draw(2, rng) == (2, 2, 2)


def test_a_class_without_clips_is_refused(tiny_set: MotionSet) -> None:
    gone = tiny_set.select(np.flatnonzero(tiny_set.labels != 1))
    with pytest.raises(InputError, match="'wave left hand' has no training clip"):
        ready(gone).sample(wanted([0, 1]))


def test_nothing_transferred_leaves_the_real_clip(tiny_set: MotionSet) -> None:
    """Bones of these clips are rigid, so that the clip is rebuilt exactly, but for resampling twice."""
    real = {m.sample_id: m for m in tiny_set.motions}
    for clip in ready(tiny_set, truncation=0.0).sample(wanted([0, 1, 2] * 4)):
        parent = real[clip.parent_id or ""]
        assert (parent.label, parent.num_frames) == (clip.label, clip.num_frames)
        theirs = canonical(parent.positions, tiny_set.skeleton)
        theirs = resample(resample(theirs, 64), parent.num_frames)
        assert np.abs(clip.positions - theirs).max() < 0.03


def test_what_is_transferred_changes_the_clip(tiny_set: MotionSet) -> None:
    still, moved = (ready(tiny_set, truncation=t).sample(wanted([0, 1, 2])) for t in (0.0, 2.0))
    for a, b in zip(still, moved, strict=True):
        assert a.parent_id == b.parent_id and np.abs(a.positions - b.positions).max() > 1e-4


def test_a_class_is_not_changed_further_than_its_own_clips_differ(tiny_set: MotionSet) -> None:
    """Clips of a quiet class that borrow from lively ones stay within the quiet one's spread."""
    quiet = [m for m in tiny_set.motions if m.label == 1]
    centre = quiet[0].positions
    still = tuple(
        replace(m, positions=(centre + 0.02 * (m.positions - centre)).astype(np.float32))
        if m.label == 1 and m.positions.shape == centre.shape
        else m
        for m in tiny_set.motions
    )
    few = [i for i, m in enumerate(still) if m.label != 1 or m.positions.shape == centre.shape]
    motions = replace(tiny_set, motions=still).select(few)
    model = ready(motions, rare=(1,))
    anchors = model.anchors
    assert len(anchors.members[1]) > 1
    own, lent = float(anchors.spread[1]), [float(anchors.spread[c]) for c in anchors.lenders[1]]
    assert own < 0.2 * min(lent)
    for seed in range(20):
        _, one, other = anchors.draw(1, np.random.default_rng(seed))
        distance = float(anchors.apart[one, anchors.place[other]])
        # The canonical forms of two views of a take are all but equal: nothing to scale down.
        assert anchors.reach(1, one, other) * distance == pytest.approx(min(own, distance), rel=1e-4)
    real = {m.sample_id: m for m in motions.motions}
    for clip in model.sample(wanted([1] * 8)):
        parent = resample(canonical(real[clip.parent_id or ""].positions, motions.skeleton), 64)
        assert np.linalg.norm(resample(clip.positions, 64) - parent) < 3 * own


def test_two_persons_keep_their_places() -> None:
    pairs = make_pair_set()
    real = {m.sample_id: m for m in pairs.motions}
    for clip in ready(pairs, truncation=0.0).sample(wanted([0, 1])):
        theirs = resample(canonical(real[clip.parent_id or ""].positions, pairs.skeleton), clip.num_frames)
        root = pairs.skeleton.root
        assert np.abs(clip.positions[:, :, root] - theirs[:, :, root]).max() < 0.05


def test_a_large_class_keeps_evenly_spread_anchors(
    tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PER_CLASS", 3)
    model = ready(tiny_set)
    assert [len(m) for m in model.anchors.members] == [3, 3, 3]
    first = [m.sample_id for m in tiny_set.motions if m.label == 1]
    assert model.anchors.ids[3:6] == [first[0], first[round((len(first) - 1) / 2)], first[-1]]
    monkeypatch.undo()
    every = ready(tiny_set).anchors
    where = [every.ids.index(i) for i in model.anchors.ids]
    torch.testing.assert_close(model.anchors.styles, every.styles[where])
    torch.testing.assert_close(model.anchors.direction, every.direction[where])


def test_who_is_absent_lends_nothing() -> None:
    anchors = ready(make_pair_set()).anchors
    alone = anchors.members[2]  # "stand alone"
    assert anchors.direction[alone, 0].abs().max() > 0.01
    assert not anchors.direction[alone, 1].any() and not anchors.root[alone, 1].any()
