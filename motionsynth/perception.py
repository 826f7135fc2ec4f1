"""The human perceptual study: which clips a participant sees, and what the answers come to (Galstyan 2025, eq. 10).

HPS is correct answers over all answers. The paper asks "is it real?" and praises 0.87, which would mean that its clips
are easy to tell from real ones; as praise it can only be meant of "name the action". So both are asked and reported
apart: `action` (HPS: the higher the better) and `origin` (0.5 is the best: nobody can tell). Real clips are shown
unannounced among the synthetic ones, since a score says little without that of real clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionsynth.errors import InputError, check_ranges
from motionsynth.metrics_gain import Interval, wilson_interval
from motionsynth.motion import MotionSet

TASKS = ("action", "origin")
SOURCES = ("real", "synthetic")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyDesign:
    """What every participant is asked.

    Attributes:
        per_task: Clips shown for each question, half of them real.
        options: Most classes offered for "name the action"; the true one is always among them.
        seed: Of the order of everything.
    """

    per_task: int = 20
    options: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges("The study's", self, per_task=(2, 500), options=(2, 200), seed=(0, 2**63))
        if self.per_task % 2:
            raise InputError(
                f"The study's per_task is {self.per_task}; it must be even: half are real clips."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One clip and one question.

    Attributes:
        number: From 0, in the order shown.
        task: Of `TASKS`.
        sample_id, source, label: The clip's; what the participant must not learn.
        options: Labels that are offered, for `action`; () for `origin`.
    """

    number: int
    task: str
    sample_id: str
    source: str
    label: int
    options: tuple[int, ...]

    @property
    def truth(self) -> str:
        """The right answer: a label as text, or a source."""
        return str(self.label) if self.task == "action" else self.source

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that can be given."""
        return tuple(map(str, self.options)) if self.task == "action" else SOURCES


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of one participant."""

    participant: str
    task: str
    source: str
    label: int
    answer: str
    correct: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Correct answers over all of them, in [0, 1], with its Wilson interval.

    Attributes:
        label: Of one class, None for all.
    """

    task: str
    source: str
    label: int | None
    share: Interval


class Plan:
    """Which trials the n-th participant gets: balanced over classes and clips, and the same whenever it is asked.

    Participants take turns: the classes, and the clips of each, are gone through in one shuffled round, so that after
    any number of participants the clips of a class have been shown equally often (or once more). Every other
    participant answers the questions in the other order, and nobody sees a clip twice.

    Args:
        real, synthetic: Clips of the same classes; those of classes that one side lacks are left out.
        design: See `StudyDesign`.

    Raises:
        InputError: no common class, or too few clips of one.
    """

    def __init__(self, real: MotionSet, synthetic: MotionSet, design: StudyDesign) -> None:
        self.design = design
        sides = {"real": real, "synthetic": synthetic.accepted()}
        common = sorted(set.intersection(*(set(s.labels.tolist()) for s in sides.values())))
        if not common:
            raise InputError(
                "The real and the synthetic clips share no class, so nothing can be compared; give sets of one dataset."
            )
        self.num_classes = real.num_classes
        rng = np.random.default_rng([design.seed, 0x57D1])
        self.classes = [common[i] for i in rng.permutation(len(common))]
        self.clips: dict[tuple[str, int], list[str]] = {}
        need = len(TASKS) * -(-design.per_task // 2 // len(common))
        for source, motions in sides.items():
            for label in common:
                ids = sorted(m.sample_id for m in motions.motions if m.label == label)
                if len(ids) < need:
                    raise InputError(
                        f"The class '{real.class_names[label]}' has {len(ids)} {source} clips; with "
                        f"{design.per_task} clips for each question {need} are needed, so that nobody sees one twice: "
                        "lower --per-task, or generate more."
                    )
                self.clips[source, label] = [ids[i] for i in rng.permutation(len(ids))]

    def trials(self, participant: int) -> tuple[Trial, ...]:
        """The trials of the n-th participant, n from 0, in order."""
        design, found = self.design, []
        for task in TASKS if participant % 2 == 0 else TASKS[::-1]:
            block = [
                (source, *self._clip(task, source, participant * (design.per_task // 2) + i))
                for source in SOURCES
                for i in range(design.per_task // 2)
            ]
            rng = np.random.default_rng([design.seed, participant, TASKS.index(task)])
            for i in rng.permutation(len(block)):
                source, label, sample_id = block[i]
                found.append(
                    Trial(
                        number=len(found), task=task, sample_id=sample_id, source=source, label=label,
                        options=self._options(label, rng) if task == "action" else (),
                    )
                )  # fmt: skip
        return tuple(found)

    def _clip(self, task: str, source: str, turn: int) -> tuple[int, str]:
        """Class and clip of a turn; the two questions are half a round of the clips apart."""
        label = self.classes[turn % len(self.classes)]
        clips = self.clips[source, label]
        at = turn // len(self.classes) + TASKS.index(task) * (len(clips) // 2)
        return label, clips[at % len(clips)]

    def _options(self, label: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Classes offered, in their own order, whose place tells nothing."""
        others = np.delete(np.arange(self.num_classes), label)
        wrong = rng.permutation(others)[: self.design.options - 1]
        return tuple(sorted([label, *map(int, wrong)]))


def scores(answers: Iterable[Answer], level: float = 0.95) -> list[Score]:
    """Shares of correct answers for each question and source, of all classes and of each.

    Args:
        answers: Of all participants. Those of one participant are not independent; with few of them the intervals,
            which take them to be, are too narrow.
        level: Of the intervals.
    """
    counted: dict[tuple[str, str, int | None], list[bool]] = {}
    for a in answers:
        for label in (None, a.label):
            counted.setdefault((a.task, a.source, label), []).append(a.correct)
    order = lambda k: (TASKS.index(k[0]), SOURCES.index(k[1]), -1 if k[2] is None else k[2])  # noqa: E731
    return [
        Score(task=t, source=s, label=c, share=wilson_interval(sum(hits), len(hits), level))
        for (t, s, c), hits in sorted(counted.items(), key=lambda item: order(item[0]))
    ]


def indistinguishable(answers: Sequence[Answer]) -> float:
    """1 - |2 a - 1| of the accuracy a with which real and synthetic clips were told apart: 1 where nobody can; NaN
    without an answer to that question."""
    hits = [a.correct for a in answers if a.task == "origin"]
    return 1 - abs(2 * sum(hits) / len(hits) - 1) if hits else float("nan")


def format_scores(found: Sequence[Score], class_names: Sequence[str], human: Mapping[str, int] | None) -> str:
    """The scores as a table for people.

    Args:
        found: From `scores`.
        class_names: By label.
        human: Participants and answers by name, for the headline; None for a machine's.
    """
    said = ", ".join(f"{n} {what}" for what, n in (human or {}).items())
    head = f"Human perceptual score ({said})" if human is not None else "MACHINE score, no person was asked"
    lines = [
        head,
        f"{'question':<10}{'clips':<11}{'class':<34}{'correct %':>10}{'95 % interval':>18}{'n':>6}",
    ]
    lines.append("-" * len(lines[1]))
    for s in found:
        name = "all" if s.label is None else class_names[s.label]
        span = f"[{100 * s.share.lo:.1f}, {100 * s.share.hi:.1f}]"
        lines.append(
            f"{s.task:<10}{s.source:<11}{name[:33]:<34}{100 * s.share.mean:>10.1f}{span:>18}{s.share.n:>6}"
        )
    return "\n".join(lines)
