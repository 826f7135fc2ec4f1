"""The contract of every registered generator; a new one is tested the day it is registered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.generators import (
    GENERATORS,
    Batch,
    Generator,
    SampleRequest,
    build_config,
    build_generator,
    fit_context,
    load_generator,
)
from motionsynth.generators.base import Context, rigid_resample
from motionsynth.motion import (
    Motion,
    MotionSet,
    bone_lengths,
    invalid_reason,
    present,
    resample,
    right_axis,
)
from motionsynth.training import Sampler, Trainer, fit
from motionsynth.training_config import TrainingConfig
from storage import Storage
from storage.checkpoints import load_checkpoint, save_checkpoint
from tests.tiny_generators import ready_generator, small_config, small_generator
from tests.tiny_pairs import make_pair_set

ALL = pytest.mark.parametrize("name", sorted(GENERATORS))
# The published Kinetic-GAN places joints one by one, and makes one person.
BODIES = pytest.mark.parametrize("name", sorted(set(GENERATORS) - {"kinetic_gan_published"}))


def requests(labels: Iterable[int], seed: int = 100) -> list[SampleRequest]:
    return [SampleRequest(sample_id=f"s{i}", label=c, seed=seed + i) for i, c in enumerate(labels)]


def batch_of(generator: Generator, motions: MotionSet, size: int = 24) -> Batch:
    config = TrainingConfig(steps=1, batch=size)
    return Sampler(motions, generator.context, config, generator.frames, seed=0).batch(0, 1, 0, 1)


def lengths(motions: MotionSet, label: int) -> set[int]:
    return {m.num_frames for m in motions.motions if m.label == label}


@ALL
def test_samples_are_the_clips_that_were_asked_for(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    wanted = requests([2, 0, 1, 1, 0, 2, 2])
    clips = generator.sample(wanted)
    assert [(m.sample_id, m.label, m.seed) for m in clips] == [(r.sample_id, r.label, r.seed) for r in wanted]
    for m in clips:
        assert m.label_name == tiny_set.class_names[m.label] and m.num_frames in lengths(tiny_set, m.label)
        assert (m.source, m.generator, m.skeleton, m.dataset, m.fps) == (
            "synthetic",
            name,
            "kinect20",
            "tiny",
            30,
        )
        assert m.positions.shape[0] == 1 and m.positions.shape[2:] == (20, 3)
        assert np.isfinite(m.positions).all() and present(m.positions).all()


@ALL
def test_no_request_no_sample(name: str, tiny_set: MotionSet) -> None:
    assert ready_generator(name, tiny_set).sample([]) == []


@ALL
def test_clip_lengths_are_drawn_from_all_of_the_class(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    for label in range(3):
        drawn = {m.num_frames for m in generator.sample(requests([label] * 40))}
        assert drawn == lengths(tiny_set, label)


@ALL
def test_a_sample_does_not_depend_on_its_batch(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    wanted = requests([0, 1, 2, 2, 1, 0])
    together = {m.sample_id: m.positions for m in generator.sample(wanted)}
    for order in (wanted[::-1], wanted[2:4], wanted[5:]):
        torch.manual_seed(len(order))  # the global generator has no say
        for m in generator.sample(order):
            np.testing.assert_allclose(m.positions, together[m.sample_id], atol=2e-4)  # other sums, metres


@ALL
def test_the_seed_decides_the_sample(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    a, b, c = (generator.sample(requests([1, 1], seed=s)) for s in (3, 3, 50))
    assert all(np.array_equal(x.positions, y.positions) for x, y in zip(a, b, strict=True))
    for x, y in (a, (a[0], c[0])):
        assert x.positions.shape != y.positions.shape or np.abs(x.positions - y.positions).max() > 1e-4


@ALL
def test_large_and_negative_seeds_are_seeds(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    clips = [generator.sample(requests([0], seed=s))[0] for s in (2**63 + 5, 5, -1)]
    assert [m.seed for m in clips] == [2**63 + 5, 5, -1]
    assert not np.array_equal(clips[0].positions[:, :20], clips[1].positions[:, :20])


@ALL
def test_labels_decide_the_sample(name: str, tiny_set: MotionSet) -> None:
    generator = ready_generator(name, tiny_set)
    shortest = min(m.num_frames for m in tiny_set.motions)
    clips = [generator.sample(requests([c], seed=9))[0].positions[:, :shortest] for c in range(3)]
    assert np.abs(clips[0] - clips[1]).max() > 1e-4 and np.abs(clips[1] - clips[2]).max() > 1e-4


@BODIES
def test_bones_keep_their_length_within_a_clip(name: str, tiny_set: MotionSet) -> None:
    """To 1e-4, also after the clip is brought to the length of a real one."""
    generator = ready_generator(name, tiny_set)
    child, parent = np.array(tiny_set.skeleton.bones).T
    for m in generator.sample(requests([0, 1, 2] * 3)):
        bones = np.linalg.norm(m.positions[..., child, :] - m.positions[..., parent, :], axis=-1)
        assert (np.ptp(bones, axis=1) / bones.mean(1)).max() < 1e-4


@ALL
def test_loss_terms_and_weights_have_the_same_names(name: str, tiny_set: MotionSet) -> None:
    generator = small_generator(name, tiny_set)
    batch = batch_of(generator, tiny_set, 6)
    named = set()
    for group, names in generator.terms.items():
        terms = generator.losses(batch, group)
        assert set(terms) == set(names)
        assert all(t.ndim == 0 and t.isfinite() for t in terms.values())
        named |= set(names)
    assert named == set(generator.config.loss_weights)


@ALL
@pytest.mark.parametrize("persons", [1, 2])
def test_every_term_gives_finite_gradients(name: str, persons: int, tiny_set: MotionSet) -> None:
    """Also for a batch with absent persons: norms of zeros have no gradient."""
    motions = tiny_set if persons == 1 else make_pair_set()
    generator = small_generator(name, motions)
    with torch.no_grad():
        for p in generator.parameters():
            # Gains that start at 0 shut off what lies behind them, until they have learnt something.
            p.add_(0.02 * torch.randn_like(p))
    batch = batch_of(generator, motions)
    assert persons == 1 or (batch.x[:, 1] == 0).flatten(1).all(1).any()
    groups = generator.parameter_groups(1)
    reached: set[int] = set()
    for group, names in generator.terms.items():
        for term in names:
            generator.zero_grad(set_to_none=True)
            generator.losses(batch, group)[term].backward()
            given = {id(p) for p in groups[group] if p.grad is not None and p.grad.abs().max() > 0}
            assert given, f"{group}/{term} moves nothing"
            assert all(p.grad is None or p.grad.isfinite().all() for p in generator.parameters()), term
            reached |= given
    # A bias may cancel out, as in the difference of two hinges; a layer that nothing reaches is dead.
    idle = [n for n, p in generator.named_parameters() if id(p) not in reached and not n.endswith("bias")]
    assert not idle


@ALL
def test_parameter_groups_are_disjoint_and_complete(name: str, tiny_set: MotionSet) -> None:
    generator = small_generator(name, tiny_set, rare=(1,))
    every = {id(p) for p in generator.parameters()}
    for stage in (1, 2):
        groups = generator.parameter_groups(stage)
        assert set(groups) == set(generator.terms)
        listed = [id(p) for ps in groups.values() for p in ps]
        assert len(listed) == len(set(listed)) and set(listed) <= every
        assert stage == 2 or set(listed) == every
    averaged = [id(p) for p in generator.averaged()]
    assert bool(averaged) == bool(every) and len(averaged) == len(set(averaged)) and set(averaged) <= every


@BODIES
def test_two_persons_and_absent_ones(name: str) -> None:
    pairs = make_pair_set()
    generator = ready_generator(name, pairs)
    clips = generator.sample(requests([0, 1, 2] * 4))
    assert all(invalid_reason(replace(m, fps=0.01), pairs.skeleton) is None for m in clips)
    for m in clips:
        there = present(m.positions)
        assert there[0].all()
        if m.label == 2:
            # "stand alone": half of its clips are padded to two persons; padding is not a person.
            assert not there[1:].any()
        else:
            assert m.num_persons == 2 and there.all()
            assert np.abs(m.positions[0] - m.positions[1]).max() > 1e-3


@ALL
def test_checkpoints_give_the_same_samples(name: str, tiny_set: MotionSet, tmp_path) -> None:
    generator = ready_generator(name, tiny_set, rare=(2,))
    config = {
        "generator": name,
        "generator_config": dataclasses.asdict(generator.config),
        "context": generator.context.to_dict(),
    }
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", generator.state_dict(), config)
    torch.manual_seed(77)
    loaded = load_generator(*load_checkpoint(storage, "c"))
    assert not loaded.training and loaded.config == generator.config and loaded.context == generator.context
    wanted = requests([0, 1, 2, 2])
    for ours, theirs in zip(loaded.sample(wanted), generator.sample(wanted), strict=True):
        assert np.array_equal(ours.positions, theirs.positions)


@ALL
def test_tensors_of_another_size_are_refused(name: str, tiny_set: MotionSet) -> None:
    generator = small_generator(name, tiny_set)
    config = {"generator": name, "context": generator.context.to_dict()}
    with pytest.raises(InputError, match="do not fit its config .*train again"):
        load_generator(generator.state_dict(), config | {"generator_config": {}})
    old = {k: v for k, v in generator.context.to_dict().items() if k != "clips"}
    with pytest.raises(InputError, match="another version: train again"):
        load_generator(generator.state_dict(), config | {"context": old, "generator_config": {}})
    tensors = dict(list(generator.state_dict().items())[1:])
    with pytest.raises(InputError, match="do not fit its config"):
        load_generator(tensors, config | {"generator_config": dataclasses.asdict(generator.config)})


@ALL
def test_settings_that_do_not_exist_are_named(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"Generator '{name}' has no setting \['wdth'\]. Known: .*loss_weights"
    ):
        build_config(name, {"wdth": 3})
    with pytest.raises(InputError, match="loss_weights has the names"):
        build_config(name, {"loss_weights": {"nonsense": 1.0}})


def test_unknown_generators() -> None:
    for build in (lambda: build_config("gann", {}), lambda: build_generator("gann", None, None)):  # type: ignore[arg-type]
        with pytest.raises(
            InputError, match=f"Unknown generator 'gann'. Known: {', '.join(sorted(GENERATORS))}"
        ):
            build()


def clip(motions: MotionSet, index: int, **changes) -> Motion:
    return replace(motions.motions[index], **changes)


def test_context_describes_the_training_clips(tiny_set: MotionSet) -> None:
    context = fit_context(tiny_set, rare=(2,))
    assert context.nearest[:2] == (0, 1) and context.nearest[2] in (0, 1) and context.rare == (2,)
    assert [sorted(t for t, _ in pool) for pool in context.shapes] == [
        sorted(m.num_frames for m in tiny_set.motions if m.label == c) for c in range(3)
    ]
    assert {m for pool in context.shapes for _, m in pool} == {1}
    np.testing.assert_allclose(np.linalg.norm(context.rest, axis=1), 1, atol=1e-5)
    back = Context.from_dict(json.loads(json.dumps(context.to_dict())))
    assert back == context


def test_people_who_face_each_other_start_out_so() -> None:
    """With one resting body for all, Kinetic-GAN's second person never learnt to turn round."""
    pairs = make_pair_set()
    context = fit_context(pairs)
    assert context.turned == pytest.approx((0, np.pi), abs=0.2) or context.turned == pytest.approx(
        (0, -np.pi), abs=0.2
    )
    padded = [replace(m, positions=np.stack([m.positions[0], 0 * m.positions[0]])) for m in pairs.motions]
    assert fit_context(replace(pairs, motions=tuple(padded))).turned[1] == pytest.approx(0)
    hips = [
        [c for c, _ in pairs.skeleton.bones].index(pairs.skeleton.torso[j]) for j in ("left_hip", "right_hip")
    ]
    np.testing.assert_array_equal(context.rests[0], np.float32(context.rest))
    across = context.rests[:, hips[1], 0] - context.rests[:, hips[0], 0]
    assert across[0] < -0.5 and across[1] > 0.5
    for name in sorted(set(GENERATORS) & {"kinetic_gan", "kinetic_gan_apart", "motion_gan"}):
        changes = {"style_prior": "normal"} if name == "motion_gan" else {}
        for m in ready_generator(name, pairs, **changes).sample(requests([0, 0, 1, 1])):
            one, two = (right_axis(p, pairs.skeleton).mean(0) for p in m.positions)
            assert one @ two < -0.5, name


