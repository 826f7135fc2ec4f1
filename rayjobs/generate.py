"""Synthetic clips from a checkpoint: shards of Parquet over a pool of actors, resumable, the manifest last.

    python -m rayjobs.generate --run demo --storage out --dataset sample --recipe demo
    python -m rayjobs.generate --run extra --storage out --checkpoint runs/demo/.../step-000001200 --per-class 100

The first form serves every draw of a run (see `rayjobs.generate_beds`), the second one checkpoint.

The shards are made by `rayjobs.shard_pool`. What exists is done, so running the same command again is all of resume,
and the bytes do not depend on the number of actors, their order or the faults on the way.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster.connect import Connection
from motionsynth.errors import InputError
from motionsynth.generators import config_of
from rayjobs import cli, experiment
from rayjobs.shard_pool import Grade, Pool, Shard, check_unchanged, header_of, make_shards, make_shards_here
from storage import ConflictError, MissingError, Storage
from storage.checkpoints import checkpoint_digest, read_config
from storage.header import Header, canonical_json
from storage.manifest import Manifest, ShardRecord, describe_stored, read_manifest, write_manifest
from storage.shards import GenerationRequest, ShardSpec, key_of, list_done, plan

logger = logging.getLogger(__name__)

REQUEST = "request.json"
"""Written first: what the shards below a prefix belong to, so that `status` knows what is left."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One generated set: the folder it is to lie in, which holds one request only, and the request (`request_for`)."""

    prefix: str
    request: GenerationRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Generate synthetic clips for every draw of a run (--dataset, --recipe), or from one checkpoint.

    Attributes:
        dataset: Name of a prepared dataset; not with --checkpoint.
        checkpoint: Prefix of one checkpoint in storage; the clips then lie under runs/RUN/synthetic.
        per_class: Clips for every class (with --dataset: for every rare class; default: the recipe's).
        counts: Clips for single classes as LABEL=NUMBER, in place of --per-class; with --checkpoint.
        trained: Run whose checkpoints are sampled (default: --run, where the clips will lie); with --dataset.
        sampling: Settings of the generator that sampling alone reads, as FIELD=VALUE (such as guidance=2), to sample a
            trained generator in another way than its recipe does: under a --run of its own, with --trained.
        shard_size: Clips per Parquet file; with --checkpoint.
        batch: Clips that the model makes at once; part of the request, since it can change the last bits.
        actors: Processes (default: one per core, or one per GPU).
        gpus_per_actor: 0 runs on CPUs; a fraction shares a GPU.
    """

    dataset: str = ""
    checkpoint: str = ""
    per_class: int = 0
    counts: tuple[str, ...] = ()
    trained: str = ""
    sampling: tuple[str, ...] = ()
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
    if options.checkpoint and options.trained:
        raise InputError("--trained names a run whose draws are sampled; with --checkpoint leave it out.")
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
        sampling=cli.parse_fields("--sampling", options.sampling),
    )
    began = time.monotonic()
    (result,) = generate(
        storage,
        [Wanted(prefix_of(options.run), request)],
        connect=partial(options.connect, storage),
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
    )
    result["seconds"] = round(time.monotonic() - began, 3)
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
        trained=options.trained or options.run,
        sampling=cli.parse_fields("--sampling", options.sampling),
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
    sampling: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> GenerationRequest:
    """The request for clips of a checkpoint, with everything that decides their bytes.

    Args:
        storage: Where the checkpoint lies.
        checkpoint: Its prefix.
        counts: Clips per label.
        seed, shard_size: See `GenerationRequest`.
        batch: Clips that the model makes at once (matrix products round differently at other sizes).
        sampling: Settings of the generator that sampling alone reads; see `config_of`.
        extra: Further JSON that changes the samples, such as the thresholds of `Grade`.

    Raises:
        InputError: no such checkpoint, or values out of range.
    """
    if batch < 1:
        raise InputError(f"The batch size is {batch}; it must be at least 1.")
    config = read_config(storage, checkpoint)
    config_of(config, sampling or {})
    return GenerationRequest(
        checkpoint=checkpoint,
        checkpoint_digest=checkpoint_digest(storage, checkpoint),
        counts=dict(counts),
        seed=seed,
        shard_size=shard_size,
        dataset=header_of(config).dataset,
        extra={"batch": batch, **({"sampling": dict(sampling)} if sampling else {}), **(extra or {})},
    )


def generate(
    storage: Storage,
    wanted: Sequence[Wanted],
    *,
    connect: Callable[[], Connection] | None,
    actors: int | None = None,
    cpus_per_actor: float = 1.0,
    gpus_per_actor: float = 0.0,
    grade: Grade | None = None,
) -> list[dict[str, Any]]:
    """Make every shard of these sets that does not exist yet, then commit the manifest of each.

    Args:
        storage: Where.
        wanted: Which sets; the shards of all of them go through one pool of actors.
        connect: Called only if there is work to do: starts or joins Ray. None makes the shards in this process.
        actors, cpus_per_actor, gpus_per_actor: See `Pool`.
        grade: Fills the quality columns.

    Returns:
        Counts and digest of each set: JSON-serialisable.

    Raises:
        InputError: another request at a prefix, a checkpoint that changed, or actors that do not fit.
        JobError: shards failed; the others are done and the same call goes on with those that failed.
    """
    sets = [_Set.open(storage, w) for w in wanted]
    todo = [Shard(s.wanted.prefix, spec) for s in sets for spec in s.todo]
    made: dict[tuple[str, str], ShardRecord] = {}
    errors: list[str] = []
    if todo:
        for s in sets:
            if s.todo:
                check_unchanged(storage, s.wanted.request.checkpoint, s.wanted.request.checkpoint_digest)
        if connect is None:
            made, errors = make_shards_here(storage, todo, grade, gpu=gpus_per_actor > 0)
        else:
            pool = Pool(
                connection=connect(),
                actors=actors,
                cpus_per_actor=cpus_per_actor,
                gpus_per_actor=gpus_per_actor,
            )
            made, errors = make_shards(storage, todo, pool, grade)
    results = [s.commit(storage, made) for s in sets]
    if errors:
        listed = "\n".join(f"  {e}" for e in sorted(errors))
        raise cli.JobError(
            f"{len(todo) - len(made)} of {len(todo)} shards failed; the others are done, so mend the cause and run "
            f"the same command again:\n{listed}"
        )
    return [r for r in results if r]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Set:
    """What there is of a wanted set: its shards, those left to make, the manifest if nothing is left."""

    wanted: Wanted
    header: Header
    specs: Sequence[ShardSpec]
    todo: Sequence[ShardSpec]
    manifest: Manifest | None

    @classmethod
    def open(cls, storage: Storage, wanted: Wanted) -> _Set:
        request = wanted.request
        header = header_of(read_config(storage, request.checkpoint))
        if unknown := [k for k in request.counts if k >= len(header.class_names)]:
            raise InputError(
                f"The request asks for class {unknown[0]}; the checkpoint knows 0 to {len(header.class_names) - 1}."
            )
        claim(storage, wanted.prefix, request)
        specs = plan(request)
        done = list_done(storage, wanted.prefix, specs)
        todo = [s for s in specs if s.id not in done]
        manifest = _finished(storage, wanted.prefix, request) if not todo else None
        if todo:
            logger.info("%d of %d shards are left under %s.", len(todo), len(specs), wanted.prefix)
        return cls(wanted=wanted, header=header, specs=specs, todo=todo, manifest=manifest)

    def commit(self, storage: Storage, made: Mapping[tuple[str, str], ShardRecord]) -> dict[str, Any] | None:
        """Write the manifest; None if a shard is missing."""
        prefix, request = self.wanted.prefix, self.wanted.request
        new = {s.id: made[prefix, s.id] for s in self.todo if (prefix, s.id) in made}
        if len(new) < len(self.todo):
            return None
        manifest = self.manifest
        if manifest is None:
            records = new | _describe_done(storage, prefix, [s for s in self.specs if s.id not in new])
            manifest = Manifest(
                kind="generated",
                header=self.header,
                shards=tuple(records[s.id] for s in self.specs),
                request=request.to_dict(),
            )
            write_manifest(storage, prefix, manifest)
        return {
            "prefix": prefix,
            "clips": manifest.rows,
            "accepted": sum(s.accepted for s in manifest.shards),
            "counts": {self.header.class_names[k]: n for k, n in manifest.counts.items()},
            "shards": len(self.specs),
            "shards_made": len(self.todo),
            "clips_made": sum(s.rows for s in self.todo),
            "bytes": sum(s.bytes for s in manifest.shards),
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
            f"'{storage.sub(prefix).uri}' holds the clips of another request (checkpoint, counts, seed, sampling, "
            "batch or shard size differ); choose another run name, or delete that folder."
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
