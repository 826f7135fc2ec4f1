"""Sizes and loss weights of the rare-action GAN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from motionsynth.errors import InputError, check_ranges
from motionsynth.generators.lenders import LENDERS
from motionsynth.losses import check_weights

CRITIC_TERMS = ("adversarial", "flow", "pose")
STYLE_PRIORS = ("normal", "class", "transfer")
GENERATOR_TERMS = (*CRITIC_TERMS, "reconstruction", "physics", "temporal", "prior")


def default_weights() -> dict[str, float]:
    """Reconstruction is strong and the prior weak on purpose: style's 64 numbers are free to carry detail.

    `finish` makes up for styles that then no longer follow N(0, I).
    """
    return {
        "adversarial": 1.0,
        "flow": 0.5,
        "pose": 0.5,
        "reconstruction": 30.0,
        "physics": 0.1,
        "temporal": 5.0,
        "prior": 0.1,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionGANConfig:
    """Sizes and loss weights.

    Attributes:
        frames: T at which clips are generated; a multiple of 8. Clips are resampled to a real clip's length.
        noise, action, style: Widths of the three parts of z (eq. 4).
        width: Channels of the decoder at its coarsest; halves towards the output.
        critic_width: Channels of each critic stream.
        truncation: Factor on noise and style's spread at sampling; for "transfer", on the difference that is lent, of
            which a clip takes a share between a half and all: a smaller one leaves near copies.
        style_prior: Where style comes from at sampling: "normal", N(0, I) as in the paper; "class", the Gaussian that
            the encoder's styles of that class's training clips follow (see `MotionGAN.finish`); or "transfer": a real
            clip of the class, changed as two clips of a common class differ, but no further than the class's own clips
            differ (see `transfer`).
        lenders: So many common classes, the most similar ones, lend differences to a class; 0: all.
        loss_weights: One for each of `GENERATOR_TERMS`; flow and pose also weigh the critic's streams (eq. 2).
    """

    frames: int = 32
    noise: int = 16
    action: int = 32
    style: int = 64
    width: int = 192
    critic_width: int = 64
    truncation: float = 1.0
    style_prior: str = "transfer"
    lenders: int = LENDERS
    loss_weights: Mapping[str, float] = field(default_factory=default_weights)

    def __post_init__(self) -> None:
        if self.frames < 16 or self.frames % 8:
            raise InputError(f"motion_gan frames is {self.frames}; it must be a multiple of 8, at least 16.")
        if self.width % 32 or self.width < 64:
            raise InputError(f"motion_gan width is {self.width}; it must be a multiple of 32, at least 64.")
        some = (1, math.inf)
        check_ranges(
            "motion_gan", self, noise=some, action=some, style=some, critic_width=some, truncation=(0, 2),
            lenders=(0, math.inf),
        )  # fmt: skip
        if self.style_prior not in STYLE_PRIORS:
            raise InputError(
                f"motion_gan style_prior is '{self.style_prior}'; allowed: {', '.join(STYLE_PRIORS)}."
            )
        check_weights(self.loss_weights, GENERATOR_TERMS)
