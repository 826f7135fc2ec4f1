"""Every recogniser has a plan, and the published trainings are those of the papers."""

from __future__ import annotations

import pytest

from motionsynth.augment_config import NONE
from motionsynth.errors import InputError
from motionsynth.plans import SCORE_PLANS, published_training, score_plan
from motionsynth.recognisers import RECOGNISERS


def test_every_recogniser_has_a_plan_of_its_own() -> None:
    """A recogniser without a plan cannot be asked for by any job."""
    assert set(SCORE_PLANS) == set(RECOGNISERS)
    assert all(score_plan(name).training.recogniser == name for name in RECOGNISERS)


@pytest.mark.parametrize(
    ("name", "optimiser", "schedule", "rate", "passes"),
    [
        ("cnn_lstm", "adam", "constant", 1e-3, 70),
        ("skeleton_cnn", "adam", "constant", 1e-3, 70),
        ("relational_lstm", "sgd", "plateau", 1e-3, 70),
        ("stgcn", "sgd", "cosine", 0.1 * 16 / 128, 80),
    ],
)
def test_published_trainings(name: str, optimiser: str, schedule: str, rate: float, passes: int) -> None:
    training = published_training(name, clips=1000)
    assert (training.optimiser, training.schedule, training.recogniser) == (optimiser, schedule, name)
    assert training.learning_rate == pytest.approx(rate)
    # So many passes over the clips, and not a whole one more.
    assert passes * 1000 <= training.steps * training.batch < (passes + 1) * 1000
    assert training.augment == NONE and training.average == 0 and training.label_smoothing == 0


def test_names_without_a_training_are_one_sentence() -> None:
    known = ", ".join(sorted(RECOGNISERS))
    with pytest.raises(InputError, match=f"Unknown recogniser 'lstm'. Known: {known}."):
        score_plan("lstm")
    published = "cnn_lstm, relational_lstm, skeleton_cnn, stgcn"
    with pytest.raises(InputError, match=f"There is no published training of 'tcn'. Known: {published}."):
        published_training("tcn")
    with pytest.raises(InputError, match="Unknown recogniser 'lstm'"):
        published_training("lstm")
    with pytest.raises(InputError, match="clips is 0"):
        published_training("stgcn", clips=0)
