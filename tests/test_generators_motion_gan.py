"""The rare-action GAN's own promises: rigid bones, attention over time, style, stages, what its config refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth.augment import whole
from motionsynth.errors import InputError
from motionsynth.generators import SampleRequest
from motionsynth.generators.base import Batch
from motionsynth.generators.motion_gan import MotionGAN
from motionsynth.generators.motion_gan_config import MotionGANConfig, default_weights
from motionsynth.motion import MotionSet, bone_lengths
from motionsynth.training import Sampler
from motionsynth.training_config import TrainingConfig
from tests.tiny_generators import small_config, small_generator
from tests.tiny_pairs import make_pair_set


def gan(motions: MotionSet, rare: tuple[int, ...] = (), **changes) -> MotionGAN:
    made = small_generator("motion_gan", motions, rare, **changes)
    assert isinstance(made, MotionGAN)
    return made


def everything(model: MotionGAN, motions: MotionSet) -> Batch:
    batch = Sampler(motions, model.context, TrainingConfig(), model.frames, seed=0).everything()
    return replace(batch, x=whole(batch.x, model.frames))


def decode(model: MotionGAN, n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, model.config.noise, generator=rng)
    style = torch.randn(n, model.config.style, generator=rng)
    with torch.no_grad():
        return model.decode(noise, torch.arange(n) % 3, style, torch.full((n,), 1.0))


@pytest.mark.parametrize("persons", [1, 2])
def test_the_decoder_cannot_stretch_a_bone(persons: int, tiny_set: MotionSet) -> None:
    motions = tiny_set if persons == 1 else make_pair_set()
    model = gan(motions)
    with torch.no_grad():
        # Away from the rest pose in which fresh weights stand.
        model.decoder.head.weight.mul_(20)
        model.decoder.coarse.weight.mul_(3)
    x, _ = decode(model)
    assert x.shape == (6, persons, model.frames, motions.skeleton.num_joints, 3)
    assert (x[:, :, 1:] - x[:, :, :-1]).abs().mean() > 0.01
    for clip in x.double().numpy():
        bones = bone_lengths(clip, motions.skeleton)
        assert (np.ptp(bones, axis=1) / bones.mean(1)).max() < 1e-4


def test_attention_is_that_of_the_clips_it_rebuilds(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    clips = Sampler(tiny_set, model.context, TrainingConfig(), model.frames, seed=0).everything()
    alpha = model.attention(clips)
    assert alpha.shape == (len(tiny_set), model.frames // 2) and not alpha.requires_grad
    torch.testing.assert_close(alpha.sum(1), torch.ones(len(tiny_set)))
    # Other clips are looked at otherwise, the same clips in the same way.
    assert (alpha[0] - alpha[-1]).abs().max() > 1e-6
    torch.testing.assert_close(model.attention(clips), alpha)
    assert small_generator("kinetic_gan", tiny_set).attention(clips) is None


def test_bone_lengths_are_those_of_the_training_people(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    made = bone_lengths((decode(model, 60)[0] * model.context.scale).numpy()[:, 0, :1], tiny_set.skeleton)[
        :, 0
    ]
    real = np.stack([bone_lengths(m.positions, tiny_set.skeleton)[0, 0] for m in tiny_set.motions])
    assert (made.mean(0) / real.mean(0) == pytest.approx(1, abs=0.1)) or np.allclose(
        made.mean(0), real.mean(0), rtol=0.1
    )
    assert made.max() < 1.6 * real.max()


def test_attention_weighs_time(tiny_set: MotionSet) -> None:
    """alpha = softmax over t of W_a tanh(W_t h_t + b_t): eq. 1, in decoder and encoder."""
    model = gan(tiny_set)
    with torch.no_grad():
        model.decoder.attention.outer.weight.mul_(20)
    _, alpha = decode(model)
    assert alpha.shape == (6, model.frames // 2)
    torch.testing.assert_close(alpha.sum(1), torch.ones(6))
    assert (alpha >= 0).all() and (alpha.amax(1) > 1.2 / alpha.shape[1]).all()
    h = torch.randn(2, model.decoder.attention.inner.in_features, 5)
    inner, outer = model.decoder.attention.inner, model.decoder.attention.outer
    expected = torch.stack(
        [torch.tanh(h[:, :, t] @ inner.weight.T + inner.bias) @ outer.weight[0] for t in range(5)], 1
    )
    torch.testing.assert_close(
        model.decoder.attention(h), expected.exp() / expected.exp().sum(1, keepdim=True)
    )


def test_attention_changes_the_clip_once_its_gain_is_learnt(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    with torch.no_grad():
        before = decode(model)[0]
        model.decoder.attention_gain.fill_(0.5)
        model.decoder.attention.outer.weight.mul_(20)
        assert (decode(model)[0] - before).abs().max() > 1e-4


def test_attention_is_there_for_the_log(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    model.losses(everything(model, tiny_set), "generator")
    alpha = model.seen["attention"]
    assert not alpha.requires_grad
    torch.testing.assert_close(alpha.sum(1), torch.ones(len(alpha)))


def test_the_reconstruction_pass_takes_its_style_from_the_clip(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    batch = everything(model, tiny_set)
    real = batch.x / model.context.scale
    there = torch.ones_like(real[..., :1, :1])

    def passes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        with torch.no_grad():
            both = model._passes(x, batch, there)[0]
        return both[: len(batch.y)], both[len(batch.y) :]

    made, rebuilt = passes(real)
    other_made, other_rebuilt = passes(real.flip(2) * 1.1)
    assert torch.equal(made, other_made), "the generation pass must not look at the clip"
    assert (rebuilt - other_rebuilt).abs().max() > 1e-4
    # Clip i's style comes from clip i.
    swapped = real.clone()
    swapped[0] = real[5]  # another person; clip 1 is another view of this one
    changed = (passes(swapped)[1] - rebuilt).abs().amax((1, 2, 3, 4))
    assert changed[0] > 1e-5 and changed[1:].max() < 1e-5


def test_reconstruction_improves_when_trained_on_it(tiny_set: MotionSet) -> None:
    weights = dict.fromkeys(default_weights(), 0.0) | {"reconstruction": 1.0}
    model = gan(tiny_set, loss_weights=weights)
    batch = everything(model, tiny_set)
    optimiser = torch.optim.Adam(model.parameter_groups(1)["generator"], lr=2e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(40):
        loss = model.losses(batch, "generator")["reconstruction"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_critic_terms_are_hinges(tiny_set: MotionSet) -> None:
    """A critic that is sure of itself pays nothing; one that is sure of the opposite pays."""
    model = gan(tiny_set)
    batch = everything(model, tiny_set)

    class Sure(torch.nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign, self.calls = sign, 0

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            real = self.calls == 0  # real clips are judged first
            self.calls += 1
            value = torch.full((len(y),), (2.0 if real else -2.0) * self.sign)
            return dict.fromkeys(("adversarial", "flow", "pose"), value)

    for sign, expected in ((1.0, 0.0), (-1.0, 6.0)):
        model.critic = Sure(sign)  # type: ignore[assignment]
        assert {t.item() for t in model.losses(batch, "critic").values()} == {expected}


def test_flow_and_pose_streams_see_their_own_thing(tiny_set: MotionSet) -> None:
    """The pose logit does not know the order of frames; the flow logit does not know where the body stands."""
    model = gan(tiny_set).eval()
    batch = everything(model, tiny_set)
    x = batch.x / model.context.scale
    order = torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base, shuffled = model.critic(x, batch.y), model.critic(x[:, :, order], batch.y)
        moved = model.critic(x + torch.tensor([0.5, 0.2, -0.3]), batch.y)
        other = model.critic(x, (batch.y + 1) % 3)
    torch.testing.assert_close(base["pose"], shuffled["pose"], atol=1e-4, rtol=1e-4)
    assert (base["flow"] - shuffled["flow"]).abs().max() > 1e-3
    torch.testing.assert_close(base["flow"], moved["flow"], atol=1e-4, rtol=1e-4)
    assert (base["pose"] - moved["pose"]).abs().max() > 1e-3
    assert all((base[k] - other[k]).abs().max() > 1e-4 for k in base)  # projection conditioning


def test_a_rare_class_starts_as_its_nearest_common_class(tiny_set: MotionSet) -> None:
    model = gan(tiny_set, rare=(2,))
    near = model.context.nearest[2]
    e = model.embed(torch.arange(3))
    torch.testing.assert_close(e[2], e[near])
    torch.testing.assert_close(e.norm(dim=1), torch.ones(3))
    assert (e[0] - e[1]).abs().max() > 0.01
    # ... and can leave it without taking it along.
    with torch.no_grad():
        model.action_delta.weight[2] += 1
    after = model.embed(torch.arange(3))
    assert (after[2] - e[2]).abs().max() > 0.01
    torch.testing.assert_close(after[:2], e[:2])


def sampled_styles(model: MotionGAN, monkeypatch: pytest.MonkeyPatch, labels: list[int]) -> torch.Tensor:
    seen = []
    original = model.decode

    def spy(noise, y, style, seconds):
        seen.append(style)
        return original(noise, y, style, seconds)

    monkeypatch.setattr(model, "decode", spy)
    model.sample([SampleRequest(sample_id=str(i), label=c, seed=i) for i, c in enumerate(labels)])
    return torch.cat(seen)


def test_style_prior_normal(tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gan(tiny_set, style_prior="normal").eval()
    model.finish(everything(model, tiny_set))
    style = sampled_styles(model, monkeypatch, [0, 1] * 300)
    torch.testing.assert_close(style.mean(0), torch.zeros(style.shape[1]), atol=0.15, rtol=0)
    torch.testing.assert_close(style.std(0), torch.ones(style.shape[1]), atol=0.12, rtol=0)


def test_style_prior_class(tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Styles of a class are drawn where its clips lie."""
    model = gan(tiny_set, style_prior="class").eval()
    batch = everything(model, tiny_set)
    model.finish(batch)
    with torch.no_grad():
        mean, logvar = model._encode(batch.x / model.context.scale, batch.y)
    style = sampled_styles(model, monkeypatch, [0] * 400 + [1] * 400)
    assert (mean[batch.y == 0].mean(0) - mean[batch.y == 1].mean(0)).norm() > 0.01
    for c, drawn in enumerate(style.split(400)):
        spread = drawn.std(0)
        torch.testing.assert_close(
            drawn.mean(0), mean[batch.y == c].mean(0), atol=4 * spread.max().item() / 20, rtol=0
        )
        at_least = logvar.exp().mean(0).sqrt()
        assert (spread > 0.7 * at_least).all()


