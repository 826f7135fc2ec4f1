"""3-D convolutions and a bidirectional LSTM: the proposed recogniser of Islamgozhayev 2024.

Four layers of 3 x 3 x 3 convolutions over frames x joints x coordinates, each with a max-pool (the first of stride 1).
The paper contradicts itself on the recurrent part (one LSTM of 256 in section 5.1; 512 in either direction, then 256,
in 5.3). Read here as BiLSTM(512) -> LSTM(256), last step -> FC 128 -> FC K, the one chain that fits both "512 per
direction" and "FC input 256". It gives no padding: 3 x 3 x 3 kernels die on the three coordinates without one, so
padding is 1. It gives one skeleton for mutual actions: here persons share the network and merge by the element-wise
maximum. Batch normalisation is ours: without it Adam at 1e-3 on metres is fragile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers.base import Recogniser, RecogniserInfo


class CNNLSTM(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K].

    `width` is the channels of the first of the four layers; the paper tries 64 and 32 and calls 32 better. Published
    with 100 frames; 64 of the whole clip here. The convolutions see frames as the last of the three directions, and
    their channels lie last: the same function, and a CPU's backward pass is slow where one to three coordinates do.
    """

    frames = 64

    def __init__(self, info: RecogniserInfo, width: int = 32, batch_norm: bool = True) -> None:
        super().__init__(info)
        layers: list[nn.Module] = []
        channels = 1
        for i in range(4):
            out = width << i
            layers += [
                nn.Conv3d(channels, out, 3, padding=1),
                *([nn.BatchNorm3d(out)] if batch_norm else []),
                nn.ReLU(),
            ]
            layers.append(nn.MaxPool3d(3, stride=1 if i == 0 else 2, padding=1))
            channels = out
        self.convolutions = nn.Sequential(*layers)
        self.convolutions.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
        joints = info.skeleton.num_joints
        for _ in range(3):
            joints = (joints + 1) // 2
        self.both_ways = nn.LSTM(channels * joints, 512, batch_first=True, bidirectional=True)
        self.forwards = nn.LSTM(1024, 256, batch_first=True)
        self.full = nn.Sequential(nn.Dropout(0.5), nn.Linear(256, 128), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(128, info.num_classes)

    def sequence(self, x_BTVC: Tensor) -> Tensor:
        """What the LSTMs read: [B, T, V, 3] -> [B, T / 8, channels * joints left * coordinates left]."""
        x = x_BTVC.permute(0, 2, 3, 1)[:, None].contiguous(memory_format=torch.channels_last_3d)
        return self.convolutions(x).permute(0, 4, 1, 2, 3).flatten(2)

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, 128]."""
        b, m = x_BMTVC.shape[:2]
        seen = (x_BMTVC != 0).flatten(2).any(-1)
        steps, _ = self.both_ways(self.sequence(x_BMTVC.flatten(0, 1)))
        last = self.forwards(steps)[0][:, -1]
        return self.merge_persons(self.full(last).view(b, m, -1), seen)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features."""
        return self.head(self.dropout(features))
