"""What shards cost beside the work in them: the generation job with a generator that does next to nothing.

    python -m benchmarks.control_plane --shards 1000 10000 100000 --json control_plane.json

Everything else is real: plan, listing, Ray Data's pool of actors, one Parquet object of one frame per shard written
atomically (encoded once), manifest, resume. Every phase is a process of its own, and so is its peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generate import DriverMemory, _steady
from benchmarks.report import machine, measured, table
from cluster.connect import ROOT, Connection, connect, disconnect
from motionsynth.errors import InputError
from motionsynth.generators.base import SampleRequest
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import get_skeleton
from rayjobs.generate import Wanted, generate, request_for
from rayjobs.shard_pool import ShardWriter, header_of
from rayjobs.status import status
from storage import Storage
from storage.checkpoints import read_config, save_checkpoint
from storage.manifest import MANIFEST, ShardRecord, describe, read_manifest
from storage.schema import encode
from storage.shards import GenerationRequest, ShardSpec, key_of, list_done, plan

CHECKPOINT = "checkpoint"
PREFIX = "runs/r/synthetic"
CLASSES = ("one", "two", "three")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        shards: Sizes; each shard has one clip of one frame.
        actors: Processes that write them; 0 writes them in the driver, without Ray: all but its scheduling.
        storage: Where they are written (default: a temporary folder); its runs must not exist yet.
    """

    shards: tuple[int, ...] = (1000, 10000)
    actors: int = 2
    storage: str = ""

    def __post_init__(self) -> None:
        if not self.shards or min(self.shards) < 2 or self.actors < 0:
            raise InputError(
                f"shards are {self.shards} and actors are {self.actors}; give at least 2 shards and 0 actors."
            )


class Nothing:
    """In place of a generator: the same frame for every clip."""

    def __init__(self) -> None:
        self.skeleton = get_skeleton("kinect20")
        self.frame = np.zeros((1, 1, self.skeleton.num_joints, 3), np.float32)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """One clip for each."""
        return [
            Motion(
                positions=self.frame,
                fps=30.0,
                skeleton=self.skeleton.name,
                label=r.label,
                label_name=CLASSES[r.label],
                sample_id=r.sample_id,
                source="synthetic",
                seed=r.seed,
            )
            for r in requests
        ]


class EmptyWriter(ShardWriter):
    """The job's own actor with `Nothing` in it; all shards of a class have the same bytes, encoded once."""

    def write(self, prefix: str, spec: ShardSpec) -> ShardRecord:
        """Put the object and say what it is."""
        self._load(spec)
        (label,) = spec.counts
        if label not in self.encoded:
            motions = tuple(
                self.generator.sample([SampleRequest(sample_id=f"c{label}", label=label, seed=0)])
            )
            whole = MotionSet(
                dataset=self.header.dataset,
                skeleton=self.header.skeleton,
                class_names=self.header.class_names,
                motions=motions,
            )
            data = encode(whole, self.header)
            self.encoded[label] = data, describe("", data)
        data, record = self.encoded[label]
        self.storage.sub(prefix).put_once(key_of(spec), data)
        return dataclasses.replace(record, key=key_of(spec))

    def _load(self, spec: ShardSpec) -> None:
        if not self.loaded[0]:
            self.header = header_of(read_config(self.storage, spec.checkpoint))
            self.generator = Nothing()
            self.encoded: dict[int, tuple[bytes, ShardRecord]] = {}
            self.loaded = (spec.checkpoint_digest, "")


def prepare(storage: Storage) -> None:
    """A checkpoint with what the job reads of it."""
    context = {
        "dataset": "nothing",
        "skeleton": get_skeleton("kinect20").to_dict(),
        "class_names": list(CLASSES),
    }
    body = {"generator": "motion_gan", "generator_config": {}, "context": context}
    save_checkpoint(storage, CHECKPOINT, {}, body)


