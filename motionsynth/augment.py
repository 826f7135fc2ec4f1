"""The strong classical augmentation that every arm of the protocol shares, on batches of clips.

Rotation, scale, temporal crop and warp, mirroring where the label allows it, joint jitter: the set that
lifts ST-GCN++ by a point on NTU RGB+D (pyskl's strong_aug) plus the ones that matter across people.
Shapes: B batch, M persons, T frames stored, L frames out, V joints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motionsynth.augment_config import AugmentConfig


def _uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low


def rotation(angles: Tensor) -> Tensor:
    """Rotation matrices Ry Rx Rz from [B, 3] angles (x, y, z; radians) -> [B, 3, 3]."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)
    rx = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).view(-1, 3, 3)
    ry = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    rz = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).view(-1, 3, 3)
    return ry @ rx @ rz


def sample_times(x_BMTVC: Tensor, at_BL: Tensor) -> Tensor:
    """Linear interpolation of clips at fractional frame numbers.

    Between a frame where a person is present and one where it is absent, the present one is copied, as in
    `motion.resample`: halfway to zero lies a shrunken body that nobody ever had.

    Args:
        x_BMTVC: Clips, [B, M, T, V, 3].
        at_BL: Frame numbers in [0, T - 1], [B, L].

    Returns:
        [B, M, L, V, 3].
    """
    b, m, t, v, c = x_BMTVC.shape
    lo = at_BL.floor().long().clamp(0, t - 1)
    hi = (lo + 1).clamp(max=t - 1)
    w = (at_BL - lo).to(x_BMTVC.dtype).view(b, 1, -1, 1)
    flat = x_BMTVC.reshape(b, m, t, v * c)
    take = torch.arange(b, device=x_BMTVC.device)[:, None]
    a, z = flat.transpose(1, 2)[take, lo].transpose(1, 2), flat.transpose(1, 2)[take, hi].transpose(1, 2)
    in_a, in_z = (a != 0).any(-1, keepdim=True), (z != 0).any(-1, keepdim=True)
    w = torch.where(in_a & ~in_z, 0.0, torch.where(in_z & ~in_a, 1.0, w))
    return torch.lerp(a, z, w).view(b, m, -1, v, c)


def crop_times(batch: int, stored: int, frames: int, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """Frame numbers [B, frames] of a random crop with a smooth, monotone time warp."""
    share = _uniform((batch, 1), config.crop, 1.0, rng)
    start = _uniform((batch, 1), 0.0, 1.0, rng) * (1 - share)
    u = torch.linspace(0, 1, frames).expand(batch, frames)
    amplitude = _uniform((batch, 2), -config.warp, config.warp, rng)
    # |d/du| of the two sines is at most warp * 2 pi < 1 for warp <= 0.15, so time never runs backwards.
    u = u + amplitude[:, :1] * (math.pi * u).sin() + 0.5 * amplitude[:, 1:] * (2 * math.pi * u).sin()
    return (start + share * u.clamp(0, 1)) * (stored - 1)


def augment(
    x_BMTVC: Tensor,
    labels_B: Tensor,
    frames: int,
    config: AugmentConfig,
    rng: torch.Generator,
    mirror_permutation_V: Tensor,
    mirrored_labels_K: Tensor,
) -> tuple[Tensor, Tensor]:
    """One random view of each clip.

    Args:
        x_BMTVC: Canonical clips, [B, M, T, V, 3], metres; absent persons all zero.
        labels_B: Classes, [B].
        frames: L, frames to return.
        config: Strengths.
        rng: Source of all randomness.
        mirror_permutation_V: `Skeleton.mirror_permutation`.
        mirrored_labels_K: `motion.mirrored_labels` of the class names; -1 forbids mirroring.

    Returns:
        Clips [B, M, L, V, 3] and their labels [B] (mirroring swaps left and right classes).
    """
    b, _, t, _, _ = x_BMTVC.shape
    x = sample_times(x_BMTVC, crop_times(b, t, frames, config, rng))
    there = (x != 0).any(-1, keepdim=True).any(-2, keepdim=True)
    flip = (torch.rand(b, generator=rng) < config.mirror) & (mirrored_labels_K[labels_B] >= 0)
    reflected = x[..., mirror_permutation_V, :] * x.new_tensor([-1.0, 1.0, 1.0])
    x = torch.where(flip.view(b, 1, 1, 1, 1), reflected, x)
    labels = torch.where(flip, mirrored_labels_K[labels_B], labels_B)
    turn = _uniform((b, 3), -1, 1, rng) * torch.tensor([config.tilt, config.yaw, config.tilt])
    size = 1 + _uniform((b, 1, 3), -config.scale, config.scale, rng)
    x = torch.einsum("bmtvc,bdc->bmtvd", x, rotation(turn) * size)
    if config.jitter:
        x = x + config.jitter * torch.randn(x.shape, generator=rng)
    return x * there, labels


def whole(x_BMTVC: Tensor, frames: int) -> Tensor:
    """The whole clip at `frames` frames: what a recogniser sees at test time."""
    b, _, t, _, _ = x_BMTVC.shape
    at = torch.linspace(0, t - 1, frames, device=x_BMTVC.device)
    return sample_times(x_BMTVC, at.expand(b, frames))
