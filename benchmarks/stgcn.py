"""ST-GCN++ as we compute it against the plain way of its paper (`tests/reference_stgcn.py`), the same weights in both.

    python -m benchmarks.stgcn --json stgcn.json
    python -m benchmarks.stgcn --bf16

One training step (forward and backward) of one stream, one thread, 25 joints, one person; the two take turns. Times are
the process's own (`time.process_time`), which other programs on the machine disturb less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import machine, measured, median, table
from motionsynth.errors import InputError
from motionsynth.precision import autocast
from motionsynth.recognisers import stgcn
from motionsynth.skeleton import get_skeleton
from tests import reference_stgcn


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        sizes: (channels of the first block, frames) of each network: as registered, and as published.
        batches: Clips per step.
        repeats: Steps of each, after one that is not counted; the median is given.
        bf16: Under bfloat16 autocast, both.
    """

    sizes: tuple[tuple[int, int], ...] = ((32, 32), (64, 100))
    batches: tuple[int, ...] = (16, 32)
    repeats: int = 5
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1 or min(self.batches, default=0) < 2:
            raise InputError(
                f"repeats is {self.repeats} and batches are {self.batches}; give at least 1 step of 2 clips."
            )


def measure(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Milliseconds of a step, plain and ours, for every size and batch."""
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for base, frames in settings.sizes:
            for batch in settings.batches:
                rows.append(
                    {
                        "channels": base,
                        "frames": frames,
                        "batch": batch,
                        **_size(settings, base, frames, batch),
                    }
                )
                tell(f"{rows[-1]}")
    finally:
        torch.set_num_threads(before)
    return {"settings": asdict(settings), "machine": machine(), "rows": rows}


def _size(settings: Settings, base: int, frames: int, batch: int) -> dict[str, float]:
    skeleton = get_skeleton("kinect25")
    torch.manual_seed(0)
    ours, plain = stgcn.Trunk(skeleton, base), reference_stgcn.Trunk(skeleton, base)
    reference_stgcn.copy_weights(ours, plain)
    x = torch.randn(batch, frames, skeleton.num_joints, 3)
    direction = torch.randn(batch, 4 * base)

    def step(model: torch.nn.Module) -> float:
        start = time.process_time()
        with autocast("bfloat16" if settings.bf16 else "float32", "cpu"):
            out = model(x)
        (out * direction).sum().backward()
        return time.process_time() - start

    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for i in range(settings.repeats + 1):
        for name, model in (("plain", plain), ("ours", ours)):
            took = step(model)
            if i:
                seconds[name].append(took)
    slow, fast = (median(seconds[name]) for name in ("plain", "ours"))
    return {"plain ms": 1e3 * slow, "ours ms": 1e3 * fast, "ratio": slow / fast}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=Settings().repeats, help="default: %(default)s")
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    tell = lambda line: print(line, flush=True)  # noqa: E731
    result = measured(path, lambda: measure(Settings(**given), tell=tell))
    print("\n" + table(result["rows"]))


if __name__ == "__main__":
    main()
