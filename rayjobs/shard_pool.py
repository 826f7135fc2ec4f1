"""Shards over a pool of Ray actors: what both `python -m rayjobs.generate` and the draws of a run go through.

One Ray Data row is one shard: its samples follow from its spec, an actor writes it as one object under a name that
follows from the spec, too, and returns only statistics. One pool serves the shards of every set that is wanted, since
starting one takes some 20 s.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.connect import Connection, plan_resources, ray_data, room
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import Skeleton
from rayjobs import telemetry, units
from rayjobs.progress import Progress
from storage import Storage
from storage.checkpoints import checkpoint_digest, load_checkpoint, read_config
from storage.header import Header, canonical_json
from storage.manifest import ShardRecord
from storage.shards import ShardSpec, key_of, write_shard

logger = logging.getLogger(__name__)

WINDOW_SHARDS = 16384
"""Shards that Ray is given at once: it keeps something of each to the end, and starting its actors takes seconds."""
WINDOW_SHARDS_PER_ACTOR = 64
"""The window of a large pool, so that it does not wait for its last shards most of the time."""
MAX_RESTARTS = 20
"""Times that one actor is started again (kill, out of memory, lost node); finite, so that what kills every actor ends
the job."""

Grade = Callable[[list[Motion]], list[Motion]]
"""Fills the quality columns of a batch; picklable. Its thresholds belong into the request's `extra`."""


