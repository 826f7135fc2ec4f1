"""The Transformers of Dong 2026: an encoder that gives a clip its code, and a decoder that cleans a noised clip.

Shape letters: B clips, T frames, D features a frame, K classes, W width, S numbers of a code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from motionsynth.errors import InputError
from motionsynth.generators.diffusion_config import SkelDiffusionConfig


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditions:
    """What a denoiser is told of a noised clip.

    Attributes:
        time: Time indices of the noise schedule, int64 [B].
        duration: Of about unit spread, [B, 1].
        label: int64 [B].
        code: [B, S].
        has_class, has_code: bool [B]; where False, class or code are kept from it.
    """

    time: Tensor
    duration: Tensor
    label: Tensor
    code: Tensor
    has_class: Tensor
    has_code: Tensor

    def and_nothing(self) -> Conditions:
        """The same conditions, and behind them as many clips that are told neither class nor code: [2 B]."""
        none = torch.zeros_like(self.has_class)
        two = lambda x: torch.cat([x, x])  # noqa: E731
        return Conditions(
            time=two(self.time),
            duration=two(self.duration),
            label=two(self.label),
            code=two(self.code),
            has_class=torch.cat([self.has_class, none]),
            has_code=torch.cat([self.has_code, none]),
        )


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions [...] -> [..., width], an even number (Vaswani et al. 2017, section 3.5)."""
    rates = (torch.arange(0, width, 2, device=positions.device) * (-math.log(10_000) / width)).exp()
    angles = positions[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def plain_attention(x: Tensor) -> AbstractContextManager[object]:
    """On CPUs, attention as matrix products: the fused kernel's way back is far slower at so few frames."""
    return sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext()


def unit(code: Tensor) -> Tensor:
    """Codes [B, S] of root mean square 1."""
    return code * (code.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class CodeEncoder(nn.Module):
    """A clean clip [B, T, D] -> its code [B, S], of root mean square 1: a bottleneck, so that the decoder cannot copy.

    The released code lets its attention run over the clips of the batch, which is a mistake in an axis: here it runs
    over time. As published the Transformer is as wide as the code, the code is its mean over time as it is, and
    nothing tells it which frame comes first.

    Args:
        config: Sizes; as published the Transformer is as wide as the code.
        dims: D.
    """

    places: Tensor

    def __init__(self, config: SkelDiffusionConfig, dims: int) -> None:
        super().__init__()
        c = config
        self.as_published = c.as_published
        width, feedforward = (c.code, 1024) if c.as_published else (c.width, 4 * c.width)
        self.into = nn.Linear(dims, width)
        self.register_buffer("places", sinusoids(torch.arange(c.frames), width), persistent=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                c.heads,
                feedforward,
                c.dropout,
                "gelu",
                batch_first=True,
                norm_first=not c.as_published,
            )
            for _ in range(c.encoder_layers)
        )
        self.norm = nn.Identity() if c.as_published else nn.LayerNorm(width)
        self.out = nn.Identity() if c.as_published else nn.Linear(width, c.code)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """See the class."""
        h = self.into(x_BTD)
        if not self.as_published:
            h = h + self.places
        with plain_attention(h):
            for layer in self.layers:
                h = layer(h)
        return self.settled(self.out(self.norm(h).mean(1)).float())

    def settled(self, code: Tensor) -> Tensor:
        """Codes [B, S] brought to the size that a clip's own has, such as those between two clips."""
        return code if self.as_published else unit(code)


class Denoiser(nn.Module):
    """x_t and conditions -> x0; and the class that x0 looks like.

    Each frame is a token; conditions are three more (time with duration, class, code), which the cross-attention of
    every layer sees. "No class" and "no code" are learned tokens of their own, for guidance. A rare class is its
    nearest common class plus a learned offset.

    Args:
        config: Sizes.
        dims: D.
        nearest: For each class, where its embedding starts (`Context.nearest`), [K].
    """

    places: Tensor
    nearest: Tensor

    def __init__(self, config: SkelDiffusionConfig, dims: int, nearest: Sequence[int]) -> None:
        super().__init__()
        c, width, classes = config, config.width, len(nearest)
        self.width = width
        self.into = nn.Linear(dims, width)
        self.time = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU(), nn.Linear(width, width))
        self.action, self.action_delta = nn.Embedding(classes, width), nn.Embedding(classes, width)
        nn.init.normal_(self.action.weight, std=0.5)
        nn.init.zeros_(self.action_delta.weight)
        self.code = nn.Linear(c.code, width)
        self.no_class, self.no_code = (nn.Parameter(0.5 * torch.randn(width)) for _ in range(2))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, c.heads, 4 * width, c.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dims)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.classifier = nn.Sequential(nn.Linear(dims, width), nn.GELU(), nn.Linear(width, classes))
        self.register_buffer("places", sinusoids(torch.arange(c.frames), width), persistent=False)
        self.register_buffer("nearest", torch.tensor(nearest), persistent=False)

    def forward(self, x_BTD: Tensor, told: Conditions, keep: Tensor | None = None) -> Tensor:
        """The clean clip, float32 [B, T, D].

        Args:
            x_BTD: Noised clips.
            told: Their conditions.
            keep: Factors on the tokens, [B, T, W]: dropout at sampling.
        """
        time = self.time(torch.cat([sinusoids(told.time, self.width), told.duration], -1))
        label = self.action(self.nearest[told.label]) + self.action_delta(told.label)
        label = torch.where(told.has_class[:, None], label, self.no_class)
        code = self.code(told.code)
        code = torch.where(told.has_code[:, None], code, self.no_code.to(code))
        conditions = torch.stack([time.to(code), label.to(code), code], 1)
        h = self.into(x_BTD) + self.places
        if keep is not None:
            h = h * keep
        with plain_attention(h):
            for layer in self.layers:
                h = layer(h, conditions)
        return self.out(self.norm(h)).float()

    def name(self, x0_BTD: Tensor) -> Tensor:
        """Logits [B, K] of the class of a clean clip, from its mean over time as published."""
        return self.classifier(x0_BTD.mean(1))


