"""Clips per second of every recogniser and every generator: a training step, and inference or sampling.

    python -m benchmarks.train --json train.json
    python -m benchmarks.train --device cuda --bf16

On one thread unless told otherwise, on the shapes of the bundled sample (one person) and on two persons of 25 joints
at 64 frames. A generator's step is all of `Trainer.advance` (drawing the batch, every optimiser group, the weight
average); a recogniser's is the network's (its augmentation, which runs on the CPU, has a row of its own).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.motions import bundled_sample, random_bodies
from benchmarks.report import machine, measured, median, table
from motionsynth.augment import augment, whole
from motionsynth.augment_config import AugmentConfig
from motionsynth.errors import InputError
from motionsynth.generators import GENERATORS, SampleRequest, build_config, build_generator, fit_context
from motionsynth.motion import MotionSet, mirrored_labels
from motionsynth.precision import autocast
from motionsynth.recognisers import RECOGNISERS, RecogniserInfo, build_recogniser
from motionsynth.recognition import to_tensors
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.training import Trainer
from motionsynth.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        repeats: Measurements of each figure; the median is given.
        seconds: At least so long is each of them.
        threads: Of torch on the CPU.
        device: "cpu" or "cuda".
        bf16: Train under bfloat16, as recipes and plans with `precision="bfloat16"` do.
        batch: Clips at inference and sampling; training takes the batch of its default config.
        models: Only these recognisers and generators (default: all).
        small: Smallest networks and few clips, to try the benchmark itself.
    """

    repeats: int = 5
    seconds: float = 1.0
    threads: int = 1
    device: str = "cpu"
    bf16: bool = False
    batch: int = 64
    models: tuple[str, ...] = ()
    small: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.threads < 1 or self.batch < 1:
            raise InputError(
                f"repeats is {self.repeats}, threads {self.threads}, batch {self.batch}; each must be at least 1."
            )
        if unknown := sorted(set(self.models) - {*RECOGNISERS, *GENERATORS}):
            known = ", ".join(sorted((*RECOGNISERS, *GENERATORS)))
            raise InputError(f"Unknown model '{unknown[0]}'. Known: {known}.")
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"The device is '{self.device}'; allowed: cpu, cuda.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "This machine has no GPU that torch can use; leave --device out to measure the CPU."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A name, clips, and how many frames of each a generator makes (a recogniser gets those it is made for)."""

    name: str
    motions: MotionSet
    frames: int


def shapes(settings: Settings) -> list[Shape]:
    """The bundled sample's, and two persons of 25 joints at 64 frames."""
    sample = bundled_sample(40 if settings.small else 8)
    pair = random_bodies("kinect25", 2, 64, clips=20 if settings.small else 100)
    names = [f"{s.num_persons} x {s.skeleton.num_joints} joints" for s in (sample, pair)]
    return [
        Shape(name=names[0], motions=sample, frames=16 if settings.small else 32),
        Shape(name=names[1], motions=pair, frames=16 if settings.small else 64),
    ]


