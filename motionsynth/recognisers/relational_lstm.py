"""Relational network of joints with attention, then an LSTM: ARRN-LSTM (Zheng et al., ICME 2019, arXiv 1805.02556).

Recogniser "LSTM" of Islamgozhayev 2024. Per frame every joint sends a message to every other one, five times, and a
GRU takes them in; a trained mask weighs the joints' states; three LSTM layers of 512 read the frames. Joints and lines
(bones) are two such streams. There is no public code; readings of what the papers leave open:

- "the five joints adjacent to the hip", whose mean is each frame's origin: the hip, its neighbours and the chest (a hip
  has three neighbours). The root's path is therefore invisible to this network, as published.
- persons are averaged before the LSTM (all joints of two persons as one graph would be four times the messages);
- the two streams' scores, which the paper weighs on validation clips, are weighed by one linear layer on both.

Shape letters: P frames of all persons and clips, T frames, N nodes (joints or lines), H state of a node.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motionsynth.recognisers.base import Recogniser, RecogniserInfo

STATE = 50
"""H."""
ITERATIONS = 5
CHUNK = 32
"""Frames whose pairs of nodes are held at once; they then stay in a CPU's second-level cache."""


class Relations(nn.Module):
    """The recurrent relational network: nodes of one frame [P, N, 3] -> [P, 256].

    The message of a pair is a perceptron of three layers on concat(h_i, h_j). Its first layer splits into a part for
    each of the two, computed on N nodes instead of N^2 pairs, and its last one, being linear, comes after the sum:
    the same mathematics at a third of the work. The pairs' layer is computed again on the way back, chunk by chunk,
    because to keep N^2 states of every frame takes more time than to make them.
    """

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, STATE)
        self.receiver = nn.Linear(STATE, STATE)
        self.sender = nn.Linear(STATE, STATE, bias=False)
        self.middle, self.last = nn.Linear(STATE, STATE), nn.Linear(STATE, STATE)
        self.update = nn.GRUCell(2 * STATE, STATE)
        self.mask = nn.Parameter(torch.ones(nodes, 1))
        self.merge = nn.Linear(nodes * STATE, 256)

    def forward(self, x_PNC: Tensor) -> Tensor:
        """See the class."""
        p, n, _ = x_PNC.shape
        h = x = self.embed(x_PNC)
        for _ in range(ITERATIONS):
            message = nn.functional.linear(self.heard(h), self.last.weight, (n - 1) * self.last.bias)
            h = self.update(torch.cat([x, message], -1).flatten(0, 1), h.flatten(0, 1)).view(p, n, -1)
        return self.merge((h * self.mask).flatten(1))

    def heard(self, h_PNH: Tensor) -> Tensor:
        """Second-layer activations of the pairs (i, j), summed over j other than i, [P, N, H] -> [P, N, H]."""
        receivers, senders = self.receiver(h_PNH), self.sender(h_PNH)
        own = self.middle((receivers + senders).relu()).relu()
        chunks = [
            checkpoint(self._pairs, r, s, use_reentrant=False, preserve_rng_state=False)
            for r, s in zip(receivers.split(CHUNK), senders.split(CHUNK), strict=True)
        ]
        return torch.cat(chunks) - own

    def _pairs(self, receivers: Tensor, senders: Tensor) -> Tensor:
        """The same sum, over all j."""
        return self.middle((receivers[:, :, None] + senders[:, None]).relu_()).relu_().sum(2)


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
    """[B, M, T, V, 3] -> logits [B, K].

    Published with 100 frames, the first of them; 32 of the whole clip here, at a third of the cost.
    """

    frames = 32
    sees_path = False
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
        """Logits [B, K] from features; no dropout, as published."""
        return self.head(features)
