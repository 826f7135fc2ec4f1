"""Synthetic clips from a checkpoint: shards of Parquet over a pool of actors, resumable, the manifest last.

    python -m rayjobs.generate --run demo --storage out --dataset sample --recipe demo
    python -m rayjobs.generate --run extra --storage out --checkpoint runs/demo/.../step-000001200 --per-class 100

The first form serves every draw of a run (see `rayjobs.generate_beds`), the second one checkpoint.

One Ray Data row is one shard: its samples follow from its spec, an actor writes it as one object under a name that
follows from the spec, too, and returns only statistics. What exists is done, so running the same command again is
all of resume, and the bytes do not depend on the number of actors, their order or the faults on the way.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster.connect import Connection, cores, plan_resources
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import Skeleton
from rayjobs import cli, experiment
from rayjobs.progress import Progress
from storage import ConflictError, MissingError, Storage
from storage.checkpoints import checkpoint_digest, load_checkpoint, read_config
from storage.header import Header, canonical_json
from storage.manifest import Manifest, ShardRecord, describe_stored, read_manifest, write_manifest
from storage.shards import GenerationRequest, ShardSpec, key_of, list_done, plan, write_shard

logger = logging.getLogger(__name__)

REQUEST = "request.json"
"""Written first: what the shards below a prefix belong to, so that `status` knows what is left."""

MAX_RETRIES = 3
"""Times that a shard is tried again when its actor dies (kill, out of memory, lost node)."""
MAX_RESTARTS = 100
"""Times that one actor is started again; finite, so that what kills every actor ends the job."""

Grade = Callable[[list[Motion]], list[Motion]]
"""Fills the quality columns of a batch; picklable. Its thresholds belong into the request's `extra`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Generate synthetic clips for every draw of a run (--dataset, --recipe), or from one checkpoint.

    Attributes:
        dataset: Name of a prepared dataset; not with --checkpoint.
        checkpoint: Prefix of one checkpoint in storage; the clips then lie under runs/RUN/synthetic.
        per_class: Clips for every class (with --dataset: for every rare class; default: the recipe's).
        counts: Clips for single classes as LABEL=NUMBER, in place of --per-class; with --checkpoint.
        shard_size: Clips per Parquet file; with --checkpoint.
        batch: Clips that the model makes at once; part of the request, since it can change the last bits.
        actors: Processes (default: one per core, or one per GPU).
        gpus_per_actor: 0 runs on CPUs; a fraction shares a GPU.
    """

    dataset: str = ""
    checkpoint: str = ""
    per_class: int = 0
    counts: tuple[str, ...] = ()
    shard_size: int = 256
    batch: int = 64
    actors: int | None = None
    gpus_per_actor: float = 0.0


def prefix_of(run: str) -> str:
    """Where a run's synthetic clips lie in storage."""
    return f"runs/{cli.check_name('run', run)}/synthetic"


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `generate`."""
    if bool(options.checkpoint) == bool(options.dataset):
        raise InputError(
            "generate needs either --dataset with --recipe (every draw of a run) or --checkpoint (one checkpoint); "
            f"got {'both' if options.dataset else 'neither'}."
        )
    storage = options.open_storage()
    if options.dataset:
        return _all_draws(options, storage)
    num_classes = len(header_of(read_config(storage, options.checkpoint)).class_names)
    counts = parse_counts(options.counts, options.per_class, num_classes)
    request = request_for(
        storage,
        options.checkpoint,
        counts,
        seed=options.seed,
        shard_size=options.shard_size,
        batch=options.batch,
    )
    result = generate(
        storage,
        prefix_of(options.run),
        request,
        connect=partial(options.connect, storage),
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
    )
    report(result)
    return result


def _all_draws(options: Options, storage: Storage) -> dict[str, Any]:
    from rayjobs.generate_beds import generate_beds, report_beds

    recipe = options.chosen(storage)
    if options.per_class:
        recipe = dataclasses.replace(recipe, synthetic_per_class=options.per_class)
    result = generate_beds(
        storage,
        options.dataset,
        options.run,
        recipe,
        partial(options.connect, storage),
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
    )
    report_beds(result)
    return result


def parse_counts(given: Sequence[str], per_class: int, num_classes: int) -> dict[int, int]:
    """`["3=50"]` or a number for every class -> clips per label.

    Raises:
        InputError: neither or both are given, or an entry is not LABEL=NUMBER with an existing label.
    """
    if bool(given) == bool(per_class):
        raise InputError(
            "Give either --per-class NUMBER or --counts LABEL=NUMBER ..., to say how many clips to make."
        )
    if not given:
        return dict.fromkeys(range(num_classes), per_class)
    counts: dict[int, int] = {}
    for entry in given:
        label, _, number = entry.partition("=")
        if (
            not (label.isdecimal() and number.isdecimal())
            or int(label) >= num_classes
            or int(label) in counts
        ):
            raise InputError(
                f"--counts has '{entry}'; it must be LABEL=NUMBER, each label from 0 to {num_classes - 1} once."
            )
        counts[int(label)] = int(number)
    return counts


def request_for(
    storage: Storage,
    checkpoint: str,
    counts: Mapping[int, int],
    *,
    seed: int = 0,
    shard_size: int = 256,
    batch: int = 64,
    extra: Mapping[str, Any] | None = None,
) -> GenerationRequest:
    """The request for clips of a checkpoint, with everything that decides their bytes.

    Args:
        storage: Where the checkpoint lies.
        checkpoint: Its prefix.
        counts: Clips per label.
        seed, shard_size: See `GenerationRequest`.
        batch: Clips that the model makes at once (matrix products round differently at other sizes).
        extra: Further JSON that changes the samples, such as the thresholds of `Grade`.

    Raises:
        InputError: no such checkpoint, or values out of range.
    """
    if batch < 1:
        raise InputError(f"The batch size is {batch}; it must be at least 1.")
    return GenerationRequest(
        checkpoint=checkpoint,
        checkpoint_digest=checkpoint_digest(storage, checkpoint),
        counts=dict(counts),
        seed=seed,
        shard_size=shard_size,
        dataset=header_of(read_config(storage, checkpoint)).dataset,
        extra={"batch": batch, **(extra or {})},
    )


def header_of(config: Mapping[str, Any]) -> Header:
    """The header of clips made by a checkpoint with this config."""
    context = config["context"]
    return Header(
        dataset=context["dataset"],
        skeleton=Skeleton.from_dict(context["skeleton"]),
        class_names=tuple(context["class_names"]),
        extra={"generator": config["generator"], "synthetic": True},
    )


def generate(
    storage: Storage,
    prefix: str,
    request: GenerationRequest,
    *,
    connect: Callable[[], Connection],
    actors: int | None = None,
    cpus_per_actor: float = 1.0,
    gpus_per_actor: float = 0.0,
    grade: Grade | None = None,
) -> dict[str, Any]:
    """Make every shard of a request that does not exist yet, then commit the manifest.

    Args:
        storage: Where.
        prefix: Folder of this generated set; holds one request only.
        request: What; see `request_for`.
        connect: Called only if there is work to do: starts or joins Ray.
        actors: Processes (default: as many as cores, or as GPUs allow, and as Ray has room for).
        cpus_per_actor, gpus_per_actor: What each one holds.
        grade: Fills the quality columns.

    Returns:
        Counts, rates and digest: JSON-serialisable.

    Raises:
        InputError: another request at this prefix, a checkpoint that changed, or actors that do not fit.
        JobError: shards failed; the others are done and the same call goes on with those that failed.
    """
    start = time.monotonic()
    header = header_of(read_config(storage, request.checkpoint))
    if unknown := [k for k in request.counts if k >= len(header.class_names)]:
        raise InputError(
            f"The request asks for class {unknown[0]}; the checkpoint knows 0 to {len(header.class_names) - 1}."
        )
    claim(storage, prefix, request)
    specs = plan(request)
    done = list_done(storage, prefix, specs)
    todo = [s for s in specs if s.id not in done]
    manifest = _finished(storage, prefix, request) if not todo else None
    if manifest is None:
        records = _describe_done(storage, prefix, [s for s in specs if s.id in done])
        if todo:
            _same_checkpoint(storage, request.checkpoint, request.checkpoint_digest)
            pool = _Pool(
                connection=connect(),
                actors=actors,
                cpus_per_actor=cpus_per_actor,
                gpus_per_actor=gpus_per_actor,
            )
            records |= _run(storage, prefix, header, todo, len(specs), pool, grade)
        manifest = Manifest(
            kind="generated",
            header=header,
            shards=tuple(records[s.id] for s in specs),
            request=request.to_dict(),
        )
        write_manifest(storage, prefix, manifest)
    return {
        "prefix": prefix,
        "clips": manifest.rows,
        "accepted": sum(s.accepted for s in manifest.shards),
        "counts": {header.class_names[k]: n for k, n in manifest.counts.items()},
        "shards": len(specs),
        "shards_made": len(todo),
        "clips_made": sum(s.rows for s in todo),
        "bytes": sum(s.bytes for s in manifest.shards),
        "seconds": round(time.monotonic() - start, 3),
        "manifest": manifest.digest,
    }


def claim(storage: Storage, prefix: str, request: GenerationRequest) -> None:
    """Note the request under its prefix, before any shard.

    Raises:
        ConflictError: another request has the prefix.
    """
    try:
        storage.put_once(f"{prefix}/{REQUEST}", canonical_json(request.to_dict()).encode())
    except ConflictError:
        raise ConflictError(
            f"'{storage.sub(prefix).uri}' holds the clips of another request (checkpoint, counts, seed, batch or shard "
            "size differ); choose another run name, or delete that folder."
        ) from None


def read_request(storage: Storage, prefix: str) -> GenerationRequest:
    """The request that the shards below a prefix belong to. Raises MissingError if there is none."""
    return GenerationRequest.from_dict(json.loads(storage.read(f"{prefix}/{REQUEST}")))


def _finished(storage: Storage, prefix: str, request: GenerationRequest) -> Manifest | None:
    try:
        manifest = read_manifest(storage, prefix)
    except MissingError:
        return None
    # The prefix is claimed for this request, so another one's manifest was copied here by hand.
    if manifest.request != json.loads(canonical_json(request.to_dict())):
        raise ConflictError(
            f"'{storage.sub(prefix).uri}' has the manifest of another request; choose another run name."
        )
    return manifest


def _describe_done(storage: Storage, prefix: str, specs: Sequence[ShardSpec]) -> dict[str, ShardRecord]:
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda s: describe_stored(storage, prefix, key_of(s)), specs)
        return {spec.id: record for spec, record in zip(specs, found, strict=True)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pool:
    """How many actors there are to be, and what each one holds; checked against what Ray has."""

    connection: Connection
    actors: int | None
    cpus_per_actor: float
    gpus_per_actor: float

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


def _run(
    storage: Storage,
    prefix: str,
    header: Header,
    todo: Sequence[ShardSpec],
    shards: int,
    pool: _Pool,
    grade: Grade | None,
) -> dict[str, ShardRecord]:
    import ray.data
    from ray.exceptions import RayError

    clips = sum(s.rows for s in todo)
    logger.info("Making %d clips: %d of %d shards are left under %s.", clips, len(todo), shards, prefix)
    env = storage.worker_env()
    rows = [{"spec": json.dumps(spec.to_dict())} for spec in todo]
    with warnings.catch_warnings():
        # Ray 2.60 announces the end of free remote arguments for 2.64, without another way to bound retries yet.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardWriter,
            fn_constructor_args=(storage, prefix, header, grade, pool.gpus_per_actor > 0),
            batch_size=1,
            batch_format="numpy",
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor or None,
            compute=ray.data.ActorPoolStrategy(size=pool.size(len(todo))),
            runtime_env={"env_vars": env} if env else None,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RETRIES,
        )
    records: dict[str, ShardRecord] = {}
    errors: list[str] = []
    with Progress("generate", clips, "clips") as progress:
        try:
            for row in made.iter_rows():
                result = json.loads(row["result"])
                if result["error"]:
                    errors.append(result["error"])
                    logger.error("%s", result["error"])
                else:
                    records[result["id"]] = ShardRecord.from_dict(result["record"])
                    progress.advance(records[result["id"]].rows)
        except RayError as e:
            errors.append(f"a worker was lost {MAX_RETRIES + 1} times over the same shard ({_first_line(e)})")
    if errors:
        listed = "\n".join(f"  {e}" for e in sorted(errors))
        raise cli.JobError(
            f"{len(todo) - len(records)} of {len(todo)} shards failed; the others are done, so mend the cause and run "
            f"the same command again:\n{listed}"
        )
    return records


def _same_checkpoint(storage: Storage, prefix: str, digest: str) -> None:
    if checkpoint_digest(storage, prefix) != digest:
        raise InputError(
            f"Checkpoint '{prefix}' has changed since the request was made; generate under another run name."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class ShardWriter:
    """One actor: holds the generator, writes one shard per call.

    Args:
        storage: Where checkpoint and shards lie.
        prefix: Folder of the generated set.
        header: Of every shard.
        grade: Fills the quality columns.
        gpu: Whether to run on the GPU that Ray gave this actor.
    """

    def __init__(self, storage: Storage, prefix: str, header: Header, grade: Grade | None, gpu: bool) -> None:
        import torch

        # Parallelism is the number of actors; and sums over other thread counts round differently.
        torch.set_num_threads(1)
        self.storage, self.prefix, self.header, self.grade = storage, prefix, header, grade
        self.device = torch.device("cuda" if gpu else "cpu")
        self.generator: Any = None
        self.digest = ""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        spec = ShardSpec.from_dict(json.loads(str(batch["spec"][0])))
        record, error = None, ""
        try:
            record = self.write(spec).to_dict()
        except Exception as e:
            # Listed by the driver; the other shards go on. Ray itself retries when the process dies.
            logger.debug("shard %s", key_of(spec), exc_info=True)
            error = f"{key_of(spec)}: {e if isinstance(e, InputError) else f'{type(e).__name__}: {e}'}"
        return {"result": [json.dumps({"id": spec.id, "record": record, "error": error, "pid": os.getpid()})]}

    def write(self, spec: ShardSpec) -> ShardRecord:
        """Sample, grade, encode and write one shard."""
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
        return write_shard(self.storage, self.prefix, key_of(spec), whole, self.header)

    def _load(self, spec: ShardSpec) -> None:
        """The generator, once per actor: not in the constructor, where a failure would be retried for ever."""
        if self.digest == spec.checkpoint_digest:
            return
        from motionsynth.generators import load_generator

        _same_checkpoint(self.storage, spec.checkpoint, spec.checkpoint_digest)
        self.generator = load_generator(*load_checkpoint(self.storage, spec.checkpoint)).to(self.device)
        self.digest = spec.checkpoint_digest


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    rate = result["clips_made"] / max(result["seconds"], 1e-9)
    print(
        f"{result['clips']:,} clips in {result['shards']} shards, {result['bytes'] / 1e6:.1f} MB, under "
        f"{result['prefix']}; {result['accepted']:,} accepted"
    )
    if result["shards_made"]:
        print(
            f"  made {result['clips_made']:,} in {result['seconds']:.1f} s ({rate:,.0f} clips/s with start-up)"
        )
    else:
        print("  nothing left to do")


if __name__ == "__main__":
    cli.main(Options, verb)
