"""Kinetic-GAN: the published tables as oracle, what was mended, truncation, noise, both penalties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.generators import Batch, Context, SampleRequest, build_config, fit_context
from motionsynth.generators.graph_layers import ClipNorm, GraphBlock, resize_time
from motionsynth.generators.kinetic_gan import KineticGAN, KineticGANConfig, PublishedKineticGANConfig
from motionsynth.motion import MotionSet
from motionsynth.pyramid import partitions, pyramid
from motionsynth.skeleton import get_skeleton, shipped
from motionsynth.training import Sampler, Trainer
from motionsynth.training_config import TrainingConfig
from tests.tiny_generators import ready_generator, small_generator
from tests.tiny_pairs import make_pair_set


def context_of(motions: MotionSet, skeleton: str, classes: int) -> Context:
    """A context for a body that the tiny clips do not have."""
    sk = get_skeleton(skeleton)
    n = len(sk.bones)
    return replace(
        fit_context(motions),
        skeleton=sk,
        class_names=tuple(f"class {i}" for i in range(classes)),
        shapes=tuple(((30, 1),) for _ in range(classes)),
        nearest=tuple(range(classes)),
        bone_mean=(0.0,) * n,
        bone_std=(1.0,) * n,
        rest=((0.0, 1.0, 0.0),) * n,
    )


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def ready(motions: MotionSet, **changes: object) -> KineticGAN:
    model = ready_generator("kinetic_gan", motions, **changes)  # type: ignore[arg-type]
    assert isinstance(model, KineticGAN)
    return model


def batch_of(model: KineticGAN, motions: MotionSet, size: int = 12) -> Batch:
    return Sampler(motions, model.context, TrainingConfig(batch=size), model.frames, seed=0).batch(0, 1, 0, 1)


PUBLISHED = {
    "frames": 16, "latent": 8, "width": 64, "tail": 3, "critic_top": 64, "penalty": "gradient", "generator_every": 5,
    "as_published": True, "loss_weights": {"adversarial": 1.0, "penalty": 10.0},
}  # fmt: skip


def test_the_published_system_has_the_published_sizes(tiny_set: MotionSet) -> None:
    """60 classes of 25 joints; layer by layer, as counted in the public code."""
    model = KineticGAN(PublishedKineticGANConfig(), context_of(tiny_set, "kinect25", 60))
    blocks = [size(b) - b.importance.numel() for b in model.synthesis.blocks if isinstance(b, GraphBlock)]
    assert blocks == [1666048, 722688, 180864, 45504, 11424, 432, 60]
    assert size(model.mapping) == 1_311_024
    assert size(model.synthesis) + size(model.embedding) == 2_633_377
    assert size(model.critic) == 3_332_115


def test_the_published_shapes(tiny_set: MotionSet) -> None:
    model = KineticGAN(PublishedKineticGANConfig(), context_of(tiny_set, "kinect25", 60)).eval()
    assert model.synthesis.noise_shapes == [(1, 1), (4, 1), (4, 5), (8, 5), (16, 11), (32, 11), (64, 25)]
    assert model.critic.lengths == [64, 64, 32, 16, 8, 4]
    with torch.no_grad():
        w = model.code(torch.randn(2, 512), torch.tensor([0, 59]), torch.ones(2))
        out = model.synthesis(w, [torch.zeros(2, 1, t, v) for t, v in model.synthesis.noise_shapes])
    assert w.shape == (2, 572) and out.shape == (2, 3, 64, 25) and out.abs().max() <= 1


def test_equalised_weights_keep_w_in_bounds(tiny_set: MotionSet) -> None:
    """The published mapping multiplies w's spread by some 17 at each of its layers."""
    torch.manual_seed(0)
    context = context_of(tiny_set, "kinect25", 60)
    y, seconds = torch.arange(60), torch.ones(60)
    spread: dict[bool, float] = {}
    for config in (PublishedKineticGANConfig(), KineticGANConfig()):
        model = KineticGAN(config, context)
        spread[config.as_published] = float(
            model.code(torch.randn(60, config.latent), y, seconds).detach().std()
        )
    assert spread[True] > 1e4 and 0.1 < spread[False] < 3


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("published", [True, False])
def test_every_shipped_skeleton_has_a_generator(name: str, published: bool, tiny_set: MotionSet) -> None:
    changes = PUBLISHED if published else {"frames": 16, "width": 64}
    model = KineticGAN(build_config("kinetic_gan", changes), context_of(tiny_set, name, 3)).eval()
    with torch.no_grad():
        w = model.code(torch.randn(2, model.config.latent), torch.tensor([0, 2]), torch.ones(2))
        x = model.draw(w, model.synthesis.noise_maps(torch.randn(2, model.synthesis.noise_size)))
        assert x.shape == (2, 1, 16, get_skeleton(name).num_joints, 3)
        assert model.judge(x, torch.tensor([0, 2])).shape == (2,)