def test_truncation_0_leaves_no_chance(tiny_set: MotionSet) -> None:
    model = gan(tiny_set, truncation=0.0, style_prior="class").eval()
    a, b = (model.sample([SampleRequest(sample_id="a", label=0, seed=s)])[0] for s in (1, 2))
    # Only the length of the clip is still drawn.
    same = [
        m
        for m in model.sample([SampleRequest(sample_id="a", label=0, seed=s) for s in range(40)])
        if m.num_frames == a.num_frames
    ]
    assert len(same) > 2 and all(np.allclose(m.positions, a.positions, atol=1e-5) for m in same)
    assert b.label == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 20}, "frames is 20; it must be a multiple of 8, at least 16"),
        ({"frames": 8}, "frames is 8"),
        ({"width": 48}, "width is 48; it must be a multiple of 32, at least 64"),
        ({"width": 32}, "width is 32"),
        ({"style_prior": "uniform"}, "style_prior is 'uniform'; allowed: normal, class, transfer"),
        ({"noise": 0}, "noise is 0"),
        ({"style": 0}, "style is 0"),
        ({"action": 0}, "action is 0"),
        ({"critic_width": 0}, "critic_width is 0"),
        ({"truncation": -1.0}, "truncation is -1.0"),
        ({"loss_weights": default_weights() | {"flwo": 1.0}}, "loss_weights has the names"),
        ({"loss_weights": default_weights() | {"flow": -1.0}}, "loss_weights has .*flow"),
    ],
)
def test_a_wrong_config_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as e:
        MotionGANConfig(**change)
    assert "\n" not in str(e.value)


def test_missing_weights_are_refused() -> None:
    weights = default_weights()
    del weights["temporal"]
    with pytest.raises(InputError, match="temporal"):
        replace(small_config("motion_gan"), loss_weights=weights)


def test_attention_is_logged_and_even_attention_has_entropy_one(tiny_set: MotionSet) -> None:
    model = gan(tiny_set)
    model.losses(everything(model, tiny_set), "generator")
    assert 0 < model.diagnostics()["attention_entropy"] <= 1 + 1e-5
    torch.nn.init.zeros_(model.decoder.attention.outer.weight)
    model.losses(everything(model, tiny_set), "generator")
    assert model.diagnostics()["attention_entropy"] == pytest.approx(1)
    with torch.no_grad():
        model.decoder.attention.outer.weight.fill_(100)
    model.losses(everything(model, tiny_set), "generator")
    assert model.diagnostics()["attention_entropy"] < 0.9
