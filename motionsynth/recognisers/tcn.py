"""A fast temporal-convolution recogniser for sweeps (joints, bones and velocities as channels).

Bai et al. 2018 (arXiv 1803.01271) for the residual temporal convolutions; persons share the trunk and are
merged by an element-wise maximum (Li et al., ICMEW 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers.base import Recogniser, RecogniserInfo


class TCN(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K]."""

    frames = 32

    def __init__(self, info: RecogniserInfo, channels: int = 128, dropout: float = 0.3) -> None:
        super().__init__(info)
        c = channels
        self.stem = nn.Sequential(nn.Conv1d(info.skeleton.num_joints * 9, c, 1), nn.BatchNorm1d(c), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(c, c, 5, stride=stride, padding=2),
                nn.BatchNorm1d(c),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            for stride in (1, 2, 2)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * c, info.num_classes)

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, 2 * channels]."""
        streams, seen_BM = self.streams(x_BMTVC)
        b, m = seen_BM.shape
        h = self.stem(streams)
        for block in self.blocks:
            y = block(h)
            h = y + (h if y.shape == h.shape else nn.functional.avg_pool1d(h, 2, ceil_mode=True))
        pooled = torch.cat([h.mean(-1), h.amax(-1)], -1).view(b, m, -1)
        return self.merge_persons(pooled, seen_BM)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features."""
        return self.head(self.dropout(features))
