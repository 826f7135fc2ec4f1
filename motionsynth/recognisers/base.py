"""What every recogniser shares: its interface, its input streams and the merging of persons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motionsynth.skeleton import Skeleton


@dataclass(frozen=True, kw_only=True, slots=True)
class RecogniserInfo:
    """What the data decides about a recogniser."""

    skeleton: Skeleton
    num_classes: int
    num_persons: int


class Recogniser(nn.Module, ABC):
    """Maps canonical clips [B, M, T, V, 3] (metres; absent persons all zero) to logits [B, K].

    A subclass gives `frames` (the clip length it reads), `features` (penultimate, [B, F]), `head` (what maps them to
    logits; the feature arm of the protocol trains it further) and `classify` (`head` with its dropout).

    Attributes:
        sees_path: Whether where the body goes matters. False for a network that makes every frame's own pose its
            origin: its logits are then the same wherever each frame stands.
    """

    frames: int
    sees_path: bool = True
    head: nn.Linear
    parents_V: Tensor

    def __init__(self, info: RecogniserInfo) -> None:
        super().__init__()
        self.info = info
        parents = [p if p >= 0 else i for i, p in enumerate(info.skeleton.parents)]
        self.register_buffer("parents_V", torch.tensor(parents), persistent=False)

    @abstractmethod
    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features, [B, F]."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits from features, [B, F] -> [B, K]."""

    def forward(self, x_BMTVC: Tensor) -> Tensor:
        """Logits, [B, K]."""
        return self.classify(self.features(x_BMTVC))

    def losses(
        self, features: Tensor, y_B: Tensor, label_smoothing: float, log_prior_K: Tensor | float = 0.0
    ) -> Tensor:
        """What training minimises, of each clip, [B]: the cross-entropy of its logits plus `log_prior_K`."""
        logits = self.classify(features).float() + log_prior_K
        return nn.functional.cross_entropy(logits, y_B, label_smoothing=label_smoothing, reduction="none")

    def streams(self, x_BMTVC: Tensor) -> tuple[Tensor, Tensor]:
        """Joints, bones and velocities as channels.

        Returns:
            [B * M, 9 V, T] with person 0's root of the first frame as origin, zero where a person is absent;
            and bool [B, M], whether a person is there at all. Velocities are scaled by 10 so that the three
            streams have like variance at 32 frames a clip.
        """
        b, m, t, v, _ = x_BMTVC.shape
        bones = x_BMTVC - x_BMTVC[..., self.parents_V, :]
        velocity = nn.functional.pad(x_BMTVC[:, :, 1:] - x_BMTVC[:, :, :-1], (0, 0, 0, 0, 0, 1)) * 10
        there = (x_BMTVC != 0).any(-1).any(-1)
        out = torch.cat([x_BMTVC, bones, velocity], -1) * there[..., None, None]
        return out.view(b * m, t, v * 9).transpose(1, 2), there.any(-1)

    @staticmethod
    def merge_persons(features_BMF: Tensor, seen_BM: Tensor) -> Tensor:
        """Element-wise maximum over the persons that are there, [B, M, F] -> [B, F]."""
        if features_BMF.shape[1] == 1:
            return features_BMF[:, 0]
        gone = ~seen_BM
        gone[:, 0] &= seen_BM.any(1)  # an empty clip keeps one person: the maximum over nobody is -inf
        return features_BMF.masked_fill(gone[..., None], -torch.inf).amax(1)
