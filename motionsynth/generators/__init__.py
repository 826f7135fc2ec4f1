"""Generators: one file and one line here each.

Names and configs are cheap: PyTorch and a generator's module are imported when it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from motionsynth.errors import InputError, with_fields

if TYPE_CHECKING:
    from torch import Tensor

    from motionsynth.generators.base import Batch, Context, Generator, SampleRequest, fit_context

GENERATORS: dict[str, tuple[str, str]] = {
    "kinetic_gan": (
        "motionsynth.generators.kinetic_gan:KineticGAN",
        "motionsynth.generators.kinetic_config:KineticGANConfig",
    ),
    "kinetic_gan_apart": (
        "motionsynth.generators.kinetic_gan:ApartKineticGAN",
        "motionsynth.generators.kinetic_config:ApartKineticGANConfig",
    ),
    "kinetic_gan_published": (
        "motionsynth.generators.kinetic_gan:PublishedKineticGAN",
        "motionsynth.generators.kinetic_config:PublishedKineticGANConfig",
    ),
    "motion_gan": (
        "motionsynth.generators.motion_gan:MotionGAN",
        "motionsynth.generators.motion_gan_config:MotionGANConfig",
    ),
    "part_mix": (
        "motionsynth.generators.part_mix:PartMix",
        "motionsynth.generators.part_mix_config:PartMixConfig",
    ),
    "skel_diffusion": (
        "motionsynth.generators.skel_diffusion:SkelDiffusion",
        "motionsynth.generators.diffusion_config:SkelDiffusionConfig",
    ),
    "skel_diffusion_published": (
        "motionsynth.generators.skel_diffusion:PublishedSkelDiffusion",
        "motionsynth.generators.diffusion_config:PublishedSkelDiffusionConfig",
    ),
}
"""name -> where the generator and its config are, as "module:class"."""


_OF_BASE = ("Batch", "Context", "Generator", "SampleRequest", "fit_context")


def __getattr__(name: str) -> Any:
    """What `motionsynth.generators.base` has, imported when it is asked for (PEP 562)."""
    if name in _OF_BASE:
        return getattr(import_module("motionsynth.generators.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _places(name: str) -> tuple[str, str]:
    if name not in GENERATORS:
        raise InputError(f"Unknown generator '{name}'. Known: {', '.join(sorted(GENERATORS))}.")
    return GENERATORS[name]


def _generator(name: str) -> type[Generator]:
    return resolve_name(_places(name)[0])


def _config(name: str) -> type:
    return resolve_name(_places(name)[1])


def build_config(name: str, values: Mapping[str, Any]) -> Any:
    """A generator's config from plain values (as stored in a checkpoint).

    Raises:
        InputError: unknown generator or field.
    """
    config = _config(name)
    known = [f.name for f in fields(config)]
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"Generator '{name}' has no setting {unknown}. Known: {', '.join(known)}.")
    return config(**values)


def build_generator(name: str, config: Any, context: Context) -> Generator:
    """A generator with fresh weights (drawn from torch's global generator)."""
    return _generator(name)(config, context)


def sampling_fields(name: str) -> tuple[str, ...]:
    """Fields of a generator's config that sampling alone reads. Raises InputError: unknown name."""
    return _generator(name).sampling


def config_of(config: Mapping[str, Any], sampling: Mapping[str, Any]) -> Any:
    """The config of a checkpoint's generator, with other settings for sampling.

    Args:
        config: See `load_generator`.
        sampling: Values for fields of `Generator.sampling`.

    Raises:
        InputError: one is no such field, of another type, or out of range.
    """
    name = config["generator"]
    trained = build_config(name, config["generator_config"])
    return with_fields(f"Sampling of {name}:", trained, sampling, _generator(name).sampling)


def load_generator(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], sampling: Mapping[str, Any] | None = None
) -> Generator:
    """The generator of a checkpoint, in evaluation mode.

    Args:
        tensors: Its `state_dict` (the averaged weights).
        config: `generator` (name), `generator_config`, `context`: what `storage.checkpoints` read from JSON.
        sampling: See `config_of`.

    Raises:
        InputError: the tensors are not those of the config, or a setting is none of sampling's.
    """
    from motionsynth.generators.base import Context

    try:
        context = Context.from_dict(config["context"])
    except (KeyError, TypeError) as e:
        raise InputError(
            f"The checkpoint's context lacks or has too much ({e}); it was written by another version: train again."
        ) from None
    generator = build_generator(config["generator"], config_of(config, sampling or {}), context)
    try:
        generator.load_state_dict(dict(tensors))
    except RuntimeError as e:
        raise InputError(
            f"The checkpoint's tensors do not fit its config ({str(e).splitlines()[-1].strip()}); it was written by "
            "another version: train again."
        ) from None
    return generator.eval()


__all__ = [
    "GENERATORS", "Batch", "Context", "Generator", "SampleRequest", "build_config", "build_generator", "config_of",
    "fit_context", "load_generator",
]  # fmt: skip
