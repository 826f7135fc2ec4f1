"""Search a recipe's loss weights and mixing for what teaches a recogniser the rare classes of validation people best.

    python -m tuning.search --dataset nucla --recipe motion_gan_fast --trials 40 --storage out --run weights
    python -m tuning.search --dataset nucla --only mixing --vary synthetic_per_class=30,120,480 --storage out --run mix
    python -m tuning.report --storage out --run weights          the table, pictures and the winner as a recipe file

Trials are judged by the recipe's first recogniser, or --recogniser. Trial 0 is the recipe as it is. The same command
again goes on where an interrupted search stopped. The study lies under `studies/RUN`; what its trials made under
`runs/tune-*`, by content, for the next study to use.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ray.tune.schedulers import PopulationBasedTraining

from cluster.connect import Connection, cores, plan_resources
from motionsynth.errors import InputError
from motionsynth.recipe_files import recipe_to_dict
from motionsynth.recipes import get_recipe
from rayjobs import cli, experiment, score, train
from rayjobs.progress import Progress
from storage import ConflictError, Storage
from storage.header import canonical_json
from storage.revision import git_revision
from tuning import report
from tuning.objective import Job, strong_arm, train_once, trains_apart, trial_seconds
from tuning.space import GROUPS, Axis, derive, setting, varied
from tuning.study import FORMER_METRIC, METRICS, ROOT, STUDY
from tuning.trials import VALUE, Halving, Recorder, confirm_best, load_records, make_trainable, reached_end

logger = logging.getLogger(__name__)

ALGORITHMS = ("tpe", "random", "pbt")
MAX_FAILURES = 3
"""Times that a trial whose process dies is started again; it goes on from its last checkpoint."""
RANDOM_FIRST = 10
"""Random trials before the model of TPE decides (fewer where a quarter of all trials are fewer)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(score.Options):
    """Search a recipe's settings on validation people.

    Attributes:
        trials: Settings that are tried; the first is the recipe as it is.
        minutes: Stop trials after so long (0: when all are done); the same command with more minutes goes on.
        metric: What is maximised: rare_ap (mean average precision of the rare classes, by how clips are ranked),
            rare_recall (which also rises where rare classes are named more readily), or macro (mean recall of all).
        algorithm: tpe (Optuna's tree-structured Parzen estimator), random, or pbt (population-based training).
        only: Groups of settings, joined by commas: weights (of the loss), mixing (of real and synthetic clips),
            refining (with --refined). Default: weights,mixing, and refining with --refined.
        vary: Settings as NAME=LOW:HIGH or NAME=A,B,C, besides or in place of those of --only; NAME=VALUE fixes one.
            NAME is loss_weights.TERM, a field of the recogniser's training, or a path in a recipe file.
        rungs: Times that a trial is judged, the last time at its whole training; those that are behind stop early.
        reduction: Each rung trains so many times as long as the one before, and lets one in so many go on.
        steps: Steps of a generator's stage 1 (default: the recipe's). Shorter searches are cheaper and less certain.
        clips_seen: Real clips that each generator sees in its training (default: by the recipe's steps).
        at_once: Trials at a time (default: as many as fit).
        cpus_per_trial: CPUs that each holds.
        gpus_per_trial: GPUs that each holds; a fraction lets several share one.
        confirm: So many of the best trials, and the recipe as it is, are judged again by new seeds of the recogniser.
            The best by these is the winner: the best of many trials owes much of its lead to chance. 0: none.
        confirm_seeds: New seeds for each draw (default: as many as the recipe scores with).
        resume: Refuse to start a new study: go on with that of this name.
    """

    trials: int = 20
    minutes: float = 0.0
    metric: str = "rare_ap"
    algorithm: str = "tpe"
    only: str = ""
    vary: tuple[str, ...] = ()
    rungs: int = 2
    reduction: int = 3
    steps: int = 0
    clips_seen: int = 0
    at_once: int = 0
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    confirm: int = 4
    confirm_seeds: int = 0
    resume: bool = False


