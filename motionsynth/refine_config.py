"""How synthetic clips are refined; `motionsynth.refine` does it."""

from __future__ import annotations

from dataclasses import dataclass, field

from motionsynth.errors import InputError
from motionsynth.recognition_config import RecogniserTraining

RULES = ("invalid", "agreement", "confidence", "plausibility", "copy", "outlier", "quota", "drift", "marked")
"""What `Motion.rejected_by` may name: not a usable clip; the teachers name another class; too little confidence in its
own; implausible motion; nearly a copy of a training clip; far from all of the class; not among the quota; the published
rule; marked as bad by a person (`rayjobs.explore`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """How synthetic clips are refined.

    Attributes:
        folds: Teachers; each never sees one fold of the training clips.
        teacher: Training of each.
        confidence_percentile: Of the confidence in their class of held-out real clips, in [0, 100]: a synthetic clip
            below it is refused. 0 refuses nearly none.
        plausibility_percentile: Of the real clips' plausibility figures, in [0, 100]: above it a clip is refused.
        novelty_percentiles: Of the real clips' distances to the nearest other one of their class, both in [0, 100]:
            below the first a clip is a copy, above the second an outlier. The first is over distances to any other
            take, the second over those to clips of other folds, so mostly of other people: synthetic clips that differ
            from all training clips as much as a new person's do are what is wanted.
        quota: Accepted clips kept of each class, chosen to match the class's real clips; 0 keeps all.
        published_threshold: Metres: take the published rule in place of all this (see `published_rule`).
        seed: Of folds and teachers.
    """

    folds: int = 5
    teacher: RecogniserTraining = field(default_factory=lambda: RecogniserTraining(steps=300))
    confidence_percentile: float = 20.0
    plausibility_percentile: float = 99.0
    novelty_percentiles: tuple[float, float] = (5.0, 95.0)
    quota: int = 0
    published_threshold: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise InputError(f"folds is {self.folds}; cross-fitting needs at least 2.")
        for name in ("confidence_percentile", "plausibility_percentile"):
            if not 0 <= (value := getattr(self, name)) <= 100:
                raise InputError(f"{name} is {value:g}; it must lie between 0 and 100.")
        low, high = self.novelty_percentiles
        if not 0 <= low < high <= 100:
            raise InputError(
                f"novelty_percentiles are {low:g} and {high:g}; both must lie in 0 to 100, the first below."
            )
        if self.quota < 0 or self.seed < 0:
            raise InputError(f"quota is {self.quota} and seed is {self.seed}; each must be at least 0.")
        if self.published_threshold is not None and not self.published_threshold > 0:
            raise InputError(f"published_threshold is {self.published_threshold:g} m; it must be above 0.")
