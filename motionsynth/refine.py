"""Generative refinement: which synthetic clips are good enough to train a recogniser on.

    refiner = fit_refiner(training_motions, RefineConfig())
    graded = refiner.select(refiner.grade(clips))

Dong 2026 discards clips that drift from their source (`published_rule`). The default, GRM+, asks instead whether
teachers that never saw the source name the clip as its class, whether it is a plausible motion, and whether it is
neither a copy of a training clip nor far from all of them. Every threshold is a percentile of what the real training
clips themselves score, so nothing is tuned by hand. No clip is dropped: the quality columns say what was found (see
`Motion`), and `accepted=False` keeps a clip from every recogniser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.limits import MotionLimits, fit_limits
from motionsynth.metrics_distribution import herd
from motionsynth.metrics_motion import bone_length_medians
from motionsynth.motion import Motion, MotionSet, canonical, invalid_reason, resample
from motionsynth.plausibility import NOTICEABLE, plausibility_figures
from motionsynth.refine_config import RULES, RefineConfig
from motionsynth.teachers import Opinion, Teachers, fit_teachers, sources

PRIOR_CLIPS = 10
"""Clips as many as which the pooled percentile counts beside a class's own (see `_edges`)."""

PUBLISHED_FRAMES = 48
"""Frames of a clip in Dong 2026."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Refiner:
    """Teachers and the thresholds calibrated with them; `fit_refiner` makes one. Can be pickled.

    Attributes:
        config: What it was fitted with.
        teachers: See `motionsynth.teachers`.
        limits: Of angles and speeds, fitted on the training clips.
        bones: [V-1], usual length of each bone, metres.
        plausible: Highest value of each figure of `NOTICEABLE`, in that order.
        confidence: [K], lowest confidence by class.
        must_agree: bool [K]: whether the teachers must name the class.
        window: [K, 2], lowest and highest distance by class.
    """

    config: RefineConfig
    teachers: Teachers
    limits: MotionLimits
    bones: np.ndarray
    plausible: np.ndarray
    confidence: np.ndarray
    must_agree: np.ndarray
    window: np.ndarray

    def grade(self, motions: Sequence[Motion]) -> list[Motion]:
        """Fill the quality columns; the grade of a clip does not depend on the others.

        Args:
            motions: Synthetic clips.

        Returns:
            The same clips in the same order, with new `class_confidence`, `physics_violation`, `novelty`, `accepted`
            and `rejected_by`. A clip that is no usable motion (see `motionsynth.motion.invalid_reason`) is refused as
            "invalid", and measured no further.

        Raises:
            InputError: a clip's source or class is not among the training clips.
        """
        train = self.teachers.train
        fit = [invalid_reason(m, train.skeleton) is None for m in motions]
        usable = [m for m, ok in zip(motions, fit, strict=True) if ok]
        figures = plausibility_figures(replace(train, motions=tuple(usable)), self.limits, self.bones)
        graded = map(self._grade, usable, self.teachers.opinions(usable), figures)
        nothing = {"class_confidence": None, "physics_violation": None, "novelty": None}
        return [
            next(graded) if ok else _marked(replace(m, **nothing), ["invalid"])
            for m, ok in zip(motions, fit, strict=True)
        ]

    def _grade(self, motion: Motion, opinion: Opinion, figures: np.ndarray) -> Motion:
        c = motion.label
        low, high = self.window[c]
        novelty = float((opinion.distance - low) / max(high - low, 1e-9))
        violation = float((figures / self.plausible).max())
        failed = {
            "agreement": self.must_agree[c] and opinion.named != c,
            "confidence": opinion.confidence < self.confidence[c],
            "plausibility": violation > 1,
            "copy": novelty < 0,
            "outlier": novelty > 1,
        }
        return _marked(
            replace(
                motion, class_confidence=opinion.confidence, physics_violation=violation, novelty=novelty
            ),
            [rule for rule, broken in failed.items() if broken],
        )

    def select(self, motions: Sequence[Motion]) -> list[Motion]:
        """Keep `config.quota` accepted clips of each class: those whose mean embedding best matches the real ones'.

        Kernel herding in the features of all teachers side by side. Unlike `grade` this depends on the whole pool.

        Args:
            motions: Graded clips.

        Returns:
            The same clips in the same order; those not chosen are refused by "quota".
        """
        out = list(motions)
        if not self.config.quota:
            return out
        real = self.teachers.embed()
        for c in sorted({m.label for m in motions}):
            pool = [i for i, m in enumerate(motions) if m.label == c and m.accepted is not False]
            if len(pool) <= self.config.quota:
                continue
            made = self.teachers.embed([motions[i] for i in pool])
            chosen = {pool[i] for i in herd(made, real[self.teachers.labels == c], self.config.quota)}
            for i in pool:
                if i not in chosen:
                    out[i] = _marked(out[i], ["quota"])
        return out

    def thresholds(self) -> dict[str, Any]:
        """All limits as JSON: figures of plausibility, and by class name confidence, agreement and window."""
        names = self.teachers.train.class_names
        shown = sorted(set(self.teachers.labels.tolist()))
        return {
            "plausibility": dict(zip(NOTICEABLE, self.plausible.tolist(), strict=True)),
            "classes": {
                names[c]: {
                    "confidence": float(self.confidence[c]),
                    "must_agree": bool(self.must_agree[c]),
                    "distance": self.window[c].tolist(),
                }
                for c in shown
            },
        }


def fit_refiner(train: MotionSet, config: RefineConfig) -> Refiner:
    """Train the teachers and calibrate every threshold, on real training clips alone.

    A class demands agreement (its name as the teachers' first choice) only if they name more than half of its own
    held-out clips: a class whose real clips are taken for another would lose all synthetic ones. How plausible the
    clips of a fold are is measured with limits and bone lengths of the other folds.

    Args:
        train: Real training clips of the draw; they hold the sources of all clips that are to be graded.
        config: See `RefineConfig`.

    Raises:
        InputError: a clip is synthetic, there are too few for two folds, or no class has two takes.
    """
    if any(m.source != "real" for m in train.motions):
        raise InputError(
            f"The training clips of '{train.dataset}' include synthetic ones; fit on real clips alone."
        )
    teachers = fit_teachers(train, config.folds, config.teacher, config.seed)
    real = teachers.held_out()
    low, high = config.novelty_percentiles
    figures = np.zeros((len(train), len(NOTICEABLE)))
    for f in range(len(teachers.models)):
        mine, others = np.flatnonzero(teachers.fold == f), train.select(np.flatnonzero(teachers.fold != f))
        figures[mine] = plausibility_figures(train.select(mine), fit_limits(others), _usual_bones(others))
    return Refiner(
        config=config,
        teachers=teachers,
        limits=fit_limits(train),
        bones=_usual_bones(train),
        plausible=np.maximum(
            np.percentile(figures, config.plausibility_percentile, axis=0), list(NOTICEABLE.values())
        ),
        confidence=_edges(real.confidence, config.confidence_percentile, lower=True),
        must_agree=np.array([len(n) > 0 and n.mean() > 0.5 for n in real.named]),
        window=np.stack(
            [_edges(real.take_away, low, lower=True), _edges(real.fold_away, high, lower=False)], axis=1
        ),
    )


def _usual_bones(motions: MotionSet) -> np.ndarray:
    return np.nanmedian(bone_length_medians(motions), axis=0)


def _edges(values: Sequence[np.ndarray], percentile: float, lower: bool) -> np.ndarray:
    """A percentile by class, [K], loosened towards that of all classes where a class has few values.

    The percentile of n values is mixed with the pooled one as if that were `PRIOR_CLIPS` more, which keeps two clips
    that happen to be alike from shutting out everything. The mixture only ever loosens: a class that the teachers find
    hard has low values of its own, and the pooled percentile would empty it. Without a value: the pooled percentile.

    Raises:
        InputError: no class has a value.
    """
    pooled = np.concatenate(list(values))
    if not len(pooled):
        raise InputError(
            "No class has clips of two takes, so nothing tells how alike two of them are; refine needs at least one."
        )
    common = float(np.percentile(pooled, percentile))
    out = []
    for own in values:
        edge = float(np.percentile(own, percentile)) if len(own) else common
        mixed = (len(own) * edge + PRIOR_CLIPS * common) / (len(own) + PRIOR_CLIPS)
        out.append(min(edge, mixed) if lower else max(edge, mixed))
    return np.array(out)


def published_rule(motions: Sequence[Motion], train: MotionSet, threshold: float) -> list[Motion]:
    """The generative refinement module of Dong 2026 as released: refuse clips that drift from their source.

    The distance is the absolute value of the *signed* sum of all coordinate differences, in metres, over 48 frames.
    Because signs cancel, it is a drift filter and no measure of quality: of 22 joints that shake by 3 cm nearly all
    clips pass a threshold of 5, and a body that stands 1 cm beside its root (10.1) does not. It grows with the number
    of joints; the paper's threshold is unknown.

    Args:
        motions: Synthetic clips with a `parent_id`; of several sources the first counts.
        train: Real training clips, which hold the sources.
        threshold: Metres, above 0.

    Returns:
        The same clips with `accepted`, and `rejected_by` "drift".

    Raises:
        InputError: a clip has no source, or one that is not in `train`.
    """
    out = []
    for m, parents in zip(motions, sources(motions, train), strict=True):
        if not parents:
            raise InputError(
                f"Clip '{m.sample_id}' has no parent_id, and the published rule compares each clip with its source; "
                "refine with GRM+ (the default) instead."
            )
        drift = signed_drift(m, train.motions[parents[0]], train)
        out.append(_marked(m, ["drift"] * (not drift <= threshold)))
    return out


def signed_drift(motion: Motion, source: Motion, train: MotionSet) -> float:
    """|sum of (clip - source) over frames, joints and axes|, metres; both canonical, at 48 frames, common persons."""
    persons = min(motion.num_persons, source.num_persons)
    clip, other = (
        resample(canonical(m.positions[:persons], train.skeleton), PUBLISHED_FRAMES) for m in (motion, source)
    )
    return float(abs((clip.astype(np.float64) - other).sum()))


def _marked(motion: Motion, failed: list[str]) -> Motion:
    return replace(motion, accepted=not failed, rejected_by="+".join(failed) or None)


def refusals(motions: Sequence[Motion], class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By class name: `clips`, `accepted`, and `refused` by rule (a clip counts for every rule that refuses it)."""
    out = {}
    for c in sorted({m.label for m in motions}):
        mine = [m for m in motions if m.label == c]
        found = Counter(rule for m in mine if m.rejected_by for rule in m.rejected_by.split("+"))
        out[class_names[c]] = {
            "clips": len(mine),
            "accepted": sum(m.accepted is not False for m in mine),
            "refused": {rule: found[rule] for rule in RULES if found[rule]},
        }
    return out
