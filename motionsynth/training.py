"""The training loop of every generator: plain PyTorch, any number of processes, no Ray.

    for report in fit(Trainer(generator, training_clips, config, seed=0)): ...

Stage 1 trains on all classes; stage 2 fine-tunes on the rare ones with replay of the common ones (Galstyan 2025,
two-stage training; FreezeD and the low learning rate as in `Generator.parameter_groups` and `TrainingConfig`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from motionsynth.augment import sample_times
from motionsynth.errors import InputError
from motionsynth.generators.base import Batch, Context, Generator
from motionsynth.losses import weighted_sum
from motionsynth.motion import MotionSet, mirrored_labels
from motionsynth.precision import autocast
from motionsynth.recognition import STORED_FRAMES, to_tensors
from motionsynth.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a caller is told every `report_every` steps and at the end.

    Attributes:
        step: Steps taken.
        end: Steps after which `fit` stops.
        metrics: Mean of every term since the last report.
        state: The trainer's, for a checkpoint.
    """

    step: int
    end: int
    metrics: dict[str, float]
    state: Callable[[], dict[str, Any]]


class Sampler:
    """Batches of clips: classes by the square root of their size, clips uniformly; the same for any world size."""

    def __init__(
        self, train: MotionSet, context: Context, config: TrainingConfig, frames: int, seed: int
    ) -> None:
        clips = to_tensors(train, context.num_persons)
        self.x, self.y, self.frames, self.config, self.seed = clips.x, clips.y, frames, config, seed
        self.seconds = torch.tensor([m.num_frames / m.fps for m in train.motions], dtype=torch.float32)
        self.permutation = torch.from_numpy(context.skeleton.mirror_permutation)
        self.twin = torch.from_numpy(mirrored_labels(context.class_names))
        labels = train.labels
        self.members = [np.flatnonzero(labels == c) for c in range(train.num_classes)]
        size = np.sqrt([len(m) for m in self.members])
        self.common_p = size / size.sum()
        rare = np.zeros(train.num_classes)
        rare[list(context.rare)] = 1.0
        rare *= size > 0
        # Rare classes of which the training half shows no clip at all cannot be trained on: stage 2 then sees all.
        self.rare_p = rare / rare.sum() if rare.any() else self.common_p

    def everything(self) -> Batch:
        """All training clips, whole, at `STORED_FRAMES` frames."""
        return Batch(x=self.x, y=self.y, seconds=self.seconds)

    def batch(self, step: int, stage: int, rank: int, world: int) -> Batch:
        """The share of this process in the batch of a step; decided by (seed, step) alone."""
        rng = np.random.default_rng([self.seed, step])
        n = self.config.batch
        p = (
            self.common_p
            if stage == 1
            else self.config.replay * self.common_p + (1 - self.config.replay) * self.rare_p
        )
        classes = rng.choice(len(p), n, p=p)
        u = rng.random((n, 4))
        flips = rng.random(n) < 0.5
        mine = slice(rank, None, world)
        picks = np.array(
            [self.members[c][int(v * len(self.members[c]))] for c, v in zip(classes, u[:, 0], strict=True)]
        )
        picks, u, flips = picks[mine], torch.from_numpy(u[mine]).float(), torch.from_numpy(flips[mine])
        x, y = self.x[picks], self.y[picks]
        share = self.config.crop + (1 - self.config.crop) * u[:, 1:2]
        start = u[:, 2:3] * (1 - share)
        at = (start + share * torch.linspace(0, 1, self.frames)) * (STORED_FRAMES - 1)
        there = (x != 0).any(-1).any(-1).any(-1)
        x = sample_times(x, at) * (1 + (2 * u[:, 3] - 1) * self.config.scale).view(-1, 1, 1, 1, 1)
        if self.config.mirror:
            flip = flips & (self.twin[y] >= 0)
            x = torch.where(
                flip.view(-1, 1, 1, 1, 1), x[..., self.permutation, :] * x.new_tensor([-1.0, 1, 1]), x
            )
            y = torch.where(flip, self.twin[y], y)
        return Batch(x=x * there[:, :, None, None, None], y=y, seconds=self.seconds[picks] * share[:, 0])


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean of the gradients over all processes; nothing when there is one.

    One flat all-reduce rather than DDP: two optimisers and several passes per step are what DDP's hooks stumble
    over, and every process takes the same step from the same sum.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p).clone()
        at += p.numel()


