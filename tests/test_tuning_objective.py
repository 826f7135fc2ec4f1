"""One trial: the jobs' own results, nothing computed twice, a stretch of training that goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.recipes import get_recipe
from motionsynth.splits import Split
from rayjobs import cli, experiment, score, train
from storage import Storage
from storage.checkpoints import load_checkpoint
from storage.dataset import read_dataset, write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set
from tuning.objective import STRONG, Job, Segment, evaluate, strong_arm, trains_apart, trial_seconds
from tuning.space import Axis, derive

SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    motions = make_tiny_set(2)
    storage = Storage(tmp_path / "out")
    write_dataset(storage, "data/tiny", motions, Header.of(motions, splits=(SPLIT.to_dict(),)))
    recipe = replace(get_recipe("debug"), bed=BedSpec(shots=2), draws=1, full=False)
    return Job(storage=storage, dataset="tiny", recipe=recipe, rungs=(0.5, 1.0))


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


def trained(storage: Storage) -> set[str]:
    """Runs in which a generator was trained."""
    return {o.key.split("/")[1] for o in storage.list("runs") if "/checkpoints/" in o.key}


def weights(storage: Storage, job: Job, run: str) -> dict[str, torch.Tensor]:
    info = train.finished_checkpoint(
        storage, experiment.bed_prefix(run, "tiny", job.recipe.beds[0], job.recipe.generator)
    )
    assert info is not None
    return load_checkpoint(storage, info.prefix)[0]


def test_a_trial_is_what_the_jobs_would_come_to(job: Job) -> None:
    half, whole = evaluate(job, {})
    assert (half.fraction, half.steps, whole.fraction, whole.steps) == (0.5, 4, 1.0, 8)
    assert whole.gain["n"] == 1 and whole.runs[0]["recogniser"] == "tcn"
    assert whole.gain["mean"] == pytest.approx(100 * (whole.runs[0]["rare_ap"] - whole.runs[0]["strong"]))
    assert (whole.rare_ap, whole.macro) == (whole.runs[0]["rare_ap"], whole.runs[0]["macro"])
    _, by_recall = evaluate(replace(job, metric="rare_recall"), {})
    assert by_recall.gain["mean"] == pytest.approx(
        100 * (by_recall.rare_recall - by_recall.runs[0]["strong"])
    )
    # The generator that was stopped in between and went on is the one that the training job makes.
    train.run_loop(job.storage, "tiny", "plain", job.recipe, job.recipe.beds[0])
    alone = weights(job.storage, job, "plain")
    runs = trained(job.storage) - {"plain"}
    assert len(runs) == 2
    same = [all(torch.equal(alone[k], w) for k, w in weights(job.storage, job, run).items()) for run in runs]
    assert sorted(same) == [False, True]
    # The clips and the records are the job's, too.
    made = {o.key.split("/")[1] for o in job.storage.list("runs") if "/synthetic/" in o.key}
    recalls = []
    for run in made:
        result = score.score(job.storage, "tiny", run, job.recipe, never, only=("strong", "motion_gan"))
        recalls.append(next(a["rare_recall"]["mean"] for a in result["arms"] if a["arm"] == "motion_gan"))
    assert 100 * whole.rare_recall in [pytest.approx(r) for r in recalls]


def test_nothing_is_computed_twice(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list(evaluate(job, {}))
    before = {o.key: job.storage.digest(o.key) for o in job.storage.list()}
    monkeypatch.setattr(train, "run_loop", never)
    monkeypatch.setattr(score.Scorer, "run", never)
    again = list(evaluate(job, {}))
    assert [j.rare_recall for j in again] == [j.rare_recall for j in first]
    assert [j.trained for j in first] == [2, 1] and [j.trained for j in again] == [0, 0]
    assert {o.key: job.storage.digest(o.key) for o in job.storage.list()} == before


def test_records_that_lack_the_metric_are_refused_before_any_trial(job: Job) -> None:
    """As storages have them that were scored before average precision was kept."""
    ((task, _),) = score.plan_tasks(job.storage, "tiny", STRONG, job.recipe, ("strong",))
    score.Scorer(job.storage, "tiny", experiment.scores_prefix("tiny")).run(task)
    (key,) = (o.key for o in job.storage.list(experiment.scores_prefix("tiny")))
    record = json.loads(job.storage.read(key))
    job.storage.write(key, json.dumps(record | {"average_precisions": []}).encode())
    with pytest.raises(cli.JobError, match="1 of 1 recognisers have no rare AP: .*--metric rare_recall"):
        strong_arm(job, never)
    strong_arm(replace(job, metric="rare_recall"), never)


def test_another_mixing_takes_the_same_generator_and_clips(job: Job) -> None:
    list(evaluate(job, {}))
    runs, clips = trained(job.storage), len([o for o in job.storage.list("runs") if "/synthetic/" in o.key])
    list(evaluate(job, {"synthetic_share": 0.2}))
    assert trained(job.storage) == runs
    assert len([o for o in job.storage.list("runs") if "/synthetic/" in o.key]) == clips
    # More clips are made by the same generator.
    list(evaluate(job, {"synthetic_per_class": 6}))
    assert trained(job.storage) == runs
    assert len([o for o in job.storage.list("runs") if "/synthetic/" in o.key]) > clips
    # Another loss weight is another generator.
    list(evaluate(job, {"loss_weights.flow": 3.0}))
    assert len(trained(job.storage)) == 2 * len(runs)


def test_sampling_alone_needs_no_other_generator(job: Job) -> None:
    list(evaluate(job, {}))
    runs = trained(job.storage)
    list(evaluate(job, {"generator_config.truncation": 0.5}))
    assert trained(job.storage) == runs
    made = [o.key for o in job.storage.list("runs") if o.key.endswith("synthetic/manifest.json")]
    sets = [read_dataset(job.storage, key.removesuffix("/manifest.json"))[0] for key in made]
    assert len({s.motions[0].positions.tobytes() for s in sets}) == 4


def test_a_generator_goes_on_under_other_weights(job: Job) -> None:
    """What population-based training does at a rung."""
    list(evaluate(job, {"loss_weights.flow": 3.0}))
    past = [Segment(values={"loss_weights.flow": 3.0}, until=0.5)]
    (whole,) = evaluate(job, {}, past)
    assert whole.fraction == 1.0 and whole.steps == 8
    runs = trained(job.storage)
    list(evaluate(job, {}))
    pure = trained(job.storage) - runs
    mixed = {
        tuple(w.flatten().tolist()[:50] for w in weights(job.storage, job, r).values()).__repr__()
        for r in runs | pure
    }
    assert len(mixed) == len(runs | pure) == 5


def test_refined_clips_are_judged(job: Job) -> None:
    job = replace(job, refined=True, rungs=(1.0,))
    try:
        (whole,) = evaluate(job, {"refine.confidence_percentile": 0.0})
        assert whole.runs
    except InputError as e:
        # So short a training makes clips that the teachers may all refuse: then that is what is said.
        assert "all 4 were refused" in str(e) or "were refused" in str(e)
    assert [o.key for o in job.storage.list("runs") if "/synthetic-refined/" in o.key]


def test_axes_that_leave_the_generator_alone_share_one(job: Job) -> None:
    assert trains_apart(job, derive(job.recipe, ("mixing",)))
    assert not trains_apart(job, derive(job.recipe, ("weights", "mixing")))
    truncation = Axis(name="generator_config.truncation", kind="linear", default=1.0, low=0.5, high=1.0)
    assert trains_apart(job, [truncation])


def test_what_a_trial_costs_is_measured(job: Job) -> None:
    seconds = trial_seconds(job)
    longer = replace(job.recipe.training, steps=6000)
    more = trial_seconds(replace(job, recipe=replace(job.recipe, training=longer)))
    assert seconds.keys() == {"train", "score"} and min(seconds.values()) > 0
    assert more["train"] > 20 * seconds["train"]
