"""Ta-CNN, topology-aware CNN (Xu et al., AAAI 2022): joints become channels, no graph needed.

Joint positions and frame differences each pass: 1x1 conv -> 3x1 conv -> transpose (joints become channels) ->
feature-mixing block; the two streams join, pass two convolutions, and persons merge by the maximum. The two
mixing blocks replace HCN's convolutions by 1x1 conv -> SE attention -> ReLU(grouped) + ReLU(1x1) -> 1x1 conv.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers.base import Recogniser, RecogniserInfo


class Mixing(nn.Module):
    """The topology-aware unit: [B, C, T, D] -> [B, C', T, D]."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        width = -(-out // (2 * groups)) * 2 * groups
        self.expand = nn.Conv2d(channels, width, 1)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, max(4, width // 4), 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(max(4, width // 4), width, 1, bias=False),
            nn.Sigmoid(),
        )
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.point = nn.Conv2d(width, width, 1, groups=max(1, groups // 2))
        self.merge = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.expand(x)
        x = x * self.squeeze(x)
        return self.merge(self.local(x).relu() + self.point(x).relu())


class Stream(nn.Module):
    """One input (positions or differences), [B, 3, T, V] -> [B, 64, T/4, D/4]."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU())
        self.temporal = nn.Conv2d(64, 32, (3, 1), padding=(1, 0))
        self.mix1 = nn.Sequential(Mixing(joints, 32, 10), nn.BatchNorm2d(32), nn.MaxPool2d(2))
        self.mix2 = nn.Sequential(Mixing(32, 64, 6), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.temporal(self.point(x)).transpose(1, 3)  # [B, V, T, 32]: joints are channels from here on
        return self.mix2(self.mix1(x))


class TaCNN(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K].

    Published with 64 frames; at 32 a step costs half as much, and clips of a few seconds lose nothing that the
    pooling keeps. Weights lie channels-last, which halves the cost again on CPUs.
    """

    frames = 32

    def __init__(self, info: RecogniserInfo) -> None:
        super().__init__(info)
        v = info.skeleton.num_joints
        self.position, self.motion = Stream(v), Stream(v)
        self.joint = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5),
            nn.Conv2d(128, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(512, info.num_classes)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, 512]."""
        b, m = x_BMTVC.shape[:2]
        there = (x_BMTVC != 0).any(-1).any(-1)
        velocity = nn.functional.pad(x_BMTVC[:, :, 1:] - x_BMTVC[:, :, :-1], (0, 0, 0, 0, 0, 1))
        x, d = ((z * there[..., None, None]).flatten(0, 1).permute(0, 3, 1, 2) for z in (x_BMTVC, velocity))
        h = self.joint(torch.cat([self.position(x), self.motion(d)], 1))
        return self.merge_persons(h.mean(2).flatten(1).view(b, m, -1), there.any(-1))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features."""
        return self.head(self.dropout(features))
