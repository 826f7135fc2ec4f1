"""Parts of a body, and which of them tell a class.

A part that two classes have in common tells neither: with somebody else's legs a person still throws. How far a part
tells two classes apart is measured on training clips, by the nearest neighbour among as many clips of either.

Shape letters: A clips, M persons, T frames, N bones, P parts, K classes.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from motionsynth.generators.transfer import Body
from motionsynth.representation import headings, turn
from motionsynth.skeleton import Skeleton

LIMBS = {
    "left_arm": ("left_shoulder",),
    "right_arm": ("right_shoulder",),
    "legs": ("left_hip", "right_hip"),
}
"""What lies beyond these joints of `Skeleton.torso`; the trunk is all the rest. Legs go together: one carries the
weight that the other does not."""
PARTS = (*LIMBS, "trunk")
POSES = 16
"""Poses of a clip that are compared."""
REPEATS = 5
"""Draws of clips over which the share of right neighbours is averaged."""
FEWEST = 3
"""With fewer clips nothing is known of a class: all of its parts pass for telling."""


def part_bones(skeleton: Skeleton) -> Tensor:
    """bool [P, N]: which bones (in the order of `Skeleton.bones`) belong to each of `PARTS`."""
    child = [c for c, _ in skeleton.bones]
    # [N, N]: through which bones one comes to a bone.
    leads_to = torch.from_numpy(skeleton.ancestors > 0)[child]

    def beyond(joint: int) -> Tensor:
        own = child.index(joint)
        return leads_to[:, own] & (torch.arange(len(child)) != own)

    limbs = torch.stack(
        [torch.stack([beyond(skeleton.torso[j]) for j in joints]).any(0) for joints in LIMBS.values()]
    )
    return torch.cat([limbs, ~limbs.any(0, keepdim=True)])


def local_directions(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Bone directions of clips [A, M, T, V, 3] as each body sees them, however it is turned: [A, M, T, N, 3]."""
    return turn(Body.split(x, skeleton).direction, -headings(x, skeleton)[..., None])


def told_apart(x: Tensor, y: Tensor, skeleton: Skeleton, num_classes: int) -> Tensor:
    """How well each part tells each two classes apart: the share of clips whose nearest neighbour is of their class.

    Both classes take part with as many clips, so that 0.5 is chance. 1 where either has fewer than `FEWEST`.

    Args:
        x: Clips, [A, M, T, V, 3], every person who is ever there in every frame.
        y: Their classes, [A].
        skeleton: Of the clips.
        num_classes: K.

    Returns:
        float32 [P, K, K], symmetric.
    """
    at = torch.linspace(0, x.shape[2] - 1, POSES).round().long()
    seen = local_directions(x, skeleton)[:, :, at]
    told = torch.ones(len(PARTS), num_classes, num_classes)
    labels = y.cpu().numpy()
    members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    for p, bones in enumerate(part_bones(skeleton)):
        poses = seen[..., bones.to(seen.device), :].flatten(1)
        for a, b in combinations(range(num_classes), 2):
            n = min(len(members[a]), len(members[b]))
            if n >= FEWEST and bones.any():
                told[p, a, b] = told[p, b, a] = _right_neighbours(poses, members[a], members[b], n)
    return told


def _right_neighbours(poses: Tensor, one: np.ndarray, other: np.ndarray, n: int) -> float:
    both = torch.from_numpy(np.concatenate([one, other])).to(poses.device)
    apart = torch.cdist(poses[both], poses[both], compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()
    np.fill_diagonal(apart, np.inf)
    rng = np.random.default_rng(0)
    right = []
    for _ in range(REPEATS):
        drawn = np.concatenate(
            [rng.choice(len(one), n, replace=False), len(one) + rng.choice(len(other), n, replace=False)]
        )
        nearest = apart[np.ix_(drawn, drawn)].argmin(1)
        right.append(float(((nearest < n) == (np.arange(2 * n) < n)).mean()))
    return float(np.mean(right))


def free_parts(told: Tensor, below: float, others: int) -> list[list[int]]:
    """For each class the parts (places in `PARTS`) that do not tell it: `others` or more classes have them, too.

    Args:
        told: See `told_apart`.
        below: Two classes have a part in common where it tells them apart in at most this share of cases.
        others: One is not enough: the right and the wrong form of an exercise have nearly everything in common, and
            what little parts them must stay.
    """
    itself = torch.eye(told.shape[1], dtype=torch.bool, device=told.device)
    shared = ((told <= below) & ~itself).sum(-1)  # [P, K]
    return [[p for p in range(len(PARTS)) if shared[p, c] >= others] for c in range(told.shape[1])]
