"""Relational network of joints with attention, then an LSTM: ARRN-LSTM (Zheng et al., ICME 2019), recogniser "LSTM" of
Islamgozhayev 2024. No public code; readings of what the papers leave open are named below.

Per frame, every joint sends a message to every other one, five times; a trained mask weighs the joints' states; three
LSTM layers read the frames. Joints and lines (bones) are two such streams. Readings: the "five joints adjacent to the
hip" are the hip, its neighbours and the chest (a hip has three neighbours); persons are averaged before the LSTM (50
nodes would be 2,500 messages); the streams' scores, which the paper weighs on validation, are weighed by one head.

Shape letters: P clips x persons, T frames, N nodes (joints or lines), H state of a node.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers.base import Recogniser, RecogniserInfo

WIDTH = 50
ITERATIONS = 5


class Relations(nn.Module):
    """[P, N, 3] nodes of one frame -> [P, 256]."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, WIDTH)
        self.receiver = nn.Linear(WIDTH, WIDTH)
        self.sender = nn.Linear(WIDTH, WIDTH, bias=False)
        self.middle, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.update = nn.GRUCell(2 * WIDTH, WIDTH)
        self.mask = nn.Parameter(torch.ones(nodes, 1))
        self.merge = nn.Linear(nodes * WIDTH, 256)

    def forward(self, x_PNC: Tensor) -> Tensor:
        """See the class."""
        p, n, _ = x_PNC.shape
        x = self.embed(x_PNC)
        h = x
        others = 1 - torch.eye(n, device=x.device)[None, :, :, None]
        for _ in range(ITERATIONS):
            # MLP(concat(h_i, h_j)) summed over j: its first layer splits into two, its last one comes after the sum.
            pairs = nn.functional.relu(self.receiver(h)[:, :, None] + self.sender(h)[:, None])
            pairs = nn.functional.relu(self.middle(pairs)) * others
            message = nn.functional.linear(pairs.sum(2), self.last.weight, (n - 1) * self.last.bias)
            h = self.update(torch.cat([x, message], -1).flatten(0, 1), h.flatten(0, 1)).view(p, n, -1)
        return self.merge((h * self.mask).flatten(1))


class Stream(nn.Module):
    """Nodes [B, M, T, N, 3] and who is there [B, M, T] -> last state of the LSTM [B, 512]."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.relations = Relations(nodes)
        self.lstm = nn.LSTM(256, 512, num_layers=3, batch_first=True)

    def forward(self, x_BMTNC: Tensor, there_BMT: Tensor) -> Tensor:
        """See the class."""
        b, m, t = there_BMT.shape
        h = self.relations(x_BMTNC.flatten(0, 2)).view(b, m, t, -1) * there_BMT[..., None]
        h = h.sum(1) / there_BMT.sum(1).clamp_min(1)[..., None]
        return self.lstm(h)[0][:, -1]


class RelationalLSTM(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K]."""

    frames = 64
    hip_V: Tensor
    child_N: Tensor

    def __init__(self, info: RecogniserInfo) -> None:
        super().__init__(info)
        sk = info.skeleton
        near = {sk.root, sk.torso["chest"]} | {c for c, p in sk.bones if p == sk.root}
        self.register_buffer("hip_V", torch.tensor(sorted(near)), persistent=False)
        self.register_buffer("child_N", torch.tensor([c for c, _ in sk.bones]), persistent=False)
        self.joints, self.lines = Stream(sk.num_joints), Stream(len(sk.bones))
        self.head = nn.Linear(1024, info.num_classes)

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, 1024]: both streams."""
        there = (x_BMTVC != 0).flatten(3).any(-1)
        x = x_BMTVC - x_BMTVC[..., self.hip_V, :].mean(-2, keepdim=True)
        lines = (x - x[..., self.parents_V, :])[..., self.child_N, :]
        return torch.cat([self.joints(x, there), self.lines(lines, there)], -1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features."""
        return self.head(features)
