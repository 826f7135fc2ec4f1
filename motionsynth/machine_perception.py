"""The automatic counterpart of the perceptual study's "name the action": a recogniser in place of people.

It is no human score and must not be called one: a recogniser sees what people do not, and the reverse. Known as
GAN-test (Shmelkov et al., ECCV 2018) where the recogniser learned from the generator's own training clips; here it has
learned from people whom the generator never saw, so that copies of training clips earn it nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionsynth.arms import BedTensors
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.perception import Answer
from motionsynth.recognition import ClipTensors, predict, to_tensors, train_recogniser
from motionsynth.recognition_config import RecogniserTraining


def machine_answers(
    tensors: BedTensors, synthetic: MotionSet, training: RecogniserTraining, seeds: Sequence[int]
) -> list[Answer]:
    """What recognisers of the bed's held-out people name synthetic clips, and real clips of the training people.

    Args:
        tensors: A bed whose held-out people judge on validation; the test half is not to be trained on.
        synthetic: The generated set; clips that a filter refused are left out.
        training: Of the recognisers.
        seeds: One recogniser each; its answers are those of a participant of that name.

    Returns:
        Answers to the question `action` alone, about the classes that both sides show.

    Raises:
        InputError: the bed is one of the test half, or the two sides share no class.
    """
    bed = tensors.bed
    if bed.spec.split != "validation":
        raise InputError(
            "The machine score trains on held-out people; on the test half nobody may: use --split validation."
        )
    synthetic = synthetic.accepted()
    labels = np.intersect1d(synthetic.labels, bed.full.labels)
    if not len(labels):
        raise InputError(
            "The synthetic clips show no class that the training people show; generate them first."
        )
    sides = {
        "real": tensors.full.select(np.flatnonzero(np.isin(bed.full.labels, labels))),
        "synthetic": to_tensors(synthetic, tensors.info.num_persons),
    }
    out: list[Answer] = []
    for seed in seeds:
        model = train_recogniser(tensors.evaluate, tensors.info, bed.train.class_names, training, seed)
        for source, clips in sides.items():
            out += _answers(f"recogniser {seed}", source, clips, predict(model, clips)[0].argmax(1))
    return out


def _answers(who: str, source: str, clips: ClipTensors, named: np.ndarray) -> list[Answer]:
    return [
        Answer(
            participant=who, task="action", source=source, label=int(y), answer=str(n), correct=bool(n == y)
        )
        for y, n in zip(clips.y.tolist(), named.tolist(), strict=True)
    ]
