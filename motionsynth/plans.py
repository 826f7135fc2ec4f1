"""How each recogniser is trained: what two CPU cores can afford, and what its paper did.

`score_plan` is what judges; every arm of a comparison takes the same one. `published_training` is for the published
comparison; its networks are the registered ones, whose docstrings say where they are narrower than the published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from motionsynth.augment_config import NONE
from motionsynth.errors import InputError
from motionsynth.recognisers import RECOGNISERS
from motionsynth.recognition_config import RecogniserTraining


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorePlan:
    """One recogniser, and how many seeds of it are trained for each arm and draw."""

    training: RecogniserTraining
    seeds: int

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"seeds is {self.seeds}; it must be at least 1.")


def score_plan(name: str) -> ScorePlan:
    """The plan that judges with this recogniser; what a step of it costs: `python -m benchmarks.train --bf16`.

    Raises:
        InputError: unknown name.
    """
    _check(name, SCORE_PLANS)
    return SCORE_PLANS[name]


def _slow(recogniser: str, steps: int, batch: int, learning_rate: float) -> ScorePlan:
    training = RecogniserTraining(
        recogniser=recogniser, steps=steps, batch=batch, learning_rate=learning_rate, precision="bfloat16"
    )
    return ScorePlan(training=training, seeds=3)


SCORE_PLANS: dict[str, ScorePlan] = {
    "tcn": ScorePlan(training=RecogniserTraining(), seeds=5),
    "tacnn": _slow("tacnn", steps=300, batch=64, learning_rate=2e-3),
    "skeleton_cnn": _slow("skeleton_cnn", steps=1000, batch=64, learning_rate=1e-3),
    "cnn_lstm": _slow("cnn_lstm", steps=450, batch=16, learning_rate=5e-4),
    "relational_lstm": _slow("relational_lstm", steps=170, batch=16, learning_rate=1e-3),
    "stgcn": _slow("stgcn", steps=1500, batch=16, learning_rate=4e-3),
}

PUBLISHED_CLIPS = 3540
"""Training clips of the seven mutual actions of Islamgozhayev 2024 by NTU RGB+D 120's cross-subject split, as they are
(the paper claims 1,060 a class, more than there are)."""


def published_training(name: str, clips: int = PUBLISHED_CLIPS) -> RecogniserTraining:
    """The paper's hyper-parameters, its epochs as steps over so many clips: no augmentation, smoothing or averaging.

    Ours all the same: batches balanced by class, gradients clipped to a norm of 5.

    - `cnn_lstm`: Islamgozhayev 2024, section 5.3: Adam 1e-3, batch 16, 70 epochs. Its L2 term is on the fully connected
      layers and of unstated weight: 1e-4 on every weight here.
    - `skeleton_cnn`: the same, since that paper does not state it for its comparisons; weight decay 1e-4 as in the code
      of Li et al.'s group, who train far longer (500 epochs of batch 64).
    - `relational_lstm`: SGD 1e-3 with a tenth on plateaus (Zheng et al. 2019); momentum 0.9, batch 16 and 70 epochs are
      read as in the other two, and there is no weight decay.
    - `stgcn`: Duan et al. 2022 (PYSKL): SGD 0.1 at batch 128, hence 0.0125 at 16; weight decay 5e-4, cosine to
      zero, 80 passes.

    Args:
        name: One of the four.
        clips: Training clips of the dataset.

    Raises:
        InputError: no published training of that name, or no clips.
    """
    _check(name, _PUBLISHED)
    if clips < 1:
        raise InputError(f"clips is {clips}; give the number of training clips, at least 1.")
    p = _PUBLISHED[name]
    return RecogniserTraining(
        recogniser=name,
        optimiser=p.optimiser,
        schedule=p.schedule,
        steps=-(-p.epochs * clips // 16),
        batch=16,
        learning_rate=p.learning_rate,
        weight_decay=p.weight_decay,
        label_smoothing=0.0,
        augment=NONE,
        average=0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Published:
    optimiser: str
    schedule: str
    learning_rate: float
    weight_decay: float
    epochs: int


_ADAM = _Published(optimiser="adam", schedule="constant", learning_rate=1e-3, weight_decay=1e-4, epochs=70)
_PUBLISHED = {
    "cnn_lstm": _ADAM,
    "skeleton_cnn": _ADAM,
    "relational_lstm": _Published(
        optimiser="sgd", schedule="plateau", learning_rate=1e-3, weight_decay=0.0, epochs=70
    ),
    "stgcn": _Published(
        optimiser="sgd", schedule="cosine", learning_rate=0.0125, weight_decay=5e-4, epochs=80
    ),
}


def _check(name: str, known: Mapping[str, object]) -> None:
    if name in known:
        return
    what = "There is no published training of" if name in RECOGNISERS else "Unknown recogniser"
    raise InputError(f"{what} '{name}'. Known: {', '.join(sorted(known))}.")
