"""How a generator is trained; `motionsynth.training` does it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from motionsynth.errors import InputError, check_ranges
from motionsynth.precision import PRECISIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a generator is trained.

    Attributes:
        steps: Steps of stage 1 (all classes).
        rare_steps: Steps of stage 2 (rare classes); they belong to stage 1 when no class is rare.
        batch: Clips per step over all processes.
        learning_rate, critic_learning_rate: Adam; cosine decay to a tenth over each stage.
        rare_rate: Factor on both rates in stage 2.
        replay: Share of stage 2's batches that is common classes.
        crop: Smallest share of a clip that training sees (a random temporal crop); 1 turns it off.
        scale: Body scale 1 + U(-scale, scale) per clip.
        mirror: Reflect half of the clips where the class allows it.
        average: Decay per step of the weights that sample.
        precision: "float32", or "bfloat16" for mixed precision: layers compute in it, weights and geometry do not
            (see `motionsynth.precision`).
        report_every: Steps between reports (logging and checkpoints).
    """

    steps: int = 2000
    rare_steps: int = 400
    batch: int = 48
    learning_rate: float = 1e-3
    critic_learning_rate: float = 5e-4
    rare_rate: float = 0.3
    replay: float = 0.5
    crop: float = 0.9
    scale: float = 0.1
    mirror: bool = True
    average: float = 0.998
    report_every: int = 200
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"Training precision is '{self.precision}'; allowed: {', '.join(PRECISIONS)}.")
        check_ranges(
            "Training", self,
            steps=(1, math.inf), rare_steps=(0, math.inf), batch=(2, math.inf), report_every=(1, math.inf),
            learning_rate=(0, 1), critic_learning_rate=(0, 1), rare_rate=(0, 10), replay=(0, 1), crop=(0.1, 1),
            scale=(0, 0.9), average=(0, 1),
        )  # fmt: skip
