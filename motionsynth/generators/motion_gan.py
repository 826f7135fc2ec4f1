"""The rare-action GAN of Galstyan 2025 on skeleton clips: class, noise and style in, bodies of fixed bones out.

z = concat(noise, action embedding, style) (eq. 4). Style comes from N(0, I) in the generation pass and from a
motion encoder over a real clip in the reconstruction pass. Both passes go through one temporal decoder with the
attention of eq. 1; its output is bone directions, one set of bone lengths per clip and a root path, joined by
forward kinematics, so that bones cannot stretch. Published: no layer sizes, weights or limits; those are ours.

Shape letters: B clips, M persons, T frames, V joints, N = V - 1 bones, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from motionsynth.augment import whole
from motionsynth.generators.base import (
    Batch,
    Context,
    Generator,
    SampleRequest,
    normal,
    request_rng,
    rigid_resample,
)
from motionsynth.generators.critic import DualStreamCritic, random_view
from motionsynth.generators.layers import ModulatedBlock, TemporalAttention, cosine_basis, forward_kinematics
from motionsynth.generators.motion_gan_config import CRITIC_TERMS, GENERATOR_TERMS, MotionGANConfig
from motionsynth.generators.transfer import Anchors
from motionsynth.limits import physics_loss
from motionsynth.motion import Motion
from motionsynth.recognition import STORED_FRAMES

WAVES = 10
"""Slow cosines in time that encoder and decoder also handle by one linear map: it learns the bulk of a motion in a
few hundred steps, and the convolutions add the rest."""


class MotionEncoder(nn.Module):
    """Real clip and class -> mean and log variance of its style, by attention over time (eq. 1)."""

    waves: Tensor

    def __init__(self, channels: int, frames: int, action: int, style: int, width: int) -> None:
        super().__init__()
        self.register_buffer("waves", cosine_basis(WAVES, frames), persistent=False)
        self.coarse = nn.Linear(channels * WAVES, width)
        self.net = nn.Sequential(
            nn.Conv1d(2 * channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.attention = TemporalAttention(width)
        self.head = nn.Sequential(
            nn.Linear(3 * width + action, width), nn.LeakyReLU(0.2), nn.Linear(width, 2 * style)
        )

    def forward(self, x_BCT: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, T] and [B, A] -> (mean, log variance), [B, S] each."""
        velocity = nn.functional.pad(x_BCT[..., 1:] - x_BCT[..., :-1], (0, 1)) * (x_BCT.shape[-1] / 4)
        h = self.net(torch.cat([x_BCT, velocity], 1))
        coarse = self.coarse((x_BCT @ self.waves.T).flatten(1))
        pooled = torch.cat([(h * self.attention(h)[:, None]).sum(-1), h.mean(-1), coarse, action], -1)
        mean, logvar = self.head(pooled).chunk(2, -1)
        return mean, logvar.clamp(-8, 4)


