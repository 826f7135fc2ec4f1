"""What one trial is: train, generate, refine, score on validation people, by the same functions as the jobs.

Everything is stored under a hash of what decides it (below `runs/tune-HASH`), so that nothing is computed twice: a
trial that differs in its mixing alone takes generator and clips of another one, and a trial that was killed goes on
from the last checkpoint. All trials share draws and seeds (common random numbers), and with them the strong real arm.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from motionsynth.beds import Bed, BedSpec
from motionsynth.generators import sampling_fields
from motionsynth.metrics_gain import paired_interval
from motionsynth.protocol import REFINED, ScoreRecord
from motionsynth.recipes import Recipe
from rayjobs import cli, experiment, refine, score, train
from rayjobs.generate_beds import generate_beds
from storage import Storage
from tuning.space import Axis, applied
from tuning.study import METRICS, lacking

STRONG = "tune-strong"
"""Run of what belongs to no trial alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all trials of a search share.

    Attributes:
        storage, dataset: Where.
        recipe: Before any setting is changed; its beds and seeds are those of every trial. `full` is off.
        rungs: Shares of the training after which a trial is judged, rising to 1.
        metric: What the search maximises, of `METRICS`.
        refined: Judge refined clips.
        gpu: Whether generators train and sample on a GPU.
    """

    storage: Storage
    dataset: str
    recipe: Recipe
    rungs: tuple[float, ...] = (1.0,)
    metric: str = "rare_ap"
    refined: bool = False
    gpu: bool = False

    @property
    def arm(self) -> str:
        """The arm that is judged."""
        return f"{REFINED if self.refined else ''}{self.recipe.generator}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A stretch of a generator's training under one set of values: population-based training changes them between.

    Attributes:
        values: Settings, by axis.
        until: Share of the training at its end.
    """

    values: Mapping[str, Any]
    until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What a trial came to at a rung.

    Attributes:
        fraction: Share of the training.
        steps: Generator's steps so far.
        rare_recall, rare_ap, macro: Means over draws and seeds, in [0, 1].
        gain: The job's metric over the strong real arm in points, paired by draw and seed: mean, lo, hi, n.
        runs: Of each draw and seed: recogniser, bed, seed, the metrics, and the job's metric of the strong real arm.
        trained: Recognisers that were trained for this rung; with 0 all of it lay in storage already.
        seconds: Spent on this rung.
        clips: Run that holds its clips.
    """

    fraction: float
    steps: int
    rare_recall: float
    rare_ap: float
    macro: float
    gain: Mapping[str, float]
    runs: Sequence[Mapping[str, Any]]
    trained: int
    seconds: float
    clips: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return cli.plain(asdict(self))


def evaluate(job: Job, values: Mapping[str, Any], past: Sequence[Segment] = ()) -> Iterator[Judged]:
    """Run one trial, rung by rung.

    Args:
        job: What it shares with the others.
        values: Its settings.
        past: How the generator that it goes on with was trained so far.

    Yields:
        What it came to at every rung that `past` does not cover.

    Raises:
        InputError: the recipe cannot take the values, a loss term is no longer finite, or every clip was refused.
    """
    recipe = applied(job.recipe, values)
    done = past[-1].until if past else 0.0
    for fraction in (f for f in job.rungs if f > done):
        began = time.perf_counter()
        past = (*past, Segment(values=values, until=fraction))
        steps = _train(job, past)
        run = _clips(job, recipe, _name(job, past))
        yield _judge(job, recipe, run, fraction, steps, time.perf_counter() - began)


def confirm(
    job: Job,
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    seeds: int,
    connect: Callable[[], Any],
) -> list[Judged]:
    """Judge trials again, by recognisers of seeds that the search has not seen, over all workers.

    The best of many trials is one whose seeds were kind to it; new ones are kind to nobody in particular.

    Args:
        job: What the trials share.
        trials: Of each its settings and its last rung, as recorded.
        seeds: New ones, for each draw.
        connect: Called only if there is a recogniser to train.
    """
    first = job.recipe.scores[0].seeds
    more = replace(job.recipe, scores=(replace(job.recipe.scores[0], seeds=first + seeds),))
    recipes = [applied(more, values) for values, _ in trials]
    tasks = [
        pair
        for recipe, (_, reached) in zip(recipes, trials, strict=True)
        for pair in _tasks(job, recipe, reached["clips"], first)
    ]
    if todo := score.missing(job.storage, job.dataset, tasks):
        workers = score.pool_size(connect(), len(todo))
        score.train_tasks(job.storage, job.dataset, STRONG, todo, workers)
    return [
        _judge(job, recipe, reached["clips"], reached["fraction"], reached["steps"], 0.0, from_seed=first)
        for recipe, (_, reached) in zip(recipes, trials, strict=True)
    ]


def strong_arm(job: Job, connect: Callable[[], Any]) -> None:
    """Train the real arm that every trial is compared with, once, over all workers.

    Raises:
        JobError: its records were made before the metric was part of them.
    """
    score.score(job.storage, job.dataset, STRONG, job.recipe, connect, only=("strong",))
    tasks = score.plan_tasks(job.storage, job.dataset, STRONG, job.recipe, ("strong",))
    _check_metric(job, score.stored_records(job.storage, job.dataset, tasks))


def trains_apart(job: Job, axes: Sequence[Axis]) -> bool:
    """Whether the axes leave the generator's training alone, so that all trials share one."""
    ends = lambda a: a.choices or (a.value(0.0), a.value(1.0))  # noqa: E731
    names = {
        _name(job, [Segment(values={a.name: v}, until=1.0)]) for a in axes for v in (a.default, *ends(a))
    }
    return len(names) == 1


