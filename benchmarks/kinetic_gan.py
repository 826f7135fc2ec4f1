"""Clips per second of Kinetic-GAN: sampled as published, with its default truncation, and as we sample.

    python -m benchmarks.kinetic_gan --json kinetic.json

One thread, clips of one shape (one person of 25 joints, 64 frames), untrained weights, the two taking turns. The
published path (Degardin et al. 2022, their code) maps latents one by one and, in every call, averages 1,000 more,
also one by one, for its truncation: many clips a call hide that. Ours maps a batch at once and has kept the mean of
each class; it draws 32 frames and turns the bones in between, and its figure is that of finished clips in metres.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.motions import random_bodies
from benchmarks.report import machine, measured, median, table
from motionsynth.errors import InputError
from motionsynth.generators import SampleRequest, fit_context
from motionsynth.generators.base import normal, request_rng
from motionsynth.generators.kinetic_gan import (
    TRUNCATION_DRAWS,
    KineticGAN,
    KineticGANConfig,
    PublishedKineticGANConfig,
)
from motionsynth.training import Sampler
from motionsynth.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        batches: Clips per call.
        calls: Calls of each way that are timed together.
        repeats: Measurements of each figure; the median is given.
        classes: Classes that the clips are of.
    """

    batches: tuple[int, ...] = (32, 256)
    calls: int = 2
    repeats: int = 5
    classes: int = 60

    def __post_init__(self) -> None:
        for name in ("calls", "repeats", "classes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if min(self.batches, default=0) < 1:
            raise InputError(f"batches are {self.batches}; give numbers of clips, at least 1.")


def build(config: KineticGANConfig, classes: int) -> KineticGAN:
    """An untrained generator, ready to sample."""
    motions = random_bodies("kinect25", 1, 64, classes=classes, clips=2 * classes)
    torch.manual_seed(0)
    model = KineticGAN(config, fit_context(motions)).eval()
    model.finish(Sampler(motions, model.context, TrainingConfig(), model.frames, 0).everything())
    return model


@torch.no_grad()
def published_call(model: KineticGAN, requests: Sequence[SampleRequest]) -> Tensor:
    """One call of the published sampling: [B, 1, T, V, 3] in [-1, 1]."""
    rngs = [request_rng(r) for r in requests]
    z = normal(rngs, model.config.latent)
    y = torch.tensor([r.label for r in requests])
    mean = torch.cat([model.mapping(torch.randn(1, model.inputs)) for _ in range(TRUNCATION_DRAWS)]).mean(0)
    w = torch.cat(
        [model.mapping(torch.cat([model.embedding(y[i : i + 1]), z[i : i + 1]], 1)) for i in range(len(y))]
    )
    w = torch.lerp(mean, w, model.config.truncation)
    return model.draw(w, model.synthesis.noise_maps(normal(rngs, model.synthesis.noise_size)))


def our_call(model: KineticGAN, requests: Sequence[SampleRequest]) -> Tensor:
    """The same number of finished clips, in metres: [B, 1, T, V, 3]."""
    return torch.from_numpy(np.stack([m.positions for m in model.sample(requests)]))


def measure(settings: Settings) -> dict[str, Any]:
    """Clips per second of either way, for each batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = build(PublishedKineticGANConfig(), settings.classes)
        ours = build(KineticGANConfig(), settings.classes)
        rows = [_row(settings, batch, plain, ours) for batch in settings.batches]
    finally:
        torch.set_num_threads(before)
    return {"settings": asdict(settings), "machine": machine(), "rows": rows}


def _row(settings: Settings, batch: int, plain: KineticGAN, ours: KineticGAN) -> dict[str, Any]:
    requests = [
        SampleRequest(sample_id=str(i), label=i % settings.classes, seed=i) for i in range(batch)
    ]  # fmt: skip
    ways = {"published": lambda: published_call(plain, requests), "ours": lambda: our_call(ours, requests)}
    shapes = {name: tuple(way().shape) for name, way in ways.items()}
    if shapes["published"] != shapes["ours"]:
        raise AssertionError(f"clips of different shapes: {shapes}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.repeats):
        for name, way in ways.items():
            start = time.process_time()
            for _ in range(settings.calls):
                way()
            seconds[name].append(time.process_time() - start)
    rates = {name: settings.calls * batch / median(s) for name, s in seconds.items()}
    return {
        "clips per call": batch,
        "published clips/s": rates["published"],
        "ours clips/s": rates["ours"],
        "ratio": rates["ours"] / rates["published"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=Settings().repeats, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    result = measured(path, lambda: measure(Settings(**given)))
    print("\n" + table(result["rows"]))


if __name__ == "__main__":
    main()
