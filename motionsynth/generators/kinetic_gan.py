"""Kinetic-GAN (Degardin et al., WACV 2022): a class-conditional graph-convolutional GAN along a joint pyramid.

A mapping network turns (class, latent, duration) into w, one graph node at one frame; blocks then refine joints and
frames together, with noise added at every block. `kinetic_gan_published` is the system as its code has it;
`kinetic_gan` mends what is faulty there: equalised initialisation, at least 32 channels up to the last block, linear
interpolation in time, several persons with their places, rigid bones, metres, clip durations, a truncation mean that
is kept per class. `Trainer` keeps the moving average of the weights.

Shape letters: B clips, C channels, M persons, T frames, V joints, D width of w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from motionsynth.errors import InputError
from motionsynth.generators.base import (
    Batch,
    Context,
    Generator,
    SampleRequest,
    normal,
    request_rng,
    rigid_resample,
)
from motionsynth.generators.critic import random_view
from motionsynth.generators.graph_layers import EqualisedLinear, GraphBlock
from motionsynth.generators.layers import forward_kinematics
from motionsynth.losses import check_weights
from motionsynth.motion import Motion, resample
from motionsynth.pyramid import expansion, kept, pyramid

TERMS = ("adversarial", "penalty")
PENALTIES = ("gradient", "r1")
TRUNCATION_DRAWS = 1000


def default_weights() -> dict[str, float]:
    """The published penalty weighs 10, R1's of images 5 (Mescheder et al., ICML 2018); poses want a hundredth of it.

    Frechet distance on N-UCLA: 181 at 5, 120 at 0.5, 63 at 0.05 (docs/results.md).
    """
    return {"adversarial": 1.0, "penalty": 0.05}


@dataclass(frozen=True, kw_only=True, slots=True)
class KineticGANConfig:
    """Sizes and variants.

    Attributes:
        frames: T at which clips are generated; a multiple of 16. Clips are resampled to a real clip's length.
        latent: Width of z.
        width: Channels of the generator's first block; they halve from block to block.
        tail: Fewest channels before the last block.
        critic_width: Channels of the critic's first block; they double from block to block.
        critic_top: Most channels of the critic.
        critic_stride: Frames that the critic skips before its first block.
        depth: Layers of the mapping network.
        truncation: psi: w is drawn towards its mean; 1 turns it off.
        penalty: "gradient": Wasserstein loss with gradient penalty (Gulrajani et al., NeurIPS 2017); "r1": logistic
            loss with R1 on real clips (Mescheder et al., ICML 2018), which needs no third pass of the critic.
        penalty_every: Critic steps from one penalty to the next; its weight is multiplied accordingly.
        generator_every: Critic steps for each step of the generator.
        as_published: The published construction: see `PublishedKineticGANConfig`.
        loss_weights: One for each of `TERMS`.
    """

    frames: int = 32
    latent: int = 64
    width: int = 256
    tail: int = 32
    critic_width: int = 32
    critic_top: int = 256
    critic_stride: int = 2
    depth: int = 4
    truncation: float = 0.95
    penalty: str = "r1"
    penalty_every: int = 4
    generator_every: int = 1
    as_published: bool = False
    loss_weights: Mapping[str, float] = field(default_factory=default_weights)

    def __post_init__(self) -> None:
        if self.frames < 16 or self.frames % 16:
            raise InputError(f"kinetic_gan frames is {self.frames}; it must be a multiple of 16.")
        for name in (
            "latent", "width", "tail", "critic_width", "critic_top", "critic_stride", "depth", "penalty_every",
            "generator_every",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise InputError(f"kinetic_gan {name} is {getattr(self, name)}; it must be at least 1.")
        if self.critic_stride not in (1, 2, 4):
            raise InputError(f"kinetic_gan critic_stride is {self.critic_stride}; allowed: 1, 2, 4.")
        if not 0 <= self.truncation <= 1:
            raise InputError(f"kinetic_gan truncation is {self.truncation}; it must lie between 0 and 1.")
        if self.penalty not in PENALTIES:
            raise InputError(f"kinetic_gan penalty is '{self.penalty}'; allowed: {', '.join(PENALTIES)}.")
        check_weights(self.loss_weights, TERMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedKineticGANConfig(KineticGANConfig):
    """The published system.

    Nearest frames, 3-channel tail, min-max scaling, person 0 alone, unscaled N(0, 1) mapping weights, batch
    normalisation, WGAN-GP with five critic steps, a truncation mean over unconditional noise.
    """

    frames: int = 64
    latent: int = 512
    width: int = 512
    tail: int = 3
    critic_top: int = 512
    critic_stride: int = 1
    penalty: str = "gradient"
    penalty_every: int = 1
    generator_every: int = 5
    as_published: bool = True
    loss_weights: Mapping[str, float] = field(default_factory=lambda: {"adversarial": 1.0, "penalty": 10.0})


class Synthesis(nn.Module):
    """w -> channels on all joints, [B, C', T, V], with one noise map per block."""

    def __init__(self, config: KineticGANConfig, context: Context, inputs: int, outputs: int) -> None:
        super().__init__()
        levels = pyramid(context.skeleton)
        centre = levels[-1].joints[0]
        last = 2 * (len(levels) - 1)
        self.blocks = nn.ModuleList()
        self.noise_shapes: list[tuple[int, int]] = []
        channels, before = inputs, 1
        for i in range(last + 1):
            # Blocks 2, 4, ... (from 0) enter the next finer level; the others stay on theirs.
            level = len(levels) - 1 - i // 2
            enters = i > 0 and i % 2 == 0
            out = max(config.width >> i, config.tail)
            if config.as_published and i >= last - 1:
                out = outputs
            frames = 1 if i == 0 else max(config.frames >> (last - i), config.frames // 16)
            norm = "batch" if config.as_published else "group"
            block = GraphBlock(
                channels, out, levels[level], centre, resize=frames / before, linear=not config.as_published,
                norm=norm if i % 2 else "", residual=i > 0, residual_norm=config.as_published, noise=True,
                published=config.as_published,
            )  # fmt: skip
            self.blocks.append(block)
            self.noise_shapes.append((frames, len(levels[level].joints)))
            matrix = None
            if enters:
                matrix = torch.from_numpy(expansion(context.skeleton)[level])
                if config.as_published and i == 2:
                    moved = [j for j in range(len(matrix)) if levels[level].joints[j] != centre]
                    matrix[moved] *= 0.5  # the published table halves the first limbs
            self.register_buffer(f"refine_{i}", matrix, persistent=False)
            channels, before = out, frames
        self.head = None if config.as_published else nn.Linear(channels, outputs)

    def forward(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """w [B, D] and one map [B, 1, T, V] per block."""
        h = w[None, None]
        for i, block in enumerate(self.blocks):
            matrix = getattr(self, f"refine_{i}")
            if matrix is not None:
                h = (matrix @ h.flatten(1)).view(-1, *h.shape[1:])
            h = block(h, noise[i].permute(3, 2, 0, 1))
            if i < len(self.blocks) - 1 or self.head is not None:
                h = nn.functional.leaky_relu(h, 0.2)
        h = h.tanh() if self.head is None else self.head(h)
        return h.permute(2, 3, 1, 0)

    @property
    def noise_size(self) -> int:
        """Noise numbers that one clip takes."""
        return sum(t * v for t, v in self.noise_shapes)

    def noise_maps(self, flat: Tensor) -> list[Tensor]:
        """[B, noise_size] -> one map per block."""
        parts = flat.split([t * v for t, v in self.noise_shapes], 1)
        return [p.view(len(p), 1, t, v) for p, (t, v) in zip(parts, self.noise_shapes, strict=True)]


class GraphCritic(nn.Module):
    """Clips [B, C, T, V] and their classes -> one number each; joints are dropped along the pyramid, never pooled."""

    def __init__(self, config: KineticGANConfig, context: Context, inputs: int) -> None:
        super().__init__()
        k = len(context.class_names)
        levels, stay = pyramid(context.skeleton), kept(context.skeleton)
        centre = levels[-1].joints[0]
        self.stride = config.critic_stride
        self.as_published = config.as_published
        self.embedding = nn.Embedding(k, k if config.as_published else config.critic_top)
        channels = inputs + (k if config.as_published else 0)
        self.blocks, self.lengths = nn.ModuleList(), []
        before = config.frames // self.stride
        for i in range(2 * (len(levels) - 1)):
            out = min(config.critic_width << i, config.critic_top)
            frames = max(config.frames // self.stride >> max(0, i - 1), config.frames // 16)
            block = GraphBlock(
                channels, out, levels[(i + 1) // 2], centre, keep=None if i % 2 else stay[i // 2],
                resize=frames / before, residual=i > 0, published=config.as_published,
            )  # fmt: skip
            self.blocks.append(block)
            self.lengths.append(frames)
            channels, before = out, frames
        self.head = nn.Linear(channels, 1)
        self.project = nn.Linear(channels, config.critic_top, bias=False) if not config.as_published else None

    def forward(self, x_BCTV: Tensor, y_B: Tensor) -> Tensor:
        """[B]. The class is an input as published, else a projection (Miyato & Koyama, ICLR 2018)."""
        h = x_BCTV[:, :, :: self.stride].permute(3, 2, 0, 1)
        e = self.embedding(y_B)
        if self.as_published:
            h = torch.cat([e.expand(*h.shape[:2], -1, -1), h], 3)
        h = h.contiguous()
        for block in self.blocks:
            h = nn.functional.leaky_relu(block(h), 0.2)
        pooled = h.mean((0, 1))
        out = self.head(pooled)[:, 0]
        if self.project is not None:
            out = out + (self.project(pooled) * e).sum(1) / e.shape[1] ** 0.5
        return out


class KineticGAN(Generator):
    """See the module; registered as `kinetic_gan`."""

    name = "kinetic_gan"
    terms = {"critic": TERMS, "generator": ("adversarial",)}
    fitted = ("w_mean",)

    config: KineticGANConfig
    critic_steps: Tensor
    w_mean: Tensor
    span: Tensor
    bone_mean: Tensor
    bone_std: Tensor
    ancestors: Tensor
    still: Tensor

    def __init__(self, config: KineticGANConfig, context: Context) -> None:
        super().__init__(config, context)
        k, v = len(context.class_names), context.skeleton.num_joints
        self.persons = 1 if config.as_published else context.num_persons
        self.embedding = nn.Embedding(k, k if config.as_published else 32)
        self.inputs = config.latent + self.embedding.embedding_dim + (0 if config.as_published else 1)
        equalised = not config.as_published
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [EqualisedLinear(self.inputs, self.inputs, equalised), nn.LeakyReLU(0.2)]
        self.mapping = nn.Sequential(*layers)
        self.synthesis = Synthesis(config, context, self.inputs, 3 * self.persons)
        self.critic = GraphCritic(config, context, 3 * self.persons * (1 if config.as_published else 2))
        self.sizes: nn.Linear | None = None
        if not config.as_published:
            self.sizes = nn.Linear(self.inputs, self.persons * (v - 1))
            nn.init.normal_(self.sizes.weight, std=0.01)
            nn.init.zeros_(self.sizes.bias)
        child = [c for c, _ in context.skeleton.bones]
        self.child = child
        still = torch.zeros(v, 3)
        still[child] = torch.tensor(context.rest)
        self.register_buffer("still", still.T[None].repeat(1, self.persons, 1)[:, :, None], persistent=False)
        self.register_buffer("bone_mean", torch.tensor(context.bone_mean), persistent=False)
        self.register_buffer("bone_std", torch.tensor(context.bone_std), persistent=False)
        self.register_buffer("ancestors", torch.from_numpy(context.skeleton.ancestors), persistent=False)
        self.register_buffer("w_mean", torch.zeros(k, self.inputs))
        self.register_buffer("span", torch.tensor(context.span), persistent=False)
        self.register_buffer("critic_steps", torch.zeros((), dtype=torch.int64))

    def code(self, z: Tensor, y_B: Tensor, seconds: Tensor) -> Tensor:
        """w [B, D] of latents [B, latent], classes and durations."""
        parts = [self.embedding(y_B), z]
        if not self.config.as_published:
            # Each sample of unit length (pixel norm): no part of the input drowns another.
            parts = [nn.functional.normalize(p, dim=1) * p.shape[1] ** 0.5 for p in parts]
            parts.append(self.duration(seconds))
        return self.mapping(torch.cat(parts, 1))

    def draw(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Positions [B, M, T, V, 3]: in units of `scale`, or as published in [-1, 1] of the training data's span."""
        out = self.synthesis(w, noise).float()
        b, _, t, v = out.shape
        if self.sizes is None:
            return out.view(b, 1, 3, t, v).permute(0, 1, 3, 4, 2)
        out = (out + self.still).view(b, self.persons, 3, t, v).permute(0, 1, 4, 2, 3)
        size = self.sizes(w).float().view(b, self.persons, -1).clamp(-4, 4)
        length = (self.bone_mean + self.bone_std * size).exp() / self.context.scale
        root = self.context.skeleton.root
        return forward_kinematics(out[:, :, root], out[:, :, self.child], length, self.ancestors)

    def to_units(self, x_BMTVC: Tensor) -> Tensor:
        """Metres to what `draw` gives."""
        if self.config.as_published:
            low, high = self.span
            return 2 * (x_BMTVC[:, :1] - low) / (high - low) - 1
        return x_BMTVC / self.context.scale

    def to_metres(self, x_BMTVC: Tensor) -> Tensor:
        """Inverse of `to_units`; the published code has none and leaves its clips in [-1, 1]."""
        if self.config.as_published:
            low, high = self.span
            return (x_BMTVC + 1) / 2 * (high - low) + low
        return x_BMTVC * self.context.scale

    def judge(self, x_BMTVC: Tensor, y_B: Tensor) -> Tensor:
        """The critic's numbers [B] for clips in the network's units."""
        if not self.config.as_published:
            x_BMTVC = random_view(x_BMTVC)
            step = nn.functional.pad(x_BMTVC[:, :, 1:] - x_BMTVC[:, :, :-1], (0, 0, 0, 0, 0, 1))
            x_BMTVC = torch.cat([x_BMTVC, step * (self.config.frames / 4)], -1)
        flat = x_BMTVC.permute(0, 1, 4, 2, 3).flatten(1, 2)
        return self.critic(flat, y_B)

    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        """Unweighted terms of the "critic" or the "generator"; Wasserstein or logistic by `config.penalty`."""
        real = self.to_units(batch.x)
        b, wasserstein = len(batch.y), self.config.penalty == "gradient"
        z = torch.randn(b, self.config.latent, device=real.device)
        noise = [torch.randn(b, 1, t, v, device=real.device) for t, v in self.synthesis.noise_shapes]
        with torch.set_grad_enabled(group == "generator"):
            fake = self.draw(self.code(z, batch.y, batch.seconds), noise)
            if not self.config.as_published:
                fake = fake * (real != 0).any(-1, keepdim=True).any(-2, keepdim=True)
        if group == "generator":
            on_fake = self.judge(fake, batch.y)
            return {
                "adversarial": -on_fake.mean() if wasserstein else nn.functional.softplus(-on_fake).mean()
            }
        due = int(self.critic_steps) % self.config.penalty_every == 0
        self.critic_steps += 1
        penalised = real.detach()
        if wasserstein:
            share = torch.rand(b, 1, 1, 1, 1, device=real.device)
            penalised = share * real + (1 - share) * fake
        penalised = penalised.requires_grad_(due)
        if wasserstein:
            on_real, on_fake = self.judge(real, batch.y), self.judge(fake, batch.y)
            adversarial = on_fake.mean() - on_real.mean()
            judged = self.judge(penalised, batch.y) if due else on_real
        else:
            on_fake = self.judge(fake, batch.y)
            judged = self.judge(penalised, batch.y)
            adversarial = nn.functional.softplus(on_fake).mean() + nn.functional.softplus(-judged).mean()
        penalty = torch.zeros((), device=real.device)
        if due:
            gradient = torch.autograd.grad(judged.sum(), penalised, create_graph=True)[0].flatten(1)
            size = gradient.square().sum(1)
            penalty = ((size + 1e-12).sqrt() - 1).square().mean() if wasserstein else size.mean()
        return {"adversarial": adversarial, "penalty": penalty * self.config.penalty_every}

    def every(self, group: str) -> int:
        """The generator steps once in `generator_every` steps of the critic."""
        return self.config.generator_every if group == "generator" else 1

    def parameter_groups(self, stage: int) -> dict[str, list[nn.Parameter]]:
        """Both networks whole, at both stages: Kinetic-GAN has but one."""
        return {"critic": list(self.critic.parameters()), "generator": self.averaged()}

    @torch.no_grad()
    def finish(self, clips: Batch) -> None:
        """Keep the mean of w that truncation needs: of each class, or as published of noise in place of any class."""
        device = self.w_mean.device
        rng = torch.Generator().manual_seed(0)
        if self.config.as_published:
            self.w_mean[:] = self.mapping(
                torch.randn(TRUNCATION_DRAWS, self.inputs, generator=rng).to(device)
            ).mean(0)
            return
        z = torch.randn(TRUNCATION_DRAWS, self.config.latent, generator=rng).to(device)
        for c in clips.y.unique().tolist():
            seconds = clips.seconds[clips.y == c]
            at = torch.arange(TRUNCATION_DRAWS, device=device) % len(seconds)
            self.w_mean[c] = self.code(z, torch.full_like(at, c), seconds[at]).mean(0)

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """One clip for each request, as long as a random real clip of its class."""
        if not requests:
            return []
        rngs = [request_rng(r) for r in requests]
        shapes = [self.draw_shape(r, rng) for r, rng in zip(requests, rngs, strict=True)]
        x = self.clips(
            requests, normal(rngs, self.config.latent), normal(rngs, self.synthesis.noise_size), shapes
        )
        turn = resample if self.config.as_published else self._rigid
        return [self.to_motion(r, turn(p[:m], t)) for r, p, (t, m) in zip(requests, x, shapes, strict=True)]

    @torch.no_grad()
    def clips(
        self, requests: Sequence[SampleRequest], z: Tensor, noise: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Positions [B, M, T, V, 3], metres, of latents [B, latent] and noise [B, noise_size].

        One z under several noises is the paper's "stochastic variation": the same action, never the same twice.
        """
        device = self.w_mean.device
        y = torch.tensor([r.label for r in requests], device=device)
        seconds = torch.tensor([t / self.context.fps for t, _ in shapes], device=device)
        w = self.code(z.to(device), y, seconds)
        w = torch.lerp(self.w_mean[y], w, self.config.truncation)
        return self.to_metres(self.draw(w, self.synthesis.noise_maps(noise.to(device)))).cpu().numpy()

    def _rigid(self, positions: np.ndarray, frames: int) -> np.ndarray:
        return rigid_resample(positions, frames, self.context.skeleton)


class PublishedKineticGAN(KineticGAN):
    """The same of a `PublishedKineticGANConfig`; registered as `kinetic_gan_published`."""

    name = "kinetic_gan_published"
