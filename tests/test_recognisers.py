"""The contract of every registered recogniser: any skeleton, any number of persons, absent ones without a say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.recognisers import RECOGNISERS, Recogniser, RecogniserInfo, build_recogniser
from motionsynth.skeleton import get_skeleton, shipped

ALL = pytest.mark.parametrize("name", sorted(RECOGNISERS))


def build(name: str, skeleton: str = "kinect20", persons: int = 2, classes: int = 5) -> Recogniser:
    torch.manual_seed(0)
    info = RecogniserInfo(skeleton=get_skeleton(skeleton), num_classes=classes, num_persons=persons)
    model = build_recogniser(name, info)
    # Running statistics of data, not the fresh 0 and 1: under those, deep networks are all but constant, and an absent
    # person could not be told from one at the origin.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.momentum = None
    with torch.no_grad():
        model.train()(clips(model, 8, persons) + 0.5)
    return model.eval()


def clips(model: Recogniser, batch: int = 3, persons: int = 2) -> torch.Tensor:
    v = model.info.skeleton.num_joints
    return torch.randn(batch, persons, model.frames, v, 3, generator=torch.Generator().manual_seed(1))


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether logits differ by more than rounding, on their own scale: fresh heads differ in it by thousands."""
    return bool((a - b).abs().max() > 0.01 * b.std())


@ALL
@pytest.mark.parametrize("skeleton", shipped())
@pytest.mark.parametrize("persons", [1, 2])
def test_shapes_and_gradients_on_every_skeleton(name: str, skeleton: str, persons: int) -> None:
    model = build(name, skeleton, persons).train()
    x = clips(model, 2, persons)
    features = model.features(x)
    logits = model.classify(features)
    assert features.ndim == 2 and features.shape[0] == 2 and logits.shape == (2, 5)
    logits.square().mean().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not unused


@ALL
def test_parts_agree(name: str) -> None:
    """The feature arm of the protocol trains `head` on `features`: in evaluation they must be the whole network."""
    model = build(name)
    x = clips(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.classify(model.features(x)))
        torch.testing.assert_close(model(x), model.head(model.features(x)))
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-4)


@ALL
def test_the_order_of_persons_does_not_matter(name: str) -> None:
    model = build(name)
    x = clips(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(1)), atol=1e-5, rtol=1e-4)
        assert differ(model(x[:, [0, 0]]), model(x))  # the second is looked at


@ALL
@pytest.mark.parametrize("absent", [0, 1])
def test_an_absent_person_has_no_influence(name: str, absent: int) -> None:
    two, one = build(name), build(name, persons=1)
    one.load_state_dict(two.state_dict())
    x = clips(two)
    x[:, absent] = 0
    with torch.no_grad():
        torch.testing.assert_close(two(x), one(x[:, [1 - absent]]), atol=1e-5, rtol=1e-4)
        empty = two(torch.zeros_like(x))
        assert empty.isfinite().all()


@ALL
def test_time_and_place_matter(name: str) -> None:
    """A network that saw single frames could not tell these apart; one that says so is blind to the root's path."""
    model = build(name)
    x = clips(model).cumsum(2) * 0.1
    with torch.no_grad():
        base = model(x)
        assert differ(model(x.flip(2)), base)
        moved = x + torch.linspace(0, 1, model.frames)[None, None, :, None, None]
        if model.sees_path:
            assert differ(model(moved), base)
        else:
            torch.testing.assert_close(model(moved), base, atol=1e-4, rtol=1e-3)


@ALL
def test_learns_two_classes_that_differ_in_motion_only(name: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    info = RecogniserInfo(skeleton=get_skeleton("sbu15"), num_classes=2, num_persons=1)
    model = build_recogniser(name, info)
    t = np.linspace(0, 1, model.frames)
    pose = rng.standard_normal((15, 3))
    path = np.stack([np.sin(2 * np.pi * k * t) for k in (1, 2)])
    y = np.arange(8) % 2
    x = pose * (1 + path[y][:, None, :, None, None]) + 0.05 * rng.standard_normal((8, 1, model.frames, 15, 3))
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    while len(losses) < 12 or (len(losses) < 60 and max(losses[-3:]) >= 0.1):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.3 and max(losses[-3:]) < 0.1


def test_unknown_recogniser() -> None:
    info = RecogniserInfo(skeleton=get_skeleton("kinect20"), num_classes=2, num_persons=1)
    with pytest.raises(
        InputError, match=f"Unknown recogniser 'cnn'. Known: {', '.join(sorted(RECOGNISERS))}"
    ):
        build_recogniser("cnn", info)
