"""Kinetic-GAN's two networks: synthesis along the joint pyramid from coarse to fine, the critic the other way.

Shape letters: B clips, C channels, T frames, V joints, D width of w.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motionsynth.generators.base import Context
from motionsynth.generators.graph_layers import GraphBlock
from motionsynth.generators.kinetic_config import KineticGANConfig
from motionsynth.pyramid import expansion, kept, pyramid


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

    def __init__(self, config: KineticGANConfig, context: Context, inputs: int, classes: int) -> None:
        super().__init__()
        levels, stay = pyramid(context.skeleton), kept(context.skeleton)
        centre = levels[-1].joints[0]
        self.stride = config.critic_stride
        self.as_published = config.as_published
        self.embedding = nn.Embedding(classes, classes if config.as_published else config.critic_top)
        channels = inputs + (classes if config.as_published else 0)
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
