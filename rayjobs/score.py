"""Train recognisers on every arm, draw and seed, judge them on held-out people, and print what was gained.

    python -m rayjobs.score --dataset nucla --recipe motion_gan --storage out --run first
    python -m rayjobs.score --dataset nucla --recipe motion_gan --storage out --run first --split test

`--split test` reads the test half; every such reading is counted in storage and shown. One record per trained
recogniser is stored under a hash of all that decides it, so a re-run computes only what is missing, and runs share what
they have in common, such as the real arms.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.connect import Connection, plan_resources, room
from motionsynth.beds import Bed, BedSpec
from motionsynth.errors import InputError, with_fields
from motionsynth.plans import score_plan
from motionsynth.protocol import (
    ADJUSTED,
    HYBRID,
    PROTOCOL_VERSION,
    REAL_ARMS,
    REFINED,
    RIVAL_ARMS,
    TSTR,
    ScoreRecord,
    arms_of,
    bed_digest,
    for_bed,
    generator_of,
    is_adjusted,
    record_id,
)  # fmt: skip
from motionsynth.recipes import Recipe
from motionsynth.recognition_config import RecogniserTraining
from rayjobs import cli, experiment, telemetry, units
from rayjobs.board import Board
from rayjobs.progress import Progress
from rayjobs.score_tables import report, tables, write
from storage import MissingError, Storage
from storage.decisions import content_digest
from storage.manifest import read_manifest
from storage.revision import git_revision

logger = logging.getLogger(__name__)

QUALITY = "quality"
"""The task that measures a generated set itself (see `motionsynth.quality`) rather than training on it."""

MAX_RETRIES = 3
"""Times that Ray itself tries a recogniser again when its process dies."""
MAX_LOST = 5
"""Times that a job replaces each of its workers, on average, once Ray has given it up, as it does with all those of a
lost node together; what kills every worker then fails its tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Score every arm of a run.

    Attributes:
        recogniser: Only this one: as the recipe trains it, or by its own plan where the recipe has none.
        training: Settings of the recognisers' training as FIELD=VALUE (see `RecogniserTraining`), such as
            synthetic_share=0.3.
        seeds: Seeds per arm and draw (default: the recipe's).
        arms: Only these, joined by commas, and `strong`, which the others are compared with; `tstr` stands for training
            on synthetic clips alone, `refined` for adding refined clips, `quality` for the figures of the generated
            sets (default: all).
        refined: Judge the refined clips, too (see `rayjobs.refine`), beside the unrefined ones.
        workers: Processes (default: one per core, or as many as the GPUs take).
        gpus_per_worker: 0 trains on CPUs; a fraction shares a GPU. What `quality` measures is trained on CPUs in any
            case.
    """

    recogniser: str = ""
    training: tuple[str, ...] = ()
    seeds: int = 0
    arms: str = ""
    refined: bool = False
    workers: int = 0
    gpus_per_worker: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One recogniser to train. `id` names its record.

    Attributes:
        generator: Whose clips it adds or measures; "" for none.
        synthetic: Prefix of these clips; "" for none, and for those of a hybrid dataset's own.
    """

    id: str
    bed: BedSpec
    arm: str
    training: RecogniserTraining
    seed: int
    generator: str
    synthetic: str
    per_class: int

    @property
    def name(self) -> str:
        """For people: what is trained, on what, and the record's id."""
        return f"{self.training.recogniser} of {self.arm} on {self.bed.key}, seed {self.seed} ({self.id})"

    @property
    def kind(self) -> str:
        """Tasks of one kind take about as long as each other."""
        return QUALITY if self.arm == QUALITY else self.training.recogniser


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `score`."""
    storage = options.open_storage()
    recipe = with_scores(options.chosen(storage), options.recogniser, options.seeds, options.training)
    result = score(
        storage,
        options.dataset,
        options.run,
        recipe,
        lambda: options.connect(storage),
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker,
        only=chosen_arms(recipe, options.arms),
        refined=options.refined,
    )
    report(result)
    return {k: v for k, v in result.items() if k != "text"}


def with_scores(recipe: Recipe, recogniser: str, seeds: int, training: Sequence[str] = ()) -> Recipe:
    """The recipe with one recogniser (by `score_plan` where the recipe has none), more seeds, or another training.

    Args:
        recipe: To be changed.
        recogniser: Its name; "" keeps the recipe's.
        seeds: Of each; 0 keeps the recipe's.
        training: See `Options.training`.

    Raises:
        InputError: unknown recogniser, or a setting that a training does not have or cannot take.
    """
    plans = recipe.scores
    if recogniser:
        mine = tuple(p for p in plans if p.training.recogniser == recogniser)
        plans = mine or (score_plan(recogniser),)
    if seeds:
        plans = tuple(replace(p, seeds=seeds) for p in plans)
    if changed := cli.parse_fields("--training", training):
        allowed = [f.name for f in fields(RecogniserTraining) if f.name not in ("recogniser", "augment")]
        plans = tuple(
            replace(p, training=with_fields("A recogniser's training:", p.training, changed, allowed))
            for p in plans
        )
    return replace(recipe, scores=plans)


def chosen_arms(recipe: Recipe, given: str) -> tuple[str, ...]:
    """What `--arms` asks for; () for all.

    Raises:
        InputError: one is unknown.
    """
    if not given:
        return ()
    names = [n.strip() for n in given.split(",")]
    own = (HYBRID, *(r.generator for r in recipe.each))
    twice = (f"{ADJUSTED}:{g}" for g in own)
    known = (*REAL_ARMS, *RIVAL_ARMS, *own, *twice, TSTR.rstrip(":"), REFINED.rstrip(":"), QUALITY)
    if unknown := [n for n in names if n not in known]:
        raise InputError(f"Unknown arm '{unknown[0]}' in --arms. Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(("strong", *names)))


def plan_tasks(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    only: Sequence[str] = (),
    refined: bool = False,
    unmade: bool = False,
) -> list[tuple[Task, Bed]]:
    """Every (arm, draw, seed) of the recipe; arms whose training and judging clips coincide share an id.

    Args:
        storage, dataset, run: Where.
        recipe: What.
        only: Arms (see `chosen_arms`); () for all.
        refined: Each generator's refined clips, too, as a generator of their own.
        unmade: Plan with synthetic clips that are not made yet; the ids of what they train are not those it will have.

    Raises:
        InputError: synthetic clips are missing (and not `unmade`), or no bed has one of the arms.
    """
    tasks, seen = [], set()
    # Ids alone would let the records of a dataset that was prepared anew under its old name pass for its own.
    data = experiment.data_digest(storage, dataset)
    for spec in recipe.beds:
        bed = experiment.load_bed(storage, dataset, spec)
        own = len(bed.synthetic) > 0
        generators = (HYBRID,) if own else tuple(r.generator for r in recipe.each)
        if refined or REFINED.rstrip(":") in only:
            if own:
                raise InputError(
                    f"'{dataset}' brings its own synthetic clips, which nothing refines; leave out refined."
                )
            generators += tuple(REFINED + g for g in generators)
        rivals = (
            RIVAL_ARMS if only else recipe.rivals
        )  # what is asked for is there, whatever the recipe leaves out
        arms = [(arm, _generator(arm, generators)) for arm in arms_of(generators, spec.scarcity, rivals)]
        for arm, generator in (*arms, *((QUALITY, g) for g in generators)):
            family = arm if is_adjusted(arm) else arm.split(":")[0]
            seen.add(family)
            if only and family not in only:
                continue
            synthetic, digest = "", ""
            if generator and not own:
                synthetic = experiment.synthetic_prefix(run, dataset, spec, generator)
                try:
                    digest = content_digest(storage, synthetic)
                except MissingError:
                    if unmade:
                        digest = "not made yet"
                if not digest:
                    verbs = ("refine",) if generator.startswith(REFINED) else ("train", "generate")
                    raise InputError(
                        f"There are no synthetic clips of {generator} for {spec.key}; run "
                        f"{' and '.join(f'`python -m rayjobs.{v}`' for v in verbs)} with the same options first."
                    )
            # A set is measured once, in the same features whoever judges the arms.
            plans = (
                [(recipe.features, 1)] if arm == QUALITY else [(p.training, p.seeds) for p in recipe.scores]
            )
            for training, seed in [(t, seed) for t, seeds in plans for seed in range(seeds)]:
                key = record_id(
                    f"{data}:{bed_digest(bed, arm)}", arm, training, seed, digest, recipe.synthetic_per_class
                )
                task = Task(
                    id=key, bed=spec, arm=arm, training=training, seed=seed, generator=generator,
                    synthetic=synthetic, per_class=recipe.synthetic_per_class,
                )  # fmt: skip
                tasks.append((task, bed))
    if missing := [a for a in only if a not in seen]:
        raise InputError(
            f"--arms names '{missing[0]}', which no bed of this run has. Its beds have: {', '.join(sorted(seen))}."
        )
    return tasks


def _generator(arm: str, generators: Sequence[str]) -> str:
    """Whose clips an arm uses; "" for none."""
    name = generator_of(arm)
    return name if name in generators else ""


def missing(storage: Storage, dataset: str, tasks: Sequence[tuple[Task, Bed]]) -> list[Task]:
    """Those without a record, each once."""
    have = {Path(o.key).stem for o in storage.list(experiment.scores_prefix(dataset))}
    return list({t.id: t for t, _ in tasks if t.id not in have}.values())


def score(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    connect: Callable[[], Connection],
    *,
    workers: int = 0,
    gpus_per_worker: float = 0.0,
    only: Sequence[str] = (),
    refined: bool = False,
) -> dict[str, Any]:
    """Train and judge what has no record yet; write and return the table.

    Raises:
        InputError: synthetic clips are missing, or the workers do not fit.
        JobError: some recognisers failed; the others' records are kept.
    """
    began = time.monotonic()
    prefix = experiment.scores_prefix(dataset)
    tasks = plan_tasks(storage, dataset, run, recipe, only, refined)
    todo = missing(storage, dataset, tasks)
    if todo:
        workers = pool_size(connect(), len(todo), workers, gpus_per_worker)
    # Not before: what is refused for want of room reads nothing.
    readings = _count_reading(storage, dataset, recipe, bool(todo))
    if todo:
        train_tasks(storage, dataset, run, todo, workers, gpus_per_worker)
    records = stored_records(storage, dataset, tasks)
    quality = [
        {"generator": t.generator, **json.loads(storage.read(f"{prefix}/{t.id}.json"))}
        for t, _ in tasks
        if t.arm == QUALITY
    ]
    result = {
        "protocol": PROTOCOL_VERSION,
        "dataset": dataset,
        "run": run,
        "split": recipe.bed.split,
        "bed": asdict(recipe.bed),
        "protocols": list(recipe.protocols or (recipe.bed.protocol,)),
        "as_published": any(bed.as_published for _, bed in tasks),
        "draws": recipe.scarce_draws or 1,
        "git_revision": git_revision(),
        "test_readings": readings,
        "trained": len(todo),
        "recognisers": [asdict(p) for p in recipe.scores],
        "class_names": list(tasks[0][1].train.class_names),
        **tables(records, recipe),
        "quality": quality,
        "seconds": round(time.monotonic() - began, 2),
    }
    write(storage, dataset, run, recipe, result, records, part=bool(only))
    return result


def stored_records(storage: Storage, dataset: str, tasks: Sequence[tuple[Task, Bed]]) -> list[ScoreRecord]:
    """The records of tasks that were done, each as its bed sees it; generated sets' own figures are left out.

    Raises:
        MissingError: one was not done.
    """
    prefix = experiment.scores_prefix(dataset)
    read = {t.id: json.loads(storage.read(f"{prefix}/{t.id}.json")) for t, _ in tasks if t.arm != QUALITY}
    return [for_bed(ScoreRecord.from_dict(read[t.id]), bed) for t, bed in tasks if t.arm != QUALITY]


def _count_reading(storage: Storage, dataset: str, recipe: Recipe, reading: bool) -> int:
    """How often this storage's test half of the dataset has been read with something new to measure."""
    # A hybrid dataset shows the test people of the real one.
    origin = read_manifest(storage, experiment.data_prefix(dataset)).header.extra.get("hybrid")
    key = f"data/{origin['real']['dataset'] if origin else dataset}-test-readings.json"
    count = json.loads(storage.read(key))["readings"] if storage.exists(key) else 0
    if recipe.bed.split == "test" and reading:
        count += 1
        storage.write(key, json.dumps({"readings": count}).encode())
    return count


class Scorer:
    """One actor: reads dataset and synthetic clips once, trains one recogniser per call."""

    def __init__(self, storage: Storage, dataset: str, prefix: str, gpu: bool = False) -> None:
        import torch

        torch.set_num_threads(1)
        self.storage, self.dataset, self.prefix = storage, dataset, prefix
        self.device = "cuda" if gpu else "cpu"
        self.beds: dict[str, Any] = {}
        self.synthetic: dict[str, Any] = {}

    def run(self, task: Task) -> str:
        """Train, judge, write the record; returns its id."""
        recogniser = task.training.recogniser
        with (
            units.unit("recogniser", task.name),
            telemetry.timed("recogniser_seconds", recogniser=recogniser),
        ):
            self._run(task)
        telemetry.count("recognisers_trained", recogniser=recogniser)
        return task.id

    def _run(self, task: Task) -> None:
        from motionsynth.arms import BedTensors, score_arm
        from motionsynth.quality import quality_report
        from storage.dataset import read_dataset

        if task.bed.key not in self.beds:
            self.beds = {
                task.bed.key: BedTensors.of(experiment.load_bed(self.storage, self.dataset, task.bed))
            }
        if task.synthetic and task.synthetic not in self.synthetic:
            self.synthetic = {task.synthetic: read_dataset(self.storage, task.synthetic)[0]}
        bed = self.beds[task.bed.key]
        clips = self.synthetic[task.synthetic] if task.synthetic else bed.bed.synthetic
        if task.arm == QUALITY:
            record = quality_report(bed, clips, task.training, task.seed)
        else:
            record = score_arm(
                bed, task.arm, task.training, task.seed, clips, task.per_class, self.device
            ).to_dict()
        self.storage.write(f"{self.prefix}/{task.id}.json", json.dumps(cli.plain(record)).encode())


def pool_size(connection: Connection, tasks: int, workers: int = 0, gpus_per_worker: float = 0.0) -> int:
    """Number of workers (default: one per core, or as many as the GPUs take), at most one per task.

    Raises:
        InputError: they are more than Ray has room for.
    """
    workers = min(workers or max(room(connection, gpus_each=gpus_per_worker), 1), tasks)
    logger.info(
        plan_resources(
            actors=workers, cpus_per_actor=1, gpus_per_actor=gpus_per_worker, tasks=0, cpus=connection.cpus,
            gpus=connection.gpus,
        )
    )  # fmt: skip
    return workers


def train_tasks(
    storage: Storage, dataset: str, run: str, todo: Sequence[Task], workers: int, gpus_per_worker: float = 0.0
) -> None:
    """Train and judge recognisers on the Ray that is connected, and store a record of each.

    Args:
        storage, dataset: Where.
        run: Whose `status` tells of it.
        todo: At least one.
        workers: Processes, as `pool_size` says.
        gpus_per_worker: GPUs of each; 0 trains on CPUs.

    Raises:
        JobError: some recognisers failed; the others' records are kept.
    """
    import ray
    from ray.exceptions import RayActorError

    holds: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus_per_worker or None}
    actor = ray.remote(**holds, max_restarts=-1, max_task_retries=MAX_RETRIES)(Scorer)
    prefix = experiment.scores_prefix(dataset)
    new = partial(actor.remote, storage, dataset, prefix, gpus_per_worker > 0)
    pool: list[Any] = [new() for _ in range(workers)]
    # Neighbours in the list share a bed, so each actor converts few of them.
    waiting, failed, lost = list(todo), [], 0
    running: dict[Any, tuple[Any, Task]] = {}
    board = Board(storage, experiment.run_prefix(run, dataset), "score")
    with Progress("score", len(todo), "recognisers", at_once=workers, board=board) as progress:
        while waiting or running:
            busy = [w for w, _ in running.values()]
            for worker in [w for w in pool if w not in busy][: len(waiting)]:
                task = waiting.pop(0)
                running[worker.run.remote(task)] = (worker, task)
            progress.hold({task.name: task.kind for _, task in running.values()})
            done, _ = ray.wait(list(running))
            for ref in done:
                worker, task = running.pop(ref)
                try:
                    ray.get(ref)
                    progress.advance(1, task.kind)
                except RayActorError as e:
                    # Ray's own retries are spent, and every further task of this actor would fail at once.
                    lost += 1
                    if lost > MAX_LOST * workers:
                        failed.append(
                            f"{lost} workers were lost, the last one with: {str(e).splitlines()[0]}"
                        )
                        progress.fail(task.name, failed[-1], task.kind)
                        continue
                    ray.kill(worker)
                    pool[pool.index(worker)] = new()
                    waiting.insert(0, task)
                except Exception as e:
                    failed.append(cli.last_line(e))
                    progress.fail(task.name, failed[-1], task.kind)
    for worker in pool:
        ray.kill(worker)
    if failed:
        listed = "\n".join(f"  {f}" for f in sorted(set(failed)))
        raise cli.JobError(f"{len(failed)} of {len(todo)} recognisers failed; the others are kept:\n{listed}")


if __name__ == "__main__":
    cli.main(Options, verb)
