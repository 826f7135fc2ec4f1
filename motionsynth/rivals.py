"""The cheap rivals that every generator must beat, none of them trained.

Blends of two clips of a class, differences of common clips lent to rare ones, and features drawn around a class.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from motionsynth.generators.base import Batch, fit_context, rigid_resample
from motionsynth.generators.transfer import Anchors, fill_absent
from motionsynth.motion import Motion, MotionSet, canonical, repair_jumps, resample
from motionsynth.recognition import STORED_FRAMES, to_tensors


def _child(parent: Motion, positions: np.ndarray, rival: str, index: int, seed: int) -> Motion:
    return replace(
        parent,
        positions=positions.astype(np.float32),
        sample_id=f"{rival}-{parent.label}-{index}",
        subject="",
        view="",
        repetition="",
        source="synthetic",
        parent_id=parent.sample_id,
        generator=rival,
        seed=seed,
    )


def interpolate_clips(train: MotionSet, counts: dict[int, int], seed: int, low: float = 0.3) -> list[Motion]:
    """Blend two clips of a class, pose by pose, at equal relative time (mixup in motion space).

    Args:
        train: Training clips of the draw.
        counts: Clips wanted for each class; a class with fewer than two clips is left out.
        seed: Decides pairs and weights.
        low: The weight of the second clip is uniform in [low, 1 - low].

    Returns:
        Synthetic clips, as long as the first of the two, with `parent_id` its id.
    """
    skeleton, labels = train.skeleton, train.labels
    out = []
    for c, n in sorted(counts.items()):
        members = np.flatnonzero(labels == c)
        if len(members) < 2:
            continue
        rng = np.random.default_rng([seed, c])
        for i in range(n):
            a, b = (train.motions[j] for j in rng.choice(members, 2, replace=False))
            w = rng.uniform(low, 1 - low)
            m = min(a.num_persons, b.num_persons)
            x, y = (canonical(repair_jumps(clip.positions[:m], clip.fps), skeleton) for clip in (a, b))
            other = resample(y, a.num_frames)
            there, there_too = ((p != 0).any((-1, -2), keepdims=True) for p in (x, other))
            # A person who is missing in the second clip would pull the first one's body towards the origin.
            blend = np.where(there_too, (1 - w) * x + w * other, x)
            out.append(_child(a, blend * there, "interpolation", i, seed))
    return out


@torch.no_grad()
def lend_differences(
    train: MotionSet, rare: tuple[int, ...], counts: dict[int, int], seed: int
) -> list[Motion]:
    """Style transfer without a generator: a clip changes as two clips of one common class differ, pose by pose.

    What `motion_gan` adds to this is its own merit (see `generators.transfer`; the same anchors, pairs and shares).

    Args:
        train: Training clips of the draw.
        rare: Classes that lend nothing, unless all are rare.
        counts: Clips wanted for each class; a class without a clip is left out.
        seed: Decides clips and shares.

    Returns:
        Synthetic clips, as long as the clip that each starts from, with `parent_id` its id.
    """
    context = fit_context(train, rare)
    clips = to_tensors(train, train.num_persons)
    anchors = Anchors(context, STORED_FRAMES, 0)
    # A generator that always makes the same pose leaves all of a clip's motion to the differences.
    still = fill_absent(clips.x[:1, :1])[:, :, :1].expand_as(clips.x)
    seconds = torch.tensor([m.num_frames / m.fps for m in train.motions])
    anchors.fit(Batch(x=clips.x, y=clips.y, seconds=seconds), still, torch.zeros(len(clips.y), 0))
    parents = {m.sample_id: m for m in train.motions}
    out = []
    for c, n in sorted(counts.items()):
        if not len(anchors.members[c]):
            continue
        rng = np.random.default_rng([seed, c])
        draws = [anchors.draw(c, rng) for _ in range(n)]
        share = torch.tensor([anchors.share(c, i, j, rng) for _, i, j in draws]).float()
        at, one, other = torch.tensor(draws).T
        made = anchors.complete(still[:1].expand(n, -1, -1, -1, -1), at, one, other, share)
        for i, (x, (a, _, _)) in enumerate(zip(made.numpy(), draws, strict=True)):
            parent, persons = parents[anchors.ids[a]], anchors.shapes[a][1]
            body = rigid_resample(x[:persons], parent.num_frames, train.skeleton)
            out.append(_child(parent, body, "difference", i, seed))
    return out


def calibrated_features(
    features: np.ndarray, labels: np.ndarray, rare: tuple[int, ...], n: int, seed: int, neighbours: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Feature-space augmentation by distribution calibration (Yang et al., ICLR 2021).

    Each rare class is a Gaussian around its own mean whose covariance is averaged over itself and its nearest
    common classes, which have clips enough to estimate one.

    Args:
        features: Penultimate features of training clips, [N, F].
        labels: [N].
        rare: Classes to draw for.
        n: Features per rare class.
        seed: Of the draws.
        neighbours: Common classes that lend their covariance.

    Returns:
        Features [n * R, F] and labels [n * R].
    """
    classes = np.unique(labels)
    means = {int(c): features[labels == c].mean(0) for c in classes}
    common = [int(c) for c in classes if int(c) not in rare]
    covariance = {c: np.cov(features[labels == c].T) for c in common if (labels == c).sum() > 1}
    made, made_labels = [], []
    for c in rare:
        if c not in means:
            continue
        rng = np.random.default_rng([seed, c])
        near = sorted(covariance, key=lambda j: float(np.square(means[j] - means[c]).sum()))[:neighbours]
        own = (
            np.cov(features[labels == c].T) if (labels == c).sum() > 1 else np.zeros((features.shape[1],) * 2)
        )
        shared = np.mean([own, *(covariance[j] for j in near)], 0) + 1e-6 * np.eye(features.shape[1])
        root = np.linalg.cholesky(shared + 1e-6 * np.trace(shared) / len(shared) * np.eye(len(shared)))
        made.append(means[c] + rng.standard_normal((n, features.shape[1])) @ root.T)
        made_labels.append(np.full(n, c))
    if not made:
        return np.zeros((0, features.shape[1]), np.float32), np.zeros(0, np.int64)
    return np.concatenate(made).astype(np.float32), np.concatenate(made_labels)


def refit_head(
    head: nn.Module,
    features: np.ndarray,
    labels: np.ndarray,
    steps: int,
    batch: int,
    seed: int,
    smoothing: float,
) -> None:
    """Train a classification head further, in place, on class-balanced batches of fixed features."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, classes, device = torch.from_numpy(features), np.unique(labels), next(head.parameters()).device
    members = {int(c): np.flatnonzero(labels == c) for c in classes}
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(steps):
        y = rng.choice(classes, batch)
        at = np.array([members[int(c)][rng.integers(len(members[int(c)]))] for c in y])
        logits = head(x[at].to(device))
        loss = functional.cross_entropy(logits, torch.from_numpy(y).to(device), label_smoothing=smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
