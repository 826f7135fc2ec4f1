"""Settings of the generator `part_mix`; `motionsynth.generators.part_mix` is the generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from motionsynth.errors import check_ranges
from motionsynth.generators.lenders import LENDERS
from motionsynth.losses import check_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class PartMixConfig:
    """How parts are lent. All of it is for sampling, but `frames`.

    Attributes:
        frames: At which clips are kept; what is made is resampled to a real clip's length.
        most: Parts that a clip takes: between one and so many.
        told, others: A clip may take those parts of common classes' clips that its class has in common with so many
            `others`: that tell the two apart in at most the share `told` of cases (0.5 is chance; see
            `body_parts.told_apart`). By default all; 0.65 and 2 keep what tells a class.
        lenders: So many common classes, the most similar ones, lend their parts to a class; 0: all.
        loss_weights: None; there is nothing to train.
    """

    frames: int = 64
    most: int = 2
    told: float = 1.0
    others: int = 0
    lenders: int = LENDERS
    loss_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(
            "part_mix", self, frames=(2, math.inf), most=(1, 4), told=(0, 1), others=(0, math.inf),
            lenders=(0, math.inf),
        )  # fmt: skip
        check_weights(self.loss_weights, ())
