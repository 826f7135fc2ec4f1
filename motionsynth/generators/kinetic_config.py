"""Sizes and variants of Kinetic-GAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from motionsynth.errors import InputError, check_ranges
from motionsynth.losses import check_weights

TERMS = ("adversarial", "penalty")
PENALTIES = ("gradient", "r1")


def default_weights() -> dict[str, float]:
    """The published penalty weighs 10, R1's of images 5 (Mescheder et al., ICML 2018).

    0.05 is the best of 5, 0.5, 0.05 and 0.01 for N-UCLA's training people, by the Frechet distance of `quality_report`.
    """
    return {"adversarial": 1.0, "penalty": 0.05}


@dataclass(frozen=True, kw_only=True, slots=True)
class KineticGANConfig:
    """Sizes and variants.

    Attributes:
        frames: T at which clips are generated; a multiple of 16. Clips are resampled to a real clip's length.
        latent: Width of z.
        width: Channels of the generator's first block; they halve from block to block.
        tail: Fewest channels before the last block.
        critic_width: Channels of the critic's first block; they double from block to block.
        critic_top: Most channels of the critic.
        critic_stride: Frames that the critic skips before its first block.
        depth: Layers of the mapping network.
        truncation: psi: w is drawn towards its mean; 1 turns it off.
        penalty: "gradient": Wasserstein loss with gradient penalty (Gulrajani et al., NeurIPS 2017); "r1": logistic
            loss with R1 on real clips (Mescheder et al., ICML 2018), which needs no third pass of the critic.
        penalty_every: Critic steps from one penalty to the next; its weight is multiplied accordingly.
        generator_every: Critic steps for each step of the generator.
        apart: Ablation: every person is made by a pass of its own and judged alone, so that nothing but the class ties
            their movements together.
        as_published: The published construction: see `PublishedKineticGANConfig`.
        loss_weights: One for each of `TERMS`.
    """

    frames: int = 32
    latent: int = 64
    width: int = 256
    tail: int = 32
    critic_width: int = 32
    critic_top: int = 256
    critic_stride: int = 2
    depth: int = 4
    truncation: float = 0.95
    penalty: str = "r1"
    penalty_every: int = 4
    generator_every: int = 1
    apart: bool = False
    as_published: bool = False
    loss_weights: Mapping[str, float] = field(default_factory=default_weights)

    def __post_init__(self) -> None:
        if self.frames < 16 or self.frames % 16:
            raise InputError(f"kinetic_gan frames is {self.frames}; it must be a multiple of 16.")
        some = (1, float("inf"))
        check_ranges(
            "kinetic_gan", self,
            latent=some, width=some, tail=some, critic_width=some, critic_top=some, critic_stride=some, depth=some,
            penalty_every=some, generator_every=some, truncation=(0, 1),
        )  # fmt: skip
        if self.critic_stride not in (1, 2, 4):
            raise InputError(f"kinetic_gan critic_stride is {self.critic_stride}; allowed: 1, 2, 4.")
        if self.penalty not in PENALTIES:
            raise InputError(f"kinetic_gan penalty is '{self.penalty}'; allowed: {', '.join(PENALTIES)}.")
        check_weights(self.loss_weights, TERMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedKineticGANConfig(KineticGANConfig):
    """The published system.

    Nearest frames, 3-channel tail, min-max scaling, person 0 alone, unscaled N(0, 1) mapping weights, batch
    normalisation, WGAN-GP with five critic steps, a truncation mean over unconditional noise.
    """

    frames: int = 64
    latent: int = 512
    width: int = 512
    tail: int = 3
    critic_top: int = 512
    critic_stride: int = 1
    penalty: str = "gradient"
    penalty_every: int = 1
    generator_every: int = 5
    as_published: bool = True
    loss_weights: Mapping[str, float] = field(default_factory=lambda: {"adversarial": 1.0, "penalty": 10.0})


@dataclass(frozen=True, kw_only=True, slots=True)
class ApartKineticGANConfig(KineticGANConfig):
    """One person at a time."""

    apart: bool = True
