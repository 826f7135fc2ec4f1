"""What generation costs: a plain loop on one core, bare Ray actors, and our `generate` job, making the same shards.

    python -m benchmarks.generate --json generate.json

Every run is a fresh process, and the ways take turns, so that a busy machine slows all of them alike. Two sizes tell
the price of a clip from the price of starting: the marginal cost is the difference in time over the difference in
clips. The weights are untrained, which changes nothing about the time; all ways must write the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.motions import bundled_sample
from benchmarks.report import machine, measured, median, table
from cluster.connect import ROOT, connect, disconnect
from motionsynth.errors import InputError
from motionsynth.generators import build_generator, fit_context, load_generator
from motionsynth.generators.base import Generator
from motionsynth.motion import MotionSet
from motionsynth.recipes import motion_gan
from motionsynth.training import Sampler
from motionsynth.training_config import TrainingConfig
from rayjobs.generate import Wanted, generate, request_for
from rayjobs.shard_pool import header_of
from storage import Storage
from storage.checkpoints import load_checkpoint, save_checkpoint
from storage.dataset import write_shard
from storage.header import Header
from storage.manifest import Manifest, ShardRecord, write_manifest
from storage.shards import GenerationRequest, ShardSpec, key_of, plan

CHECKPOINT = "checkpoint"
OUT = "out"
SAMPLE_SECONDS = 0.05
"""Between looks at the driver's memory."""
IN_FLIGHT = 2
"""Shards that each bare actor is given ahead, so that it never waits for the driver."""
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        clips: Sizes, ascending; two of them give marginal costs.
        repeats: Runs of each way at each size.
        ways: Names in `WAYS`; the first is what the others are compared with.
        shard_size, batch: Of the request.
        generator_config: Of the generator, in place of the default recipe's.
        every: Use every n-th clip of the bundled sample to fit the context.
    """

    clips: tuple[int, ...] = (8192, 65536)
    repeats: int = 5
    ways: tuple[str, ...] = ("plain", "bare x1", "bare x2", "job x1", "job x2")
    shard_size: int = 256
    batch: int = 64
    generator_config: Mapping[str, Any] = field(default_factory=dict)
    every: int = 4

    def __post_init__(self) -> None:
        if not self.clips or min(self.clips) < 1 or list(self.clips) != sorted(set(self.clips)):
            raise InputError(f"The sizes are {self.clips}; give ascending numbers of clips, at least 1.")
        if self.repeats < 1:
            raise InputError(f"The number of repeats is {self.repeats}; it must be at least 1.")
        if unknown := [w for w in self.ways if w not in WAYS]:
            raise InputError(f"Unknown way '{unknown[0]}'. Known: {', '.join(WAYS)}.")


class DriverMemory:
    """Resident memory of this process, sampled by a thread: MiB at the start and at the peak (None without /proc)."""

    def __init__(self) -> None:
        self.start = self.peak = _resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DriverMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            now = _resident()
            if now is not None and self.peak is not None:
                self.peak = max(self.peak, now)
            if self._over.wait(SAMPLE_SECONDS):
                return


def _resident() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


def prepare(storage: Storage, settings: Settings) -> None:
    """Store an untrained generator of the default recipe, fitted to the bundled sample."""
    recipe = motion_gan()
    config = dataclasses.replace(recipe.generator_config, **settings.generator_config)
    motions = bundled_sample(settings.every)
    context = fit_context(motions)
    torch.manual_seed(0)
    generator = build_generator(recipe.generator, config, context).eval()
    generator.finish(Sampler(motions, context, TrainingConfig(), generator.frames, 0).everything())
    body = {
        "generator": recipe.generator,
        "generator_config": asdict(config),
        "context": context.to_dict(),
    }
    save_checkpoint(storage, CHECKPOINT, generator.state_dict(), body)


def request_of(storage: Storage, clips: int, settings: Settings) -> GenerationRequest:
    """So many clips over all classes, as even as it goes."""
    _, config = load_checkpoint(storage, CHECKPOINT)
    k = len(config["context"]["class_names"])
    counts = {c: clips // k + (c < clips % k) for c in range(k)}
    return request_for(storage, CHECKPOINT, counts, shard_size=settings.shard_size, batch=settings.batch)


def make_shard(
    storage: Storage, prefix: str, generator: Generator, header: Header, spec: ShardSpec
) -> ShardRecord:
    """Sample, encode and write one shard: the work itself, without any of our job's care."""
    requests, size = list(spec.samples()), int(spec.extra["batch"])
    motions = []
    for at in range(0, len(requests), size):
        clips = generator.sample(requests[at : at + size])
        motions += [dataclasses.replace(m, checkpoint=spec.checkpoint_digest[:16]) for m in clips]
    whole = MotionSet(
        dataset=header.dataset,
        skeleton=header.skeleton,
        class_names=header.class_names,
        motions=tuple(motions),
    )
    return write_shard(storage, prefix, key_of(spec), whole, header)


