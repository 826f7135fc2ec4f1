"""Every registered generator in its debug size."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from motionsynth.generators import Generator, build_config, build_generator, fit_context
from motionsynth.motion import MotionSet
from motionsynth.recipes import debug
from motionsynth.training import Sampler
from motionsynth.training_config import TrainingConfig

SIZES = ("width", "critic_width", "style", "noise", "action", "frames")


def small_config(name: str, **changes: Any) -> Any:
    """The debug recipe's sizes, as far as this generator has them; no term is left out of a step."""
    known = {f.name for f in dataclasses.fields(type(build_config(name, {})))}
    sizes = {
        k: v for k, v in dataclasses.asdict(debug().generator_config).items() if k in SIZES and k in known
    }
    every = {"penalty_every": 1} if "penalty_every" in known else {}
    if "layers" in known:
        sizes |= {"layers": 1, "encoder_layers": 1, "code": 8, "width": 32, "steps": 3, "times": 20}
    return build_config(name, sizes | every | changes)


def small_generator(
    name: str, motions: MotionSet, rare: tuple[int, ...] = (), seed: int = 0, **changes: Any
) -> Generator:
    """Fresh weights, in training mode."""
    torch.manual_seed(seed)
    return build_generator(name, small_config(name, **changes), fit_context(motions, rare))


def ready_generator(
    name: str, motions: MotionSet, rare: tuple[int, ...] = (), seed: int = 0, **changes: Any
) -> Generator:
    """Fresh weights, finished on the clips and in evaluation mode: it can sample."""
    generator = small_generator(name, motions, rare, seed, **changes).eval()
    clips = Sampler(motions, generator.context, TrainingConfig(), generator.frames, 0).everything()
    generator.prepare(clips)
    generator.finish(clips)
    return generator
