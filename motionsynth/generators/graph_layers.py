"""Graph-temporal blocks of Kinetic-GAN: joints coarsen and refine along a skeleton's pyramid.

Memory is laid out [V, T, B, C]: mixing joints is then one matrix product, mixing channels another, and seen as
[V, C, T, B] it is an image that PyTorch calls channels-last. Frames and joints that a block drops are never computed,
and joints are mixed before frames are added; the numbers are those of the plain order.

Shape letters: B clips, C channels, T frames, V joints of a level, K partitions of the neighbourhood.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motionsynth.generators.layers import upsampling
from motionsynth.pyramid import Level, partitions


class EqualisedLinear(nn.Linear):
    """Weights of N(0, 1), scaled by 1 / sqrt(inputs) at run time (Karras et al., ICLR 2018)."""

    def __init__(self, inputs: int, outputs: int, equalised: bool = True) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.gain = (2 / inputs) ** 0.5 if equalised else 1.0

    def forward(self, input: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        return nn.functional.linear(input, self.weight * self.gain, self.bias)


def resize_time(x_VTBC: Tensor, frames: int, linear: bool) -> Tensor:
    """Repeat or interpolate frames up, or keep every n-th frame down; `frames` divides T or is divided by it."""
    t = x_VTBC.shape[1]
    if frames == t:
        return x_VTBC
    if frames < t:
        return x_VTBC[:, :: t // frames]
    if not linear or t == 1:
        return x_VTBC.repeat_interleave(frames // t, 1)
    matrix = upsampling(t, frames // t, x_VTBC.device).to(x_VTBC.dtype)
    return (matrix.t() @ x_VTBC.flatten(2)).unflatten(2, x_VTBC.shape[2:])


class ClipNorm(nn.Module):
    """Group normalisation of each clip over (V, T, C / groups), with a gain and a bias for each channel."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_VTBC: Tensor) -> Tensor:
        """See the class."""
        x = x_VTBC.unflatten(3, (self.groups, -1)).float()
        variance, mean = torch.var_mean(x, (0, 1, 4), correction=0, keepdim=True)
        return ((x - mean) * (variance + 1e-5).rsqrt()).flatten(3) * self.weight + self.bias


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation over (V, T, B)."""

    def forward(self, input: Tensor) -> Tensor:
        """[V, T, B, C] -> [V, T, B, C]."""
        return super().forward(input.reshape(-1, input.shape[-1])).view(input.shape)


class GraphBlock(nn.Module):
    """Graph convolution, temporal convolution of 3 frames, residual, noise (Kinetic-GAN, Degardin et al., WACV 2022).

    Args:
        channels, out: Channels in and out.
        level: Joints that the block works on.
        centre: Original index of the pyramid's last joint.
        keep: Joints of the level that are given out (default: all).
        resize: Frames out for each frame in: 2.0 doubles them before the temporal convolution, 0.5 keeps every
            other one after it.
        linear: Interpolate added frames instead of repeating them.
        norm: Normalise the main path: "batch" (published), "group" or "".
        residual: Whether the input is added to the output at all.
        noise: Whether noise with a learned weight per channel is added.
        residual_norm: Batch normalisation on a residual convolution.
        published: Distances as in the published code.
    """

    adjacency: Tensor

    def __init__(
        self, channels: int, out: int, level: Level, centre: int, *,
        keep: Sequence[int] | None = None, resize: float = 1.0, linear: bool = False, norm: str = "",
        residual: bool = True, residual_norm: bool = False, noise: bool = False, published: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        adjacency = torch.from_numpy(partitions(level, centre, published))
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.keep = None if keep is None else list(keep)
        self.resize, self.linear, self.channels, self.out = resize, linear, channels, out
        self.importance = nn.Parameter(torch.ones_like(adjacency))
        self.graph = nn.Linear(channels, out * len(adjacency), bias=False)
        self.temporal = nn.Conv2d(out, out, (3, 1), (round(max(1, 1 / resize)), 1), (1, 0))
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = RowNorm(out) if norm == "batch" else ClipNorm(max(1, out // 16), out)
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Identity() if channels == out else nn.Linear(channels, out)
            if channels != out and residual_norm:
                self.residual = nn.Sequential(self.residual, RowNorm(out))
        self.noise_gain = nn.Parameter(torch.zeros(out)) if noise else None

    def forward(self, x_VTBC: Tensor, noise_VTB1: Tensor | None = None) -> Tensor:
        """[V, T, B, C] -> [V', T', B, C']; the noise has the output's V and T."""
        frames = round(x_VTBC.shape[1] * self.resize)
        h = self._mix_joints(x_VTBC)
        h = resize_time(h, max(frames, h.shape[1]), self.linear)
        h = self.norm(self.temporal(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        if self.residual is not None:
            x = x_VTBC if self.keep is None else x_VTBC[self.keep]
            if frames < x.shape[1]:
                h = h + self.residual(resize_time(x, frames, self.linear))
            else:
                h = h + resize_time(self.residual(x), frames, self.linear)
        if self.noise_gain is not None and noise_VTB1 is not None:
            h = h + noise_VTB1 * self.noise_gain
        return h

    def _mix_joints(self, x: Tensor) -> Tensor:
        """sum_k A_k' x W_k', joints first where that is less work than channels first."""
        ways_KVV = self.adjacency * self.importance
        if self.keep is not None:
            ways_KVV = ways_KVV[:, :, self.keep]
        k, v, kept = ways_KVV.shape
        # Taken apart by `unbind`, whose gradient is one copy; that of indexing fills a whole tensor for each part.
        weights = self.graph.weight.view(k, self.out, self.channels).unbind()
        if self.channels <= self.out:
            mixed = ways_KVV.transpose(1, 2).reshape(k * kept, v) @ x.flatten(1)
            parts = mixed.view(k, -1, self.channels).unbind()
            h = parts[0] @ weights[0].t()
            for part, weight in zip(parts[1:], weights[1:], strict=True):
                h = torch.addmm(h, part, weight.t())
        else:
            rows, ways = x.reshape(-1, self.channels), ways_KVV.unbind()
            h = ways[0].t() @ (rows @ weights[0].t()).view(v, -1)
            for way, weight in zip(ways[1:], weights[1:], strict=True):
                h = torch.addmm(h, way.t(), (rows @ weight.t()).view(v, -1))
        return h.view(kept, *x.shape[1:3], self.out)