def test_the_nearest_common_class_is_the_most_similar_one(tiny_set: MotionSet) -> None:
    """A mirrored wave has the same legs; walking swings them and moves on."""
    for rare, near in ((1, 2), (2, 1)):
        assert fit_context(tiny_set, rare=(rare,)).nearest[rare] == near
    # Without any common class there is nobody to start from.
    assert fit_context(tiny_set, rare=(0, 1, 2)).nearest == (0, 1, 2)
    gone = tiny_set.select(np.flatnonzero(tiny_set.labels != 1))
    context = fit_context(gone, rare=(1,))
    assert context.nearest == (0, 1, 2) and context.shapes[1] == ()


def test_lengths_of_mixed_frame_rates_are_durations(tiny_set: MotionSet) -> None:
    slow = tiny_set.select(range(8))
    fast = tuple(clip(tiny_set, i, fps=60.0, sample_id=f"f{i}") for i in range(4))
    context = fit_context(slow.extended(fast))
    assert context.fps == 30
    assert [t for t, _ in context.shapes[0][8:]] == [round(m.num_frames / 2) for m in fast]


@pytest.mark.parametrize("frames", [7, 24, 61])
def test_rigid_resampling_turns_bones_and_shrinks_none(frames: int) -> None:
    pairs = make_pair_set()
    for m in (pairs.motions[0], pairs.motions[12]):
        made, plain = rigid_resample(m.positions, frames, pairs.skeleton), resample(m.positions, frames)
        bones, real = (bone_lengths(p, pairs.skeleton) for p in (made, m.positions))
        np.testing.assert_allclose(bones, np.broadcast_to(real[:, :1], bones.shape), rtol=1e-4)
        assert made.dtype == np.float32 and np.abs(made - plain).max() < 0.05
        np.testing.assert_allclose(made[:, [0, -1]], m.positions[:, [0, -1]], atol=1e-5)
        np.testing.assert_allclose(
            made[:, :, pairs.skeleton.root], plain[:, :, pairs.skeleton.root], atol=1e-6
        )


def test_config_values_survive_their_json_form() -> None:
    for name in sorted(GENERATORS):
        config = small_config(name)
        assert build_config(name, json.loads(json.dumps(dataclasses.asdict(config)))) == config


@ALL
@pytest.mark.parametrize("rare", [(), (1,)])
def test_a_class_with_a_single_clip_is_trained_on_and_sampled(
    name: str, rare: tuple[int, ...], tiny_set: MotionSet
) -> None:
    lonely = next(m for m in tiny_set.motions if m.label == 1)
    motions = replace(tiny_set, motions=(lonely, *(m for m in tiny_set.motions if m.label != 1)))
    generator = small_generator(name, motions, rare)
    config = TrainingConfig(steps=3, rare_steps=2, batch=6, report_every=5)
    losses = [r.metrics for r in fit(Trainer(generator, motions, config, seed=0))]
    assert losses and all(np.isfinite(list(m.values())).all() for m in losses)
    for m in generator.eval().sample(requests([1, 1, 1])):
        assert m.label == 1 and m.num_frames == lonely.num_frames
        assert invalid_reason(m, tiny_set.skeleton, max_speed=np.inf) is None
