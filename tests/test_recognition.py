"""Training a recogniser: the seed decides, real clips keep their share, and what is bad input says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth import recognition
from motionsynth.augment_config import NONE
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, canonical, rotate_y
from motionsynth.precision import PRECISIONS
from motionsynth.recognisers import RECOGNISERS, RecogniserInfo, build_recogniser
from motionsynth.recognition import (
    STORED_FRAMES,
    ClipTensors,
    blended,
    clip_weights,
    predict,
    to_tensors,
    train_recogniser,
)
from motionsynth.recognition_config import OPTIMISERS, RecogniserTraining
from tests.tiny_pairs import make_pair_set

QUICK = RecogniserTraining(steps=6, batch=8)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def info_of(motions: MotionSet) -> RecogniserInfo:
    return RecogniserInfo(
        skeleton=motions.skeleton, num_classes=motions.num_classes, num_persons=motions.num_persons
    )


def train(
    motions: MotionSet, config: RecogniserTraining = QUICK, seed: int = 0, synthetic=None, device: str = "cpu"
):
    clips = to_tensors(motions, motions.num_persons)
    names = motions.class_names
    return train_recogniser(clips, info_of(motions), names, config, seed, synthetic, device=device)


def test_clips_become_canonical_and_padded(tiny_set: MotionSet) -> None:
    clips = to_tensors(tiny_set, 2)
    assert clips.x.shape == (24, 2, STORED_FRAMES, 20, 3) and clips.x.dtype == torch.float32
    assert (clips.x[:, 1] == 0).all() and clips.y.tolist() == tiny_set.labels.tolist()
    first = canonical(tiny_set.motions[5].positions, tiny_set.skeleton)
    np.testing.assert_allclose(clips.x[5, 0, [0, -1]], first[0, [0, -1]], atol=1e-5)
    turned = replace(
        tiny_set,
        motions=tuple(
            replace(m, positions=rotate_y(m.positions, 1.0) + np.float32(2)) for m in tiny_set.motions
        ),
    )
    # Where a person stands and looks is not what a class is.
    torch.testing.assert_close(to_tensors(turned, 2).x, clips.x, atol=1e-4, rtol=0)


def test_a_second_person_keeps_its_place() -> None:
    pairs = make_pair_set()
    clips = to_tensors(pairs, 2)
    gap = (clips.x[:, 1] - clips.x[:, 0])[:, 0, pairs.skeleton.root].norm(dim=-1)
    raw = [
        np.linalg.norm(np.diff(m.positions[:, 0, pairs.skeleton.root], axis=0)) for m in pairs.motions[:16]
    ]
    np.testing.assert_allclose(gap[:16], raw, atol=1e-4)


def test_same_seed_same_weights(tiny_set: MotionSet) -> None:
    a, b, c = (train(tiny_set, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    assert not train(tiny_set).training


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_learns_the_tiny_set(precision: str, device: str, tiny_set: MotionSet) -> None:
    model = train(tiny_set, RecogniserTraining(steps=60, batch=24, precision=precision), device=device)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    probabilities, features = predict(model, to_tensors(tiny_set, 1), batch=7)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == tiny_set.labels).mean() > 0.9
    assert features.shape[0] == 24
    np.testing.assert_allclose(predict(model, to_tensors(tiny_set, 1))[0], probabilities, atol=1e-5)


@NEEDS_GPU
@pytest.mark.parametrize("name", RECOGNISERS)
def test_a_gpu_tells_what_the_cpu_does(name: str, tiny_set: MotionSet) -> None:
    clips = to_tensors(tiny_set, 1)
    config = replace(QUICK, recogniser=name, mixup=0.2)
    model = train(tiny_set, config, synthetic=clips.select(np.arange(12)), device="cuda")
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    there, _ = predict(model, clips)
    np.testing.assert_allclose(predict(model.cpu(), clips)[0], there, atol=1e-2)


def test_average_0_evaluates_the_last_weights(tiny_set: MotionSet) -> None:
    last = train(tiny_set, replace(QUICK, average=0.0)).state_dict()
    mean = train(tiny_set, replace(QUICK, average=0.9)).state_dict()
    assert any(not torch.allclose(last[k].float(), mean[k].float()) for k in last)


def rates(schedule: str, losses: list[float]) -> list[float]:
    """The learning rate of every step, as a share of the configured one."""
    weight = torch.nn.Parameter(torch.zeros(1))
    config = RecogniserTraining(schedule=schedule, steps=len(losses), learning_rate=0.5)
    optimiser = recognition.make_optimiser([weight], config)
    after_step = recognition.make_schedule(optimiser, config)
    seen = []
    for loss in losses:
        seen.append(optimiser.param_groups[0]["lr"] / 0.5)
        weight.grad = torch.zeros(1)
        optimiser.step()
        after_step(torch.tensor(loss))
    return seen


def test_schedules() -> None:
    assert rates("constant", [1.0] * 10) == [1.0] * 10
    np.testing.assert_allclose(
        rates("cosine", [1.0] * 10), [(1 + np.cos(np.pi * i / 10)) / 2 for i in range(10)]
    )
    up_and_down = rates("one_cycle", [1.0] * 20)
    assert int(np.argmax(up_and_down)) in (2, 3) and up_and_down[0] == pytest.approx(1 / 25)
    assert up_and_down[-1] < 0.01
    falling = [1 - i / 1000 for i in range(600)]
    assert rates("plateau", falling) == [1.0] * 600
    # The first mean is the best one; as many more as patience has are forgiven.
    window, patience = recognition.PLATEAU_STEPS, recognition.PLATEAU_PATIENCE
    flat = rates("plateau", [1.0] * (window * (patience + 2) + 1))
    assert flat[:-1] == [1.0] * (len(flat) - 1) and flat[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_optimisers_step_as_their_equations_say(kind: str) -> None:
    """The second step, from w = 1 with gradients 3 and 1: there momentum and moments show."""
    rate, decay = 0.1, 0.5
    config = RecogniserTraining(optimiser=kind, learning_rate=rate, weight_decay=decay)
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = recognition.make_optimiser([weight], config)
    w = v = m = s = 0.0
    w = 1.0
    for t, gradient in enumerate((3.0, 1.0), 1):
        weight.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimiser.step()
        g = gradient if kind == "adamw" else gradient + decay * w
        if kind == "sgd":
            v = 0.9 * v + g if t > 1 else g
            w -= rate * (g + 0.9 * v)
        else:
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
            w *= 1 - rate * decay if kind == "adamw" else 1
            w -= rate * (m / (1 - 0.9**t)) / ((s / (1 - 0.999**t)) ** 0.5 + 1e-8)
    assert weight.item() == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "plateau", "cosine"])
def test_published_ways_learn_too(kind: str, schedule: str, tiny_set: MotionSet) -> None:
    rate = {"adam": 2e-3, "sgd": 0.05}[kind]
    config = RecogniserTraining(
        optimiser=kind, schedule=schedule, steps=60, batch=24, learning_rate=rate, weight_decay=1e-4
    )
    probabilities, _ = predict(train(tiny_set, config), to_tensors(tiny_set, 1))
    assert (probabilities.argmax(1) == tiny_set.labels).mean() > 0.9


def watch(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The batches that training sees, by the number hidden in each clip's first coordinate."""
    seen: list[np.ndarray] = []
    original = recognition.augment

    def spy(x, y, *args):
        seen.append(x[:, 0, 0, 0, 0].round().long().numpy())
        return original(x, y, *args)

    monkeypatch.setattr(recognition, "augment", spy)
    return seen