def _load(storage: Storage) -> tuple[Generator, Header]:
    tensors, config = load_checkpoint(storage, CHECKPOINT)
    return load_generator(tensors, config), header_of(config)


def plain(storage: Storage, prefix: str, request: GenerationRequest) -> None:
    """One process, one thread, one shard after another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator, header = _load(storage)
        records = [make_shard(storage, prefix, generator, header, spec) for spec in plan(request)]
    finally:
        torch.set_num_threads(threads)
    _commit(storage, prefix, header, records, request)


def _commit(
    storage: Storage, prefix: str, header: Header, records: Sequence[ShardRecord], request: GenerationRequest
) -> None:
    ordered = tuple(sorted(records, key=lambda r: r.key))
    manifest = Manifest(kind="generated", header=header, shards=ordered, request=request.to_dict())
    write_manifest(storage, prefix, manifest)


class BareActor:
    """The plain loop's body in an actor."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        torch.set_num_threads(1)
        self.storage, self.prefix = storage, prefix
        self.generator, self.header = _load(storage)

    def write(self, spec: dict[str, Any]) -> dict[str, Any]:
        """One shard."""
        shard = ShardSpec.from_dict(spec)
        return make_shard(self.storage, self.prefix, self.generator, self.header, shard).to_dict()


def bare(storage: Storage, prefix: str, request: GenerationRequest, actors: int) -> None:
    """Ray actors with nothing around them: no Ray Data, no retries, no resume."""
    connect("local")
    import ray

    pool = [ray.remote(num_cpus=1)(BareActor).remote(storage, prefix) for _ in range(actors)]
    waiting = [spec.to_dict() for spec in reversed(plan(request))]
    running: dict[Any, Any] = {}
    records = []
    for actor in pool * IN_FLIGHT:
        if waiting:
            running[actor.write.remote(waiting.pop())] = actor
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor = running.pop(done)
        records.append(ShardRecord.from_dict(ray.get(done)))
        if waiting:
            running[actor.write.remote(waiting.pop())] = actor
    for actor in pool:
        ray.kill(actor)  # pyright: ignore[reportArgumentType]
    _, header = _load(storage)
    _commit(storage, prefix, header, records, request)


def job(storage: Storage, prefix: str, request: GenerationRequest, actors: int) -> None:
    """What `python -m rayjobs.generate` does."""
    generate(storage, [Wanted(prefix, request)], connect=partial(connect, "local"), actors=actors)


Way = Callable[[Storage, str, GenerationRequest], None]
WAYS: dict[str, Way] = {
    "plain": plain,
    "bare x1": partial(bare, actors=1),
    "bare x2": partial(bare, actors=2),
    "job x1": partial(job, actors=1),
    "job x2": partial(job, actors=2),
}
"""name -> makes all shards of a request and commits their manifest."""


def run_once(way: str, clips: int, uri: str, settings: Settings) -> dict[str, Any]:
    """One run in this process: time from nothing to the manifest (starting Ray included), memory, and what it wrote."""
    storage, prefix = Storage(uri), f"{OUT}/{way.replace(' ', '-')}-{clips}"
    request = request_of(storage, clips, settings)
    load = os.getloadavg()[0]
    with DriverMemory() as memory:
        start = time.perf_counter()
        WAYS[way](storage, prefix, request)
        seconds = time.perf_counter() - start
    objects = storage.list(f"{prefix}/shards")
    digest = sha256()
    for o in sorted(objects, key=lambda o: o.key):
        digest.update(storage.read(o.key))
    return {
        "way": way,
        "clips": clips,
        "seconds": seconds,
        "steady": _steady(Path(uri, prefix, "shards")),
        "bytes": sum(o.size for o in objects),
        "driver_start_mib": memory.start,
        "driver_peak_mib": memory.peak,
        "load": round(load, 2),
        "digest": digest.hexdigest(),
    }


def _steady(folder: Path) -> float | None:
    """Shards per second between the first one written and the last: no start-up, so less noise; None for one shard."""
    times = sorted(p.stat().st_mtime for p in folder.glob("*"))
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None


