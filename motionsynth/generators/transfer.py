"""Style transfer onto real clips: where a class has too few clips to learn its spread, borrow it from common ones.

A new clip starts from a real training clip of its class and changes as two clips of one common class differ
(the delta-encoder of Schwartz et al., NeurIPS 2018, in the style space of a generator). The generator draws the
change of style; what it cannot rebuild of the three clips (sensor noise, quick small movements) is added as it is.
A difference larger than those between the class's own clips is scaled down to them: how far a deep squat varies would
tear a shoulder exercise out of its class. And the common classes that are most like a class may be the only ones that
lend to it: people vary a lunge as they vary another lunge, not as they raise an arm.

Shape letters: A anchors, B clips, M persons, T frames, V joints, N = V - 1 bones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from motionsynth.augment import whole
from motionsynth.errors import InputError
from motionsynth.generators.base import Batch, Context
from motionsynth.generators.lenders import LENDERS
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


class AnchorClips(nn.Module):
    """Which training clips are kept, and who may lend to whom; sizes follow from the context alone, so that a
    checkpoint's tensors fit a freshly built generator.

    Args:
        context: Of the training clips.
        lenders: Common classes that lend to a class, the most similar ones first; 0: all of them.
    """

    def __init__(self, context: Context, lenders: int) -> None:
        super().__init__()
        self.class_names = context.class_names
        self.picks = [
            np.unique(np.linspace(0, len(pool) - 1, PER_CLASS).round().astype(int))
            if pool
            else np.zeros(0, int)
            for pool in context.shapes
        ]
        size = [len(p) for p in self.picks]
        self.members = np.split(np.arange(sum(size)), np.cumsum(size)[:-1])
        self.place = np.concatenate([np.arange(n) for n in size])
        self.shapes = [pool[i] for pool, pick in zip(context.shapes, self.picks, strict=True) for i in pick]
        self.ids = [ids[i] for ids, pick in zip(context.clips, self.picks, strict=True) for i in pick]
        many = [c for c, n in enumerate(size) if n > 1]
        every = [c for c in many if c not in context.rare] or many
        near = [[c for c in common if c in every][:lenders] for common in context.similar]
        self.lenders = [some or every for some in near]

    def among(self, y: Tensor) -> Tensor:
        """Where the anchors are, [A], among all training clips, whose classes are y [B]."""
        return torch.cat([(y == c).nonzero()[:, 0][torch.from_numpy(p)] for c, p in enumerate(self.picks)])

    def check(self, labels: Sequence[int]) -> None:
        """Refuse a request for a class without an anchor.

        Raises:
            InputError: there is one.
        """
        if bare := sorted({c for c in labels if not len(self.members[c])}):
            raise InputError(
                f"Class '{self.class_names[bare[0]]}' has no training clip that a synthetic one could start from; "
                "leave the class out of the request."
            )


class AnchorStyles(AnchorClips):
    """Training clips as styles, whatever a generator takes for one; fitted once the generator is trained.

    Args:
        context: Of the training clips.
        style: Numbers of a style.
        lenders: See `AnchorClips`.
    """

    styles: Tensor
    apart: Tensor
    spread: Tensor

    def __init__(self, context: Context, style: int, lenders: int) -> None:
        super().__init__(context, lenders)
        clips, classes = len(self.ids), len(self.members)
        self.register_buffer("styles", torch.zeros(clips, style))
        # Of clips of one class, by place in it; and its median over the class (0: nothing is known of its spread).
        self.register_buffer("apart", torch.zeros(clips, PER_CLASS))
        self.register_buffer("spread", torch.zeros(classes))

    @torch.no_grad()
    def keep(self, clips: Batch, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Keep styles [B, S] of all training clips, in their order.

        Returns:
            The positions of the anchors among the clips, [A], and the anchors with absences filled.
        """
        at = self.among(clips.y)
        self.styles.copy_(styles[at])
        filled = fill_absent(clips.x[at])
        poses = filled.flatten(1)
        for c, m in enumerate(self.members):
            if len(m) > 1:
                self.apart[m, : len(m)] = torch.cdist(
                    poses[m], poses[m], compute_mode="donot_use_mm_for_euclid_dist"
                )
                self.spread[c] = torch.pdist(poses[m]).median()
        return at, filled

    def draw(self, label: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """(anchor, and the two clips of one common class that lend their difference) for a clip of a class.

        Where no class has two clips, nothing is lent.
        """
        anchor = int(rng.choice(self.members[label]))
        if not (lenders := self.lenders[label]):
            return anchor, anchor, anchor
        lender = self.members[lenders[rng.integers(len(lenders))]]
        one, other = rng.choice(lender, 2, replace=False)
        return anchor, int(one), int(other)

    def share(self, label: int, one: int, other: int, rng: np.random.Generator) -> float:
        """How much of the difference of two clips a clip of a class takes: half to all of what is within `reach`."""
        return rng.uniform(0.5, 1) * self.reach(label, one, other)

    def reach(self, label: int, one: int, other: int) -> float:
        """Share, in [0, 1], of the difference of two clips of one class that is no larger than a class's own spread."""
        distance, spread = float(self.apart[one, self.place[other]]), float(self.spread[label])
        return min(1.0, spread / distance) if spread and distance else 1.0

    def style(self, at: Tensor, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Styles of anchors [B], changed by a share [B] of the difference between two clips: [B, S]."""
        return self.styles[at] + share[:, None] * (self.styles[one] - self.styles[other])


class Anchors(AnchorStyles):
    """Also keeps what the generator leaves out of its anchors."""

    root: Tensor
    direction: Tensor
    ratio: Tensor

    def __init__(self, context: Context, frames: int, style: int, lenders: int = LENDERS) -> None:
        super().__init__(context, style, lenders)
        self.frames, self.skeleton = frames, context.skeleton
        a, m, bones = len(self.ids), context.num_persons, len(self.skeleton.bones)
        # Half precision: a quarter of a millimetre at half a metre, far below any sensor's noise.
        self.register_buffer("root", torch.zeros(a, m, frames, 3, dtype=torch.float16))
        self.register_buffer("direction", torch.zeros(a, m, frames, bones, 3, dtype=torch.float16))
        self.register_buffer("ratio", torch.ones(a, m, bones))

    @torch.no_grad()
    def fit(self, clips: Batch, rebuilt: Tensor, styles: Tensor) -> None:
        """Keep styles [B, S], and the difference of clips and rebuilt clips, [B, M, T, V, 3], metres.

        All in the order of the training clips.
        """
        at, filled = self.keep(clips, styles)
        # A person whom a clip never shows has no difference to lend.
        there = (filled != 0).flatten(2).any(-1)[:, :, None, None]
        real = Body.split(whole(filled, self.frames), self.skeleton)
        drawn = Body.split(whole(rebuilt[at], self.frames), self.skeleton)
        self.root.copy_((real.root - drawn.root) * there)
        self.direction.copy_((real.direction - drawn.direction) * there[..., None])
        self.ratio.copy_(real.length / drawn.length)

    def complete(self, made: Tensor, at: Tensor, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Add to what the generator made of `style` what it leaves out of the three real clips.

        Args:
            made: [B, M, T, V, 3], metres.
            at, one, other, share: As for `style`.

        Returns:
            [B, M, frames, V, 3], metres; bones of one length per clip.
        """
        new = Body.split(whole(made, self.frames), self.skeleton)
        u = share.view(-1, 1, 1, 1)
        left = lambda x, u: x[at].float() + u * (x[one].float() - x[other].float())  # noqa: E731
        return Body(
            root=new.root + left(self.root, u),
            direction=new.direction + left(self.direction, u[..., None]),
            length=new.length * self.ratio[at],
        ).join(self.skeleton)
