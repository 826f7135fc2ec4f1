"""One arm of the protocol: its recogniser is trained, and judged on held-out clips."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from motionsynth.augment import augment
from motionsynth.augment_config import NONE
from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.metrics_gain import average_precision
from motionsynth.motion import MotionSet, mirrored_labels
from motionsynth.people import without_each
from motionsynth.protocol import (
    PROTOCOL_VERSION,
    REAL_ARMS,
    RIVAL_ARMS,
    TSTR,
    ScoreRecord,
    is_adjusted,
    mean_of_shown,
)
from motionsynth.recognisers import Recogniser, RecogniserInfo
from motionsynth.recognition import ClipTensors, predict, to_tensors, train_recogniser
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.rivals import calibrated_features, interpolate_clips, lend_differences, refit_head

FEATURE_TAIL = 0.3
"""Share of the steps in which the `feature` arm refits the head, so that its recogniser takes as many as the others."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BedTensors:
    """A bed as recognisers see it, converted once and shared by all of its arms."""

    bed: Bed
    train: ClipTensors
    full: ClipTensors
    evaluate: ClipTensors
    info: RecogniserInfo

    @staticmethod
    def of(bed: Bed) -> BedTensors:
        """Convert every clip of a bed."""
        persons = max(bed.full.num_persons, bed.evaluate.num_persons)
        info = RecogniserInfo(
            skeleton=bed.train.skeleton, num_classes=bed.train.num_classes, num_persons=persons
        )
        full = to_tensors(bed.full, persons)
        at = {m.sample_id: i for i, m in enumerate(bed.full.motions)}
        train = full.select(np.array([at[m.sample_id] for m in bed.train.motions]))
        return BedTensors(
            bed=bed, train=train, full=full, evaluate=to_tensors(bed.evaluate, persons), info=info
        )


def score_arm(
    tensors: BedTensors,
    arm: str,
    training: RecogniserTraining,
    seed: int,
    synthetic: MotionSet | None = None,
    per_class: int = 120,
    device: str = "cpu",
) -> ScoreRecord:
    """Train the recogniser of one arm and judge it on the bed's held-out clips.

    Args:
        tensors: The bed.
        arm: `weak`, `strong`, `ceiling`, `adjusted`, `interpolation`, `difference`, `feature`, a generator's name, or
            `tstr:` or `adjusted:` and a name. `refined:` before a generator's name stands for its refined clips.
        training: The same for all arms.
        seed: Decides weights, batches and augmentation.
        synthetic: The generator's clips, for the arms that use them; those that a filter refused are left out.
        per_class: Clips per rare class that the rivals make.
        device: Where the recogniser computes: "cpu" or "cuda".

    Raises:
        InputError: an arm needs synthetic clips and got none that is accepted, or clips that are not synthetic.
    """
    began = time.perf_counter()
    bed, info = tensors.bed, tensors.info
    real, fake = tensors.train, None
    wants_fake = arm not in (*REAL_ARMS, *RIVAL_ARMS)
    if wants_fake:
        if synthetic is None or not len(synthetic):
            raise InputError(f"Arm '{arm}' needs synthetic clips and there are none; generate them first.")
        synthetic, given = synthetic.accepted(), len(synthetic)
        if not len(synthetic):
            raise InputError(
                f"Arm '{arm}' has no synthetic clip left: all {given} were refused; generate more, or refine less "
                "strictly."
            )
        if any(m.source != "synthetic" for m in synthetic.motions):
            raise InputError(
                f"Arm '{arm}' was given real clips as synthetic ones; pass what `generate` wrote."
            )
        fake = to_tensors(synthetic, info.num_persons)
    elif arm in ("interpolation", "difference"):
        counts = dict.fromkeys(bed.rare, per_class)
        if arm == "interpolation":
            made = interpolate_clips(bed.train, counts, seed)
        else:
            made = lend_differences(bed.train, bed.rare, counts, seed)
        fake = to_tensors(replace(bed.train, motions=tuple(made)), info.num_persons)
    if arm == "weak":
        training = replace(training, augment=NONE)
    elif arm == "ceiling":
        real = tensors.full
    elif arm.startswith(TSTR) and fake is not None:
        real, fake = fake, None
    head_steps = round(training.steps * FEATURE_TAIL) if arm == "feature" else 0
    names = bed.train.class_names
    trained = replace(training, steps=training.steps - head_steps) if head_steps else training
    model = train_recogniser(real, info, names, trained, seed, fake, is_adjusted(arm), device)
    made_features = 0
    if head_steps:
        made_features = _augment_features(model, tensors, training, seed, head_steps, per_class)
    probabilities, _ = predict(model, tensors.evaluate)
    confusion = np.zeros((info.num_classes, info.num_classes), int)
    truth = tensors.evaluate.y.numpy()
    np.add.at(confusion, (truth, probabilities.argmax(1)), 1)
    size = confusion.sum(1)
    recalls = np.where(size > 0, confusion.diagonal() / np.maximum(size, 1), np.nan)
    rare = bed.rare or tuple(range(info.num_classes))
    subjects = [m.subject for m in bed.evaluate.motions]
    people, recalls_without, precisions_without = without_each(probabilities, truth, subjects)
    return ScoreRecord(
        protocol=PROTOCOL_VERSION,
        dataset=bed.train.dataset,
        bed=bed.spec.key,
        draw=bed.spec.draw,
        split=bed.spec.split,
        arm=arm,
        recogniser=training.recogniser,
        seed=seed,
        top1=float(confusion.trace() / confusion.sum()),
        macro=mean_of_shown(recalls),
        rare_recall=mean_of_shown(recalls[list(rare)]),
        recalls=tuple(float(r) for r in recalls),
        rare=tuple(bed.rare),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        real_clips=0 if arm.startswith(TSTR) else len(real.y),
        synthetic_clips=len(fake.y)
        if fake is not None
        else made_features or (len(real.y) if arm.startswith(TSTR) else 0),
        steps=training.steps,
        seconds=time.perf_counter() - began,
        as_published=bed.as_published,
        average_precisions=tuple(
            average_precision(probabilities[:, c], truth == c) for c in range(info.num_classes)
        ),
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        people=people,
        recalls_without=recalls_without,
        average_precisions_without=precisions_without,
    )


def _augment_features(
    model: Recogniser,
    tensors: BedTensors,
    training: RecogniserTraining,
    seed: int,
    steps: int,
    per_class: int,
) -> int:
    """Refit the head on features of augmented real clips and calibrated features of rare classes."""
    rng = torch.Generator().manual_seed(seed)
    permutation = torch.from_numpy(tensors.info.skeleton.mirror_permutation)
    twin = torch.from_numpy(mirrored_labels(tensors.bed.train.class_names))
    x, y = [], []
    with torch.no_grad():
        for _ in range(3):
            for at in range(0, len(tensors.train.y), 256):
                view, label = augment(
                    tensors.train.x[at : at + 256], tensors.train.y[at : at + 256], model.frames, training.augment, rng,
                    permutation, twin,
                )  # fmt: skip
                x.append(model.features(view.to(model.head.weight.device)).cpu().numpy())
                y.append(label.numpy())
    features, labels = np.concatenate(x), np.concatenate(y)
    made, made_labels = calibrated_features(features, labels, tensors.bed.rare, per_class, seed)
    refit_head(
        model.head, np.concatenate([features, made]).astype(np.float32), np.concatenate([labels, made_labels]), steps,
        training.batch, seed, training.label_smoothing,
    )  # fmt: skip
    return len(made)