def marked(motions: MotionSet, number: float, classes: tuple[int, ...]) -> ClipTensors:
    clips = to_tensors(motions, 1)
    clips.x[:, 0, 0, 0, 0] = number
    return clips.select(np.flatnonzero(np.isin(motions.labels, classes)))


def test_real_clips_keep_their_half_and_the_tail(
    tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch)
    config = RecogniserTraining(steps=20, batch=60, synthetic_share=0.4, real_only_tail=0.25)
    real, fake = marked(tiny_set, 0, (0, 1, 2)), marked(tiny_set, 7, (1,))
    train_recogniser(real, info_of(tiny_set), tiny_set.class_names, config, 0, fake)
    share = [float((b == 7).mean()) for b in seen]
    assert len(share) == 20 and all(len(b) == 60 for b in seen)
    # One class of three has synthetic clips: 0.4 of its third.
    assert np.mean(share[:15]) == pytest.approx(0.4 / 3, abs=0.04)
    assert share[15:] == [0.0] * 5


def test_a_class_without_real_clips_is_learnt_from_synthetic_ones(
    tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch)
    real, fake = marked(tiny_set, 0, (0, 1)), marked(tiny_set, 7, (2,))
    train_recogniser(real, info_of(tiny_set), tiny_set.class_names, replace(QUICK, batch=60), 0, fake)
    assert np.mean([(b == 7).mean() for b in seen]) == pytest.approx(1 / 3, abs=0.1)


