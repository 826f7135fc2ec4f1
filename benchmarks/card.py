"""How much of a card `skel_diffusion` uses, by batch and precision: clips per second, and the share of the card's peak.

    python -m benchmarks.card --json card.json

"All of it" is what a user gets: drawing clips, augmentation and resampling run on the CPU. "Network" leaves these out:
loss, gradients and optimiser of one batch that lies on the card, or one evaluation of the denoiser with guidance.
Operations are counted by PyTorch; the peak is what a large bfloat16 product reaches on the same card in the same run.
It runs on a CPU, too, to be tried (`--device cpu --small`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.motions import bundled_sample
from benchmarks.report import machine, measured, table
from benchmarks.train import Settings as Timing
from benchmarks.train import rate
from motionsynth.errors import InputError
from motionsynth.generators import SampleRequest, build_config, build_generator, fit_context
from motionsynth.generators.denoiser import Conditions
from motionsynth.generators.skel_diffusion import SkelDiffusion
from motionsynth.losses import weighted_sum
from motionsynth.motion import MotionSet
from motionsynth.precision import autocast
from motionsynth.training import Trainer
from motionsynth.training_config import TrainingConfig

WAYS = ("float32", "bfloat16", "bfloat16 compiled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        device: "cuda" or "cpu".
        batches: Clips of a step.
        compiled: The batches at which the networks are compiled, too: each shape costs a compilation.
        whole: The batches at which all of a training step (bfloat16) and of sampling (float32) is measured.
        repeats, seconds: Measurements of each figure, and their least length.
        small: A tiny network and few clips.
    """

    device: str = "cuda"
    batches: tuple[int, ...] = (48, 256, 1024, 4096)
    compiled: tuple[int, ...] = (1024,)
    whole: tuple[int, ...] = (48, 256, 1024)
    repeats: int = 3
    seconds: float = 0.3
    small: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"The device is '{self.device}'; allowed: cpu, cuda.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "This machine has no GPU that torch can use; give --device cpu to try the benchmark."
            )
        if min((*self.batches, *self.compiled, *self.whole), default=0) < 2:
            raise InputError(
                f"batches are {self.batches}, {self.compiled} and {self.whole}; each must be at least 2 clips."
            )

    @property
    def timing(self) -> Timing:
        """For `rate`."""
        return Timing(repeats=self.repeats, seconds=self.seconds, device=self.device)


def peak(settings: Settings) -> float:
    """Operations per second of a large bfloat16 product of random numbers."""
    n = 256 if settings.device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=settings.device, dtype=torch.bfloat16) for _ in range(2))
    return rate(lambda: a @ b, 2 * n**3, settings.timing)["clips/s"]


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of a step, as PyTorch counts them (products and convolutions)."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def measure(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Every batch and way."""
    top = peak(settings)
    tell(f"peak, bfloat16: {top / 1e12:,.1f} TFLOP/s")
    rows: list[dict[str, Any]] = []

    def add(what: str, way: str, batch: int, step: Callable[[], object], flops: int) -> None:
        row = {"what": what, "way": way, "batch": batch, **rate(step, batch, settings.timing)}
        rows.append(row | {"% of peak": 100 * flops / batch * row["clips/s"] / top})
        tell(
            f"{what}, {way}, {batch} clips: {row['clips/s']:,.0f} clips/s, {rows[-1]['% of peak']:.2f} % of peak"
        )

    motions = bundled_sample(40 if settings.small else 8)
    for way in WAYS:
        compiled = way.endswith("compiled")
        for batch in settings.compiled if compiled else settings.batches:
            trainer = _trainer(motions, batch, way, settings)
            train, evaluate = _network(trainer, batch, way)
            counted = [operations(step) for step in (train, evaluate)]
            if compiled:
                _compile(trainer.generator)
            add("training, network", way, batch, train, counted[0])
            add("sampling, network", way, batch, evaluate, counted[1])
    for batch in settings.whole:
        trainer = _trainer(motions, batch, "bfloat16", settings)
        add("training, all of it", "bfloat16", batch, trainer.advance, operations(trainer.advance))
        generator = trainer.averaged_generator()
        requests = [
            SampleRequest(sample_id=str(i), label=i % motions.num_classes, seed=i) for i in range(batch)
        ]
        sample = partial(generator.sample, requests)
        add("sampling, all of it", "float32", batch, sample, operations(sample))
    return {"settings": asdict(settings), "machine": machine(), "peak": top, "rows": rows}


def _trainer(motions: MotionSet, batch: int, way: str, settings: Settings) -> Trainer:
    config = build_config(
        "skel_diffusion", {"width": 64, "layers": 1, "encoder_layers": 1} if settings.small else {}
    )
    torch.manual_seed(0)
    generator = build_generator("skel_diffusion", config, fit_context(motions)).to(settings.device)
    training = TrainingConfig(batch=batch, steps=1_000_000, precision=way.split()[0])
    return Trainer(generator, motions, training, seed=0)


def _compile(generator: Any) -> None:
    for network in (generator.denoiser, generator.encoder):
        network.compile(dynamic=False)


def _network(trainer: Trainer, batch: int, way: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step of a batch that lies on the card, and an evaluation of the denoiser with guidance."""
    generator, device = trainer.generator, trainer.device
    assert isinstance(generator, SkelDiffusion)
    precision = way.split()[0]
    clips = trainer.sampler.batch(0, 1, 0, 1).to(device)
    optimiser = torch.optim.Adam(generator.parameters(), lr=1e-4)
    weights = generator.config.loss_weights

    def train() -> None:
        with autocast(precision, device.type):
            loss = weighted_sum(generator.losses(clips, "denoiser"), weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    with torch.no_grad():
        z = generator.encoded(clips.x)
        yes = torch.ones(batch, dtype=torch.bool, device=device)
        time = torch.full((batch,), generator.config.times // 2, device=device)
        told = Conditions(
            time=time, duration=generator.duration(clips.seconds), label=clips.y, code=generator.encoder(z),
            has_class=yes, has_code=yes,
        ).and_nothing()  # fmt: skip
        x = torch.cat([z, z])

    @torch.no_grad()
    def evaluate() -> None:
        with autocast(precision, device.type):
            generator.clean(x, told)

    return train, evaluate


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    default = Settings(device="cpu")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    for name in ("batches", "compiled", "whole"):
        kept = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, nargs="*", default=kept, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=default.repeats, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the benchmark itself")
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    for name in ("batches", "compiled", "whole"):
        given[name] = tuple(given[name])
    tell = lambda line: print(line, flush=True)  # noqa: E731
    result = measured(path, lambda: measure(Settings(**given), tell=tell))
    print("\n" + table(result["rows"]))


if __name__ == "__main__":
    main()