class PublishedDenoiser(nn.Module):
    """The released one: all conditions in one token, before the frames and as the only memory; nothing is kept back.

    Args:
        As `Denoiser`.

    Raises:
        InputError: code and classes do not fit into the width.
    """

    places: Tensor

    def __init__(self, config: SkelDiffusionConfig, dims: int, nearest: Sequence[int]) -> None:
        super().__init__()
        c, code, width = config, config.code, config.width
        self.classes = len(nearest)
        self.width, self.spare = width, width - code - self.classes
        if self.spare < 0:
            raise InputError(
                f"skel_diffusion_published puts a code of {code} and {self.classes} classes into a width of {width}; "
                f"make the code at most {width - self.classes}."
            )
        self.into = nn.Linear(dims, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, c.heads, 1024, c.dropout, "gelu", batch_first=True)
            for _ in range(c.layers)
        )
        self.out = nn.Linear(width, dims)
        self.classifier = nn.Sequential(nn.Linear(dims, width), nn.Linear(width, self.classes))
        self.register_buffer("places", sinusoids(torch.arange(c.frames + 1), width), persistent=False)

    def forward(self, x_BTD: Tensor, told: Conditions, keep: Tensor | None = None) -> Tensor:
        """As `Denoiser.forward`; `keep` leaves the token of the conditions alone."""
        named = nn.functional.one_hot(told.label, self.classes).to(told.code)
        both = nn.functional.pad(torch.cat([told.code, named], -1), (0, self.spare))
        z = (self.time(sinusoids(told.time, self.width)) + both)[:, None]
        h = torch.cat([z, self.into(x_BTD)], 1) + self.places
        if keep is not None:
            h = torch.cat([h[:, :1], h[:, 1:] * keep], 1)
        with plain_attention(h):
            for layer in self.layers:
                h = layer(h, z.to(h))
        return self.out(h[:, 1:]).float()

    def name(self, x0_BTD: Tensor) -> Tensor:
        """As `Denoiser.name`, by two linear layers with nothing between them."""
        return self.classifier(x0_BTD.mean(1))
