"""Kinetic-GAN (Degardin et al., WACV 2022): a class-conditional graph-convolutional GAN along a joint pyramid.

A mapping network turns (class, latent, duration) into w, one graph node at one frame; blocks then refine joints and
frames together, with noise added at every block. `kinetic_gan_published` is the system as its code has it;
`kinetic_gan` mends what is faulty there: equalised initialisation, at least 32 channels up to the last block, linear
interpolation in time, several persons with their places, rigid bones, metres, clip durations, a truncation mean that
is kept per class. `Trainer` keeps the moving average of the weights.

Shape letters: B clips, C channels, M persons, T frames, V joints, D width of w.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

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
from motionsynth.generators.graph_layers import EqualisedLinear
from motionsynth.generators.kinetic_config import (
    TERMS,
    ApartKineticGANConfig,
    KineticGANConfig,
    PublishedKineticGANConfig,
)
from motionsynth.generators.kinetic_networks import GraphCritic, Synthesis
from motionsynth.generators.layers import forward_kinematics
from motionsynth.motion import Motion, resample

TRUNCATION_DRAWS = 1000


class KineticGAN(Generator):
    """See the module; registered as `kinetic_gan`."""

    name = "kinetic_gan"
    terms = {"critic": TERMS, "generator": ("adversarial",)}
    fitted = ("w_mean",)
    sampling = ("truncation",)

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
        v = context.skeleton.num_joints
        together = context.num_persons if not config.as_published else 1
        self.persons, self.passes = (1, together) if config.apart else (together, 1)
        k = len(context.class_names) * self.passes
        self.embedding = nn.Embedding(k, k if config.as_published else 32)
        self.inputs = config.latent + self.embedding.embedding_dim + (0 if config.as_published else 1)
        equalised = not config.as_published
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [EqualisedLinear(self.inputs, self.inputs, equalised), nn.LeakyReLU(0.2)]
        self.mapping = nn.Sequential(*layers)
        self.synthesis = Synthesis(config, context, self.inputs, 3 * self.persons)
        self.critic = GraphCritic(config, context, 3 * self.persons * (1 if config.as_published else 2), k)
        self.sizes: nn.Linear | None = None
        if not config.as_published:
            self.sizes = nn.Linear(self.inputs, self.persons * (v - 1))
            nn.init.normal_(self.sizes.weight, std=0.01)
            nn.init.zeros_(self.sizes.bias)
        child = [c for c, _ in context.skeleton.bones]
        self.child = child
        still = torch.zeros(together, 3, 1, v)
        still[:, :, 0, child] = torch.from_numpy(context.rests[:together]).transpose(1, 2)
        self.register_buffer("still", still, persistent=False)
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

    def draw(self, w: Tensor, noise: Sequence[Tensor], y_B: Tensor | None = None) -> Tensor:
        """Positions [B, M, T, V, 3]: in units of `scale`, or as published in [-1, 1] of the training data's span.

        Made one at a time, bodies differ in where they face by default: then it needs the classes of the passes, [B].
        """
        out = self.synthesis(w, noise).float()
        b, _, t, v = out.shape
        if self.sizes is None:
            return out.view(b, 1, 3, t, v).permute(0, 1, 3, 4, 2)
        still = self.still.flatten(0, 1) if y_B is None else self.still[y_B % self.passes]
        out = (out + still).view(b, self.persons, 3, t, v).permute(0, 1, 4, 2, 3)
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
        batch = self._taken_apart(batch)
        real = self.to_units(batch.x)
        b, wasserstein = len(batch.y), self.config.penalty == "gradient"
        z = torch.randn(b, self.config.latent, device=real.device)
        noise = [torch.randn(b, 1, t, v, device=real.device) for t, v in self.synthesis.noise_shapes]
        with torch.set_grad_enabled(group == "generator"):
            fake = self.draw(self.code(z, batch.y, batch.seconds), noise, self._passes_of(batch.y))
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
        device, clips = self.w_mean.device, self._taken_apart(clips)
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
            requests, normal(rngs, self.passes * self.config.latent),
            normal(rngs, self.passes * self.synthesis.noise_size), shapes,
        )  # fmt: skip
        turn = resample if self.config.as_published else self._rigid
        return [self.to_motion(r, turn(p[:m], t)) for r, p, (t, m) in zip(requests, x, shapes, strict=True)]

    @torch.no_grad()
    def clips(
        self, requests: Sequence[SampleRequest], z: Tensor, noise: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Positions [B, M, T, V, 3], metres, of latents [B, latent] and noise [B, noise_size], each times `passes`.

        One z under several noises is the paper's "stochastic variation": the same action, never the same twice.
        """
        device = self.w_mean.device
        n = self.passes
        y = self._pass_classes(torch.tensor([r.label for r in requests], device=device)).flatten()
        seconds = torch.tensor([t / self.context.fps for t, _ in shapes], device=device).repeat_interleave(n)
        w = self.code(z.to(device).view(len(y), -1), y, seconds)
        w = torch.lerp(self.w_mean[y], w, self.config.truncation)
        x = self.draw(w, self.synthesis.noise_maps(noise.to(device).view(len(y), -1)), self._passes_of(y))
        return self.to_metres(x.view(-1, n * self.persons, *x.shape[2:])).cpu().numpy()

    def _pass_classes(self, y_B: Tensor) -> Tensor:
        """What the networks take for the class of each pass: every person of a class is one, [B] -> [B, passes]."""
        return y_B[:, None] * self.passes + torch.arange(self.passes, device=y_B.device)

    def _passes_of(self, y_B: Tensor) -> Tensor | None:
        return y_B if self.passes > 1 else None

    def _taken_apart(self, batch: Batch) -> Batch:
        """One row for each person that is there, where persons are made one at a time."""
        if self.passes == 1:
            return batch
        there = (batch.x != 0).flatten(2).any(2)
        return Batch(
            x=batch.x[there][:, None], y=self._pass_classes(batch.y)[there],
            seconds=batch.seconds[:, None].expand(-1, self.passes)[there],
        )  # fmt: skip

    def _rigid(self, positions: np.ndarray, frames: int) -> np.ndarray:
        return rigid_resample(positions, frames, self.context.skeleton)


class PublishedKineticGAN(KineticGAN):
    """The same of a `PublishedKineticGANConfig`; registered as `kinetic_gan_published`."""

    name = "kinetic_gan_published"


class ApartKineticGAN(KineticGAN):
    """The same of an `ApartKineticGANConfig`; registered as `kinetic_gan_apart`."""

    name = "kinetic_gan_apart"


__all__ = [
    "ApartKineticGAN", "ApartKineticGANConfig", "KineticGAN", "KineticGANConfig", "PublishedKineticGAN",
    "PublishedKineticGANConfig",
]  # fmt: skip
