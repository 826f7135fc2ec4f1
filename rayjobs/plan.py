"""What a job would take, before anything starts: resources, what is left, bytes, hours and money.

    python -m rayjobs.plan --dataset nucla --recipe motion_gan --storage out --run first
    python -m rayjobs.plan --dataset nucla --storage out --actors 64 --price-per-cpu-hour 0.05 --address auto
    python -m rayjobs.plan --checkpoint runs/first/.../step-000001200 --per-class 100000 --storage out --run many

Takes the options of train, generate and score, does their sums with their own functions, and refuses what would wait
for ever. Times come from a few real steps and batches in this process (see `rayjobs.calibrate`), without Ray; with
--address the cluster is asked for its resources.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster.connect import SPARE_CPUS, Connection, cores, plan_resources
from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.generators import load_generator
from motionsynth.recipes import Recipe
from rayjobs import calibrate, cli, experiment, score, train
from rayjobs.generate import Options as GenerateOptions
from rayjobs.generate import parse_counts, prefix_of, request_for
from rayjobs.generate_beds import SHARD_SIZE, classes_to_make
from rayjobs.shard_pool import Pool, header_of
from storage import Storage
from storage.checkpoints import load_checkpoint, read_config
from storage.header import Header
from storage.shards import GenerationRequest, list_done
from storage.shards import plan as shards_of

if TYPE_CHECKING:
    from motionsynth.generators import Generator, SampleRequest

logger = logging.getLogger(__name__)

START_SECONDS = {"train": 40.0, "generate": 20.0, "score": 20.0}
"""Until workers have started; of a training, each time that one begins. Set from one run on two idle cores; how far
they are off on the next one: docs/operations.md."""
HIDDEN = {
    "train": "Besides, at 0 CPU: Ray Train's controller and a driver for each training, one counter of steps",
    "generate": "Besides, at 0 CPU: Ray Data's own actors; its rows wait in the object store, so no task needs a CPU",
    "score": "Nothing besides.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(GenerateOptions):
    """Say what train, generate and score would take, and refuse what would wait for ever.

    Its options are those of these verbs; with `checkpoint`, of generate alone.

    Attributes:
        workers: As for train: processes per training.
        gpus_per_worker: As for train.
        steps: As for train.
        clips_seen: As for train.
        recogniser: As for score.
        training: As for score.
        seeds: As for score.
        arms: As for score.
        refined: As for score.
        scorers: What is --workers for score.
        price_per_hour: Of each machine of the cluster (locally: of this one), in any currency.
        price_per_cpu_hour: Of each CPU that workers hold.
        price_per_gpu_hour: Of each GPU that workers hold.
    """

    workers: int = 1
    gpus_per_worker: float = 0.0
    steps: int = 0
    clips_seen: int = 0
    recogniser: str = ""
    training: tuple[str, ...] = ()
    seeds: int = 0
    arms: str = ""
    refined: bool = False
    scorers: int = 0
    price_per_hour: float = 0.0
    price_per_cpu_hour: float = 0.0
    price_per_gpu_hour: float = 0.0

    @property
    def prices(self) -> Prices:
        """As given."""
        return Prices(machine=self.price_per_hour, cpu=self.price_per_cpu_hour, gpu=self.price_per_gpu_hour)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Of an hour of a machine, a CPU and a GPU; all 0 where nobody said."""

    machine: float = 0.0
    cpu: float = 0.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < float("inf"):
                raise InputError(f"The price of a {name} is {value} per hour; it must be at least 0.")

    def cost(self, hours: float, machines: int, cpus: float, gpus: float) -> float | None:
        """Of a stage that holds so much for so long; None where nobody said a price."""
        if not any(asdict(self).values()):
            return None
        return hours * (self.machine * machines + self.cpu * cpus + self.gpu * gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What a verb would do.

    Attributes:
        verb: Which.
        unit: What is counted.
        total, left: Of these, in all and still to do.
        parts: Further counts, by name, for people.
        at_once: Processes that hold resources.
        cpus, gpus: That they hold together.
        sum: The resource sum, as a sentence.
        seconds: Estimated; None where it cannot be measured here.
        bytes: To be written; None where it is not known.
    """

    verb: str
    unit: str
    total: int
    left: int
    parts: Mapping[str, int]
    at_once: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    sum: str = ""
    seconds: float | None = 0.0
    bytes: int | None = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A set that generate would make: its shards, those left, and where its generator comes from."""

    request: GenerationRequest
    done: int
    clips_left: int
    shards_left: int
    generator: str
    bed: Bed | None


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see the module."""
    if bool(options.checkpoint) == bool(options.dataset):
        raise InputError(
            "plan needs either --dataset with --recipe (train, generate and score) or --checkpoint (its clips alone); "
            f"got {'both' if options.dataset else 'neither'}."
        )
    prices = options.prices
    storage = options.open_storage()
    connection, machines = reachable(options, storage)
    stages, sampled = planned(options, storage, connection)
    result = summary(stages, sampled, connection, machines, prices)
    report(result)
    return result


def reachable(options: cli.Common, storage: Storage) -> tuple[Connection, int]:
    """What the job would find: a cluster's resources and machines, or those that a local Ray would have."""
    if options.address not in (None, "local") or os.environ.get("RAY_ADDRESS"):
        connection = options.connect(storage)
        import ray

        return connection, sum(bool(n["Alive"]) for n in ray.nodes())
    import torch

    cpus = float(options.cpus or cores() + SPARE_CPUS)
    gpus = float(torch.cuda.device_count())
    return Connection(address="local", cpus=cpus, gpus=gpus, started=False), 1


def planned(
    options: Options, storage: Storage, connection: Connection
) -> tuple[list[Stage], calibrate.SamplingCost | None]:
    """Every stage, and what a clip costs.

    Raises:
        InputError: a stage would wait for ever, or its input cannot be used.
    """
    pool = Pool(connection=connection, actors=options.actors, gpus_per_actor=options.gpus_per_actor)
    if options.checkpoint:
        header = header_of(read_config(storage, options.checkpoint))
        counts = parse_counts(options.counts, options.per_class, len(header.class_names))
        request = request_for(
            storage, options.checkpoint, counts, seed=options.seed, shard_size=options.shard_size, batch=options.batch,
            sampling=cli.parse_fields("--sampling", options.sampling),
        )  # fmt: skip
        wish = _wish(storage, prefix_of(options.run), request, "", None)
        stage, cost = generate_stage(storage, [wish], pool, {}, _device(options.gpus_per_actor))
        return [stage], cost
    recipe = score.with_scores(options.chosen(storage), options.recogniser, options.seeds, options.training)
    recipe = train.with_steps(recipe, options.steps, options.clips_seen)
    if options.per_class:
        recipe = replace(recipe, synthetic_per_class=options.per_class)
    stages: list[Stage] = []
    sampled = None
    if not experiment.is_hybrid(storage, options.dataset):
        first, fresh = train_stage(options, storage, recipe, connection)
        wishes = wished_sets(options, storage, recipe)
        second, sampled = generate_stage(storage, wishes, pool, fresh, _device(options.gpus_per_actor))
        stages += [first, second]
    stages.append(score_stage(options, storage, recipe, connection))
    return stages, sampled


def train_stage(
    options: Options, storage: Storage, recipe: Recipe, connection: Connection
) -> tuple[Stage, dict[str, Generator]]:
    """What train would do; and of each generator that it trains, one to time sampling with."""
    total, todo, device = 0, [], _device(options.gpus_per_worker)
    for one in recipe.each:
        for spec in one.beds:
            total += 1
            prefix = experiment.bed_prefix(
                options.trained or options.run, options.dataset, spec, one.generator
            )
            if train.finished_checkpoint(storage, prefix):
                continue
            known = train.list_checkpoints(storage, f"{prefix}/checkpoints")
            done = known[-1].step if known else 0
            todo.append((one, spec, max(0, one.training.steps + one.training.rare_steps - done)))
    steps = sum(left for *_, left in todo)
    stage = Stage(verb="train", unit="trainings", total=total, left=len(todo), parts={"steps left": steps})
    if not todo:
        return stage, {}
    at_once = train.trainings_at_once(connection, len(todo), options.workers, options.gpus_per_worker)
    workers = at_once * options.workers
    held = _held(workers, 1.0, options.gpus_per_worker, connection)
    if device is None:
        return replace(stage, at_once=at_once, **held, seconds=None, bytes=None), {}
    costs: dict[str, calibrate.TrainingCost] = {}
    fresh: dict[str, Generator] = {}
    for one, spec, _ in todo:
        if one.generator not in costs:
            bed = experiment.load_bed(storage, options.dataset, spec)
            costs[one.generator], fresh[one.generator] = calibrate.training(one, bed, device)
    each = [
        START_SECONDS["train"] + costs[one.generator].seconds(left) / options.workers for one, _, left in todo
    ]
    size = sum(train.KEPT * costs[one.generator].bytes for one, *_ in todo)
    stage = replace(stage, at_once=at_once, **held, seconds=_side_by_side(each, at_once), bytes=size)
    return stage, fresh


def wished_sets(options: Options, storage: Storage, recipe: Recipe) -> list[Wish]:
    """The sets of every draw; those whose generator is not trained yet have no checkpoint in their request."""
    out = []
    sampling = cli.parse_fields("--sampling", options.sampling)
    for one in recipe.each:
        for spec in one.beds:
            bed = experiment.load_bed(storage, options.dataset, spec)
            counts = dict.fromkeys(classes_to_make(bed), recipe.synthetic_per_class)
            where = partial(experiment.bed_prefix, dataset=options.dataset, bed=spec, generator=one.generator)
            info = train.finished_checkpoint(storage, where(options.trained or options.run))
            if info:
                request = request_for(
                    storage, info.prefix, counts, seed=spec.seed, shard_size=SHARD_SIZE, sampling=sampling
                )
            else:
                request = GenerationRequest(
                    checkpoint="", checkpoint_digest="", counts=counts, seed=spec.seed, shard_size=SHARD_SIZE,
                    extra={"batch": 64},
                )  # fmt: skip
            prefix = experiment.synthetic_prefix(options.run, options.dataset, spec, one.generator)
            out.append(_wish(storage, prefix, request, one.generator, bed))
    return out


def _wish(storage: Storage, prefix: str, request: GenerationRequest, generator: str, bed: Bed | None) -> Wish:
    specs = shards_of(request)
    done = list_done(storage, prefix, specs) if request.checkpoint else frozenset()
    left = [s for s in specs if s.id not in done]
    return Wish(
        request=request, done=len(specs) - len(left), clips_left=sum(s.rows for s in left), shards_left=len(left),
        generator=generator, bed=bed,
    )  # fmt: skip


def generate_stage(
    storage: Storage, wishes: Sequence[Wish], pool: Pool, fresh: Mapping[str, Generator], device: str | None
) -> tuple[Stage, calibrate.SamplingCost | None]:
    """What generate would do, and what a clip costs; of several generators the mean over the clips left.

    Args:
        storage: Where.
        wishes: Which sets.
        pool: The actors.
        fresh: A generator for those that have no checkpoint yet, by name.
        device: Where to time; None where that cannot be done here.
    """
    left = sum(w.shards_left for w in wishes)
    clips = sum(w.clips_left for w in wishes)
    stage = Stage(
        verb="generate", unit="shards", total=left + sum(w.done for w in wishes), left=left,
        parts={"sets": len(wishes), "clips left": clips},
    )  # fmt: skip
    if not left:
        return stage, None
    actors = pool.size(left)
    held = _held(actors, pool.cpus_per_actor, pool.gpus_per_actor, pool.connection)
    if device is None:
        return replace(stage, at_once=actors, **held, seconds=None, bytes=None), None
    # Sets differ in their classes, and so in the lengths of their clips: each is measured while there is time.
    first: dict[str, calibrate.SamplingCost] = {}
    costs: list[tuple[Wish, calibrate.SamplingCost]] = []
    began, measured = time.monotonic(), 0
    for w in (w for w in wishes if w.shards_left):
        if w.generator in first and time.monotonic() - began > calibrate.SECONDS:
            costs.append((w, first[w.generator]))
            continue
        batches = 1 if w.generator in first else calibrate.BATCHES
        cost = _sampling(storage, w, fresh, device, batches)
        first.setdefault(w.generator, cost)
        costs.append((w, cost))
        measured += cost.measured
    # One batch tells the size of clips, but its time has what a first one costs besides.
    seconds = sum(w.clips_left * first[w.generator].clip for w, _ in costs)
    size = sum(w.clips_left * cost.bytes_clip + w.shards_left * cost.bytes_shard for w, cost in costs)
    stage = replace(
        stage, at_once=actors, **held, seconds=START_SECONDS["generate"] + seconds / actors, bytes=round(size)
    )
    mean = calibrate.SamplingCost(
        clip=seconds / clips, bytes_clip=size / clips, bytes_shard=0.0,
        measured=measured,
    )  # fmt: skip
    return stage, mean


def _sampling(
    storage: Storage, wish: Wish, fresh: Mapping[str, Generator], device: str, batches: int
) -> calibrate.SamplingCost:
    request = wish.request
    if request.checkpoint:
        config = read_config(storage, request.checkpoint)
        header, sampling = header_of(config), request.extra.get("sampling")
        generator = load_generator(*load_checkpoint(storage, request.checkpoint), sampling).to(device)
    else:
        generator = fresh[wish.generator]
        context = generator.context
        header = Header(
            dataset=context.dataset, skeleton=context.skeleton, class_names=tuple(context.class_names),
            extra={"generator": wish.generator, "synthetic": True},
        )  # fmt: skip
    wanted: list[SampleRequest] = [s for spec in shards_of(request) for s in spec.samples()]
    return calibrate.sampling(generator, header, wanted, int(request.extra["batch"]), device, batches)


def score_stage(options: Options, storage: Storage, recipe: Recipe, connection: Connection) -> Stage:
    """What score would do; records of sets that are not made yet are all left to do."""
    from motionsynth.arms import BedTensors

    only = score.chosen_arms(recipe, options.arms)
    tasks = score.plan_tasks(
        storage, options.dataset, options.run, recipe, only, options.refined, unmade=True
    )
    have = {o.key.rpartition("/")[2] for o in storage.list(experiment.scores_prefix(options.dataset))}
    named = {t.id: (t, bed) for t, bed in tasks}
    todo = [(t, bed) for t, bed in named.values() if f"{t.id}.json" not in have]
    stage = Stage(verb="score", unit="recognisers", total=len(named), left=len(todo), parts={})
    if not todo:
        return stage
    workers = score.pool_size(connection, len(todo), options.scorers)
    costs: dict[Any, calibrate.RecogniserCost] = {}
    tensors = None
    for task, bed in todo:
        if task.training not in costs:
            tensors = tensors or BedTensors.of(bed)
            costs[task.training] = calibrate.recogniser(task.training, tensors)
    each = [costs[t.training].seconds(t.training.steps) for t, _ in todo]
    return replace(
        stage, at_once=workers, **_held(workers, 1.0, 0.0, connection),
        seconds=START_SECONDS["score"] + _side_by_side(each, workers),
    )  # fmt: skip


def _held(processes: int, cpus: float, gpus: float, connection: Connection) -> dict[str, Any]:
    said = plan_resources(
        actors=processes, cpus_per_actor=cpus, gpus_per_actor=gpus, tasks=0, cpus=connection.cpus,
        gpus=connection.gpus,
    )  # fmt: skip
    return {"cpus": processes * cpus, "gpus": processes * gpus, "sum": said}


def _side_by_side(each: Sequence[float], at_once: int) -> float:
    """Seconds until the last is done, if every worker takes the next one when it is free."""
    free = [0.0] * at_once
    for seconds in each:
        first = free.index(min(free))
        free[first] += seconds
    return max(free)


def _device(gpus: float) -> str | None:
    """Where to time; None where workers have a GPU and this machine has none."""
    import torch

    if not gpus:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else None


def summary(
    stages: Sequence[Stage],
    sampled: calibrate.SamplingCost | None,
    connection: Connection,
    machines: int,
    prices: Prices,
) -> dict[str, Any]:
    """JSON form, with hours and cost of each stage and of a million clips."""

    def priced(stage: Stage) -> dict[str, Any]:
        hours = None if stage.seconds is None else stage.seconds / 3600
        return {
            **asdict(stage), "hidden": HIDDEN[stage.verb] if stage.left else "", "hours": hours,
            "cpu_hours": None if hours is None else hours * stage.cpus,
            "gpu_hours": None if hours is None else hours * stage.gpus,
            "cost": None if hours is None else prices.cost(hours, machines, stage.cpus, stage.gpus),
        }  # fmt: skip

    million = None
    for stage in stages:
        if stage.verb == "generate" and sampled and stage.at_once:
            hours = sampled.clip * 1e6 / stage.at_once / 3600
            million = {
                "hours": hours, "cpu_hours": hours * stage.cpus, "gpu_hours": hours * stage.gpus,
                "bytes": round(sampled.bytes_clip * 1e6),
                "cost": prices.cost(hours, machines, stage.cpus, stage.gpus), "measured_clips": sampled.measured,
            }  # fmt: skip
    listed = [priced(s) for s in stages]
    total = {
        k: None if any(s[k] is None for s in listed) else sum(s[k] for s in listed)
        for k in ("hours", "cpu_hours", "gpu_hours", "cost", "bytes")
    }
    return {
        "address": connection.address, "cpus": connection.cpus, "gpus": connection.gpus, "machines": machines,
        "stages": listed, "total": total, "million_clips": million,
    }  # fmt: skip


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    where = "a local Ray" if result["address"] == "local" else f"the cluster at {result['address']}"
    print(f"{where}: {result['cpus']:g} CPUs, {result['gpus']:g} GPUs, {result['machines']} machines")
    for s in result["stages"]:
        parts = "".join(f", {n:,} {name}" for name, n in s["parts"].items())
        print(f"{s['verb']:<10}{s['left']:,} of {s['total']:,} {s['unit']} left{parts}")
        if not s["left"]:
            continue
        print(f"{'':<10}{s['sum']} {s['hidden']}")
        print(f"{'':<10}{_figures(s)}")
    print(f"{'all':<10}{_figures(result['total'])}")
    if m := result["million_clips"]:
        print(f"{'1 million clips (rate of ' + str(m['measured_clips']) + ' made here): '}{_figures(m)}")


def _figures(of: Mapping[str, Any]) -> str:
    if of["hours"] is None:
        return "time not known: its workers have GPUs, and this machine has none to measure on"
    hours = of["hours"]
    text = f"about {3600 * hours:,.0f} s" if hours < 0.05 else f"about {hours:,.2f} hours"
    text += f" ({of['cpu_hours']:,.2f} CPU hours, {of['gpu_hours']:,.2f} GPU hours)"
    text += f", {of['bytes'] / 1e6:,.1f} MB" if of["bytes"] else ""
    return text + (f", cost {of['cost']:,.2f}" if of["cost"] is not None else "")


if __name__ == "__main__":
    cli.main(Options, verb)