class Decoder(nn.Module):
    """w -> positions [B, M, T, V, 3] in units of `Context.scale`, by way of forward kinematics."""

    waves: Tensor
    ancestors: Tensor
    bone_mean: Tensor
    bone_std: Tensor

    def __init__(self, config: MotionGANConfig, context: Context) -> None:
        super().__init__()
        self.start_frames = config.frames // 8
        sk, c, d = context.skeleton, config.width, config.width
        self.persons, self.bones = context.num_persons, len(sk.bones)
        self.start = nn.Linear(d, c * self.start_frames)
        self.coarse_blocks = nn.ModuleList([ModulatedBlock(c, c, d), ModulatedBlock(c, 3 * c // 4, d, up=2)])
        self.fine_blocks = nn.ModuleList(
            [ModulatedBlock(3 * c // 4, c // 2, d, up=2), ModulatedBlock(c // 2, c // 2, d, up=2)]
        )
        self.attention = TemporalAttention(c // 2)
        self.attention_gain = nn.Parameter(torch.zeros(()))
        self.head = nn.Conv1d(c // 2, self.persons * (self.bones + 1) * 3, 3, padding=1)
        self.sizes = nn.Linear(d, self.persons * self.bones)
        nn.init.normal_(self.sizes.weight, std=0.01)
        nn.init.zeros_(self.sizes.bias)
        rest = torch.from_numpy(context.rests)
        self.coarse = nn.Linear(d, self.persons * (self.bones + 1) * 3 * WAVES)
        still = torch.cat([torch.zeros(self.persons, 1, 3), rest], 1)
        self.head.bias = nn.Parameter(still.flatten())
        nn.init.normal_(self.head.weight, std=0.1 / (3 * c // 2) ** 0.5)
        self.register_buffer("waves", cosine_basis(WAVES, config.frames), persistent=False)
        self.register_buffer("ancestors", torch.from_numpy(sk.ancestors), persistent=False)
        self.register_buffer("bone_mean", torch.tensor(context.bone_mean), persistent=False)
        self.register_buffer("bone_std", torch.tensor(context.bone_std), persistent=False)
        self.scale = context.scale

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Positions, and the attention over time [B, T / 2] that the decoder used."""
        b = w.shape[0]
        h = self.start(w).view(b, -1, self.start_frames)
        for block in self.coarse_blocks:
            h = block(h, w)
        half, last = self.fine_blocks
        h = half(h, w)
        alpha = self.attention(h)
        # Mean gain 1, and no effect at all until the gain has been learned.
        h = last(h * (1 + self.attention_gain * (h.shape[-1] * alpha - 1))[:, None], w)
        out = self.head(nn.functional.leaky_relu(h, 0.2))
        out = out + self.coarse(w).view(b, -1, WAVES) @ self.waves
        out = out.view(b, self.persons, self.bones + 1, 3, -1)
        log_length = self.bone_mean + self.bone_std * self.sizes(w).view(b, self.persons, self.bones).clamp(
            -4, 4
        )
        length = log_length.exp() / self.scale
        return forward_kinematics(out[:, :, 0], out[:, :, 1:], length, self.ancestors), alpha


class MotionGAN(Generator):
    """See the module; registered as `motion_gan`."""

    name = "motion_gan"
    terms = {"critic": CRITIC_TERMS, "generator": GENERATOR_TERMS}
    fitted = ("anchors.", "style_mean", "style_root")
    sampling = ("truncation", "style_prior", "lenders")

    config: MotionGANConfig
    nearest: Tensor
    style_mean: Tensor
    style_root: Tensor

    def __init__(self, config: MotionGANConfig, context: Context) -> None:
        super().__init__(config, context)
        k, v, m = len(context.class_names), context.skeleton.num_joints, context.num_persons
        self.action = nn.Embedding(k, config.action)
        self.action_delta = nn.Embedding(k, config.action)
        nn.init.zeros_(self.action_delta.weight)
        self.register_buffer("nearest", torch.tensor(context.nearest), persistent=False)
        self.encoder = MotionEncoder(m * v * 3, config.frames, config.action, config.style, config.width // 2)
        z = config.noise + config.action + config.style + 1
        self.mapping = nn.Sequential(
            nn.Linear(z, config.width),
            nn.LeakyReLU(0.2),
            nn.Linear(config.width, config.width),
            nn.LeakyReLU(0.2),
        )
        self.decoder = Decoder(config, context)
        self.critic = DualStreamCritic(m, v, k, config.critic_width, context.skeleton.root)
        self.register_buffer("style_mean", torch.zeros(k, config.style))
        self.register_buffer("style_root", torch.eye(config.style).repeat(k, 1, 1))
        self.anchors = Anchors(context, STORED_FRAMES, config.style, config.lenders)
        self.made: tuple[Batch, Tensor] | None = None
        self.seen: dict[str, Tensor] = {}

    def embed(self, y_B: Tensor) -> Tensor:
        """Unit action embedding [B, A]; a rare class is its nearest common class plus a learned offset."""
        return nn.functional.normalize(self.action(self.nearest[y_B]) + self.action_delta(y_B), dim=-1)

    def decode(self, noise: Tensor, y_B: Tensor, style: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """eq. 4 and the decoder: positions [B, M, T, V, 3] in units of `scale`, and the attention over time."""
        z = torch.cat([noise, self.embed(y_B), style, self.duration(seconds)], -1)
        return self.decoder(self.mapping(z))

    def _encode(self, x: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(x.permute(0, 1, 3, 4, 2).flatten(1, 3), self.embed(y_B))

    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        """Unweighted terms of the "critic" (eq. 2) or the "generator" (eq. 5)."""
        real = batch.x / self.context.scale
        there = (real != 0).any(-1, keepdim=True).any(-2, keepdim=True)
        if group == "critic":
            # The generator's step came first and made clips for this batch: half the cost of the critic's step.
            made_here = self.made is not None and self.made[0] is batch
            fake = self.made[1] if self.made and made_here else self._passes(real, batch, there)[0].detach()
            self.made = None
            with torch.nn.utils.parametrize.cached():
                on_real = self.critic(random_view(real), batch.y)
                on_fake = self.critic(random_view(fake), batch.y.repeat(2))
            relu = nn.functional.relu
            return {k: relu(1 - on_real[k]).mean() + relu(1 + on_fake[k]).mean() for k in CRITIC_TERMS}
        fake, mean, logvar, alpha = self._passes(real, batch, there)
        self.made = (batch, fake.detach())
        b = len(batch.y)
        rebuilt, made = fake[b:], fake[:b]
        logits = self.critic(random_view(fake), batch.y.repeat(2))
        terms = {k: -logits[k].mean() for k in CRITIC_TERMS}
        step = lambda x: x[:, :, 1:] - x[:, :, :-1]  # noqa: E731
        t = real.shape[2]
        terms["reconstruction"] = (rebuilt - real).abs().mean()
        terms["temporal"] = (step(rebuilt) - step(real)).abs().mean() * (t / 4)
        fps = t / batch.seconds
        mask = torch.ones(b, t, dtype=torch.bool, device=real.device)
        terms["physics"] = physics_loss(
            made * self.context.scale, fps, mask, self.context.limits, self.context.skeleton
        ).mean()
        terms["prior"] = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        self.seen = {"attention": alpha.detach()}
        return terms

    def diagnostics(self) -> dict[str, float]:
        """Evenness of the decoder's attention over time (its entropy by the largest possible: 1 is unused), and gain.

        The weights themselves, [B, T / 2], are `seen["attention"]`.
        """
        alpha = self.seen["attention"]
        entropy = -(alpha * alpha.clamp_min(1e-9).log()).sum(-1).mean() / math.log(alpha.shape[-1])
        return {
            "attention_entropy": float(entropy),
            "attention_gain": float(self.decoder.attention_gain.detach()),
        }

    @torch.no_grad()
    def attention(self, clips: Batch) -> Tensor:
        """The decoder's attention (eq. 1) in the reconstruction pass, [B, T / 2]."""
        mean, _ = self._encode(whole(clips.x, self.frames) / self.context.scale, clips.y)
        zero = torch.zeros(len(mean), self.config.noise, device=mean.device)
        return self.decode(zero, clips.y, mean, clips.seconds)[1]

    def _passes(self, real: Tensor, batch: Batch, there: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Generation pass (first B) and reconstruction pass (last B) through one decoder call."""
        b, device = len(batch.y), real.device
        mean, logvar = self._encode(real, batch.y)
        encoded = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        style = torch.cat([torch.randn_like(mean), encoded])
        noise = torch.randn(b, self.config.noise, device=device)
        noise = torch.cat([noise, torch.zeros_like(noise)])
        fake, alpha = self.decode(noise, batch.y.repeat(2), style, batch.seconds.repeat(2))
        return fake * there.repeat(2, 1, 1, 1, 1), mean, logvar, alpha

    def parameter_groups(self, stage: int) -> dict[str, list[nn.Parameter]]:
        """Stage 2 freezes the critic's first layers (FreezeD) and the decoder's coarse blocks."""
        held: set[nn.Parameter] = set()
        if stage == 2:
            held |= set(self.critic.early.parameters()) | set(self.decoder.start.parameters())
            held |= {p for n, p in self.decoder.coarse_blocks.named_parameters() if "film" not in n}
        critic = set(self.critic.parameters())
        return {
            "generator": [p for p in self.parameters() if p not in critic and p not in held],
            "critic": [p for p in self.critic.parameters() if p not in held],
        }

    @torch.no_grad()
    def finish(self, clips: Batch) -> None:
        """Keep the anchors of "transfer"; fit the Gaussians of "class".

        The Gaussians are ex-post density estimation (Ghosh et al. 2020): the encoder's styles of a class never fill
        N(0, I) exactly; drawing where no clip of the class lies blurs the class. A class of n clips keeps n / (n + S)
        of its own covariance; the rest is the covariance within all classes, so that a rare class borrows how people
        differ from the common ones.
        """
        mean, logvar = self._encode(whole(clips.x, self.frames) / self.context.scale, clips.y)
        zero = torch.zeros(len(mean), self.config.noise, device=mean.device)
        rebuilt = self.decode(zero, clips.y, mean, clips.seconds)[0] * self.context.scale
        self.anchors.fit(clips, rebuilt, mean)
        size = mean.shape[1]
        within = torch.zeros(size, size, device=mean.device)
        own = {}
        for c in clips.y.unique().tolist():
            styles = mean[clips.y == c]
            centred = styles - styles.mean(0)
            own[c] = (styles.mean(0), centred.T @ centred, len(styles))
            within += own[c][1] / len(clips.y)
        spread = torch.diag(logvar.exp().mean(0)) + 1e-5 * torch.eye(size, device=mean.device)
        for c, (centre, scatter, n) in own.items():
            share = n / (n + size)
            covariance = share * scatter / n + (1 - share) * within + spread
            self.style_mean[c] = centre
            self.style_root[c] = torch.linalg.cholesky(covariance)

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """Generation pass: style from its prior, length and persons from a random real clip of the class."""
        if not requests:
            return []
        device = self.decoder.bone_mean.device
        rngs = [request_rng(r) for r in requests]
        if self.config.style_prior == "transfer":
            return self._transfer(requests, rngs)
        shapes = [self.draw_shape(r, rng) for r, rng in zip(requests, rngs, strict=True)]
        z = normal(rngs, self.config.noise + self.config.style).to(device) * self.config.truncation
        y = torch.tensor([r.label for r in requests], device=device)
        seconds = torch.tensor([t / self.context.fps for t, _ in shapes], device=device)
        style = z[:, self.config.noise :]
        if self.config.style_prior == "class":
            style = self.style_mean[y] + torch.einsum("bij,bj->bi", self.style_root[y], style)
        x, _ = self.decode(z[:, : self.config.noise], y, style, seconds)
        x = (x * self.context.scale).cpu().numpy()
        bodies = [
            rigid_resample(p[:m], t, self.context.skeleton) for p, (t, m) in zip(x, shapes, strict=True)
        ]
        return [self.to_motion(r, body) for r, body in zip(requests, bodies, strict=True)]

    def _transfer(self, requests: Sequence[SampleRequest], rngs: list[np.random.Generator]) -> list[Motion]:
        """Real clips, each changed by a share of the difference between two clips of a common class."""
        anchors = self.anchors
        anchors.check([r.label for r in requests])
        draws = [anchors.draw(r.label, rng) for r, rng in zip(requests, rngs, strict=True)]
        device = anchors.styles.device
        shares = [
            anchors.share(r.label, one, other, rng)
            for r, rng, (_, one, other) in zip(requests, rngs, draws, strict=True)
        ]
        share = torch.tensor(shares, device=device) * self.config.truncation
        at, one, other = torch.tensor(draws, device=device).T
        style = anchors.style(at, one, other, share)
        shapes = [anchors.shapes[a] for a, _, _ in draws]
        seconds = torch.tensor([t / self.context.fps for t, _ in shapes], device=device)
        y = torch.tensor([r.label for r in requests], device=device)
        x, _ = self.decode(torch.zeros(len(y), self.config.noise, device=device), y, style, seconds)
        made = anchors.complete(x * self.context.scale, at, one, other, share)
        return [
            self.to_motion(r, rigid_resample(p[:m], t, self.context.skeleton), parent_id=anchors.ids[a])
            for r, p, (t, m), (a, _, _) in zip(requests, made.cpu().numpy(), shapes, draws, strict=True)
        ]