def request_of(storage: Storage, shards: int) -> GenerationRequest:
    """So many shards of one clip each."""
    counts = {c: shards // len(CLASSES) + (c < shards % len(CLASSES)) for c in range(len(CLASSES))}
    return request_for(storage, CHECKPOINT, counts, shard_size=1, batch=1)


def phase_plan(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """Every spec and its id."""
    return {"ids": len({spec.id for spec in plan(request_of(storage, shards))})}


def phase_make(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """Everything, from nothing."""
    return _generate(storage, shards, actors)


def phase_list(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """Which shards there are."""
    return {"done": len(list_done(storage, PREFIX, plan(request_of(storage, shards))))}


def phase_manifest(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """Read the manifest with all its records."""
    manifest = read_manifest(storage, PREFIX)
    return {"records": sum(1 for _ in manifest.shards), "rows": manifest.rows}


def phase_status(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """`python -m rayjobs.status`."""
    return {"state": status(storage, "r")["generated"][0]["state"]}


def phase_resume_done(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """The same command again: nothing left."""
    return _generate(storage, shards, actors)


def phase_resume_half(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    """The same command again, where the first run was interrupted half way."""
    return _generate(storage, shards, actors)


def _generate(storage: Storage, shards: int, actors: int) -> dict[str, Any]:
    start, pool = time.perf_counter(), [0.0]

    def join() -> Connection:
        pool[0] = time.perf_counter() - start
        return connect("local")

    (result,) = generate(
        storage,
        [Wanted(PREFIX, request_of(storage, shards))],
        connect=join if actors else None,
        actors=actors or None,
        writer=EmptyWriter,
    )
    return {"made": result["shards_made"], "before the pool": pool[0], "digest": result["manifest"]}


def interrupt(storage: Storage) -> None:
    """Leave what a run that was interrupted half way leaves: the first half of the shards and of the parts."""
    storage.delete(f"{PREFIX}/{MANIFEST}")
    for folder in ("shards", "manifest"):
        objects = storage.list(f"{PREFIX}/{folder}")
        for o in objects[len(objects) // 2 :]:
            storage.delete(o.key)


PHASES: dict[str, Callable[[Storage, int, int], dict[str, Any]]] = {
    "plan": phase_plan,
    "make": phase_make,
    "list": phase_list,
    "manifest": phase_manifest,
    "status": phase_status,
    "resume done": phase_resume_done,
    "resume half": phase_resume_half,
}


def run_once(phase: str, uri: str, shards: int, actors: int) -> dict[str, Any]:
    """One phase in this process: seconds, its CPU time, its peak memory (MiB), and what the phase found.

    Its CPU time says more than seconds do where other programs run beside it.
    """
    storage = Storage(uri)
    with DriverMemory() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        found = PHASES[phase](storage, shards, actors)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # The kernel's own peak is exact; the sampled one is there where it is older than this phase.
    peak = max(memory.peak or 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {
        "phase": phase,
        "shards": shards,
        "seconds": seconds,
        "driver CPU s": cpu,
        "steady shards/s": _steady(Path(uri, PREFIX, "shards")) if "://" not in uri else None,
        "peak MiB": peak,
        "growth MiB": peak - (memory.start or 0.0),
        "load": os.getloadavg()[0],
        **found,
    }


def run_apart(phase: str, uri: str, shards: int, actors: int) -> dict[str, Any]:
    """`run_once` in a fresh process; tried again where Ray did not start, as it sometimes does on a busy machine."""
    task = json.dumps([phase, uri, shards, actors])
    command = [sys.executable, "-m", "benchmarks.control_plane", "--one", task]
    reason = ""
    for _ in range(3):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if not done.returncode:
            return json.loads(done.stdout.splitlines()[-1])
        reason = " ".join(done.stderr.split())[-600:]
        if "timed out during startup" not in reason:
            break
    raise InputError(f"The phase '{phase}' failed at {shards} shards ({reason}); mend it and run again.")


def measure(
    settings: Settings,
    run: Callable[[str, str, int, int], dict[str, Any]] = run_apart,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All phases at all sizes.

    Raises:
        InputError: a phase failed, or a resumed run has another manifest than the undisturbed one.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="motionsynth-benchmark-") as folder:
        for shards in settings.shards:
            uri = f"{settings.storage or folder}/control-plane-{shards}"
            storage = Storage(uri)
            prepare(storage)
            for phase in PHASES:
                if phase == "resume half":
                    interrupt(storage)
                row = run(phase, uri, shards, settings.actors)
                rows.append(row)
                tell(f"{shards:9,} shards  {phase:12} {row['seconds']:9.2f} s  {row['peak MiB']:7.0f} MiB")
            digests = {r["digest"] for r in rows if r["shards"] == shards and "digest" in r}
            if len(digests) != 1:
                raise InputError(f"A resumed run of {shards} shards has another manifest than the first one.")
    return {"settings": asdict(settings), "machine": machine(), "rows": rows, "sizes": by_size(rows)}


def by_size(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each size: seconds of every phase, the rate of making, the largest driver."""
    out = []
    for shards in dict.fromkeys(r["shards"] for r in rows):
        mine = {r["phase"]: r for r in rows if r["shards"] == shards}
        half = mine["resume half"]
        out.append(
            {
                "shards": shards,
                **{f"{p} s": mine[p]["seconds"] for p in ("plan", "make")},
                "shards/s": shards / mine["make"]["seconds"],
                "steady shards/s": mine["make"]["steady shards/s"],
                **{f"{p} s": mine[p]["seconds"] for p in ("list", "manifest", "status", "resume done")},
                "half, before the pool s": half["before the pool"],
                "half s": half["seconds"],
                "driver CPU s": mine["make"]["driver CPU s"],
                "driver peak MiB": max(mine[p]["peak MiB"] for p in ("make", "resume half")),
                "driver growth MiB": max(mine[p]["growth MiB"] for p in ("make", "resume half")),
            }
        )
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, nargs="+", default=default.shards, help="sizes (%(default)s)")
    parser.add_argument("--actors", type=int, default=default.actors, help="default: %(default)s")
    parser.add_argument(
        "--storage", default="", help="an empty folder or s3:// address (default: temporary folder)"
    )
    parser.add_argument("--json", type=Path, help="also store everything in this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(arguments))
    one, path = given.pop("one"), given.pop("json")
    if one:
        try:
            found = run_once(*json.loads(one))
        finally:
            disconnect()
        print(json.dumps(found))
        return
    given["shards"] = tuple(given["shards"])
    tell = lambda line: print(line, flush=True)  # noqa: E731
    result = measured(path, lambda: measure(Settings(**given), tell=tell))
    print("\n" + table(result["sizes"]))


if __name__ == "__main__":
    main()
