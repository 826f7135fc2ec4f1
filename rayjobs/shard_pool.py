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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.connect import Connection, cores, plan_resources
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import Skeleton
from rayjobs.progress import Progress
from storage import Storage
from storage.checkpoints import checkpoint_digest, load_checkpoint, read_config
from storage.header import Header, canonical_json
from storage.manifest import ShardRecord
from storage.shards import ShardSpec, key_of, write_shard

logger = logging.getLogger(__name__)

MAX_RETRIES = 20
"""Times that a shard is tried again when its actor dies (kill, out of memory) or cannot be reached: a lost node costs
several, since Ray goes on asking there for some seconds before it knows."""
MAX_RESTARTS = 100
"""Times that one actor is started again; finite, so that what kills every actor ends the job."""

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
    def key(self) -> tuple[str, str]:
        """What tells it from every other shard."""
        return self.prefix, self.spec.id


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

    def size(self, shards: int) -> int:
        """Number of actors, at most one per shard."""
        have = self.connection
        if self.actors is not None:
            size = self.actors
        else:
            # A local Ray has more logical CPUs than cores.
            cpus = min(cores(), have.cpus) if have.address == "local" else have.cpus
            size = cpus / self.cpus_per_actor
            if self.gpus_per_actor:
                size = min(have.gpus / self.gpus_per_actor, have.cpus / self.cpus_per_actor)
            size = max(1, int(size + 1e-9))
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
    storage: Storage, todo: Sequence[Shard], pool: Pool, grade: Grade | None
) -> tuple[dict[tuple[str, str], ShardRecord], list[str]]:
    """Make these shards, whichever sets they belong to.

    Returns:
        The records of those that were made, by `Shard.key`, and a sentence for everything that went wrong.
    """
    import ray.data
    from ray.exceptions import RayError

    clips = sum(shard.spec.rows for shard in todo)
    env = storage.worker_env()
    rows = [{"at": i, "prefix": s.prefix, "spec": json.dumps(s.spec.to_dict())} for i, s in enumerate(todo)]
    with warnings.catch_warnings():
        # Ray 2.60 announces the end of free remote arguments for 2.64, without another way to bound retries yet.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardWriter,
            fn_constructor_args=(storage, grade, pool.gpus_per_actor > 0),
            batch_size=1,
            batch_format="numpy",
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor or None,
            compute=ray.data.ActorPoolStrategy(size=pool.size(len(todo))),
            runtime_env={"env_vars": env} if env else None,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RETRIES,
        )
    records: dict[tuple[str, str], ShardRecord] = {}
    errors: list[str] = []
    with Progress("generate", clips, "clips") as progress:
        try:
            for row in made.iter_rows():
                result = json.loads(row["result"])
                if result["error"]:
                    errors.append(result["error"])
                    logger.error("%s", result["error"])
                else:
                    record = ShardRecord.from_dict(result["record"])
                    records[todo[result["at"]].key] = record
                    progress.advance(record.rows)
        except RayError as e:
            errors.append(f"a worker was lost {MAX_RETRIES + 1} times over the same shard ({_first_line(e)})")
    return records, errors


def make_shards_here(
    storage: Storage, todo: Sequence[Shard], grade: Grade | None, gpu: bool = False
) -> tuple[dict[tuple[str, str], ShardRecord], list[str]]:
    """The same in this process, without Ray: for one that is a Ray worker itself."""
    writer = ShardWriter(storage, grade, gpu)
    records: dict[tuple[str, str], ShardRecord] = {}
    errors: list[str] = []
    for shard in todo:
        record, error = writer.attempt(shard.prefix, shard.spec)
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
            return self.write(prefix, spec), ""
        except Exception as e:
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
