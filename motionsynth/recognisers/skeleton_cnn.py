"""Skeleton-transformer CNN with maxout over persons (Li et al., ICMEW 2017), recogniser "CNN" of Islamgozhayev 2024.

A learned linear map re-orders and mixes the joints, so that neighbours in the "image" of frames x joints mean
something; positions and frame differences pass one such stream each; persons merge by the element-wise maximum after
the last convolution. Sizes and initial weights that the paper leaves open are those of its authors' group's later code
(hikvision-research/skelact).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers.base import Recogniser, RecogniserInfo

MAPPED = 30
"""Joints after the skeleton transformer."""


class SkeletonTransformer(nn.Module):
    """S' = (S^T W)^T: [B, C, T, V] -> [B, C, T, 30], no bias; W starts orthogonal."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.map = nn.Linear(joints, MAPPED, bias=False)
        nn.init.orthogonal_(self.map.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.map(x)


class SkeletonCNN(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K]."""

    frames = 32

    def __init__(self, info: RecogniserInfo) -> None:
        super().__init__(info)

        def stream() -> nn.Module:
            return nn.Sequential(
                SkeletonTransformer(info.skeleton.num_joints),
                nn.Conv2d(3, 64, 3, padding=(1, 0)),
                nn.MaxPool2d(2),
                nn.Dropout(0.5),
            )

        self.position, self.motion = stream(), stream()
        self.joint = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=(1, 0)), nn.MaxPool2d(2), nn.PReLU(init=0.1), nn.Dropout(0.5),
            nn.Conv2d(128, 256, 3, padding=(1, 0)), nn.MaxPool2d(2), nn.PReLU(init=0.1),
        )  # fmt: skip
        self.full = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(2048, 256), nn.PReLU(init=0.1), nn.Dropout(0.5), nn.Linear(256, 128),
            nn.PReLU(init=0.1),
        )  # fmt: skip
        self.head = nn.Linear(128, info.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        for module in (*self.full, self.head):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, 128]."""
        there = (x_BMTVC != 0).any(-1).any(-1)
        step = nn.functional.pad(x_BMTVC[:, :, 1:] - x_BMTVC[:, :, :-1], (0, 0, 0, 0, 1, 0))
        x, d = ((z * there[..., None, None]).flatten(0, 1).permute(0, 3, 1, 2) for z in (x_BMTVC, step))
        h_BMF = self.convolved(x, d).flatten(1).unflatten(0, there.shape[:2])
        return self.full(self.merge_persons(h_BMF, there.any(-1)))

    def convolved(self, x: Tensor, step: Tensor) -> Tensor:
        """What persons merge by: positions and their steps [B, 3, 32, V] -> [B, 256, 4, 2]."""
        return self.joint(torch.cat([self.position(x), self.motion(step)], 1))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features; the published head has no dropout before its last layer."""
        return self.head(features)
