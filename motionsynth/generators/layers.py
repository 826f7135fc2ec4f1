"""Layers that generators share."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn


class TemporalAttention(nn.Module):
    """alpha_t = softmax over t of W_a tanh(W_t h_t + b_t): Galstyan 2025, eq. 1 (the paper omits the axis)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Linear(channels, channels // 2)
        self.outer = nn.Linear(channels // 2, 1, bias=False)

    def forward(self, h_BCT: Tensor) -> Tensor:
        """[B, C, T] -> weights [B, T] that sum to 1."""
        return self.outer(torch.tanh(self.inner(h_BCT.transpose(1, 2)))).squeeze(-1).softmax(-1)


def cosine_basis(waves: int, frames: int) -> Tensor:
    """The slowest `waves` cosines of the DCT-II over `frames` frames, orthonormal, [waves, frames]."""
    n, k = torch.arange(frames) + 0.5, torch.arange(waves)[:, None]
    basis = (torch.pi / frames * n * k).cos() * (2 / frames) ** 0.5
    basis[0] /= 2**0.5
    return basis


@lru_cache(maxsize=32)
def upsampling(frames: int, factor: int, device: torch.device) -> Tensor:
    """[frames, frames * factor]: linear interpolation in time as one matrix, as frames are few.

    Its gradient is a matrix product, too, several times faster than that of `interpolate` on a CPU.
    """
    with torch.inference_mode(False):  # the matrix outlives this call and must stay usable in training
        identity = torch.eye(frames, device=device)[None]
        return nn.functional.interpolate(identity, scale_factor=factor, mode="linear", align_corners=False)[0]


class ModulatedBlock(nn.Module):
    """Residual temporal convolution whose gain and bias come from w (FiLM, Perez et al., AAAI 2018)."""

    def __init__(self, channels: int, out: int, style: int, up: int = 1) -> None:
        super().__init__()
        self.up = up
        self.norm1, self.norm2 = nn.GroupNorm(8, channels, affine=False), nn.GroupNorm(8, out, affine=False)
        self.film1, self.film2 = nn.Linear(style, 2 * channels), nn.Linear(style, 2 * out)
        self.conv1, self.conv2 = nn.Conv1d(channels, out, 3, padding=1), nn.Conv1d(out, out, 3, padding=1)
        self.skip = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, h_BCT: Tensor, w_BD: Tensor) -> Tensor:
        """[B, C, T] -> [B, C', T * up]."""
        if self.up > 1:
            h_BCT = h_BCT @ upsampling(h_BCT.shape[-1], self.up, h_BCT.device).to(h_BCT.dtype)
        y = self.conv1(self._film(self.norm1(h_BCT), self.film1(w_BD)))
        y = self.conv2(self._film(self.norm2(y), self.film2(w_BD)))
        return self.skip(h_BCT) + y

    @staticmethod
    def _film(h: Tensor, gain_bias: Tensor) -> Tensor:
        gain, bias = gain_bias.unsqueeze(-1).chunk(2, 1)
        # In place where nobody else needs the value: memory traffic is what these small steps cost.
        return nn.functional.leaky_relu_((h * (1 + gain)).add_(bias), 0.2)


def forward_kinematics(root: Tensor, direction: Tensor, length: Tensor, ancestors: Tensor) -> Tensor:
    """Joints of bodies whose bones turn and never stretch.

    Args:
        root: Of each person, [B, M, 3, T].
        direction: Of each bone, of any length above 0, [B, M, N, 3, T].
        length: Of each bone, one per clip, [B, M, N].
        ancestors: `Skeleton.ancestors`, [V, N].

    Returns:
        float32 [B, M, T, V, 3], in the unit of root and lengths. Time stays last inside, along contiguous memory.
    """
    # Three digits of bfloat16 would shake joints by millimetres and drown their displacements.
    with torch.autocast(root.device.type, enabled=False):
        direction, length = direction.float(), length.float()
        unit = direction / (direction.square().sum(3, keepdim=True) + 1e-8).sqrt()
        joints = (ancestors @ (unit * length[..., None, None]).flatten(3)).unflatten(3, (3, -1))
        return (root.float()[:, :, None] + joints).permute(0, 1, 4, 2, 3)