def plain_block(block: GraphBlock, adjacency: torch.Tensor, x_BCTV: torch.Tensor) -> torch.Tensor:
    """ST-GCN's equation as it is written down, in the published order: everything is computed, then dropped."""
    weight = block.graph.weight.view(len(adjacency), block.out, -1)
    if block.resize > 1:
        x_BCTV = x_BCTV.repeat_interleave(round(block.resize), 2)
    h = sum(torch.einsum("oc,bctv,vw->botw", w, x_BCTV, a) for w, a in zip(weight, adjacency, strict=True))
    assert isinstance(h, torch.Tensor) and isinstance(block.residual, torch.nn.Linear)
    h = torch.nn.functional.conv2d(h, block.temporal.weight, block.temporal.bias, padding=(1, 0))
    h = h + torch.einsum("oc,bctv->botv", block.residual.weight, x_BCTV) + block.residual.bias.view(-1, 1, 1)
    if block.resize < 1:
        h = h[:, :, :: round(1 / block.resize)]
    return h if block.keep is None else h[..., block.keep]


@pytest.mark.parametrize(("channels", "out"), [(4, 6), (6, 4)])
@pytest.mark.parametrize("resize", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("keep", [None, [0, 3, 7]])
def test_a_graph_block_is_a_sum_over_neighbourhoods(
    channels: int, out: int, resize: float, keep: list[int] | None
) -> None:
    """Values, and the gradients of gradients that both penalties need."""
    torch.manual_seed(0)
    level = pyramid(get_skeleton("kinect25"))[1]
    block = GraphBlock(channels, out, level, 20, resize=resize, keep=keep)
    torch.nn.init.normal_(block.importance)
    x = torch.randn(2, channels, 4, 11, requires_grad=True)
    plain = plain_block(block, torch.from_numpy(partitions(level, 20)) * block.importance, x)
    fast = block(x.permute(3, 2, 0, 1)).permute(2, 3, 1, 0)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)
    twice = []
    for y in (plain, fast):
        slope = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        twice.append(torch.autograd.grad(slope.square().sum(), block.graph.weight)[0])
    torch.testing.assert_close(twice[1], twice[0], atol=1e-2, rtol=1e-3)


def test_clip_norm_is_group_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 5)
    norm, plain = ClipNorm(2, 6), torch.nn.GroupNorm(2, 6)
    fast = norm(x.permute(3, 2, 0, 1)).permute(2, 3, 1, 0)
    torch.testing.assert_close(fast, plain(x), atol=1e-5, rtol=1e-4)


def test_time_is_repeated_interpolated_or_skipped() -> None:
    x = torch.tensor([0.0, 4.0]).view(1, 2, 1, 1)
    assert resize_time(x, 4, linear=False).flatten().tolist() == [0, 0, 4, 4]
    assert resize_time(x, 4, linear=True).flatten().tolist() == [0, 1, 3, 4]
    assert resize_time(resize_time(x, 4, linear=False), 2, linear=False).flatten().tolist() == [0, 4]


