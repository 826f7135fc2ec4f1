"""Style transfer onto real clips: where a class has too few clips to learn its spread, borrow it from common ones.

A new clip starts from a real training clip of its class and changes as two clips of one common class differ
(the delta-encoder of Schwartz et al., NeurIPS 2018, in the style space of a generator). The generator draws the
change of style; what it cannot rebuild of the three clips (sensor noise, quick small movements) is added as it is.

Shape letters: A anchors, B clips, M persons, T frames, V joints, N = V - 1 bones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from motionsynth.augment import whole
from motionsynth.generators.base import Batch, Context
from motionsynth.skeleton import Skeleton

PER_CLASS = 64
"""Most clips of a class that are kept as anchors, spread evenly over its training clips; they travel in checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Clips taken apart: `join` puts them together, so that bones turn and never stretch.

    Attributes:
        root: [B, M, T, 3], metres.
        direction: Of each bone, [B, M, T, N, 3], of length 1.
        length: Of each bone over the whole clip, [B, M, N], metres.
    """

    root: Tensor
    direction: Tensor
    length: Tensor

    @staticmethod
    def split(x: Tensor, skeleton: Skeleton) -> Body:
        """Take clips [B, M, T, V, 3] apart; a bone's length is its median over time."""
        child, parent = (list(side) for side in zip(*skeleton.bones, strict=True))
        bones = x[..., child, :] - x[..., parent, :]
        size = bones.norm(dim=-1)
        return Body(
            root=x[..., skeleton.root, :],
            direction=bones / size.clamp_min(1e-8)[..., None],
            length=size.median(2).values,
        )

    def join(self, skeleton: Skeleton) -> Tensor:
        """[B, M, T, V, 3] by forward kinematics; directions need not be normalised."""
        unit = nn.functional.normalize(self.direction, dim=-1)
        ancestors = torch.from_numpy(skeleton.ancestors).to(unit)
        return self.root[..., None, :] + ancestors @ (unit * self.length[:, :, None, :, None])


def fill_absent(x: Tensor) -> Tensor:
    """[B, M, T, V, 3] in which a person who is missing for some frames holds the nearest pose instead of zeros."""
    there = (x != 0).flatten(3).any(-1)
    t = x.shape[2]
    at = torch.arange(t, device=x.device)
    gap = (at[:, None] - at[None]).abs() + t * 2 * ~there[:, :, None, :]
    return x.gather(2, gap.argmin(-1)[..., None, None].expand_as(x))


class Anchors(nn.Module):
    """Training clips with their styles, and what the generator rebuilds of them; fitted once it is trained.

    Sizes follow from the context alone, so that a checkpoint's tensors fit a freshly built generator.
    """

    clips: Tensor
    rebuilt: Tensor
    styles: Tensor

    def __init__(self, context: Context, frames: int, style: int) -> None:
        super().__init__()
        self.picks = [
            np.unique(np.linspace(0, len(pool) - 1, PER_CLASS).round().astype(int))
            if pool
            else np.zeros(0, int)
            for pool in context.shapes
        ]
        size = [len(p) for p in self.picks]
        self.members = np.split(np.arange(sum(size)), np.cumsum(size)[:-1])
        self.shapes = [pool[i] for pool, pick in zip(context.shapes, self.picks, strict=True) for i in pick]
        self.ids = [ids[i] for ids, pick in zip(context.clips, self.picks, strict=True) for i in pick]
        many = [c for c, n in enumerate(size) if n > 1]
        self.lenders = [c for c in many if c not in context.rare] or many
        shape = (sum(size), context.num_persons, frames, context.skeleton.num_joints, 3)
        self.register_buffer("clips", torch.zeros(shape))
        self.register_buffer("rebuilt", torch.zeros(shape))
        self.register_buffer("styles", torch.zeros(sum(size), style))

    @torch.no_grad()
    def fit(self, clips: Batch, rebuilt: Tensor, styles: Tensor) -> None:
        """Keep clips and rebuilt clips (metres) and styles [B, S]; all in the order of the training clips."""
        where = [(clips.y == c).nonzero()[:, 0][torch.from_numpy(p)] for c, p in enumerate(self.picks)]
        at = torch.cat(where)
        self.clips.copy_(whole(fill_absent(clips.x[at]), self.clips.shape[2]))
        self.rebuilt.copy_(whole(rebuilt[at], self.clips.shape[2]))
        self.styles.copy_(styles[at])

    def draw(self, label: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """(anchor, and the two clips of one common class that lend their difference) for a clip of a class.

        A class without a training clip starts from any clip. Where no class has two clips, nothing is lent.
        """
        pool = self.members[label] if len(self.members[label]) else np.arange(len(self.clips))
        anchor = int(rng.choice(pool))
        if not self.lenders:
            return anchor, anchor, anchor
        lender = self.members[self.lenders[rng.integers(len(self.lenders))]]
        one, other = rng.choice(lender, 2, replace=False)
        return anchor, int(one), int(other)

    def change(
        self, made: Tensor, at: Tensor, one: Tensor, other: Tensor, share: Tensor, skeleton: Skeleton
    ) -> Tensor:
        """The anchors, changed as the generator changed them and by what it rebuilds of no clip.

        Args:
            made: What the generator draws for the changed styles, [B, M, T, V, 3], metres.
            at, one, other: Anchors, and the clips that lend their difference, [B] each.
            share: Of that difference, [B].
            skeleton: Of the clips.

        Returns:
            [B, M, T, V, 3], metres; bones of one length per clip.
        """
        new = Body.split(made, skeleton)
        # What is rebuilt of no clip: the difference between a real clip and its reconstruction.
        root, direction = new.root, new.direction
        for i, factor in ((at, torch.ones_like(share)), (one, share), (other, -share)):
            real, drawn = Body.split(self.clips[i], skeleton), Body.split(self.rebuilt[i], skeleton)
            factor = factor.view(-1, 1, 1, 1)
            root = root + factor * (real.root - drawn.root)
            direction = direction + factor[..., None] * (real.direction - drawn.direction)
        start, drawn = Body.split(self.clips[at], skeleton), Body.split(self.rebuilt[at], skeleton)
        length = start.length * new.length / drawn.length
        return Body(root=root, direction=direction, length=length).join(skeleton)