def test_weights_of_synthetic_clips_fall_in_a_line() -> None:
    config = RecogniserTraining(steps=11, batch=5, synthetic_weight=0.8, synthetic_decay=0.5)
    assert clip_weights(config, 0, 2).tolist() == pytest.approx([1, 1, 1, 0.8, 0.8])
    assert clip_weights(config, 5, 2).tolist() == pytest.approx([1, 1, 1, 0.6, 0.6])
    assert clip_weights(config, 10, 2).tolist() == pytest.approx([1, 1, 1, 0.4, 0.4])
    assert clip_weights(config, 10, 0).tolist() == [1] * 5


def test_wrong_synthetic_clips_teach_nothing_at_weight_0(tiny_set: MotionSet) -> None:
    real = to_tensors(tiny_set, 1)
    wrong = ClipTensors(x=real.x, y=(real.y + 1) % 3)
    config = RecogniserTraining(steps=60, batch=24, synthetic_share=0.5, learning_rate=5e-3)
    right = {}
    for weight in (0.0, 3.0):
        weighed = replace(config, synthetic_weight=weight)
        model = train_recogniser(real, info_of(tiny_set), tiny_set.class_names, weighed, 0, wrong)
        right[weight] = (predict(model, real)[0].argmax(1) == tiny_set.labels).mean()
    assert right[0.0] > 0.9 and right[3.0] < 0.5


def test_mixup_blends_synthetic_clips_with_real_ones_and_nobody_with_the_absent() -> None:
    pairs = make_pair_set()
    clips = to_tensors(pairs, 2)
    at = torch.tensor([0, 8, 16, 1, 17])  # classes 0, 1, 2 are real; the last two clips are synthetic
    x, y = clips.x[at], clips.y[at]
    rng = np.random.default_rng(0)
    assert blended(x, y, 2, 0.0, rng) is None and blended(x, y, 0, 1.0, rng) is None
    assert blended(x, y, 5, 1.0, rng) is None
    mixed = blended(x, y, 2, 1.0, rng)
    assert mixed is not None
    assert torch.equal(mixed.x[:3], x[:3]) and mixed.share[:3].tolist() == [0, 0, 0]
    assert (mixed.share[3:] > 0).all() and not torch.equal(mixed.x[3:], x[3:])
    for seed in range(20):
        mixed = blended(x, y, 2, 1.0, np.random.default_rng(seed))
        assert mixed is not None
        assert not mixed.x[4, 1].any()  # stands alone
        partner = int(mixed.y[3])  # labels of the three real clips are their places
        second = x[3, 1] if partner == 2 else x[3, 1].lerp(x[partner, 1], float(mixed.share[3]))
        torch.testing.assert_close(mixed.x[3, 1], second)
        torch.testing.assert_close(mixed.x[3, 0], x[3, 0].lerp(x[partner, 0], float(mixed.share[3])))


def test_it_learns_with_mixup(tiny_set: MotionSet) -> None:
    real = to_tensors(tiny_set, 1)
    config = RecogniserTraining(steps=60, batch=24, mixup=0.4, learning_rate=5e-3)
    model = train_recogniser(real, info_of(tiny_set), tiny_set.class_names, config, 0, real)
    assert (predict(model, real)[0].argmax(1) == tiny_set.labels).mean() > 0.9