def header_of(config: Mapping[str, Any]) -> Header:
    """The header of clips made by a checkpoint with this config."""
    context = config["context"]
    return Header(
        dataset=context["dataset"],
        skeleton=Skeleton.from_dict(context["skeleton"]),
        class_names=tuple(context["class_names"]),
        extra={"generator": config["generator"], "synthetic": True},
    )


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard that is to be made: which, and below which prefix."""

    prefix: str
    spec: ShardSpec

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other shard."""
        return self.prefix, self.spec.index

    @property
    def name(self) -> str:
        """Its object's key."""
        return f"{self.prefix}/{key_of(self.spec)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """How many actors there are to be, and what each one holds; checked against what Ray has.

    Attributes:
        connection: What Ray offers.
        actors: Processes (default: as many as cores, or as GPUs allow, and as Ray has room for).
        cpus_per_actor, gpus_per_actor: What each one holds.
    """

    connection: Connection
    actors: int | None = None
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0

    def window(self) -> int:
        """Number of shards that go through Ray at once."""
        return max(WINDOW_SHARDS, WINDOW_SHARDS_PER_ACTOR * self.size(1 << 62))

    def size(self, shards: int) -> int:
        """Number of actors, at most one per shard."""
        have = self.connection
        most = max(1, room(have, self.cpus_per_actor, self.gpus_per_actor))
        size = most if self.actors is None else self.actors
        # No source task: the rows wait in the object store, so only the actors hold CPUs.
        logger.info(
            plan_resources(
                actors=size,
                cpus_per_actor=self.cpus_per_actor,
                gpus_per_actor=self.gpus_per_actor,
                tasks=0,
                cpus=have.cpus,
                gpus=have.gpus,
            )
        )
        return min(size, shards)


def make_shards(
    storage: Storage,
    todo: Sequence[Shard],
    pool: Pool,
    grade: Grade | None,
    writer: type[ShardWriter],
    progress: Progress,
) -> tuple[dict[tuple[str, int], ShardRecord], list[str]]:
    """Make these shards, whichever sets they belong to: all at once in Ray, so no more than a window of them.

    Returns:
        The records of those that were made, by `Shard.key`, and a sentence for everything that went wrong.
    """
    from ray.exceptions import RayError

    env = storage.worker_env()
    size = pool.size(len(todo))
    rows = [{"at": i, "prefix": s.prefix, "spec": json.dumps(s.spec.to_dict())} for i, s in enumerate(todo)]
    with warnings.catch_warnings():
        # Ray 2.60 announces the end of free remote arguments for 2.64, without another way to bound retries yet.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        data = ray_data()
        made = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            writer,
            fn_constructor_args=(storage, grade, pool.gpus_per_actor > 0),
            batch_size=1,
            batch_format="numpy",
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor or None,
            compute=data.ActorPoolStrategy(size=size),
            runtime_env={"env_vars": env} if env else None,
            max_restarts=MAX_RESTARTS,
            # Not counted: until Ray knows that a node is lost, each of its shards is tried every second, in vain.
            max_task_retries=-1,
        )
    records: dict[tuple[str, int], ShardRecord] = {}
    errors: list[str] = []
    left = Counter(shard.prefix for shard in todo)
    # Clips of one generator take about as long as each other; they lie under .../GENERATOR/synthetic.
    kinds = {prefix: prefix.split("/")[-2] if "/" in prefix else "" for prefix in left}
    progress.hold(kinds)
    try:
        for row in made.iter_rows():
            result = json.loads(row["result"])
            shard = todo[result["at"]]
            left[shard.prefix] -= 1
            if not left[shard.prefix]:
                progress.hold({prefix: kind for prefix, kind in kinds.items() if left[prefix]})
            if result["error"]:
                errors.append(result["error"])
                logger.error("%s", result["error"], extra={"shard": shard.name})
                progress.fail(shard.name, result["error"], kinds[shard.prefix])
            else:
                record = ShardRecord.from_dict(result["record"])
                records[shard.key] = record
                progress.advance(record.rows, kinds[shard.prefix])
    except RayError as e:
        errors.append(f"a worker was lost {MAX_RESTARTS + 1} times ({_first_line(e)})")
    return records, errors


def make_shards_here(
    storage: Storage,
    todo: Sequence[Shard],
    grade: Grade | None,
    writer: type[ShardWriter],
    gpu: bool = False,
) -> tuple[dict[tuple[str, int], ShardRecord], list[str]]:
    """The same in this process, without Ray: for one that is a Ray worker itself."""
    actor = writer(storage, grade, gpu)
    records: dict[tuple[str, int], ShardRecord] = {}
    errors: list[str] = []
    for shard in todo:
        record, error = actor.attempt(shard.prefix, shard.spec)
        if record is None:
            errors.append(error)
        else:
            records[shard.key] = record
    return records, errors


def check_unchanged(storage: Storage, prefix: str, digest: str) -> None:
    """Raises InputError: the checkpoint is not the one that was meant."""
    if checkpoint_digest(storage, prefix) != digest:
        raise InputError(
            f"Checkpoint '{prefix}' has changed since the request was made; generate under another run name."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class ShardWriter:
    """One actor: holds the generator of one set at a time, writes one shard per call.

    Args:
        storage: Where checkpoints and shards lie.
        grade: Fills the quality columns.
        gpu: Whether to run on the GPU that Ray gave this actor.
    """

    def __init__(self, storage: Storage, grade: Grade | None, gpu: bool) -> None:
        import torch

        # Parallelism is the number of actors; and sums over other thread counts round differently.
        torch.set_num_threads(1)
        self.storage, self.grade = storage, grade
        self.device = torch.device("cuda" if gpu else "cpu")
        self.loaded = ("", "")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        at, prefix = int(batch["at"][0]), str(batch["prefix"][0])
        record, error = self.attempt(prefix, ShardSpec.from_dict(json.loads(str(batch["spec"][0]))))
        said = {"at": at, "record": record and record.to_dict(), "error": error}
        return {"result": [json.dumps(said)]}

    def attempt(self, prefix: str, spec: ShardSpec) -> tuple[ShardRecord | None, str]:
        """Write one shard: its record, or None and a sentence for what went wrong."""
        try:
            with units.unit("shard", f"{prefix}/{key_of(spec)}"), telemetry.timed("shard_seconds"):
                record = self.write(prefix, spec)
            telemetry.shard_made(record.rows, record.bytes)
            return record, ""
        except Exception as e:
            telemetry.count("shards_failed")
            # Listed by the driver; the other shards go on. Ray itself retries when the process dies.
            logger.debug("shard %s", key_of(spec), exc_info=True)
            said = e if isinstance(e, InputError) else f"{type(e).__name__}: {e}"
            return None, f"{prefix}/{key_of(spec)}: {said}"

    def write(self, prefix: str, spec: ShardSpec) -> ShardRecord:
        """Sample, grade, encode and write one shard below a prefix."""
        self._load(spec)
        requests = list(spec.samples())
        size = int(spec.extra["batch"])
        motions: list[Motion] = []
        for at in range(0, len(requests), size):
            clips = self.generator.sample(requests[at : at + size])
            clips = [dataclasses.replace(m, checkpoint=spec.checkpoint_digest[:16]) for m in clips]
            motions += self.grade(clips) if self.grade else clips
        if [m.sample_id for m in motions] != [r.sample_id for r in requests]:
            raise RuntimeError("the generator returned other clips than were asked for")
        whole = MotionSet(
            dataset=self.header.dataset,
            skeleton=self.header.skeleton,
            class_names=self.header.class_names,
            motions=tuple(motions),
        )
        return write_shard(self.storage, prefix, key_of(spec), whole, self.header)

    def _load(self, spec: ShardSpec) -> None:
        """Generator and header of the shard's set: not in the constructor, where a failure is retried for ever."""
        wanted = (spec.checkpoint_digest, canonical_json(spec.extra.get("sampling", {})))
        if self.loaded == wanted:
            return
        from motionsynth.generators import load_generator

        check_unchanged(self.storage, spec.checkpoint, spec.checkpoint_digest)
        self.header = header_of(read_config(self.storage, spec.checkpoint))
        self.generator: Any = load_generator(
            *load_checkpoint(self.storage, spec.checkpoint), spec.extra.get("sampling")
        ).to(self.device)
        self.loaded = wanted
