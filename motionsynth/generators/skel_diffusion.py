"""Diffusion over skeleton clips, told the class and the code of a clip (Dong 2026), with what was missing mended.

A clip is a row of features for each frame (`representation`); a Transformer cleans a noised one (`denoiser`), told the
time, the class and the code of a clip, and sampling walks down the noise with a solver of few steps (`diffusion`). What
a clip is made from is a matter of `SkelDiffusionConfig.sources`.

Shape letters: B clips, M persons, T frames, V joints, D features a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter, functional

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
from motionsynth.generators.denoiser import CodeEncoder, Conditions, Denoiser, PublishedDenoiser
from motionsynth.generators.diffusion import add_noise, cosine_schedule, solve, walk
from motionsynth.generators.diffusion_config import TERMS, PublishedSkelDiffusionConfig, SkelDiffusionConfig
from motionsynth.generators.transfer import AnchorStyles, Body, fill_absent
from motionsynth.generators.wiener import WienerGuess
from motionsynth.motion import Motion
from motionsynth.representation import Representation

SPREAD_CLIPS = 2048
"""Clips from which `SkelDiffusion.spread` is measured, at most."""


class SkelDiffusion(Generator):
    """See the module; registered as `skel_diffusion`."""

    name = "skel_diffusion"
    terms = {"denoiser": TERMS}
    fitted = ("anchors.",)
    sampling = (
        "steps", "solver", "guidance", "sources", "edit_start", "lenders", "sampling_dropout", "dropout_until",
    )  # fmt: skip
    betas = (0.9, 0.99)

    config: SkelDiffusionConfig
    alpha_bar: Tensor
    spread: Tensor

    def __init__(self, config: SkelDiffusionConfig, context: Context) -> None:
        super().__init__(config, context)
        c = config
        self.representation = Representation(context.skeleton, context.num_persons, context.rest, c.parts)
        d = self.representation.dims
        self.encoder = CodeEncoder(c, d)
        self.denoiser = (PublishedDenoiser if c.as_published else Denoiser)(c, d, context.nearest)
        self.register_buffer("alpha_bar", cosine_schedule(c.times), persistent=False)
        # Mean squares of the real clips' positions about their mean, of their velocities and of their accelerations.
        self.register_buffer("spread", torch.ones(3))
        self.guess = None if c.as_published else WienerGuess(c.frames, d)
        # A style is a code and the whole clip.
        self.anchors = AnchorStyles(context, c.code + c.frames * d, c.lenders)

    def encoded(self, x: Tensor) -> Tensor:
        """Positions [B, M, T, V, 3], metres -> normalised features [B, T, D], 0 for persons who are never there."""
        # Headings, sums of steps and the like do not survive in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            there = (x != 0).flatten(2).any(-1)
            features, _ = self.representation.encode(fill_absent(x.float()))
            return self.representation.normalise(features) * self.representation.of_person(there)

    def placed(self, z_BTD: Tensor) -> Tensor:
        """Normalised features -> positions [B, M, T, V, 3], metres; of persons who are never there: no meaning."""
        with torch.autocast(z_BTD.device.type, enabled=False):
            return self.representation.decode(self.representation.restore(z_BTD.float()))

    def prepare(self, clips: Batch) -> None:
        """Mean and spread of the features, and of what they say in metres."""
        x = whole(fill_absent(clips.x), self.frames)
        self.representation.fit(x)
        z, there = self.encoded(x), (x != 0).flatten(2).any(-1)
        if self.guess is not None:
            self.guess.fit(z, self.representation.of_person(there))
        every = -(-len(z) // SPREAD_CLIPS)
        seen = self.placed(z[::every])[there[::every]]
        for n in range(3):
            d = seen.diff(n=n, dim=1)
            self.spread[n] = (d - d.mean((0, 1))).square().mean().clamp_min(1e-12)

    def clean(self, x: Tensor, told: Conditions, keep: Tensor | None = None) -> Tensor:
        """Noised features [B, T, D] -> clean ones; see `Denoiser.forward`.

        Ours has the network mend the best linear guess (`WienerGuess`); as published it answers with the clip itself.
        """
        answer = self.denoiser(x, told, keep)
        return answer if self.guess is None else self.guess(x, self.alpha_bar[told.time], answer)

    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        """Unweighted terms of the x0-prediction; each but the classification is 1 where the answer is the mean clip."""
        c = self.config
        there = (batch.x != 0).flatten(2).any(-1)
        mask = self.representation.of_person(there)
        z = self.encoded(batch.x)
        b, device = len(z), z.device
        code = self.encoder(z)
        code = code + c.code_noise * torch.randn_like(code)
        u = torch.rand(b, device=device)
        told = Conditions(
            time=torch.randint(c.times, (b,), device=device),
            duration=self.duration(batch.seconds),
            label=batch.y,
            code=code,
            has_class=u >= c.drop_all,
            has_code=u >= c.drop_all + c.drop_code,
        )
        noised = add_noise(z, torch.randn_like(z), self.alpha_bar[told.time])
        x0 = self.clean(noised, told) * mask
        real, made = self.placed(z), self.placed(x0)
        seen = there[:, :, None, None, None].to(z)
        size = seen.sum() * math.prod(real.shape[3:])
        error = lambda n: (  # noqa: E731
            ((real - made).diff(n=n, dim=2) * seen).square().sum()
            / (size * (real.shape[2] - n) * self.spread[n])
        )
        named = self.denoiser.name(x0).float()
        return {
            "reconstruction": (x0 - z).square().sum() / (mask.sum() * z.shape[1]),
            "position": error(0),
            "velocity": error(1),
            "acceleration": error(2),
            "classification": functional.cross_entropy(named, batch.y, label_smoothing=0.1),
        }

    def parameter_groups(self, stage: int) -> dict[str, list[Parameter]]:
        """One group of everything, in both stages."""
        return {"denoiser": list(self.parameters())}

    @torch.no_grad()
    def finish(self, clips: Batch) -> None:
        """Keep codes and features of the anchors."""
        z = self.encoded(whole(fill_absent(clips.x), self.frames))
        codes = torch.cat([self.encoder(part) for part in z.split(256)])
        self.anchors.keep(clips, torch.cat([codes, z.flatten(1)], 1))

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """Each clip from a source of its own; length and persons are those of the real clip that it is drawn beside."""
        if not requests:
            return []
        c, anchors, device = self.config, self.anchors, self.alpha_bar.device
        anchors.check([r.label for r in requests])
        rngs = [request_rng(r) for r in requests]
        names = [s for s, w in c.sources.items() if w > 0]
        weights = np.array([c.sources[s] for s in names], float)
        kinds = [str(rng.choice(names, p=weights / weights.sum())) for rng in rngs]
        drawn = [self._draw(r, kind, rng) for r, kind, rng in zip(requests, kinds, rngs, strict=True)]
        at, one, other = torch.tensor([d[0] for d in drawn], device=device).T
        style = anchors.style(at, one, other, torch.tensor([d[1] for d in drawn], device=device).float())
        code = self.encoder.settled(style[:, : c.code])
        clip = style[:, c.code :].unflatten(1, (c.frames, -1))
        shapes = [anchors.shapes[d[0][0]] for d in drawn]
        y = torch.tensor([r.label for r in requests], device=device)
        seconds = torch.tensor([t / self.context.fps for t, _ in shapes], device=device)
        there = torch.tensor([[m < n for m in range(self.context.num_persons)] for _, n in shapes])
        mask = self.representation.of_person(there.to(device))
        made = torch.zeros_like(clip)
        for edit in (False, True):
            mine = [i for i, k in enumerate(kinds) if (k == "edit") is edit]
            if not mine:
                continue
            to = torch.tensor(mine, device=device)
            told = Conditions(
                time=torch.zeros_like(to),
                duration=self.duration(seconds)[to],
                label=y[to],
                code=code[to],
                has_class=torch.ones_like(to, dtype=torch.bool),
                has_code=torch.tensor([kinds[i] != "label" for i in mine], device=device),
            )
            made[to] = self._solve(clip[to] if edit else None, told, [rngs[i] for i in mine])
        skeleton = self.context.skeleton
        bodies = Body.split(self.placed(made * mask), skeleton).join(skeleton).cpu().numpy()
        return [
            self.to_motion(r, rigid_resample(body[:m], t, skeleton), parent_id="+".join(parents) or None)
            for r, body, (t, m), (_, _, parents) in zip(requests, bodies, shapes, drawn, strict=True)
        ]

    def _draw(
        self, request: SampleRequest, kind: str, rng: np.random.Generator
    ) -> tuple[tuple[int, int, int], float, tuple[str, ...]]:
        """Anchor, the two clips whose difference it takes, the share of it, and the real clips that it comes from."""
        anchors = self.anchors
        at, one, other = anchors.draw(request.label, rng)
        if kind == "interpolated":
            pair = int(rng.choice(anchors.members[request.label]))
            return (
                (at, pair, at),
                rng.uniform(0.3, 0.7),
                tuple(dict.fromkeys((anchors.ids[at], anchors.ids[pair]))),
            )
        share = (
            anchors.share(request.label, one, other, rng) if kind in ("transfer", "edit") else 0.0
        )  # fmt: skip
        return (at, one, other), share, () if kind == "label" else (anchors.ids[at],)

    def _solve(self, clip: Tensor | None, told: Conditions, rngs: list[np.random.Generator]) -> Tensor:
        """Walk down the noise, from a clip [B, T, D] that is noised up to `edit_start`, or from noise alone."""
        c, device = self.config, self.alpha_bar.device
        shape = (len(rngs), c.frames, self.representation.dims)
        noise = lambda: normal(rngs, shape[1] * shape[2]).view(shape).to(device)  # noqa: E731
        start = 1.0 if clip is None else c.edit_start
        walked = walk(c.times, max(1, round(c.steps * start)), start)
        x = noise()
        if clip is not None:
            x = add_noise(clip, x, self.alpha_bar[walked[0]].expand(len(x)))
        told = told if c.guidance == 1 else told.and_nothing()
        dropping = set(walked[: math.ceil(c.dropout_until * len(walked))]) if c.sampling_dropout else set()

        def predict(x: Tensor, t: int) -> Tensor:
            keep = None
            if t in dropping:
                u = np.stack([rng.random((c.frames, c.width), np.float32) for rng in rngs])
                keep = (torch.from_numpy(u).to(device) >= c.sampling_dropout) / (1 - c.sampling_dropout)
            at = replace(told, time=torch.full_like(told.time, t))
            if c.guidance == 1:
                return self.clean(x, at, keep)
            both = self.clean(torch.cat([x, x]), at, None if keep is None else torch.cat([keep, keep]))
            told_all, told_nothing = both.chunk(2)
            return told_nothing + c.guidance * (told_all - told_nothing)

        return solve(predict, x, self.alpha_bar, walked, c.solver, noise)


class PublishedSkelDiffusion(SkelDiffusion):
    """The released code; registered as `skel_diffusion_published`."""

    name = "skel_diffusion_published"
    config: PublishedSkelDiffusionConfig


__all__ = ["PublishedSkelDiffusion", "PublishedSkelDiffusionConfig", "SkelDiffusion", "SkelDiffusionConfig"]
