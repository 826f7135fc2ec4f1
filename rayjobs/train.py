"""Train a generator on every draw of a bed with Ray Train; resumes from the last checkpoint in storage.

    python -m rayjobs.train --dataset nucla --recipe motion_gan --storage out --run first
    python -m rayjobs.train --dataset nucla --storage s3://bucket/motion --workers 4 --gpus-per-worker 1

The loop itself is `motionsynth.training`; here it gets its clips, its rank and a place for its checkpoints. Draws
train side by side as far as the CPUs (or GPUs) reach. Checkpoints are ours, not Ray's: verified, resumable on any
number of workers, and never unpickled. An interrupted training goes on to its next checkpoint, then ends.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.connect import Connection, plan_resources, room
from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.recipes import Recipe, with_clips_seen
from rayjobs import cli, experiment, telemetry, units
from rayjobs.board import Board
from rayjobs.progress import Progress
from storage import Storage
from storage.checkpoints import (
    CheckpointInfo,
    latest_checkpoint,
    list_checkpoints,
    load_state,
    read_config,
    save_checkpoint,
    step_prefix,
)  # fmt: skip

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
"""Times that a worker group is started again from its last checkpoint when a worker dies."""
POLL_SECONDS = 2.0
KEPT = 2
"""Checkpoints kept per bed: the last, and one before it in case that one is damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Train the recipe's generator on each draw.

    Attributes:
        workers: Processes per training; each takes its share of every batch.
        gpus_per_worker: 0 trains on CPUs; a fraction shares a GPU.
        steps: Steps of stage 1 (default: the recipe's).
        clips_seen: Real clips that each generator sees in its training (default: by the recipe's steps): an equal
            budget for generators of different batches.
    """

    workers: int = 1
    gpus_per_worker: float = 0.0
    steps: int = 0
    clips_seen: int = 0


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `train`."""
    storage = options.open_storage()
    recipe = with_steps(options.chosen(storage), options.steps, options.clips_seen)
    result = train(
        storage, options.dataset, options.run, recipe, lambda: options.connect(storage),
        workers=options.workers, gpus_per_worker=options.gpus_per_worker,
    )  # fmt: skip
    report(result)
    return result


def with_steps(recipe: Recipe, steps: int, clips_seen: int = 0) -> Recipe:
    """The recipe, and all that it is compared with, trained for longer or shorter; 0 and 0 keep their own.

    Raises:
        InputError: both are given, or the budget is too small.
    """
    if steps and clips_seen:
        raise InputError(
            f"--steps {steps} and --clips-seen {clips_seen} both set the training's length; give one."
        )
    if clips_seen:
        return with_clips_seen(recipe, clips_seen)
    if not steps:
        return recipe
    longer = lambda r: replace(r, training=replace(r.training, steps=steps))  # noqa: E731
    return replace(longer(recipe), compared=tuple(longer(r) for r in recipe.compared))


def finished_checkpoint(storage: Storage, prefix: str) -> CheckpointInfo | None:
    """The last checkpoint of a training that reached its end, None while there is none."""
    for info in reversed(list_checkpoints(storage, f"{prefix}/checkpoints")):
        if read_config(storage, info.prefix).get("finished"):
            return info
    return None


def train(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    connect: Any,
    *,
    workers: int = 1,
    gpus_per_worker: float = 0.0,
) -> dict[str, Any]:
    """Train on every bed of the recipe, and of those it is compared with, that has no finished checkpoint yet.

    Args:
        storage, dataset, run: Where.
        recipe: What.
        connect: Called only if there is work to do: starts or joins Ray.
        workers: Processes per training.
        gpus_per_worker: GPUs of each.

    Returns:
        For each bed: prefix, steps and last metrics.

    Raises:
        InputError: the workers do not fit, the data cannot be used, or the run was trained with other settings.
        JobError: trainings failed; the others are finished.
    """
    began = time.monotonic()
    most = min(r.training.batch for r in recipe.each)
    if not 1 <= workers <= most:
        raise InputError(
            f"The number of workers is {workers}; it must be from 1 to the batch of {most} clips, of which each worker "
            "takes its share."
        )
    wanted = [(one, bed) for one in recipe.each for bed in one.beds]
    todo = []
    for one, bed in wanted:
        prefix = experiment.bed_prefix(run, dataset, bed, one.generator)
        _refuse_other_settings(storage, prefix, dataset, run, bed, one)
        if finished_checkpoint(storage, prefix) is None:
            experiment.load_bed(storage, dataset, bed)  # bad input must show before anything starts
            todo.append((one, bed))
    if todo:
        _run_all(storage, dataset, run, todo, connect(), workers, gpus_per_worker)
    beds = []
    for one, bed in wanted:
        prefix = experiment.bed_prefix(run, dataset, bed, one.generator)
        info = finished_checkpoint(storage, prefix)
        if info is None:
            raise cli.JobError(f"Training on {bed.key} did not finish; run the same command again to go on.")
        config = read_config(storage, info.prefix)
        beds.append(
            {
                "bed": bed.key, "generator": one.generator, "checkpoint": info.prefix, "step": info.step,
                "clips_seen": info.step * one.training.batch, "metrics": config["metrics"],
            }
        )  # fmt: skip
    return {"beds": beds, "trained": len(todo), "seconds": round(time.monotonic() - began, 2)}


def _refuse_other_settings(
    storage: Storage, prefix: str, dataset: str, run: str, bed: BedSpec, recipe: Recipe
) -> None:
    """A checkpoint of other settings must neither be gone on from nor pass for the result of these."""
    for info in list_checkpoints(storage, f"{prefix}/checkpoints")[-1:]:
        config = read_config(storage, info.prefix)
        if config.get("data") != experiment.data_digest(storage, dataset):
            raise InputError(
                f"Run '{run}' already holds a training on {bed.key} with other clips: dataset '{dataset}' has been "
                "prepared anew since; choose another --run."
            )
        for part, now in (("training", recipe.training), ("generator_config", recipe.generator_config)):
            had, want = config.get(part, {}), json.loads(json.dumps(asdict(now)))
            # How often it reports does not change a training; a setting that is new in the code has no other value.
            differ = [k for k in want if k in had and had[k] != want[k] and k != "report_every"]
            if differ:
                listed = ", ".join(f"{k} {had[k]} there, {want[k]} now" for k in differ)
                raise InputError(
                    f"Run '{run}' already holds a training on {bed.key} with other settings ({listed}); give the same "
                    "settings, or choose another --run."
                )


def trainings_at_once(connection: Connection, trainings: int, workers: int, gpus_per_worker: float) -> int:
    """Trainings that run side by side; checked against what Ray has."""
    at_once = max(1, min(trainings, room(connection, gpus_each=gpus_per_worker) // max(workers, 1)))
    # Train's controllers and drivers, and the actor that counts steps, hold no CPU.
    logger.info(
        plan_resources(
            actors=at_once * workers, cpus_per_actor=1, gpus_per_actor=gpus_per_worker, tasks=0, cpus=connection.cpus,
            gpus=connection.gpus,
        )
    )  # fmt: skip
    return at_once


def _run_all(
    storage: Storage, dataset: str, run: str, todo: list[tuple[Recipe, BedSpec]], connection: Connection, workers: int,
    gpus_per_worker: float,
) -> None:  # fmt: skip
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    at_once = trainings_at_once(connection, len(todo), workers, gpus_per_worker)
    names = ", ".join(dict.fromkeys(recipe.generator for recipe, _ in todo))
    print(
        f"training {names} on {len(todo)} draws, {at_once} at a time, {workers} workers each",
        flush=True,
    )
    # Train's driver only waits, so it holds no CPU: a CPU held by a waiting driver is one that its workers never get.
    fit_one = ray.remote(num_cpus=0, max_retries=2)(_fit_one)
    keep_one = ray.remote(num_cpus=1, max_retries=MAX_FAILURES)(_keep_one)
    # Beside this driver, so that no node which can be lost without the driver takes it along.
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    steps: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Steps).remote()
    total = sum(recipe.training.steps + recipe.training.rare_steps for recipe, _ in todo)
    waiting = list(todo)
    running: dict[Any, tuple[str, str]] = {}
    failed = []
    board = Board(storage, experiment.run_prefix(run, dataset), "train")
    with Progress("train", total, "steps", at_once=at_once, board=board) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    recipe, bed = waiting.pop(0)
                    what = (storage, dataset, run, recipe, bed, steps)
                    ref = (
                        fit_one.remote(*what, workers, gpus_per_worker)
                        if recipe.learns
                        else keep_one.remote(*what)
                    )
                    running[ref] = (recipe.generator, bed.key)
                progress.hold({f"{generator} on {key}": "" for generator, key in running.values()})
                done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for ref in done:
                    generator, key = running.pop(ref)
                    try:
                        ray.get(ref)
                    except Exception as e:
                        cause = [line for line in str(e).splitlines() if line.strip()]
                        failed.append(f"{generator} on {key}: {cause[-1] if cause else type(e).__name__}")
                        progress.fail(f"{generator} on {key}", failed[-1])
                known: Any = ray.get(steps.all.remote())
                now = sum(known.values())
                if now > progress.done:
                    progress.advance(now - progress.done)
        except KeyboardInterrupt:
            if not progress.stalled:
                _await_checkpoints(running, steps)
            raise
    if failed:
        raise cli.JobError("Trainings failed; the others are kept:\n" + "\n".join(f"  {f}" for f in failed))


def _await_checkpoints(running: Mapping[Any, tuple[str, str]], steps: Any) -> None:
    """After an interrupt: until each running training has reported again, since it saves a checkpoint before it does.

    Without this a stop would cost what was trained since the last report, which can be many minutes. A second
    interrupt, or `cli.STOP_SECONDS`, ends the wait.
    """
    import ray

    cli.interrupt_heard()
    before: Any = ray.get(steps.all.remote())
    left = dict(running)
    print(
        f"stopping at the next checkpoint of {len(left)} trainings; interrupt again to stop at once",
        flush=True,
    )
    end = time.monotonic() + cli.STOP_SECONDS
    while left and time.monotonic() < end:
        ended, _ = ray.wait(list(left), timeout=POLL_SECONDS)
        now: Any = ray.get(steps.all.remote())
        left = {r: t for r, t in left.items() if r not in ended and now.get(t, 0) <= before.get(t, 0)}
    if left:
        print(f"{len(left)} trainings saved none in {cli.STOP_SECONDS} s", flush=True)


class _Steps:
    """An actor that knows how far each training is: Train's own reports reach its controller only."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], int] = {}

    def set(self, training: tuple[str, str], step: int) -> None:
        self.at[training] = max(step, self.at.get(training, 0))

    def all(self) -> dict[tuple[str, str], int]:
        return self.at


def _fit_one(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    bed: BedSpec,
    steps: Any,
    workers: int,
    gpus_per_worker: float,
) -> None:
    """One TorchTrainer, to its end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, root = storage.sub(f"{experiment.run_prefix(run, dataset)}/ray").filesystem()
    resources: dict[str, float] = {"CPU": 1}
    if gpus_per_worker:
        resources["GPU"] = gpus_per_worker
    TorchTrainer(
        _loop,
        train_loop_config={
            "storage": storage,
            "dataset": dataset,
            "run": run,
            "recipe": recipe,
            "bed": bed,
            "steps": steps,
        },  # fmt: skip
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"{recipe.generator}-{bed.key}-{int(time.time())}",
            storage_path=root,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_no_second_try()],
        ),
    ).fit()


def _keep_one(storage: Storage, dataset: str, run: str, recipe: Recipe, bed: BedSpec, steps: Any) -> None:
    """The one step of a generator that learns nothing, which Ray Train would take many times as long to start."""
    import torch

    torch.set_num_threads(1)  # as in `_loop`

    def tell(metrics: dict[str, float]) -> None:
        steps.set.remote((recipe.generator, bed.key), int(metrics["step"]))

    run_loop(storage, dataset, run, recipe, bed, tell=tell)


def _no_second_try() -> Any:
    """A callback that ends a training whose input is at fault, which Ray would start again `MAX_FAILURES` times."""
    from ray.train import UserCallback

    class NoSecondTry(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            for error in worker_exceptions.values():
                cause = getattr(error, "_base_exc", error)
                if isinstance(cause, InputError):
                    raise cause  # what a callback raises is final

    return NoSecondTry()


def _loop(config: Mapping[str, Any]) -> None:
    """What each Train worker runs."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    # One thread: the same sums on every machine, and as many processes as cores.
    torch.set_num_threads(1)
    context = ray.train.get_context()
    device = get_device()

    def tell(metrics: dict[str, float]) -> None:
        if context.get_world_rank() == 0:
            config["steps"].set.remote((config["recipe"].generator, config["bed"].key), int(metrics["step"]))
        ray.train.report(metrics)

    run_loop(
        config["storage"], config["dataset"], config["run"], config["recipe"], config["bed"],
        rank=context.get_world_rank(), world=context.get_world_size(), device=device, tell=tell,
    )  # fmt: skip


def run_loop(
    storage: Storage, dataset: str, run: str, recipe: Recipe, bed: BedSpec, *, rank: int = 0, world: int = 1,
    device: Any = "cpu", tell: Any = None, until: int = 0, start: str = "",
) -> None:  # fmt: skip
    """Train one bed to its end, from its last checkpoint if there is one. Needs no Ray.

    Args:
        storage, dataset, run, recipe, bed: What and where.
        rank, world: Of this process; `torch.distributed` must be initialised if world is above 1.
        device: Where the networks live.
        tell: Called on every rank with the metrics of each report.
        until: Step at which this training counts as finished (0: its last).
        start: Prefix of a checkpoint from which a training without one of its own goes on.
    """
    with units.unit("training", f"{recipe.generator} on {bed.key}"):
        _run_loop(storage, dataset, run, recipe, bed, rank, world, device, tell, until, start)


def _run_loop(
    storage: Storage, dataset: str, run: str, recipe: Recipe, bed: BedSpec, rank: int, world: int, device: Any,
    tell: Any, until: int, start: str,
) -> None:  # fmt: skip
    import torch

    from motionsynth.generators import build_generator, fit_context
    from motionsynth.training import Trainer, fit

    prefix = experiment.bed_prefix(run, dataset, bed, recipe.generator)
    clips = experiment.load_bed(storage, dataset, bed)
    torch.manual_seed(bed.seed)
    context = fit_context(clips.train, clips.rare if bed.scarcity != "full" else ())
    generator = build_generator(recipe.generator, recipe.generator_config, context).to(device)
    trainer = Trainer(generator, clips.train, recipe.training, seed=bed.seed, rank=rank, world=world)
    last = latest_checkpoint(storage, f"{prefix}/checkpoints")
    origin = last.prefix if last is not None else start
    if origin and (state := load_state(storage, origin)) is not None:
        trainer.load_state(state)
        logger.info("%s goes on from step %d.", bed.key, trainer.step)
    board = _Board(storage, prefix, trainer.step) if rank == 0 else None
    data = experiment.data_digest(storage, dataset)
    counted = trainer.step
    for r in fit(trainer, until):
        if board is not None:
            board.add(r.step, r.metrics)
            config = {
                "generator": recipe.generator,
                "generator_config": asdict(recipe.generator_config),
                "context": context.to_dict(),
                "training": asdict(recipe.training),
                "bed": asdict(bed),
                "data": data,
                "finished": r.step == r.end,
                "metrics": r.metrics,
            }
            tensors = trainer.averaged_generator().state_dict()
            save_checkpoint(storage, step_prefix(f"{prefix}/checkpoints", r.step), tensors, config, r.state())
            _drop_old(storage, f"{prefix}/checkpoints")
            telemetry.count("training_steps", r.step - counted, generator=recipe.generator)
            counted = r.step
        if tell is not None:
            tell({"step": r.step, **r.metrics})


def _drop_old(storage: Storage, prefix: str) -> None:
    for info in list_checkpoints(storage, prefix)[:-KEPT]:
        # config.json first: a checkpoint without it does not exist, so none is ever seen half deleted.
        storage.delete(f"{info.prefix}/config.json")
        for o in storage.list(info.prefix):
            storage.delete(o.key)


class _Board:
    """TensorBoard events, copied to storage at every report (a running event file cannot live on S3)."""

    def __init__(self, storage: Storage, prefix: str, step: int) -> None:
        # Not SummaryWriter: it writes from a thread of its own, for which its flush() does not wait.
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = tempfile.TemporaryDirectory()
        self.writer = EventsWriter(f"{self.folder.name}/events", f".{step}")
        self.storage, self.prefix = storage, f"{prefix}/tensorboard"

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        for name, value in metrics.items():
            self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self.writer.flush()
        for path in Path(self.folder.name).iterdir():
            self.storage.write(f"{self.prefix}/{path.name}", path.read_bytes())


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    for bed in result["beds"]:
        terms = "  ".join(
            f"{k.split('/')[-1]} {v:.3f}" for k, v in bed["metrics"].items() if not k.startswith("critic")
        )
        seen = f"{bed['generator']} on {bed['bed']}: step {bed['step']}, {bed['clips_seen']:,} clips seen"
        print(f"{seen}  {terms}".rstrip())
    print(f"trained {result['trained']} of {len(result['beds'])} draws in {result['seconds']:.0f} s")


if __name__ == "__main__":
    cli.main(Options, verb)