def test_units_and_metres_are_inverse(tiny_set: MotionSet) -> None:
    x = torch.randn(2, 1, 4, 20, 3)
    for changes in (PUBLISHED, {}):
        model = ready(tiny_set, **changes)
        torch.testing.assert_close(model.to_metres(model.to_units(x)), x, atol=1e-5, rtol=1e-5)
    low, high = ready(tiny_set, **PUBLISHED).context.span
    assert low < high
    real = Sampler(tiny_set, fit_context(tiny_set), TrainingConfig(), 16, 0).everything().x
    units = ready(tiny_set, **PUBLISHED).to_units(real)
    assert units.abs().max() <= 1 + 1e-4 and units.max() > 0.99


def test_no_truncation_leaves_w_and_full_truncation_leaves_noise_alone(tiny_set: MotionSet) -> None:
    wanted = [SampleRequest(sample_id=str(i), label=1, seed=i) for i in range(6)]
    shapes = [(20, 1)] * 6
    spread = {}
    for psi in (0.0, 0.5, 1.0):
        model = ready(tiny_set, truncation=psi)
        z = torch.randn(6, model.config.latent, generator=torch.Generator().manual_seed(0))
        x = model.clips(wanted, z, torch.zeros(6, model.synthesis.noise_size), shapes)
        spread[psi] = float(x.std(0).mean())
    assert spread[0.0] < 1e-5 < spread[0.5] < spread[1.0]


def test_the_truncation_mean_is_each_class_s_own(tiny_set: MotionSet) -> None:
    ours, theirs = ready(tiny_set), ready(tiny_set, **PUBLISHED)
    assert (ours.w_mean[0] - ours.w_mean[1]).abs().max() > 1e-3
    torch.testing.assert_close(theirs.w_mean[0], theirs.w_mean[1])


def test_stochastic_variation(tiny_set: MotionSet) -> None:
    """One z, other noise: other clips, but closer to each other than those of another z."""
    model = ready(tiny_set)
    with torch.no_grad():
        for block in model.synthesis.blocks:
            assert isinstance(block, GraphBlock) and block.noise_gain is not None
            block.noise_gain += 0.05
    wanted = [SampleRequest(sample_id=str(i), label=1, seed=i) for i in range(8)]
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(8, model.config.latent, generator=rng)
    noise = torch.randn(8, model.synthesis.noise_size, generator=rng)
    same_z = model.clips(wanted, z[:1].expand(8, -1), noise, [(20, 1)] * 8)
    other_z = model.clips(wanted, z, noise, [(20, 1)] * 8)
    assert 1e-5 < same_z.std(0).mean() < other_z.std(0).mean()


def test_both_penalties_are_gradients_of_the_critic(tiny_set: MotionSet) -> None:
    for changes in (PUBLISHED, {"penalty": "r1"}, {"penalty": "gradient"}):
        model = small_generator("kinetic_gan", tiny_set, **changes)
        assert isinstance(model, KineticGAN)
        # A critic that sees nothing has no gradient: R1 is 0, and the gradient penalty is (0 - 1)^2.
        with torch.no_grad():
            for p in model.critic.parameters():
                p.zero_()
        penalty = float(model.losses(batch_of(model, tiny_set), "critic")["penalty"].detach())
        assert penalty == pytest.approx(0.0 if model.config.penalty == "r1" else 1.0, abs=1e-4)


def test_a_lazy_penalty_weighs_as_much_on_average(tiny_set: MotionSet) -> None:
    model = small_generator("kinetic_gan", tiny_set, penalty_every=3)
    assert isinstance(model, KineticGAN)
    batch = batch_of(model, tiny_set)
    seen = [float(model.losses(batch, "critic")["penalty"].detach()) for _ in range(6)]
    assert [p > 0 for p in seen] == [True, False, False] * 2


def test_the_generator_steps_once_in_five(tiny_set: MotionSet) -> None:
    model = small_generator("kinetic_gan", tiny_set, **PUBLISHED)
    trainer = Trainer(model, tiny_set, TrainingConfig(steps=12, batch=6), seed=0)
    logged = [any(k.startswith("generator/") for k in trainer.advance()) for _ in range(11)]
    assert [i for i, there in enumerate(logged) if there] == [0, 5, 10]


