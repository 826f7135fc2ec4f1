"""The training loop: repeatable, resumable to the bit, the same on any number of processes, stages as promised."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from motionsynth.errors import InputError
from motionsynth.generators import Batch, Context, Generator, SampleRequest, fit_context
from motionsynth.motion import Motion, MotionSet, mirror
from motionsynth.training import Report, Sampler, Trainer, fit
from motionsynth.training_config import TrainingConfig
from storage import Storage
from storage.checkpoints import load_state, save_checkpoint
from tests.tiny_generators import small_generator
from tests.tiny_motion import make_tiny_set

CONFIG = TrainingConfig(steps=6, rare_steps=4, batch=8, report_every=2)


def trainer_of(
    motions: MotionSet, config: TrainingConfig = CONFIG, seed: int = 0, rare: tuple[int, ...] = (2,)
) -> Trainer:
    return Trainer(small_generator("motion_gan", motions, rare), motions, config, seed=seed)


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    average = {f"average.{i}": a for i, a in enumerate(trainer.average)}
    return {k: v.clone() for k, v in (trainer.generator.state_dict() | average).items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_same_losses(tiny_set: MotionSet) -> None:
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + 9)  # what ran before has no say
        trainer = trainer_of(tiny_set, seed=seed)
        torch.rand(3)
        runs.append([r.metrics for r in fit(trainer)] + [weights_of(trainer)])
    assert runs[0][:-1] == runs[1][:-1] and same(runs[0][-1], runs[1][-1])
    assert runs[0][:-1] != runs[2][:-1]


def test_reports_come_every_so_often_and_at_the_end(tiny_set: MotionSet) -> None:
    trainer = trainer_of(tiny_set, replace(CONFIG, steps=3, rare_steps=4, report_every=3))
    reports = list(fit(trainer))
    assert [(r.step, r.end) for r in reports] == [(3, 7), (6, 7), (7, 7)]
    names = {f"{g}/{t}" for g, ts in trainer.generator.terms.items() for t in ts}
    names |= {f"diagnostic/{k}" for k in trainer.generator.diagnostics()}
    assert all(set(r.metrics) == names for r in reports)
    assert list(fit(trainer)) == []  # a finished training has nothing to do


def test_a_metric_is_the_mean_since_the_last_report(tiny_set: MotionSet) -> None:
    single = [r.metrics for r in fit(trainer_of(tiny_set, replace(CONFIG, report_every=1)))]
    double = [r.metrics for r in fit(trainer_of(tiny_set))]
    for i, metrics in enumerate(double):
        for name, value in metrics.items():
            assert value == pytest.approx((single[2 * i][name] + single[2 * i + 1][name]) / 2)


@pytest.mark.parametrize("broken_at", [4, 6, 8])
def test_resuming_equals_the_unbroken_run_to_the_bit(
    broken_at: int, tiny_set: MotionSet, tmp_path: Path
) -> None:
    """In stage 1, between the stages and in stage 2; the state goes through storage."""
    unbroken = trainer_of(tiny_set)
    expected = [r.metrics for r in fit(unbroken)]
    storage = Storage(tmp_path)

    first = trainer_of(tiny_set)
    seen: list[Report] = []
    for r in fit(first):
        seen.append(r)
        if r.step == broken_at:
            save_checkpoint(
                storage, "c", first.averaged_generator().state_dict(), {"generator": "g"}, r.state()
            )
            break
    second = Trainer(small_generator("motion_gan", tiny_set, (2,), seed=5), tiny_set, CONFIG, seed=0)
    second.load_state(load_state(storage, "c"))
    assert second.step == broken_at and same(weights_of(second), weights_of(first))
    seen += list(fit(second))
    assert [r.metrics for r in seen] == expected
    assert same(weights_of(second), weights_of(unbroken))


def test_saving_does_not_disturb_training(tiny_set: MotionSet) -> None:
    calm, busy = trainer_of(tiny_set), trainer_of(tiny_set)
    for _ in fit(calm):
        pass
    for r in fit(busy):
        busy.averaged_generator()
        r.state()
    assert same(weights_of(calm), weights_of(busy))


def test_what_samples_is_the_average_of_the_weights(tiny_set: MotionSet) -> None:
    config = replace(CONFIG, rare_steps=0, average=0.9)
    trainer = trainer_of(tiny_set, config)
    by_hand = [p.detach().clone() for p in trainer.generator.averaged()]
    for step in range(config.steps):
        trainer.advance()
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = [
            decay * a + (1 - decay) * p for a, p in zip(by_hand, trainer.generator.averaged(), strict=True)
        ]
    made = trainer.averaged_generator()
    assert not made.training and trainer.generator.training
    for ours, expected in zip(made.averaged(), by_hand, strict=True):
        torch.testing.assert_close(ours, expected)


def test_stage_2_freezes_what_it_says(tiny_set: MotionSet) -> None:
    """FreezeD's first critic layers, the decoder's coarse blocks but for their conditioning."""
    trainer = trainer_of(tiny_set, replace(CONFIG, steps=2, rare_steps=3))
    trainer.advance()
    trainer.advance()
    before = {n: p.detach().clone() for n, p in trainer.generator.named_parameters()}
    for _ in range(3):
        trainer.advance()
    assert trainer.stage == 2
    still = {n for n, p in trainer.generator.named_parameters() if torch.equal(p, before[n])}
    held = ("critic.pose_in", "critic.flow_in", "critic.early", "decoder.start", "decoder.coarse_blocks")
    expected = {n for n in before if n.startswith(held) and "film" not in n}
    # The gradients of a bias that both hinges share cancel out while neither is satisfied.
    assert {n for n in still if not n.endswith("bias")} == {n for n in expected if not n.endswith("bias")}
    assert expected <= still and len(expected) > 6


def test_without_rare_classes_stage_1_takes_the_steps_of_stage_2(tiny_set: MotionSet) -> None:
    trainer = trainer_of(tiny_set, rare=())
    assert CONFIG.rare_steps > 0
    steps = [r.step for r in fit(trainer)]
    assert steps[-1] == CONFIG.steps + CONFIG.rare_steps and trainer.stage == 1


def test_mixed_precision_trains_to_the_same_losses(
    tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motionsynth.precision._emulated", lambda: False)
    logged = []
    for precision in ("float32", "bfloat16"):
        trainer = trainer_of(tiny_set, replace(CONFIG, precision=precision))
        logged.append(trainer.advance())
        assert all(p.dtype == torch.float32 for p in trainer.generator.parameters())
    assert logged[0].keys() == logged[1].keys()
    for k, v in logged[0].items():
        assert logged[1][k] == pytest.approx(v, rel=0.05, abs=0.05)
    assert logged[0] != logged[1]
    with pytest.raises(InputError, match="precision is 'half'; allowed: float32, bfloat16"):
        replace(CONFIG, precision="half")


def test_stage_2_is_slower_and_starts_afresh(tiny_set: MotionSet) -> None:
    trainer = trainer_of(tiny_set, replace(CONFIG, steps=60, rare_steps=60, rare_rate=0.1))

    def rate(step: int, stage: int) -> float:
        trainer.step = step
        if trainer.stage != stage:
            trainer._enter(stage)
        trainer._set_rates()
        return trainer.optimisers["generator"].param_groups[0]["lr"]

    first = [rate(s, 1) for s in range(60)]
    second = [rate(s, 2) for s in range(60, 120)]
    np.testing.assert_allclose(second, np.array(first) * 0.1, rtol=1e-6)
    assert first[0] == pytest.approx(trainer.config.learning_rate / 50, rel=0.01)
    assert max(first) < trainer.config.learning_rate and first[-1] < 0.15 * trainer.config.learning_rate


# --- batches ---------------------------------------------------------------------------------------------------


def sampler_of(motions: MotionSet, rare: tuple[int, ...] = (), **changes: Any) -> Sampler:
    return Sampler(motions, fit_context(motions, rare), replace(CONFIG, **changes), frames=16, seed=0)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_of_one(world: int, tiny_set: MotionSet) -> None:
    sampler = sampler_of(tiny_set)
    whole = sampler.batch(3, 1, 0, 1)
    parts = [sampler.batch(3, 1, rank, world) for rank in range(world)]
    for field_ in ("x", "y", "seconds"):
        together = torch.empty_like(getattr(whole, field_))
        for rank, part in enumerate(parts):
            together[rank::world] = getattr(part, field_)
        assert torch.equal(together, getattr(whole, field_))
    assert sum(len(p.y) for p in parts) == CONFIG.batch
    assert not torch.equal(sampler.batch(4, 1, 0, 1).x, whole.x)


def test_classes_are_drawn_by_the_root_of_their_size(tiny_set: MotionSet) -> None:
    labels = tiny_set.labels
    some = tiny_set.select([*np.flatnonzero(labels == 0), *np.flatnonzero(labels == 1)[:2]])
    y = torch.cat([sampler_of(some, batch=100, mirror=False).batch(s, 1, 0, 1).y for s in range(20)])
    share = Counter(y.tolist())
    # 8 clips and 2 clips: 2 to 1.
    assert set(share) == {0, 1} and share[0] / share[1] == pytest.approx(2, rel=0.15)


def test_stage_2_sees_rare_classes_and_replays_the_others(tiny_set: MotionSet) -> None:
    sampler = sampler_of(tiny_set, rare=(0,), batch=100, replay=0.3, mirror=False)
    y = torch.cat([sampler.batch(s, 2, 0, 1).y for s in range(20)])
    assert (y == 0).float().mean() == pytest.approx(0.7 + 0.3 / 3, abs=0.03)
    # A rare class that shows no clip cannot be drawn.
    gone = tiny_set.select(np.flatnonzero(tiny_set.labels != 1))
    assert 1 not in sampler_of(gone, rare=(1,), mirror=False).batch(0, 2, 0, 1).y
    assert 1 not in sampler_of(gone, rare=(0, 1), mirror=False).batch(0, 2, 0, 1).y


def test_a_mirrored_clip_has_the_mirrored_label(tiny_set: MotionSet) -> None:
    plain, mirrored = (sampler_of(tiny_set, batch=40, mirror=m).batch(0, 1, 0, 1) for m in (False, True))
    flipped = (plain.x != mirrored.x).flatten(1).any(1)
    assert 8 < flipped.sum() < 32
    np.testing.assert_allclose(
        mirrored.x[flipped].numpy(), mirror(plain.x[flipped].numpy(), tiny_set.skeleton), atol=1e-6
    )
    twin = torch.tensor([0, 2, 1])
    assert torch.equal(mirrored.y, torch.where(flipped, twin[plain.y], plain.y))


def test_a_crop_is_as_much_shorter_as_it_says(tiny_set: MotionSet) -> None:
    duration = {round(m.num_frames / m.fps, 4) for m in tiny_set.motions}
    whole = sampler_of(tiny_set, crop=1.0, scale=0.0).batch(0, 1, 0, 1)
    assert {round(s, 4) for s in whole.seconds.tolist()} <= duration
    cropped = sampler_of(tiny_set, crop=0.5, scale=0.0).batch(0, 1, 0, 1)
    share = cropped.seconds / whole.seconds
    assert (share >= 0.5).all() and (share < 0.999).any() and (share <= 1).all()
    assert len(sampler_of(tiny_set).everything().y) == len(tiny_set)


# --- a generator that is small enough to know everything about ---------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyConfig:
    frames: int = 16
    loss_weights: Mapping[str, float] = field(default_factory=lambda: {"fit": 1.0, "size": 0.1, "off": 0.0})


class Toy(Generator):
    """Learns the mean pose of each class: no noise, so that any split of the batch gives the same sums."""

    name = "toy"
    terms = {"critic": ("judge",), "generator": ("fit", "size", "off")}

    def __init__(self, context: Context, bad_step: int = -1, **weights: float) -> None:
        config = ToyConfig(loss_weights={"fit": 1.0, "size": 0.1, "off": 0.0, "judge": 1.0} | weights)
        super().__init__(config, context)
        torch.manual_seed(0)
        self.pose = nn.Parameter(torch.randn(len(context.class_names), context.skeleton.num_joints, 3))
        self.judge = nn.Linear(context.skeleton.num_joints * 3, 1)
        self.calls, self.bad_step, self.off_scale = 0, bad_step, 100.0

    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        mean = batch.x.mean((1, 2))
        if group == "critic":
            return {"judge": (self.judge(mean.flatten(1)) - batch.y[:, None]).square().mean()}
        self.calls += 1
        value = math.nan if self.calls == self.bad_step else 1.0
        fit_ = (self.pose[batch.y] - mean).square().mean()
        return {
            "fit": fit_ * value,
            "size": self.pose[batch.y].square().mean(),
            "off": self.pose.sum() ** 2 * self.off_scale,
        }

    def parameter_groups(self, stage: int) -> dict[str, list[nn.Parameter]]:
        return {"critic": list(self.judge.parameters()), "generator": [self.pose]}

    def averaged(self) -> list[nn.Parameter]:
        return [self.pose]

    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        return [self.to_motion(r, self.pose[r.label].detach().numpy()[None, None]) for r in requests]


TOY = TrainingConfig(steps=12, rare_steps=0, batch=7, report_every=4, learning_rate=0.3)


def toy_trainer(motions: MotionSet, config: TrainingConfig = TOY, **kwargs: Any) -> Trainer:
    world = {k: kwargs.pop(k) for k in ("rank", "world") if k in kwargs}
    return Trainer(Toy(fit_context(motions), **kwargs), motions, config, seed=3, **world)


def test_each_group_moves_its_own_parameters(tiny_set: MotionSet) -> None:
    trainer = toy_trainer(tiny_set, judge=0.0)
    before = copy.deepcopy(trainer.generator.state_dict())
    trainer.advance()
    after = trainer.generator.state_dict()
    assert torch.equal(before["judge.weight"], after["judge.weight"])  # all weights of the group are 0
    assert not torch.equal(before["pose"], after["pose"])


def test_a_term_of_weight_0_is_logged_but_does_not_train(tiny_set: MotionSet) -> None:
    silent, loud = toy_trainer(tiny_set), toy_trainer(tiny_set, off=0.5)
    metrics = [next(iter(fit(t))).metrics for t in (silent, loud)]
    assert metrics[0]["generator/off"] > 0
    without = toy_trainer(tiny_set)
    without.generator.off_scale = 0.0
    next(iter(fit(without)))
    assert same(weights_of(silent), weights_of(without)) and not same(weights_of(silent), weights_of(loud))


def test_a_loss_that_is_no_number_ends_training_in_one_sentence(tiny_set: MotionSet) -> None:
    trainer = toy_trainer(tiny_set, bad_step=6)
    reports = []
    with pytest.raises(InputError) as e:
        for r in fit(trainer):
            reports.append(r.step)
    assert str(e.value) == (
        "Loss term 'generator/fit' became nan at step 6; lower the learning rate or that term's weight."
    )
    assert reports == [4]  # what was reported before is good


def one_of_two(rank: int, world: int, folder: str) -> None:
    """A process of the data-parallel test."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    trainer = toy_trainer(make_tiny_set(), rank=rank, world=world)
    for _ in fit(trainer):
        pass
    torch.save({"toy": weights_of(trainer)}, f"{folder}/rank{rank}.pt")
    gan = Trainer(
        small_generator("motion_gan", make_tiny_set(), (2,)),
        make_tiny_set(),
        replace(CONFIG, steps=2, rare_steps=1),
        seed=0,
        rank=rank,
        world=world,
    )
    for _ in fit(gan):
        pass
    torch.save({"toy": weights_of(trainer), "gan": weights_of(gan)}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tiny_set: MotionSet, tmp_path: Path) -> None:
    """7 clips are shared 4 to 3: the mean must be over clips, not over processes."""
    torch.multiprocessing.spawn(one_of_two, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in range(2)]
    alone = toy_trainer(tiny_set)
    start = weights_of(alone)
    for _ in fit(alone):
        pass
    expected = weights_of(alone)
    assert max((expected[k] - start[k]).abs().max() for k in start) > 0.05
    for k, v in expected.items():
        torch.testing.assert_close(ranks[0]["toy"][k], v, atol=2e-4, rtol=1e-3)
    # With noise of its own in each process the GAN cannot equal one process, but all must hold one model.
    assert same(ranks[0]["toy"], ranks[1]["toy"]) and same(ranks[0]["gan"], ranks[1]["gan"])


def test_more_processes_than_clips_are_refused(tiny_set: MotionSet) -> None:
    with pytest.raises(InputError, match="batch is 7 for 8 processes; each needs at least 1 clip"):
        toy_trainer(tiny_set, rank=0, world=8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"rare_steps": -1}, "rare_steps is -1"),
        ({"batch": 1}, "batch is 1"),
        ({"report_every": 0}, "report_every is 0"),
        ({"replay": 1.5}, "replay is 1.5; it must lie between 0 and 1"),
        ({"crop": 0.0}, "crop is 0.0"),
        ({"scale": 1.0}, "scale is 1.0"),
        ({"average": -0.1}, "average is -0.1"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
    ],
)
def test_a_wrong_config_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TrainingConfig(**change)