def test_classes_are_balanced(tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    real = marked(tiny_set, 0, (0, 1, 2))
    many = ClipTensors(x=real.x[real.y > 0].repeat(5, 1, 1, 1, 1), y=real.y[real.y > 0].repeat(5))
    few = marked(tiny_set.select(range(2)), 9, (0,))
    both = ClipTensors(x=torch.cat([many.x, few.x]), y=torch.cat([many.y, few.y]))
    train_recogniser(both, info_of(tiny_set), tiny_set.class_names, replace(QUICK, batch=90), 0)
    assert np.mean([(b == 9).mean() for b in seen]) == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("adjusted", [False, True])
def test_where_clips_tell_nothing_no_class_is_preferred_however_many_it_has(
    adjusted: bool, tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balanced batches do that, and so do batches as they come with the adjusted loss; half of either does not."""
    drawn, augment = [], recognition.augment
    monkeypatch.setattr(recognition, "augment", lambda x, y, *a: (drawn.append(y), augment(x, y, *a))[1])
    one = to_tensors(tiny_set.select([0]), 1).x
    clips = ClipTensors(x=one.repeat(8, 1, 1, 1, 1), y=torch.tensor([0, *[1] * 7]))
    config = RecogniserTraining(steps=80, batch=64, label_smoothing=0.0, augment=NONE)
    model = train_recogniser(clips, info_of(tiny_set), tiny_set.class_names, config, 0, adjusted=adjusted)
    share = (torch.cat(drawn) == 0).double().mean()
    assert share == pytest.approx(1 / 8 if adjusted else 1 / 2, abs=0.03)
    told = predict(model, ClipTensors(x=one, y=torch.tensor([1])))[0][0]
    assert told[:2] == pytest.approx([0.5, 0.5], abs=0.2)


@pytest.mark.parametrize("name", ["tcn", "stgcn"])
def test_a_prior_is_added_to_the_logits_of_the_loss(name: str, tiny_set: MotionSet) -> None:
    torch.manual_seed(0)
    model = build_recogniser(name, info_of(tiny_set)).eval()
    features = torch.randn(4, model.features(to_tensors(tiny_set, 1).x[:1, :, : model.frames]).shape[1])
    y, far = torch.tensor([0, 1, 2, 1]), torch.tensor([0.0, 0.0, 100.0])
    plain, moved = (model.losses(features, y, 0.0, prior) for prior in (0.0, far))
    assert torch.equal(model.losses(features, y, 0.0), plain)
    assert moved[2] < 1e-4 and (moved[[0, 1, 3]] > 50).all() and (plain < 50).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"synthetic_share": 0.6}, "synthetic_share is 0.6; it must lie between 0 and 0.5"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 1}, "batch is 1"),
        ({"real_only_tail": 1.0}, "real_only_tail is 1.0"),
        ({"precision": "float16"}, "precision is 'float16'; allowed: float32, bfloat16"),
        ({"optimiser": "adagrad"}, "optimiser is 'adagrad'; allowed: adamw, adam, sgd"),
        ({"schedule": "step"}, "schedule is 'step'; allowed: one_cycle, constant, plateau, cosine"),
        ({"average": 1.0}, "average is 1.0"),
        ({"synthetic_weight": -1.0}, "synthetic_weight is -1.0; it must lie between 0 and 10"),
        ({"synthetic_decay": 1.5}, "synthetic_decay is 1.5; it must lie between 0 and 1"),
        ({"mixup": -0.1}, "mixup is -0.1; it must lie between 0 and 10"),
    ],
)
def test_wrong_training_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        RecogniserTraining(**change)


def test_one_class_is_not_enough(tiny_set: MotionSet) -> None:
    with pytest.raises(InputError, match="Only 1 of 3 classes has a training clip"):
        train(tiny_set.select(np.flatnonzero(tiny_set.labels == 1)))


def test_a_late_clip_cannot_be_told_from_the_batch_it_is_predicted_in() -> None:
    """Two persons, one person, padded: one network predicts them all, each as if alone."""
    pairs = make_pair_set()
    model = train(pairs)
    whole, _ = predict(model, to_tensors(pairs, 2))
    for i in (0, 16, 17):
        alone: Motion = pairs.motions[i]
        one = replace(pairs, motions=(alone,))
        np.testing.assert_allclose(predict(model, to_tensors(one, 2))[0][0], whole[i], atol=1e-5)