def train_once(job: Job, connect: Callable[[], Any]) -> None:
    """Train the generator that all trials share, by the ordinary job."""
    run = _name(job, [Segment(values={}, until=1.0)])
    gpus = float(job.gpu)
    train.train(job.storage, job.dataset, run, job.recipe, connect, gpus_per_worker=gpus)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _name(job: Job, past: Sequence[Segment]) -> str:
    """Run of a generator: all that decides its weights."""
    data = experiment.data_digest(job.storage, job.dataset)
    lineage = []
    for segment in past:
        lineage.append([*what_trains(applied(job.recipe, segment.values)), segment.until])
    return f"tune-{_digest(data, job.recipe.generator, lineage)}"


def what_trains(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of a recipe that decides a generator's weights: its settings without those of sampling, and its training."""
    unused = sampling_fields(recipe.generator)
    config = {k: v for k, v in asdict(recipe.generator_config).items() if k not in unused}
    return config, {k: v for k, v in asdict(recipe.training).items() if k != "report_every"}


def what_samples(recipe: Recipe) -> dict[str, Any]:
    """The generator's settings that sampling alone reads, as JSON has them."""
    fields = {f: getattr(recipe.generator_config, f) for f in sampling_fields(recipe.generator)}
    return json.loads(json.dumps(fields))


def _steps(recipe: Recipe, share: float) -> int:
    whole = recipe.training.steps + recipe.training.rare_steps
    return max(1, round(share * whole))


def _train(job: Job, past: Sequence[Segment]) -> int:
    """Train the last segment on every bed; returns the steps taken in all."""
    recipe = applied(job.recipe, past[-1].values)
    until = _steps(recipe, past[-1].until)
    run = _name(job, past)
    for bed in recipe.beds:
        prefix = partial(experiment.bed_prefix, dataset=job.dataset, bed=bed, generator=recipe.generator)
        if train.finished_checkpoint(job.storage, prefix(run)):
            continue
        start = ""
        if len(past) > 1:
            before = train.finished_checkpoint(job.storage, prefix(_name(job, past[:-1])))
            if before is None:
                raise cli.JobError(
                    f"The training that a trial goes on with is gone ({bed.key}); search anew."
                )
            start = before.prefix
        train.run_loop(
            job.storage, job.dataset, run, recipe, bed, device="cuda" if job.gpu else "cpu", until=until, start=start
        )  # fmt: skip
    return until


def _clips(job: Job, recipe: Recipe, trained: str) -> str:
    """Generate and refine on every bed, in this process; returns the run that holds the clips."""
    sampling = what_samples(recipe)
    parts = [trained, sampling, recipe.synthetic_per_class]
    if job.refined:
        parts.append(asdict(recipe.refine))
    run = f"tune-{_digest(*parts)}"
    generate_beds(
        job.storage, job.dataset, run, recipe, None, gpus_per_actor=float(job.gpu), trained=trained,
        sampling=sampling, previews=False,
    )  # fmt: skip
    if job.refined:
        for bed in recipe.beds:
            if refine.graded(job.storage, job.dataset, run, bed, recipe.generator) is None:
                refine.refine_bed(job.storage, job.dataset, run, recipe.refine, bed, [recipe.generator])
    return run


def _tasks(job: Job, recipe: Recipe, run: str, from_seed: int = 0) -> list[tuple[score.Task, Bed]]:
    """Recognisers of the real arm and of that which is judged, on the clips of a run."""
    tasks = score.plan_tasks(job.storage, job.dataset, run, recipe, ("strong", job.arm.split(":")[0]))
    return [(t, bed) for t, bed in tasks if t.arm in ("strong", job.arm) and t.seed >= from_seed]


def _judge(
    job: Job, recipe: Recipe, run: str, fraction: float, steps: int, seconds: float, from_seed: int = 0
) -> Judged:
    began = time.perf_counter()
    tasks = _tasks(job, recipe, run, from_seed)
    prefix = experiment.scores_prefix(job.dataset)
    scorer = score.Scorer(job.storage, job.dataset, prefix)
    todo = score.missing(job.storage, job.dataset, tasks)
    for task in todo:
        scorer.run(task)
    records = score.stored_records(job.storage, job.dataset, tasks)
    _check_metric(job, records)
    strong = {(r.recogniser, r.bed, r.seed): getattr(r, job.metric) for r in records if r.arm == "strong"}
    mine = [r for r in records if r.arm == job.arm]
    pairs = [(r, strong[r.recogniser, r.bed, r.seed]) for r in mine]
    gain = paired_interval(100 * np.array([getattr(r, job.metric) - s for r, s in pairs]))
    return Judged(
        fraction=fraction,
        steps=steps,
        **{m: float(np.mean([getattr(r, m) for r in mine])) for m in METRICS},
        gain=asdict(gain),
        runs=[
            {
                "recogniser": r.recogniser,
                "bed": r.bed,
                "seed": r.seed,
                **{m: getattr(r, m) for m in METRICS},
                "strong": s,
            }
            for r, s in pairs
        ],
        trained=len(todo),
        seconds=round(seconds + time.perf_counter() - began, 2),
        clips=run,
    )


def _check_metric(job: Job, records: Sequence[ScoreRecord]) -> None:
    # No `InputError`: that says of a trial that its settings are bad.
    if said := lacking(records, job.metric):
        raise cli.JobError(said)


def trial_seconds(job: Job) -> dict[str, float]:
    """How long one trial with the recipe's own settings takes in one process, by stage; from a few steps of each.

    {} where trials run on GPUs and this machine has none to measure on.

    Raises:
        InputError: the clips cannot be trained on.
    """
    import torch

    from motionsynth.arms import BedTensors
    from rayjobs import calibrate

    if job.gpu and not torch.cuda.is_available():
        return {}
    recipe = job.recipe
    spec: BedSpec = recipe.beds[0]
    bed = experiment.load_bed(job.storage, job.dataset, spec)
    cost, _ = calibrate.training(recipe, bed, "cuda" if job.gpu else "cpu")
    tensors = BedTensors.of(bed)
    judging = sum(
        calibrate.recogniser(plan.training, tensors).seconds(plan.training.steps) * plan.seeds
        for plan in recipe.scores
    )
    beds = len(recipe.beds)
    return {
        "train": cost.seconds(_steps(recipe, 1.0)) * beds,
        "score": judging * beds * len(job.rungs),
    }
