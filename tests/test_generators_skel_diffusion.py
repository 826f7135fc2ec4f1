"""Diffusion over clips: what it is told, where its clips come from, and that it learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from motionsynth.errors import InputError
from motionsynth.generators import SampleRequest, build_config
from motionsynth.generators.denoiser import CodeEncoder, Conditions
from motionsynth.generators.diffusion_config import SOURCES
from motionsynth.generators.skel_diffusion import SkelDiffusion
from motionsynth.motion import MotionSet
from motionsynth.training import Trainer
from motionsynth.training_config import TrainingConfig
from tests.tiny_generators import ready_generator, small_config, small_generator
from tests.tiny_pairs import make_pair_set

BOTH = pytest.mark.parametrize("name", ["skel_diffusion", "skel_diffusion_published"])


def wanted(labels: list[int]) -> list[SampleRequest]:
    return [SampleRequest(sample_id=f"s{i}", label=c, seed=i) for i, c in enumerate(labels)]


def ready(motions: MotionSet, name: str = "skel_diffusion", **changes: object) -> SkelDiffusion:
    model = ready_generator(name, motions, **changes)  # type: ignore[arg-type]
    assert isinstance(model, SkelDiffusion)
    return model


def positions(model: SkelDiffusion, labels: list[int]) -> list[np.ndarray]:
    return [m.positions for m in model.sample(wanted(labels))]


def differ(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return any(np.abs(a - b).max() > 1e-5 for a, b in zip(one, other, strict=True))


@BOTH
def test_a_code_depends_on_its_own_clip_and_on_all_of_its_frames(name: str, tiny_set: MotionSet) -> None:
    """The released encoder attends across the clips of a batch instead of across time."""
    model = ready(tiny_set, name)
    z = torch.randn(4, model.frames, model.representation.dims)
    together = model.encoder(z)
    torch.testing.assert_close(model.encoder(z[1:2]), together[1:2], atol=1e-5, rtol=1e-5)
    changed = z.clone()
    changed[1, -1] += 1
    moved = (model.encoder(changed) - together).abs().amax(1)
    assert moved[1] > 1e-4 and moved[[0, 2, 3]].max() < 1e-5


def test_ours_knows_the_order_of_frames_and_the_released_encoder_does_not(tiny_set: MotionSet) -> None:
    for name, tells in (("skel_diffusion", True), ("skel_diffusion_published", False)):
        model = ready(tiny_set, name)
        z = torch.randn(3, model.frames, model.representation.dims)
        assert bool((model.encoder(z) - model.encoder(z.flip(1))).abs().max() > 1e-3) is tells


def test_codes_have_unit_size_so_that_noise_on_them_counts(tiny_set: MotionSet) -> None:
    encoder = CodeEncoder(small_config("skel_diffusion", frames=8), 9)
    code = encoder(100 * torch.randn(5, 8, 9))
    torch.testing.assert_close(code.square().mean(1), torch.ones(5), atol=1e-3, rtol=0)


@BOTH
def test_a_real_clips_code_is_sampled_from_as_it_was_trained_with(name: str, tiny_set: MotionSet) -> None:
    """Ours has unit size, the published one none in particular."""
    model = ready(tiny_set, name)
    code = model.encoder(torch.randn(4, model.frames, model.representation.dims))
    torch.testing.assert_close(model.encoder.settled(code), code)
    assert torch.equal(model.encoder.settled(3 * code), 3 * code) is model.config.as_published


def told(model: SkelDiffusion, n: int, **changes: Tensor) -> Conditions:
    yes = torch.ones(n, dtype=torch.bool)
    conditions = Conditions(
        time=torch.full((n,), 5),
        duration=torch.zeros(n, 1),
        label=torch.zeros(n, dtype=torch.int64),
        code=torch.ones(n, model.config.code),
        has_class=yes,
        has_code=yes,
    )
    return dataclasses.replace(conditions, **changes)


def test_every_condition_changes_the_clip_unless_it_is_kept_back(tiny_set: MotionSet) -> None:
    model = ready(tiny_set)
    x = torch.randn(2, model.frames, model.representation.dims)
    no = torch.zeros(2, dtype=torch.bool)
    run = lambda **changes: model.denoiser(x, told(model, 2, **changes))  # noqa: E731
    label, code = torch.full((2,), 1), -torch.ones(2, model.config.code)
    for changes in (
        {"time": torch.full((2,), 9)},
        {"duration": torch.ones(2, 1)},
        {"label": label},
        {"code": code},
    ):
        assert (run() - run(**changes)).abs().max() > 1e-6, changes
    assert torch.equal(run(has_class=no), run(has_class=no, label=label))
    assert torch.equal(run(has_code=no), run(has_code=no, code=code))
    both = told(model, 2).and_nothing()
    assert both.has_class.tolist() == both.has_code.tolist() == [True, True, False, False]


def test_guidance_is_the_line_through_two_predictions(tiny_set: MotionSet) -> None:
    one, two, none = (
        positions(ready(tiny_set, guidance=g, steps=1, sources={"code": 1.0}), [0, 1])
        for g in (1.0, 2.0, 0.0)
    )
    assert differ(one, two) and differ(one, none)
    # With one evaluation the root's height is a linear function of the network's output.
    root = tiny_set.skeleton.root
    for a, b, c in zip(one, two, none, strict=True):
        np.testing.assert_allclose(b[0, :, root, 1], (2 * a - c)[0, :, root, 1], atol=1e-5)


@BOTH
def test_dropout_at_sampling_works_and_is_off_at_zero(name: str, tiny_set: MotionSet) -> None:
    plain = positions(ready(tiny_set, name, sampling_dropout=0.0), [0, 1])
    assert not differ(plain, positions(ready(tiny_set, name, sampling_dropout=0.0), [0, 1]))
    dropped = positions(ready(tiny_set, name, sampling_dropout=0.3), [0, 1])
    assert differ(plain, dropped)
    torch.manual_seed(9)
    assert not differ(dropped, positions(ready(tiny_set, name, sampling_dropout=0.3), [0, 1]))
    assert not differ(
        plain, positions(ready(tiny_set, name, sampling_dropout=0.3, dropout_until=0.0), [0, 1])
    )


@pytest.mark.parametrize("source", SOURCES)
def test_where_clips_come_from(source: str, tiny_set: MotionSet) -> None:
    model = ready(tiny_set, sources={source: 1.0})
    own = {c: {m.sample_id for m in tiny_set.motions if m.label == c} for c in range(3)}
    clips = model.sample(wanted([0, 1, 2] * 6))
    parents = [m.parent_id.split("+") if m.parent_id else [] for m in clips]
    assert all(set(p) <= own[m.label] for m, p in zip(clips, parents, strict=True))
    assert (source == "label") == all(m.parent_id is None for m in clips)
    count = {len(p) for p in parents}
    assert count == {0} if source == "label" else count == {1} or (source == "interpolated" and 2 in count)
    before = [m.positions for m in clips]
    model.anchors.styles[:, : model.config.code].neg_()
    code_matters = differ(before, [m.positions for m in model.sample(wanted([0, 1, 2] * 6))])
    assert code_matters is (source != "label")
    model.anchors.styles[:, : model.config.code].neg_()
    model.anchors.styles[:, model.config.code :] += 1
    assert differ(before, [m.positions for m in model.sample(wanted([0, 1, 2] * 6))]) is (source == "edit")


def test_sources_are_mixed_by_weight(tiny_set: MotionSet) -> None:
    model = ready(tiny_set, sources={"label": 3.0, "code": 1.0, "edit": 0.0})
    clips = model.sample(wanted([0] * 200))
    assert 0.65 < np.mean([not m.parent_id for m in clips]) < 0.85


def test_it_learns_to_clean_clips(tiny_set: MotionSet) -> None:
    generator = small_generator("skel_diffusion", tiny_set, dropout=0.0)
    trainer = Trainer(
        generator, tiny_set, TrainingConfig(steps=150, rare_steps=0, batch=16, learning_rate=3e-3), seed=0
    )
    history = [trainer.advance() for _ in range(150)]
    mean = lambda rows, term: np.mean([r[f"denoiser/{term}"] for r in rows])  # noqa: E731
    for term in ("reconstruction", "position", "classification"):
        assert mean(history[-30:], term) < 0.7 * mean(history[:10], term), term
    # Clips made from labels alone then look like the training clips' mean bodies, not like noise.
    model = trainer.averaged_generator()
    assert isinstance(model, SkelDiffusion)
    height = np.median(
        [
            m.positions[0, :, tiny_set.skeleton.index("head"), 1].mean()
            for m in model.sample(wanted([0, 1, 2] * 4))
        ]
    )
    real = np.median(
        [
            m.positions[0, :, tiny_set.skeleton.index("head"), 1].mean()
            - m.positions[0, 0, tiny_set.skeleton.root, 1]
            for m in tiny_set.motions
        ]
    )
    assert height == pytest.approx(real, abs=0.15)


def test_features_of_absent_persons_stay_out_of_the_loss() -> None:
    pairs = make_pair_set()
    model = ready(pairs)
    z = model.encoded(
        torch.zeros(1, 2, model.frames, 15, 3)
        + torch.randn(1, 1, model.frames, 15, 3) * torch.tensor([1.0, 0]).view(1, 2, 1, 1, 1)
    )
    second = [place for (m, _), place in model.representation.groups.items() if m == 1]
    assert all((z[..., place] == 0).all() for place in second) and (z != 0).any()


def test_published_sizes(tiny_set: MotionSet) -> None:
    config = build_config("skel_diffusion_published", {})
    assert (config.frames, config.code, config.width, config.layers, config.encoder_layers) == (
        48,
        220,
        256,
        4,
        8,
    )
    with pytest.raises(
        InputError, match="a code of 32 and 3 classes into a width of 32; make the code at most 29"
    ):
        small_generator("skel_diffusion_published", tiny_set, code=32, heads=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "euler"}, "solver is 'euler'; allowed: ddpm, ddim, dpm"),
        ({"sources": {"dream": 1.0}}, "sources name 'dream'. Known: code, "),
        ({"sources": {"code": 0.0}}, "give weights of at least 0, not all of them 0"),
        ({"sources": {"code": "much"}}, "give weights of at least 0, not all of them 0"),
        ({"sources": {"code": -1.0}}, "give weights of at least 0, not all of them 0"),
        ({"steps": 2000}, "the schedule has 1000 times: take fewer"),
        ({"width": 100, "heads": 8}, "width is 100 for 8 heads; it must be a multiple of 16"),
        ({"edit_start": 0.0}, "edit_start is 0.0; it must lie above 0 and at most 1"),
        ({"drop_all": 0.7, "drop_code": 0.7}, "add up to 1.4; at most 1"),
        ({"parts": ["root", "hands"]}, "parts name 'hands'. Known: root, "),
        ({"frames": 4}, "frames is 4; it must be at least 8"),
        ({"guidance": -1.0}, "guidance is -1.0; it must lie between 0 and 20"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_config("skel_diffusion", changes)


def test_a_published_code_has_room_for_its_heads() -> None:
    with pytest.raises(InputError, match="code is 221 for 4 heads; it must be a multiple of 4"):
        build_config("skel_diffusion_published", {"code": 221})


def test_parts_of_a_stored_config_are_a_tuple_again() -> None:
    assert small_config("skel_diffusion", parts=["root", "positions"]).parts == ("root", "positions")


def test_no_term_outweighs_the_others_for_its_unit(tiny_set: MotionSet) -> None:
    """Who always answers with the mean clip has an error of about 1 in each, whatever the frames and the scale."""
    for frames in (16, 32):
        model = ready(tiny_set, frames=frames)
        batch = Trainer(model, tiny_set, TrainingConfig(batch=16, crop=1.0, scale=0.0, mirror=False), seed=0)
        model.clean = lambda x, told, keep=None: torch.zeros_like(x)  # the mean, when normalised
        losses = model.losses(batch.sampler.batch(0, 1, 0, 1), "denoiser")
        for term in ("reconstruction", "position", "velocity", "acceleration"):
            assert 0.4 < float(losses[term]) < 2.5, (frames, term, losses)
