"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from motionsynth.beds import Bed
from motionsynth.motion import MotionSet
from motionsynth.protocol import ScoreRecord, adds_clips, is_adjusted

PROJECTIONS = ("pca", "tsne")


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedSet:
    """What one generator made for one bed.

    Attributes:
        generator: Its name.
        bed: The bed; of its real clips only those of training people are shown.
        motions: The synthetic clips.
        curves: Loss terms and diagnostics by `group/term`, as (step, value) in order; empty without a training.
        attention: For classes with training clips: the mean over them of the generator's attention over time, [S]
            summing to 1; empty where it has none.
    """

    generator: str
    bed: Bed
    motions: MotionSet
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    attention: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @property
    def classes(self) -> list[int]:
        """Labels that have synthetic clips, in order."""
        return sorted(set(self.motions.labels.tolist()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A scored run.

    Attributes:
        result: What `rayjobs.score` wrote as JSON (NaN is None there).
        records: One for each recogniser that was trained.
        sets: The generated sets, those of the scarce draws first.
        about: Of the dataset, as far as known: title, citation, terms, may_redistribute.
        command: The command that writes this report.
        projection: One of `PROJECTIONS`; tsne needs scikit-learn.
        with_clips: Whether clips are inside: the player and drawn pairs. What is left without them is figures.
        seed: Of every random choice: which clips are shown is drawn, never chosen.
    """

    result: Mapping[str, Any]
    records: Sequence[ScoreRecord]
    sets: Sequence[GeneratedSet]
    about: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    projection: str = "pca"
    with_clips: bool = True
    seed: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of every label."""
        return tuple(self.result["class_names"])

    @property
    def scarcity(self) -> str:
        """One of `motionsynth.beds.SCARCITIES`."""
        return self.result["bed"]["scarcity"]

    @property
    def recognisers(self) -> list[str]:
        """Their names, the first one first."""
        return list(dict.fromkeys(r.recogniser for r in self.records))

    @property
    def generators(self) -> list[str]:
        """Arms that add synthetic clips of a generator, in balanced batches."""
        arms = dict.fromkeys(r.arm for r in self.judged)
        return [a for a in arms if adds_clips(a) and not is_adjusted(a)]

    @property
    def judged(self) -> list[ScoreRecord]:
        """Records of the scarce draws; with nothing scarce, all."""
        return [r for r in self.records if r.rare or self.scarcity == "full"]

    def shown(self, generator: str) -> list[tuple[int, GeneratedSet]]:
        """Every class that a generator made clips of, by label, each from the first bed that has it."""
        first: dict[int, GeneratedSet] = {}
        for s in self.sets:
            if s.generator == generator and (s.bed.rare or self.scarcity == "full"):
                for c in s.classes:
                    first.setdefault(c, s)
        return sorted(first.items(), key=lambda pair: pair[0])

    @property
    def makers(self) -> list[str]:
        """Generators that have clips to show; refined clips are the same ones."""
        return list(dict.fromkeys(s.generator for s in self.sets))
