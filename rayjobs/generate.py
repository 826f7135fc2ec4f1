"""Synthetic clips from a checkpoint: shards of Parquet over a pool of actors, resumable, the manifest last.

    python -m rayjobs.generate --run demo --storage out --dataset sample --recipe demo
    python -m rayjobs.generate --run extra --storage out --checkpoint runs/demo/.../step-000001200 --per-class 100

The first form serves every draw of a run (see `rayjobs.generate_beds`), the second one checkpoint.

The shards are made by `rayjobs.shard_pool`. What exists is done, so running the same command again is all of resume,
and the bytes do not depend on the number of actors, their order or the faults on the way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster.connect import Connection
from motionsynth.errors import InputError
from motionsynth.generators import config_of
from rayjobs import cli, experiment
from rayjobs.board import Board, common_folder
from rayjobs.progress import Progress
from rayjobs.shard_pool import (
    WINDOW_SHARDS,
    Grade,
    Pool,
    Shard,
    ShardWriter,
    check_unchanged,
    header_of,
    make_shards,
    make_shards_here,
)
from rayjobs.shard_sets import REQUEST, ShardSet, claim, read_request, windows
from storage import Storage
from storage.checkpoints import checkpoint_digest, read_config
from storage.records import ShardRecord
from storage.shards import GenerationRequest

__all__ = [
    "REQUEST",
    "Options",
    "Wanted",
    "claim",
    "generate",
    "parse_counts",
    "prefix_of",
    "read_request",
    "report",
    "request_for",
    "verb",
]

MAX_LISTED = 100
"""Failures that are told one by one."""

Make = Callable[[Sequence[Shard]], tuple[dict[tuple[str, int], ShardRecord], list[str]]]
"""Makes shards: their records and a sentence for everything that went wrong."""


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
    writer: type[ShardWriter] = ShardWriter,
) -> list[dict[str, Any]]:
    """Make every shard of these sets that does not exist yet, then commit the manifest of each.

    Args:
        storage: Where.
        wanted: Which sets; the shards of all of them go through one pool of actors.
        connect: Called only if there is work to do: starts or joins Ray. None makes the shards in this process.
        actors, cpus_per_actor, gpus_per_actor: See `Pool`.
        grade: Fills the quality columns.
        writer: What makes a shard.

    Returns:
        Counts and digest of each set: JSON-serialisable.

    Raises:
        InputError: another request at a prefix, a checkpoint that changed, or actors that do not fit.
        JobError: shards failed; the others are done and the same call goes on with those that failed.
    """
    sets = [ShardSet.open(storage, w.prefix, w.request) for w in wanted]
    left = sum(s.left for s in sets)
    make: Make = partial(make_shards_here, storage, grade=grade, writer=writer, gpu=gpus_per_actor > 0)
    window = WINDOW_SHARDS
    with ExitStack() as stack:
        if left:
            for s in sets:
                if s.left:
                    check_unchanged(storage, s.request.checkpoint, s.request.checkpoint_digest)
            if connect is not None:
                pool = Pool(
                    connection=connect(),
                    actors=actors,
                    cpus_per_actor=cpus_per_actor,
                    gpus_per_actor=gpus_per_actor,
                )
                window = pool.window()
                board = Board(storage, common_folder(s.prefix for s in sets if s.left), "generate")
                clips, at_once = sum(s.clips_left for s in sets), pool.size(left)
                progress = stack.enter_context(
                    Progress("generate", clips, "clips", at_once=at_once, board=board)
                )
                make = partial(make_shards, storage, pool=pool, grade=grade, writer=writer, progress=progress)
        made, errors = _make_all(storage, sets, make, window)
    if errors:
        listed = "\n".join(f"  {e}" for e in sorted(errors)[:MAX_LISTED])
        more = f"\n  and {len(errors) - MAX_LISTED} more" if len(errors) > MAX_LISTED else ""
        raise cli.JobError(
            f"{left - made} of {left} shards failed{' or were not begun' if left - made > len(errors) else ''}; the "
            f"others are done, so mend the cause and run the same command again:\n{listed}{more}"
        )
    return [s.result() for s in sets]


def _make_all(storage: Storage, sets: Sequence[ShardSet], make: Make, window: int) -> tuple[int, list[str]]:
    """Make what the sets lack, window by window; a set is committed as soon as it is whole.

    Returns:
        How many shards were made, and a sentence for everything that went wrong.
    """
    made = 0
    errors: list[str] = []
    for pieces in windows(sets, window):
        todo = [Shard(s.prefix, s.specs[i]) for s, part in pieces for i in s.missing(part)]
        records, said = make(todo) if todo else ({}, [])
        made += len(records)
        errors += said
        for s, part in pieces:
            s.close(storage, part, records)
        # What no shard of a window survives, or what ended it, would end the next ones, too.
        if len(records) + len(said) < len(todo) or (todo and not records):
            break
    return made, errors


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