class Trainer:
    """A generator in training: everything that a checkpoint must hold to go on where it stopped."""

    def __init__(
        self,
        generator: Generator,
        train: MotionSet,
        config: TrainingConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if config.batch < world:
            raise InputError(
                f"Training batch is {config.batch} for {world} processes; each needs at least 1 clip: raise batch or "
                "use fewer workers."
            )
        self.generator, self.config, self.seed, self.rank, self.world = generator, config, seed, rank, world
        self.device = next(chain(generator.parameters(), generator.buffers())).device
        self.sampler = Sampler(train, generator.context, config, generator.frames, seed)
        generator.prepare(self._everything())
        self.average = [p.detach().clone() for p in generator.averaged()]
        self.step, self.stage = 0, 0
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    @property
    def total_steps(self) -> int:
        """Steps of both stages."""
        return self.config.steps + self.config.rare_steps

    @property
    def first_steps(self) -> int:
        """Steps of stage 1: all of them where no class is rare, so that every bed is trained on as many clips."""
        return self.config.steps if self.generator.context.rare else self.total_steps

    def _enter(self, stage: int) -> None:
        """Fresh optimisers over the parameters that this stage trains."""
        self.stage = stage
        rates = {"critic": self.config.critic_learning_rate}
        self.optimisers = {
            name: torch.optim.Adam(
                ps,
                lr=rates.get(name, self.config.learning_rate),
                betas=self.generator.betas,
                fused=True,
            )
            for name, ps in self.generator.parameter_groups(stage).items()
        }
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["peak"] = group["lr"] * (self.config.rare_rate if stage == 2 else 1.0)

    def _set_rates(self) -> None:
        first = 0 if self.stage == 1 else self.first_steps
        length = self.first_steps if self.stage == 1 else self.config.rare_steps
        share = (self.step - first) / max(length, 1)
        factor = min(1.0, (self.step - first + 1) / 50) * (0.1 + 0.45 * (1 + float(np.cos(np.pi * share))))
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor

    def advance(self) -> dict[str, float]:
        """One step of every group; returns the unweighted terms as `group/term`."""
        stage = 1 if self.step < self.first_steps else 2
        if stage != self.stage:
            self._enter(stage)
        self._set_rates()
        # Noise is decided by (seed, step, rank), so that a resumed run repeats what an unbroken one does.
        torch.manual_seed(hash((self.seed, self.step, self.rank)) & 0x7FFFFFFF)
        batch = self.sampler.batch(self.step, stage, self.rank, self.world).to(self.device)
        logged: dict[str, float] = {}
        weights = self.generator.config.loss_weights
        for group, optimiser in self.optimisers.items():
            if self.step % self.generator.every(group):
                continue
            mine = [p for g in optimiser.param_groups for p in g["params"]]
            inside = set(mine)
            for p in self.generator.parameters():
                p.requires_grad_(p in inside)
            with autocast(self.config.precision, self.device.type):
                terms = self.generator.losses(batch, group)
            logged |= {f"{group}/{k}": v.detach().item() for k, v in terms.items()}
            mine_weights = {k: weights[k] for k in self.generator.terms[group]}
            if not any(mine_weights.values()):
                continue
            # Terms are means over this process's clips: weighed so that their average is the mean over all.
            loss = weighted_sum(terms, mine_weights) * (len(batch.y) * self.world / self.config.batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            average_gradients(mine)
            torch.nn.utils.clip_grad_norm_(mine, 10.0)
            optimiser.step()
        logged |= {f"diagnostic/{k}": v for k, v in self.generator.diagnostics().items()}
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        if self.average:
            get_ema_multi_avg_fn(decay)(self.average, tuple(self.generator.averaged()), self.step)
        self.step += 1
        return logged

    def averaged_generator(self) -> Generator:
        """A copy that samples with the averaged weights."""
        out = copy.deepcopy(self.generator)
        with torch.no_grad():
            for p, a in zip(out.averaged(), self.average, strict=True):
                p.copy_(a)
        out.eval().finish(self._everything())
        return out

    def _everything(self) -> Batch:
        return self.sampler.everything().to(self.device)

    def state(self) -> dict[str, Any]:
        """Everything needed to resume: nested dicts and lists of tensors and plain values."""
        fitted = self.generator.fitted
        tensors = {k: v for k, v in self.generator.state_dict().items() if not k.startswith(fitted)}
        return {
            "step": self.step,
            "stage": self.stage,
            "generator": tensors,
            "average": {str(i): a for i, a in enumerate(self.average)},
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.step = int(state["step"])
        if int(state["stage"]):
            self._enter(int(state["stage"]))
        own = self.generator.state_dict()
        fitted = {k: v for k, v in own.items() if k.startswith(self.generator.fitted)}
        self.generator.load_state_dict(fitted | state["generator"])
        self.average = [state["average"][str(i)].to(self.device) for i in range(len(self.average))]
        for name, o in self.optimisers.items():
            o.load_state_dict(state["optimisers"][name])


def fit(trainer: Trainer, until: int = 0) -> Iterator[Report]:
    """Train to the end; yields a report every `report_every` steps and after the last one.

    Args:
        trainer: Of any step.
        until: Stop after this step, with the learning rate where a whole training has it there (0: the end).

    Raises:
        InputError: a loss term is no longer finite.
    """
    sums: dict[str, list[float]] = {}
    end = min(until or trainer.total_steps, trainer.total_steps)
    while trainer.step < end:
        for k, v in trainer.advance().items():
            if not np.isfinite(v):
                raise InputError(
                    f"Loss term '{k}' became {v} at step {trainer.step}; lower the learning rate or that term's weight."
                )
            sums.setdefault(k, []).append(v)
        if trainer.step % trainer.config.report_every == 0 or trainer.step == end:
            metrics = {k: float(np.mean(v)) for k, v in sums.items()}
            sums = {}
            yield Report(step=trainer.step, end=end, metrics=metrics, state=trainer.state)