def rate(step: Callable[[], object], clips: int, settings: Settings) -> dict[str, float]:
    """Median clips per second of a step over so many clips, and the slowest and the fastest repeat."""

    def wait() -> float:
        if settings.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # The first steps allocate, tune kernels and start optimisers; how long one takes decides how many make a repeat.
    for _ in range(2):
        start = wait()
        step()
        once = wait() - start
    steps = max(1, round(settings.seconds / max(once, 1e-6)))
    rates = []
    for _ in range(settings.repeats):
        start = wait()
        for _ in range(steps):
            step()
        rates.append(steps * clips / (wait() - start))
    return {"clips/s": median(rates), "slowest": min(rates), "fastest": max(rates)}


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Every recogniser and generator on every shape."""
    rows: list[dict[str, Any]] = []
    wanted = set(settings.models or (*RECOGNISERS, *GENERATORS))

    def add(shape: Shape, name: str, what: str, frames: int, step: Callable[[], object], clips: int) -> None:
        row = {"shape": f"{shape.name}, {frames} frames", "model": name, "what": what}
        rows.append({**row, "batch": clips, **rate(step, clips, settings)})
        tell(f"{rows[-1]['shape']}  {name} {what}: {rows[-1]['clips/s']:,.0f} clips/s")

    with _threads(settings.threads):
        for shape in shapes(settings):
            recognition = RecogniserTraining(batch=8 if settings.small else RecogniserTraining().batch)
            clips = to_tensors(shape.motions, shape.motions.num_persons)
            for name in sorted(wanted & RECOGNISERS.keys()):
                _recogniser(name, shape, clips.x, clips.y, recognition, settings, add)
            if settings.device == "cpu":
                step = partial(_augment, shape, clips.x, clips.y, recognition.batch)
                add(shape, "augmentation", "training", 32, step, recognition.batch)
            for name in sorted(wanted & GENERATORS.keys()):
                _generator(name, shape, settings, add)
    return {"settings": asdict(settings), "machine": machine(), "rows": rows}


Add = Callable[[Shape, str, str, int, Callable[[], object], int], None]


def _repeated(x: Tensor, size: int) -> Tensor:
    return x[torch.arange(size) % len(x)]


def _augment(shape: Shape, x: Tensor, y: Tensor, batch: int) -> None:
    permutation = torch.from_numpy(shape.motions.skeleton.mirror_permutation)
    twin = torch.from_numpy(mirrored_labels(shape.motions.class_names))
    rng = torch.Generator().manual_seed(0)
    augment(_repeated(x, batch), _repeated(y, batch), 32, AugmentConfig(), rng, permutation, twin)


def _recogniser(
    name: str, shape: Shape, x: Tensor, y: Tensor, config: RecogniserTraining, settings: Settings, add: Add
) -> None:
    motions = shape.motions
    info = RecogniserInfo(
        skeleton=motions.skeleton, num_classes=motions.num_classes, num_persons=motions.num_persons
    )
    torch.manual_seed(0)
    model = build_recogniser(name, info).to(settings.device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    frames = model.frames
    x = whole(x, frames)
    batch, labels = (_repeated(t, config.batch).to(settings.device) for t in (x, y))

    def train() -> None:
        with autocast("bfloat16" if settings.bf16 else "float32", settings.device):
            loss = model.losses(model.features(batch), labels, config.label_smoothing).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()

    add(shape, name, "training", frames, train, config.batch)
    model.eval()
    unseen = _repeated(x, settings.batch).to(settings.device)

    @torch.no_grad()
    def infer() -> None:
        model(unseen)

    add(shape, name, "inference", frames, infer, settings.batch)


def _generator(name: str, shape: Shape, settings: Settings, add: Add) -> None:
    config = build_config(name, {})
    sizes = {"frames": shape.frames}
    if settings.small:
        sizes |= {"width": 64, "critic_width": 16, "code": 16, "layers": 1, "encoder_layers": 1}
    known = {f.name for f in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{k: v for k, v in sizes.items() if k in known})
    torch.manual_seed(0)
    generator = build_generator(name, config, fit_context(shape.motions)).to(settings.device)
    training = TrainingConfig(
        batch=8 if settings.small else TrainingConfig().batch,
        steps=1_000_000,
        precision="bfloat16" if settings.bf16 else "float32",
    )
    trainer = Trainer(generator, shape.motions, training, seed=0)
    add(shape, name, "training", generator.frames, trainer.advance, training.batch)
    generator = trainer.averaged_generator()
    requests = [
        SampleRequest(sample_id=str(i), label=i % shape.motions.num_classes, seed=i)
        for i in range(settings.batch)
    ]
    add(shape, name, "sampling", generator.frames, partial(generator.sample, requests), settings.batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("repeats", "threads", "batch"):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(default, name), help="default: %(default)s"
        )
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help="of a repeat (default: %(default)s)"
    )
    parser.add_argument("--models", nargs="+", default=(), help="only these (default: all)")
    parser.add_argument("--device", default=default.device, help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the benchmark itself")
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    given = vars(parser.parse_args(arguments))
    path, given["models"] = given.pop("json"), tuple(given["models"])
    tell = lambda line: print(line, flush=True)  # noqa: E731
    result = measured(path, lambda: measure(Settings(**given), tell=tell))
    print("\n" + table(result["rows"]))


if __name__ == "__main__":
    main()
