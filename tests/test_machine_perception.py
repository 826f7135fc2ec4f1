"""Recognisers in place of people: they learn from people whom the generator never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from motionsynth.arms import BedTensors
from motionsynth.beds import Bed, BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.machine_perception import machine_answers
from motionsynth.motion import MotionSet
from motionsynth.perception import scores
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

TRAINING = RecogniserTraining(steps=60, batch=24)
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


def bed_of(split: str) -> Bed:
    return make_bed(make_tiny_set(2), [SPLIT], BedSpec(scarcity="full", split=split))


def as_synthetic(motions: MotionSet, shift: int = 0) -> MotionSet:
    """Real clips as synthetic ones, labelled as another class."""
    relabelled = lambda m: (m.label + shift) % 3  # noqa: E731
    return replace(
        motions,
        motions=tuple(
            replace(m, sample_id=f"syn-{m.sample_id}", source="synthetic", label=relabelled(m))
            for m in motions.motions
        ),
    )


def test_clips_that_show_their_class_are_named_and_others_are_not() -> None:
    tensors = BedTensors.of(bed_of("validation"))
    for shift in (0, 1):
        found = scores(machine_answers(tensors, as_synthetic(tensors.bed.train, shift), TRAINING, (0,)))
        share = {s.source: s.share for s in found if s.label is None}
        assert share["real"].mean > 0.8 and share["real"].n == len(tensors.bed.full)
        assert (share["synthetic"].mean > 0.8) if shift == 0 else (share["synthetic"].mean < 0.2)


def test_each_seed_answers_as_one_participant_and_again_the_same() -> None:
    tensors = BedTensors.of(bed_of("validation"))
    made = as_synthetic(tensors.bed.train).select(np.arange(6))
    few = replace(TRAINING, steps=4)
    answers = machine_answers(tensors, made, few, (0, 1))
    assert {a.participant for a in answers} == {"recogniser 0", "recogniser 1"}
    assert {a.task for a in answers} == {"action"} and machine_answers(tensors, made, few, (0, 1)) == answers


def test_nobody_trains_on_the_test_half() -> None:
    tensors = BedTensors.of(bed_of("test"))
    with pytest.raises(InputError, match="on the test half nobody may"):
        machine_answers(tensors, as_synthetic(tensors.bed.train), TRAINING, (0,))


def test_clips_of_no_known_class_are_refused() -> None:
    tensors = BedTensors.of(bed_of("validation"))
    with pytest.raises(InputError, match="show no class"):
        machine_answers(tensors, replace(tensors.bed.train, motions=()), TRAINING, (0,))
