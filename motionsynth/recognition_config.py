"""How a recogniser is trained; `motionsynth.recognition` does it."""

from __future__ import annotations

from dataclasses import dataclass, field

from motionsynth.augment_config import AugmentConfig
from motionsynth.errors import InputError, check_ranges
from motionsynth.precision import PRECISIONS

OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one_cycle", "constant", "plateau", "cosine")
OF_SYNTHETIC = ("synthetic_share", "real_only_tail", "synthetic_weight", "synthetic_decay", "mixup")
"""Fields of `RecogniserTraining` that do nothing where no synthetic clip is mixed in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecogniserTraining:
    """How a recogniser is trained; the same for every arm.

    Attributes:
        recogniser: Name in `RECOGNISERS`.
        optimiser: "adamw"; or, for published trainings, "adam" (its weight decay is an L2 term of the loss) or "sgd"
            (momentum 0.9, Nesterov).
        schedule: Of the learning rate: "one_cycle" (cosine, up and down), "constant", "cosine" (down to zero), or
            "plateau" (a tenth whenever the training loss no longer falls; a validation loss, which is what papers
            watch, would be one of people whom no arm may look at).
        steps, batch: So many steps of so many clips, however many clips there are.
        learning_rate, weight_decay, label_smoothing: The usual ones; the rate is the schedule's highest.
        augment: The strong classical augmentation.
        synthetic_share: Where a class has synthetic clips: the probability that one of them is drawn for it.
            At most 0.5, so that at least half of each class's draws is real.
        real_only_tail: Last share of the steps that sees real clips only (Gen2Balance's second stage).
        synthetic_weight: Weight of a synthetic clip's loss, to a real one's 1.
        synthetic_decay: Share of that weight that is gone by the last step; it falls linearly.
        mixup: Alpha of mixup (Zhang et al., ICLR 2018): every synthetic clip is blended with a real one of the batch,
            poses and labels alike, by a share from Beta(alpha, alpha); 0 turns it off.
        precision: "float32", or "bfloat16" for mixed precision, whose gain in speed `python -m benchmarks.train --bf16`
            tells.
        average: Decay per step of the weight average over the second half of the steps, which is what is judged (0
            turns it off).
    """

    recogniser: str = "tcn"
    optimiser: str = "adamw"
    schedule: str = "one_cycle"
    steps: int = 500
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    synthetic_share: float = 0.5
    real_only_tail: float = 0.0
    synthetic_weight: float = 1.0
    synthetic_decay: float = 0.0
    mixup: float = 0.0
    average: float = 0.98
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic_share <= 0.5:
            raise InputError(
                f"synthetic_share is {self.synthetic_share}; it must lie between 0 and 0.5 so that at least half of "
                "what a recogniser sees is real."
            )
        if not 0 <= self.real_only_tail < 1 or not 0 <= self.average < 1:
            raise InputError(
                f"real_only_tail is {self.real_only_tail} and average is {self.average}; each must be at least 0 and "
                "below 1."
            )
        check_ranges("", self, synthetic_weight=(0, 10), synthetic_decay=(0, 1), mixup=(0, 10))
        for name, allowed in (("precision", PRECISIONS), ("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")
        if self.steps < 1 or self.batch < 2:
            raise InputError(
                f"steps is {self.steps} and batch is {self.batch}; give at least 1 step of 2 clips."
            )