def verb(options: Options) -> dict[str, Any]:
    """Run or go on with a search; see the module."""
    storage = options.open_storage()
    job, axes = planned(options, storage)
    study = study_of(options, job, axes)
    name = options.run
    new = check_study(storage, name, study, options.resume)
    finished = [r for r in load_records(storage, name) if r.get("ended")]
    if len(finished) < options.trials:
        seconds = trial_seconds(job)
        each = sum(seconds.values())
        said = ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items())
        if options.minutes and each > 60 * options.minutes:
            raise InputError(
                f"One trial takes about {each / 60:.1f} minutes in one process ({said}) and the budget is "
                f"{options.minutes:g}; raise --minutes, or lower --steps, --draws or --seeds."
            )
        connection = options.connect(storage)
        at_once = _at_once(options, connection)
        print(f"{options.trials} trials over {len(axes)} settings, {at_once} at a time", flush=True)
        if each:
            hours = each * options.trials / at_once / 3600
            print(
                f"one takes at most about {each / 60:.1f} minutes ({said}), all {hours:.1f} hours", flush=True
            )
        if options.confirm:
            seeds = _new_seeds(options)
            more = f"the best {options.confirm} and the default are then judged again by {seeds} new seeds of each draw"
            if each:
                one_seed = seconds["score"] / len(job.rungs) / job.recipe.scores[0].seeds
                settings = options.confirm + 2  # the default, and the real arm
                more += f", at most about {one_seed * seeds * settings / at_once / 60:.1f} minutes"
            print(more, flush=True)
        if new:
            begin_study(storage, name, study)
        strong_arm(job, lambda: connection)
        if trains_apart(job, axes):
            train_once(job, lambda: connection)
        _search(options, storage, job, axes, at_once)
    records = load_records(storage, name)
    if not any(map(reached_end, records)):
        listed = "\n".join(f"  {said}" for said in sorted({r["error"] for r in records if r["error"]}))
        raise cli.JobError(f"No trial came to its end; the same command goes on.\n{listed}".rstrip())
    if options.confirm and sum(r["ended"] for r in records) >= options.trials:
        confirm_best(job, name, options.confirm, _new_seeds(options), lambda: options.connect(storage))
    result = report.write_report(storage, name)
    print(result.pop("text"))
    return result


def _new_seeds(options: Options) -> int:
    """Seeds by which the best trials are judged again."""
    whole = score.with_scores(get_recipe(options.recipe), options.recogniser, 0)
    return options.confirm_seeds or whole.scores[0].seeds


def planned(options: Options, storage: Storage) -> tuple[Job, tuple[Axis, ...]]:
    """What is searched and over which settings.

    Raises:
        InputError: options out of range, unknown settings, or nothing left to search.
    """
    for what in ("trials", "rungs", "cpus_per_trial"):
        if getattr(options, what) < 1:
            raise InputError(
                f"--{what.replace('_', '-')} is {getattr(options, what)}; it must be at least 1."
            )
    if options.reduction < 2:
        raise InputError(f"--reduction is {options.reduction}; it must be at least 2.")
    for what in ("minutes", "at_once", "gpus_per_trial", "confirm", "confirm_seeds"):
        if not 0 <= getattr(options, what) < math.inf:
            raise InputError(
                f"--{what.replace('_', '-')} is {getattr(options, what)}; it must be at least 0."
            )
    if options.algorithm not in ALGORITHMS:
        raise InputError(f"Unknown algorithm '{options.algorithm}'. Known: {', '.join(ALGORITHMS)}.")
    if options.metric not in METRICS:
        raise InputError(f"Unknown metric '{options.metric}'. Known: {', '.join(METRICS)}.")
    if options.split != "validation":
        raise InputError(
            "A search reads validation people only; `python -m tuning.report --test` reads the test half, once."
        )
    if options.arms or options.workers:
        raise InputError("A search has no --arms and no --workers; trials at a time are --at-once.")
    if experiment.is_hybrid(storage, options.dataset):
        raise InputError(f"'{options.dataset}' brings its own synthetic clips; search on the real dataset.")
    recipe = score.with_scores(options.chosen(storage), options.recogniser, options.seeds, options.training)
    # The first recogniser is the fast one; the others confirm what it found.
    recipe = replace(recipe, full=False, scores=recipe.scores[:1])
    recipe = train.with_steps(recipe, options.steps, options.clips_seen)
    if recipe.compared:
        raise InputError(f"A search is over one recipe; got '{options.recipe}'.")
    if recipe.bed.scarcity == "full":
        raise InputError(
            "With --scarcity full no class is rare, so there is nothing to maximise; choose another."
        )
    groups = [g.strip() for g in options.only.split(",")] if options.only else ["weights", "mixing"]
    if options.refined and not options.only:
        groups.append("refining")
    if "refining" in groups and not options.refined:
        raise InputError("--only refining searches how clips are refined; add --refined.")
    axes, recipe = varied(recipe, derive(recipe, groups), _pairs(options.vary))
    if not axes:
        raise InputError(
            f"Nothing is left to search; groups are {', '.join(GROUPS)}, or give --vary NAME=LOW:HIGH."
        )
    experiment.load_bed(storage, options.dataset, recipe.beds[0])
    rungs = tuple(float(options.reduction) ** (i + 1 - options.rungs) for i in range(options.rungs))
    job = Job(
        storage=storage, dataset=options.dataset, recipe=recipe, rungs=rungs, metric=options.metric,
        refined=options.refined, gpu=options.gpus_per_trial > 0,
    )  # fmt: skip
    if trains_apart(job, axes):
        job = replace(job, rungs=(1.0,))  # all trials share one generator: nothing to stop early
    if options.algorithm == "pbt" and len(job.rungs) < 2:
        raise InputError(
            "pbt changes settings in the middle of a generator's training: give --rungs of at least 2, and search "
            "at least one setting of the training."
        )
    return job, axes


