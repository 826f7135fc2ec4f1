"""Graph-temporal blocks of Kinetic-GAN: joints coarsen and refine along a skeleton's pyramid.

Shape letters: B clips, C channels, T frames, V joints of a level, K partitions of the neighbourhood.
"""

from __future__ import annotations

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


def resize_time(x_BCTV: Tensor, frames: int, linear: bool) -> Tensor:
    """Repeat or interpolate frames up, or keep every n-th frame down; `frames` divides T or is divided by it."""
    t = x_BCTV.shape[2]
    if frames == t:
        return x_BCTV
    if frames < t:
        return x_BCTV[:, :, :: t // frames]
    if not linear or t == 1:
        return x_BCTV.repeat_interleave(frames // t, 2)
    matrix = upsampling(t, frames // t, x_BCTV.device).to(x_BCTV.dtype)
    return torch.einsum("bctv,tu->bcuv", x_BCTV, matrix)


class GraphBlock(nn.Module):
    """Graph convolution, temporal convolution of 3 frames, residual, noise (Kinetic-GAN, Degardin et al., WACV 2022).

    Args:
        channels, out: Channels in and out.
        level: Joints that the block works on.
        centre: Original index of the pyramid's last joint.
        norm: Normalise the main path: "batch" (published), "group" or "".
        residual: Whether the input is added to the output at all.
        noise: Whether noise with a learned weight per channel is added.
        residual_norm: Batch normalisation on a residual convolution.
        published: Distances as in the published code.
    """

    adjacency: Tensor

    def __init__(
        self, channels: int, out: int, level: Level, centre: int, *,
        norm: str = "", residual: bool = True, residual_norm: bool = False, noise: bool = False,
        published: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        adjacency = torch.from_numpy(partitions(level, centre, published))
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.importance = nn.Parameter(torch.ones_like(adjacency))
        self.graph = nn.Conv2d(channels, out * len(adjacency), 1, bias=False)
        self.temporal = nn.Conv2d(out, out, (3, 1), padding=(1, 0))
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(max(1, out // 16), out)
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
            if channels != out and residual_norm:
                self.residual = nn.Sequential(self.residual, nn.BatchNorm2d(out))
        self.noise_gain = nn.Parameter(torch.zeros(out, 1, 1)) if noise else None

    def forward(self, x_BCTV: Tensor, noise_B1TV: Tensor | None = None) -> Tensor:
        """[B, C, T, V] -> [B, C', T, V]."""
        b, _, t, v = x_BCTV.shape
        # One matrix product over (partition, source joint) instead of one per partition.
        h = self.graph(x_BCTV).view(b, len(self.adjacency), -1, t, v).permute(0, 2, 3, 1, 4)
        h = h.flatten(3) @ (self.adjacency * self.importance).flatten(0, 1)
        h = self.norm(self.temporal(h))
        if self.residual is not None:
            h = h + self.residual(x_BCTV)
        if self.noise_gain is not None and noise_B1TV is not None:
            h = h + self.noise_gain * noise_B1TV
        return h
