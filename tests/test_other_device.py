"""Generators, recognisers and their training where the networks lie on a device that no machine of the tests has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from motionsynth.generators import GENERATORS, SampleRequest, build_config, build_generator, fit_context
from motionsynth.motion import Motion
from motionsynth.recognisers import RECOGNISERS, RecogniserInfo
from motionsynth.recognition import predict, to_tensors, train_recogniser
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.rivals import refit_head
from motionsynth.training import Trainer
from motionsynth.training_config import TrainingConfig
from tests.other_device import Elsewhere, other_device
from tests.tiny_pairs import make_pair_set

SIZES = {"frames": 16, "width": 64, "critic_width": 16, "code": 16, "layers": 1, "encoder_layers": 1}


def trained(name: str, device: torch.device | str) -> tuple[list[dict[str, float]], list[Motion]]:
    """The terms of three steps, of which a resumed trainer took the last, and clips of its weights."""
    clips = make_pair_set()
    known = {f.name for f in dataclasses.fields(build_config(name, {}))}
    config = build_config(name, {k: v for k, v in SIZES.items() if k in known})

    def trainer() -> Trainer:
        torch.manual_seed(0)
        generator = build_generator(name, config, fit_context(clips)).to(device)
        return Trainer(generator, clips, TrainingConfig(batch=6, steps=3, rare_steps=0), seed=0)

    first = trainer()
    terms = [first.advance(), first.advance()]
    resumed = trainer()
    resumed.load_state(first.state())
    terms.append(resumed.advance())
    requests = [SampleRequest(sample_id=str(i), label=i % clips.num_classes, seed=i) for i in range(3)]
    return terms, resumed.averaged_generator().sample(requests)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_generator_trains_and_samples_on_another_device_as_on_the_cpu(name: str) -> None:
    terms, clips = trained(name, "cpu")
    with other_device() as device:
        terms_there, clips_there = trained(name, device)
    assert terms_there == terms
    for a, b in zip(clips, clips_there, strict=True):
        # In evaluation, PyTorch's Transformer layers have a faster way for the CPU's own tensors.
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-4)


def judged(name: str, adjusted: bool, device: torch.device | str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and features of clips by a recogniser that one step on real and synthetic ones trained."""
    motions = make_pair_set()
    clips = to_tensors(motions, 2)
    info = RecogniserInfo(skeleton=motions.skeleton, num_classes=motions.num_classes, num_persons=2)
    config = RecogniserTraining(recogniser=name, steps=1, batch=4, mixup=0.2)
    made = clips.select(np.arange(4))
    model = train_recogniser(clips, info, motions.class_names, config, 0, made, adjusted, str(device))
    assert {p.device for p in model.parameters()} == {torch.device(device)}
    probabilities, features = predict(model, clips)
    # As the `feature` arm does.
    refit_head(model.head, features, motions.labels, 2, 4, 0, 0.1)
    return probabilities, predict(model, clips)[0]


@pytest.mark.parametrize("name", sorted(RECOGNISERS))
def test_a_recogniser_trains_and_judges_on_another_device_as_on_the_cpu(name: str) -> None:
    here = judged(name, name == "tcn", "cpu")
    with other_device() as device:
        there = judged(name, name == "tcn", device)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_tensors_of_two_devices_do_not_mix() -> None:
    here = torch.ones(3)
    with other_device() as device:
        there = torch.arange(3, device=device).float()
        assert isinstance(there, Elsewhere) and there.device == device
        assert (there + 1).cpu().tolist() == [1, 2, 3]
        with pytest.raises(RuntimeError, match="is on the CPU"):
            torch.add(there, here)
        assert (there + here.to(device)).tolist() == [1, 2, 3]
        assert (there + torch.tensor(1.0)).tolist() == [1, 2, 3]
        assert there[torch.tensor([2, 0])].tolist() == [2, 0]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