def _pairs(given: Sequence[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for entry in given:
        name, sign, text = entry.partition("=")
        if not (name and sign and text) or name in out:
            raise InputError(
                f"--vary has '{entry}'; it must be NAME=LOW:HIGH, NAME=A,B,C or NAME=VALUE, each name once."
            )
        out[name] = text
    return out


def study_of(options: Options, job: Job, axes: Sequence[Axis]) -> dict[str, Any]:
    """The study as it is stored: all that decides its trials."""
    # The winner is to be a recipe of full length, whatever length the search could afford.
    whole = get_recipe(options.recipe)
    return {
        "dataset": job.dataset,
        "data": experiment.data_digest(job.storage, job.dataset),
        "recipe": options.recipe,
        "base": recipe_to_dict(whole),
        "searched": recipe_to_dict(job.recipe),
        "axes": [a.to_dict() for a in axes],
        "fixed": {n: setting(job.recipe, n) for n in _pairs(options.vary) if n not in {a.name for a in axes}},
        "rungs": list(job.rungs),
        "reduction": options.reduction,
        "refined": job.refined,
        "metric": job.metric,
        "algorithm": options.algorithm,
        "seed": options.seed,
    }


def check_study(storage: Storage, name: str, study: dict[str, Any], resume: bool) -> bool:
    """Whether a study is new; refuses what must not be gone on with.

    Raises:
        InputError: `resume` and there is none.
        ConflictError: another study has the name.
    """
    key = f"{ROOT}/{name}/{STUDY}"
    if not storage.exists(key):
        if resume:
            raise InputError(f"There is no study '{name}' to resume; leave out --resume to start it.")
        return True
    had, now = (
        {"metric": FORMER_METRIC} | json.loads(storage.read(key)),
        json.loads(canonical_json(cli.plain(study))),
    )
    for recipe in ("base", "searched"):
        # Studies of before do not say which rivals a recipe has, and no trial has any.
        had[recipe] = {"rivals": now[recipe]["rivals"]} | had[recipe]
    if differ := [k for k in now if had.get(k) != now[k]]:
        raise ConflictError(
            f"Study '{name}' was started with other settings ({', '.join(differ)}); repeat its command (more --trials "
            "or --minutes are welcome), or choose another --run."
        )
    return False


def begin_study(storage: Storage, name: str, study: dict[str, Any]) -> None:
    """Store what is searched, before any trial."""
    text = json.dumps(cli.plain(study | {"git_revision": git_revision()}), indent=1)
    storage.write(f"{ROOT}/{name}/{STUDY}", text.encode())


def _at_once(options: Options, connection: Connection) -> int:
    """Trials at a time; refuses what Ray has no room for."""
    local = connection.address == "local"
    room = int((min(cores(), connection.cpus) if local else connection.cpus) / options.cpus_per_trial)
    if options.gpus_per_trial:
        room = min(room, int(connection.gpus / options.gpus_per_trial + 1e-9))
    at_once = min(options.at_once or max(1, room), options.trials)
    # A trial is one process that holds its CPUs from start to end, and waits for no other.
    logger.info(
        plan_resources(
            actors=at_once, cpus_per_actor=options.cpus_per_trial, gpus_per_actor=options.gpus_per_trial, tasks=0,
            cpus=connection.cpus, gpus=connection.gpus,
        )
    )  # fmt: skip
    return at_once


def _search(options: Options, storage: Storage, job: Job, axes: Sequence[Axis], at_once: int) -> None:
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault(
        "TUNE_DISABLE_SIGINT_HANDLER", "1"
    )  # an interrupt ends the job as it ends every other
    from ray import tune

    filesystem, root = storage.sub(f"studies/{options.run}/tune").filesystem()
    records = load_records(storage, options.run)
    planned = to_start(options, axes, records)
    strategy = _strategy(options, job, axes, records, list(planned.values()), at_once)
    again = options.algorithm == "pbt"
    left = options.trials - (0 if again else sum(r["ended"] for r in records))
    progress = Progress("search", options.trials, "trials", done=options.trials - left, at_once=at_once)
    recorder = Recorder(
        storage, options.run, axes, planned, options.trials, job.metric, options.minutes, progress
    )
    tuner = tune.Tuner(
        tune.with_resources(
            make_trainable(job, axes), {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial}
        ),
        param_space={a.name: a.domain() for a in axes} if options.algorithm != "tpe" else None,
        tune_config=tune.TuneConfig(
            num_samples=left, reuse_actors=True, time_budget_s=60 * options.minutes or None, **strategy
        ),
        run_config=tune.RunConfig(
            name=f"{time.time():.0f}", storage_path=root, storage_filesystem=filesystem, verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[recorder],
        ),
    )  # fmt: skip
    with progress:
        progress.hold({"trials": ""})
        results = tuner.fit()
    if results.num_errors:
        listed = "\n".join(f"  {said}" for said in sorted({cli.last_line(e) for e in results.errors}))
        raise cli.JobError(
            f"{results.num_errors} trials failed; the others are kept, and the same command tries them again:\n"
            f"{listed}"
        )


def positions_of(axes: Sequence[Axis], seed: int, number: int) -> dict[str, float]:
    """Where a random trial stands: the defaults for the first, and for the others what seed and number decide."""
    if not number:
        drawn = {a.name: a.position(a.default) for a in axes}
    else:
        u = np.random.default_rng([seed, number]).random(len(axes))
        drawn = {a.name: float(v) * (len(a.choices) or 1) for a, v in zip(axes, u, strict=True)}
    return {a.name: int(drawn[a.name]) if a.kind == "choice" else drawn[a.name] for a in axes}


def to_start(
    options: Options, axes: Sequence[Axis], records: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, float]]:
    """Positions of the trials that are known before they start, by number: unfinished ones, the default, random ones.

    Population-based training starts all anew, since its trials depend on one another: by content they find what they
    had trained and judged.
    """
    had = {r["number"]: r for r in records}
    free = 1 if options.algorithm == "tpe" else options.trials
    out = {n: positions_of(axes, options.seed, n) for n in range(free) if n not in had}
    out |= {n: r["positions"] for n, r in had.items() if not r["ended"] or options.algorithm == "pbt"}
    return dict(sorted(out.items()))


def _strategy(
    options: Options,
    job: Job,
    axes: Sequence[Axis],
    records: Sequence[Mapping[str, Any]],
    points: list[dict[str, float]],
    at_once: int,
) -> dict[str, Any]:
    """Searcher and scheduler, told what is known already."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    at: dict[str, Any] = {"metric": VALUE, "mode": "max"}
    spread = BasicVariantGenerator(points, max_concurrent=at_once)
    if options.algorithm == "pbt":
        random.seed(options.seed)
        np.random.seed(options.seed)
        scheduler = PopulationBasedTraining(
            time_attr="rung", perturbation_interval=1, synch=True,
            hyperparam_mutations={a.name: a.domain() for a in axes}, **at,
        )  # fmt: skip
        return {"search_alg": spread, "scheduler": scheduler}
    ended = [r for r in records if r["ended"]]
    units = lambda judged: round(judged["fraction"] / job.rungs[0])  # noqa: E731
    scheduler = Halving(
        axes, [{units(j): j[job.metric] for j in r["rungs"]} for r in ended],
        max_t=round(1 / job.rungs[0]) + 1, reduction_factor=options.reduction,
    )  # fmt: skip
    if options.algorithm == "random":
        return {"search_alg": spread, "scheduler": scheduler}
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.samplers import TPESampler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    sampler = TPESampler(
        seed=options.seed + len(records), multivariate=True, constant_liar=True,
        n_startup_trials=max(2, min(RANDOM_FIRST, options.trials // 4)),
    )  # fmt: skip
    searcher = OptunaSearch(
        {
            a.name: CategoricalDistribution(list(range(len(a.choices))))
            if a.kind == "choice"
            else FloatDistribution(0.0, 1.0)
            for a in axes
        },
        points_to_evaluate=points,
        sampler=sampler, **at,
    )  # fmt: skip
    for r in ended:
        value = r["rungs"][-1][job.metric] if r["rungs"] and not r["error"] else 0.0
        searcher.add_evaluated_point(r["positions"], value)
    return {"search_alg": ConcurrencyLimiter(searcher, at_once), "scheduler": scheduler}


if __name__ == "__main__":
    cli.main(Options, verb)