def run_apart(way: str, clips: int, uri: str, settings: Settings) -> dict[str, Any]:
    """`run_once` in a fresh process; tried twice, as Ray sometimes does not start on a busy machine."""
    task = json.dumps({"way": way, "clips": clips, "uri": uri, "settings": asdict(settings)})
    reason = ""
    for _ in range(2):
        # What a failed attempt has written would be found done.
        shutil.rmtree(Path(uri, OUT), ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.generate", "--one", task],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if not done.returncode:
            return json.loads(done.stdout.splitlines()[-1])
        reason = " ".join(done.stderr.split())[-600:]
    raise InputError(
        f"The run of '{way}' at {clips} clips failed ({reason}); mend it, or leave it out with --ways."
    )


def measure(
    settings: Settings,
    run: Callable[[str, int, str, Settings], dict[str, Any]] = run_apart,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All runs, each repeat in another order.

    Raises:
        InputError: a run failed, or two ways wrote other bytes for the same request.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="motionsynth-benchmark-") as folder:
        storage = Storage(folder)
        prepare(storage, settings)
        for repeat in range(settings.repeats):
            turn = repeat % len(settings.ways)
            for clips in settings.clips:
                for way in settings.ways[turn:] + settings.ways[:turn]:
                    result = {"repeat": repeat, **run(way, clips, folder, settings)}
                    shutil.rmtree(Path(folder, OUT))
                    runs.append(result)
                    tell(
                        f"{repeat + 1}/{settings.repeats}  {way:8} {clips:7,} clips  {result['seconds']:.2f} s"
                    )
    for clips in settings.clips:
        if len({r["digest"] for r in runs if r["clips"] == clips}) != 1:
            raise InputError(
                f"The ways wrote different shards for the same {clips} clips; generation is not reproducible here, "
                "so the times do not compare."
            )
    return {
        "settings": asdict(settings),
        "machine": machine(),
        "runs": runs,
        "sizes": by_size(runs, settings),
        "marginal": marginal(runs, settings),
    }


def by_size(runs: Sequence[Mapping[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Medians of every way at every size."""
    rows = []
    for clips in settings.clips:
        for way in settings.ways:
            mine = [r for r in runs if r["way"] == way and r["clips"] == clips]
            seconds, steady = median([r["seconds"] for r in mine]), _median_of(mine, "steady")
            rows.append(
                {
                    "way": way,
                    "clips": clips,
                    "seconds": seconds,
                    "slowest": max(r["seconds"] for r in mine),
                    "clips/s": clips / seconds,
                    "steady clips/s": None if steady is None else steady * settings.shard_size,
                    "MB": mine[0]["bytes"] / 1e6,
                    "driver peak MiB": _median_of(mine, "driver_peak_mib"),
                }
            )
    return rows


def marginal(runs: Sequence[Mapping[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Cost of a further clip, from the smallest and the largest size; empty with one size.

    The differences are taken within each repeat, where both sizes met the same machine, and their median is given.
    """
    small, large = settings.clips[0], settings.clips[-1]
    if small == large:
        return []
    at = {(r["way"], r["clips"], r["repeat"]): r for r in runs}
    repeats = range(settings.repeats)

    def per_clip(way: str) -> list[float]:
        spent = [at[way, large, i]["seconds"] - at[way, small, i]["seconds"] for i in repeats]
        return [s / (large - small) for s in spent]

    base = per_clip(settings.ways[0])
    rows = []
    for way in settings.ways:
        each = per_clip(way)
        cost = median(each)
        ratios = [a / b for a, b in zip(each, base, strict=True)]
        first = median([at[way, small, i]["seconds"] for i in repeats])
        mine = {n: [at[way, n, i] for i in repeats] for n in (small, large)}
        peaks = [_median_of(mine[n], "driver_peak_mib") for n in (small, large)]
        rows.append(
            {
                "way": way,
                "ms/clip": 1000 * cost,
                "relative": cost / median(base),
                "lowest": min(ratios),
                "highest": max(ratios),
                "start s": first - small * cost,
                "driver growth MiB": None if None in peaks else peaks[1] - peaks[0],
            }
        )
    return rows


def _median_of(runs: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = [r[key] for r in runs]
    return None if None in values else median(values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--clips", type=int, nargs="+", default=default.clips, help="sizes (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=default.repeats, help="runs of each (default: %(default)s)"
    )
    parser.add_argument("--ways", nargs="+", default=default.ways, help=f"of {', '.join(map(repr, WAYS))}")
    parser.add_argument("--shard-size", type=int, default=default.shard_size, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=default.batch, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        task = json.loads(given.one)
        lists = {k: tuple(task["settings"][k]) for k in ("clips", "ways")}
        try:
            result = run_once(
                task["way"], task["clips"], task["uri"], Settings(**{**task["settings"], **lists})
            )
        finally:
            disconnect()
        print(json.dumps(result))
        return

    def run() -> dict[str, Any]:
        settings = Settings(
            clips=tuple(given.clips),
            repeats=given.repeats,
            ways=tuple(given.ways),
            shard_size=given.shard_size,
            batch=given.batch,
        )
        return measure(settings, tell=lambda line: print(line, flush=True))

    result = measured(given.json, run)
    print("\n" + table(result["sizes"]))
    if result["marginal"]:
        print("\nmarginal cost per clip, relative to the plain loop\n" + table(result["marginal"]))


if __name__ == "__main__":
    main()
