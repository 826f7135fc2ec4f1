"""What a step of training, a recogniser and a synthetic clip cost on this machine: a few real ones, timed.

All in this process with one thread, as workers have it, and without Ray. Other work on the machine counts as cost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from motionsynth.beds import Bed
from motionsynth.generators import build_generator
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe
from motionsynth.recognition_config import RecogniserTraining
from storage.header import Header
from storage.schema import encode

if TYPE_CHECKING:
    from motionsynth.arms import BedTensors
    from motionsynth.generators import Generator, SampleRequest

STEPS = 4
"""Timed steps, after one or two that are not."""
BATCHES = 3
"""Timed batches of clips, after one that is not."""
SECONDS = 30.0
"""No further batch is begun after so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCost:
    """Of a generator's training in one process.

    Attributes:
        step, report: Seconds each.
        report_every: Steps between reports.
        bytes: Of one checkpoint with what is needed to go on.
    """

    step: float
    report: float
    report_every: int
    bytes: int

    def seconds(self, steps: int) -> float:
        """Of so many steps and their reports."""
        return steps * self.step + -(-steps // self.report_every) * self.report


@dataclass(frozen=True, kw_only=True, slots=True)
class RecogniserCost:
    """Of training and judging one recogniser: seconds that any costs, and of each step."""

    fixed: float
    step: float

    def seconds(self, steps: int) -> float:
        """Of a training of so many steps."""
        return self.fixed + steps * self.step


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingCost:
    """Of synthetic clips, made and encoded by one process.

    Attributes:
        clip: Seconds each.
        bytes_clip, bytes_shard: A shard has the second, and the first for each of its clips.
        measured: Clips that were timed.
    """

    clip: float
    bytes_clip: float
    bytes_shard: float
    measured: int


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch as workers have it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def training(recipe: Recipe, bed: Bed, device: str = "cpu") -> tuple[TrainingCost, Generator]:
    """Time some steps of a recipe's generator on a bed.

    Returns:
        The cost, and the generator, which samples as badly as it is trained but at the same cost.

    Raises:
        InputError: the clips cannot be trained on.
    """
    from motionsynth.generators import fit_context
    from motionsynth.training import Trainer

    with one_thread():
        context = fit_context(bed.train, bed.rare if bed.spec.scarcity != "full" else ())
        fresh = build_generator(recipe.generator, recipe.generator_config, context).to(device)
        trainer = Trainer(fresh, bed.train, recipe.training, seed=0)
        trainer.advance()
        began = time.perf_counter()
        for _ in range(STEPS):
            trainer.advance()
        _settle(device)
        step = (time.perf_counter() - began) / STEPS
        began = time.perf_counter()
        generator = trainer.averaged_generator()
        stored = [generator.state_dict(), trainer.state()]
        report = time.perf_counter() - began
    size = sum(map(_size, stored))
    cost = TrainingCost(step=step, report=report, report_every=recipe.training.report_every, bytes=size)
    return cost, generator


def recogniser(plan: RecogniserTraining, tensors: BedTensors) -> RecogniserCost:
    """Time some steps of a recogniser on a bed's training clips, and its judgement of those held out."""
    from motionsynth.recognition import predict, train_recogniser

    with one_thread():
        names = tensors.bed.train.class_names
        took = {}
        for steps in (2, 2 + STEPS):
            few = replace(plan, steps=steps)
            began = time.perf_counter()
            model = train_recogniser(tensors.train, tensors.info, names, few, 0)
            took[steps] = time.perf_counter() - began
        step = max(0.0, took[2 + STEPS] - took[2]) / STEPS
        began = time.perf_counter()
        predict(model, tensors.evaluate)
        judging = time.perf_counter() - began
    return RecogniserCost(fixed=max(0.0, took[2] - 2 * step) + judging, step=step)


def sampling(
    generator: Generator, header: Header, wanted: Sequence[SampleRequest], batch: int, device: str = "cpu",
    batches: int = BATCHES,
) -> SamplingCost:  # fmt: skip
    """Make and encode some of these clips, spread evenly over all of them, so that every class has its part.

    Args:
        generator: In evaluation mode.
        header: Of the shards.
        wanted: Every clip of a request.
        batch: Clips that the model makes at once.
        device: Where the generator lives.
        batches: How many are timed; a single one has no other before it.
    """
    count = min(len(wanted), batches * batch)
    chosen = [wanted[i * len(wanted) // count] for i in range(count)]
    with one_thread():
        if batches > 1:
            generator.sample(chosen[:batch])
        clips, began = [], time.perf_counter()
        for at in range(0, count, batch):
            clips += generator.sample(chosen[at : at + batch])
            if time.perf_counter() - began > SECONDS:
                break
        _settle(device)
        took = time.perf_counter() - began
        began = time.perf_counter()
        whole = _encoded(clips, header)
        took += time.perf_counter() - began
    half = clips[::2]
    each = (whole - _encoded(half, header)) / max(len(clips) - len(half), 1) if len(clips) > 1 else whole
    return SamplingCost(
        clip=took / len(clips), bytes_clip=each, bytes_shard=max(0.0, whole - each * len(clips)), measured=len(clips)
    )  # fmt: skip


def _encoded(clips: Sequence[Any], header: Header) -> int:
    return len(
        encode(
            MotionSet(
                dataset=header.dataset, skeleton=header.skeleton, class_names=header.class_names, motions=tuple(clips)
            ),
            header,
        )
    )  # fmt: skip


def _settle(device: str) -> None:
    """Wait for what a GPU has not done yet."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def _size(state: Any) -> int:
    """Bytes of the tensors in nested dicts and lists."""
    import torch

    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(_size, state.values()))
    return sum(map(_size, state)) if isinstance(state, list | tuple) else 0