def test_two_persons_keep_their_distance() -> None:
    """The second person's place is generated with the first one's, in one frame of reference."""
    pairs = make_pair_set()
    model = ready(pairs)
    assert model.persons == 2
    assert ready(pairs, **PUBLISHED).persons == 1
    assert {
        m.num_persons
        for m in ready(pairs, **PUBLISHED).sample([SampleRequest(sample_id="a", label=0, seed=1)])
    } == {1}


def test_one_person_at_a_time() -> None:
    """The ablation: each person from its own latent, as one of its own classes, and judged without the other."""
    pairs = make_pair_set()
    model = ready_generator("kinetic_gan_apart", pairs)
    assert isinstance(model, KineticGAN) and (model.persons, model.passes) == (1, 2)
    wanted = [SampleRequest(sample_id=str(i), label=0, seed=i) for i in range(4)]
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(4, 2 * model.config.latent, generator=rng)
    noise = torch.randn(4, 2 * model.synthesis.noise_size, generator=rng)
    before = model.clips(wanted, z, noise, [(20, 2)] * 4)
    assert before.shape[:2] == (4, 2)
    z[:, model.config.latent :] = 0.5
    after = model.clips(wanted, z, noise, [(20, 2)] * 4)
    assert np.array_equal(before[:, 0], after[:, 0]) and np.abs(before[:, 1] - after[:, 1]).max() > 1e-4
    # Together, one latent moves both.
    model = ready(pairs)
    z, noise = z[:, : model.config.latent], noise[:, : model.synthesis.noise_size]
    moved = model.clips(wanted, z, noise, [(20, 2)] * 4) - model.clips(wanted, z + 0.5, noise, [(20, 2)] * 4)
    assert (np.abs(moved).max((0, 2, 3, 4)) > 1e-5).all()


def test_absent_persons_are_not_trained_on_one_by_one() -> None:
    pairs = make_pair_set()
    model = small_generator("kinetic_gan_apart", pairs)
    assert isinstance(model, KineticGAN)
    whole = Sampler(pairs, model.context, TrainingConfig(), model.frames, seed=0).everything()
    apart = model._taken_apart(whole)
    # 8 clips of each class; the third class has nobody but person 0.
    assert torch.bincount(apart.y).tolist() == [8, 8, 8, 8, 8]
    assert apart.x.shape[:2] == (40, 1) and (apart.x != 0).flatten(1).any(1).all()
    torch.testing.assert_close(apart.x[apart.y == 1], whole.x[whole.y == 0][:, 1:])
    torch.testing.assert_close(apart.seconds[apart.y == 3], whole.seconds[whole.y == 1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 24}, "frames is 24; it must be a multiple of 16"),
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"critic_stride": 3}, "critic_stride is 3; allowed: 1, 2, 4"),
        ({"truncation": 1.5}, "truncation is 1.5; it must lie between 0 and 1"),
        ({"penalty": "l2"}, "penalty is 'l2'; allowed: gradient, r1"),
        ({"loss_weights": {"adversarial": 1.0}}, "loss_weights has the names"),
    ],
)
def test_a_wrong_config_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_config("kinetic_gan", change)


def test_training_moves_clips_towards_real_ones(tiny_set: MotionSet) -> None:
    """Sixty steps bring the mean pose of each class nearer to that of its real clips."""
    config = TrainingConfig(steps=60, rare_steps=0, batch=24, learning_rate=2e-3, average=0.9)
    trainer = Trainer(small_generator("kinetic_gan", tiny_set), tiny_set, config, seed=0)
    real = trainer.sampler.everything().x.mean((1, 2))
    distances = []
    for steps in (0, 60):
        for _ in range(steps):
            trainer.advance()
        made = trainer.averaged_generator()
        wanted = [SampleRequest(sample_id=str(i), label=i % 3, seed=i) for i in range(24)]
        poses = np.stack([m.positions.mean((0, 1)) for m in made.sample(wanted)])
        y = trainer.sampler.y
        gaps = [
            np.abs(poses[np.arange(24) % 3 == c].mean(0) - real[y == c].mean(0).numpy()).mean()
            for c in range(3)
        ]
        distances.append(float(np.mean(gaps)))
    assert distances[1] < 0.7 * distances[0]
