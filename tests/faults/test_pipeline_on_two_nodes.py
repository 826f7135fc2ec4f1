"""The whole pipeline as a submitted job on a head and a worker node, which is lost in the middle of every stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage import Storage
from tests.ray_nodes import Cluster, Job, ray_cluster
from tests.storage_fixtures import S3Server

PATIENCE = 600
"""Seconds; what has not happened by then, on however slow a machine, never will."""
CPUS = 1
RECIPE = {"base": "debug", "draws": 1, "synthetic_per_class": 160}
"""The debug recipe with enough clips for several shards, so that generation has a middle."""
PASSING = ("/ray/", "tensorboard/", "/score-", "/progress-")
"""Parts of the keys of objects that hold times: Ray's marks, logs of a training, tables, what running jobs say."""


def submit(cluster: Cluster, recipe: Path, storage: str) -> Job:
    options = ["--dataset", "sample", "--recipe", str(recipe), "--run", "r", "--cpus", str(CPUS), "--json"]
    return cluster.submit("rayjobs.pipeline", *options, "--storage", storage)


def result_of(job: Job) -> dict[str, Any]:
    """What the job printed in the end."""
    assert job.process.wait(PATIENCE) == 0, job.said()[-3000:]
    return next(json.loads(line) for line in job.said().splitlines() if line.startswith('{"protocol"'))


def content(storage: Storage) -> dict[str, Any]:
    """Every object's digest; of a score record all that it says, but how long it took."""
    found: dict[str, Any] = {}
    for key in (o.key for o in storage.list()):
        if key.startswith("scores/"):
            found[key] = {k: v for k, v in json.loads(storage.read(key)).items() if k != "seconds"}
        elif not any(part in key for part in PASSING):
            found[key] = storage.digest(key)
    return found


@dataclass(frozen=True, slots=True)
class Stage:
    """What lies in storage once a stage has begun its work, and once that is done."""

    name: str
    begun: Callable[[], bool]
    ended: Callable[[], bool]


def stages_of(storage: Storage, undisturbed: dict[str, Any]) -> list[Stage]:
    """The stages of the same request in another storage."""
    (generated,), (trained,) = undisturbed["generated"], undisturbed["trained_generators"]
    checkpoints = trained["checkpoint"].rpartition("/")[0]
    recognisers = undisturbed["trained"]

    def count(prefix: str, ending: str) -> int:
        return sum(o.key.endswith(ending) for o in storage.list(prefix))

    return [
        Stage(
            "prepare",
            lambda: count("data/sample/shards", ".parquet") > 0,
            lambda: storage.exists("data/sample/manifest.json"),
        ),
        Stage(
            "train",
            lambda: count(checkpoints, "config.json") > 0,
            lambda: storage.exists(f"{trained['checkpoint']}/config.json"),
        ),
        Stage(
            "generate",
            lambda: count(f"{generated['prefix']}/shards", ".parquet") > 0,
            lambda: storage.exists(f"{generated['prefix']}/manifest.json"),
        ),
        Stage(
            "score",
            lambda: count("scores/sample", ".json") > 0,
            lambda: count("scores/sample", ".json") == recognisers,
        ),
    ]


def lose_the_worker(cluster: Cluster, job: Job, during: Stage) -> None:
    """Kill the worker node once the stage has begun; another machine comes in its place."""
    end = time.monotonic() + PATIENCE
    while not during.begun():
        assert job.process.poll() is None, f"before {during.name}: {job.said()[-3000:]}"
        assert time.monotonic() < end, f"{during.name} did not begin: {job.said()[-3000:]}"
        time.sleep(0.02)
    lost = cluster.workers[-1]
    lost.freeze()
    # Otherwise the loss would prove nothing.
    assert not during.ended(), f"{during.name} was over before its node was"
    lost.kill()
    cluster.add_worker(CPUS)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_node_lost_in_every_stage_changes_nothing(s3_uri: str, s3_server: S3Server, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    quiet, disturbed = Storage(f"{s3_uri}/quiet"), Storage(f"{s3_uri}/disturbed")
    with ray_cluster(s3_server.env) as cluster:
        cluster.add_worker(CPUS)
        expected = result_of(submit(cluster, recipe, quiet.uri))
        job = submit(cluster, recipe, disturbed.uri)
        for stage in stages_of(disturbed, expected):
            lose_the_worker(cluster, job, stage)
        # One and the same driver from beginning to end.
        result = result_of(job)
    assert content(disturbed) == content(quiet)
    assert len(content(quiet)) > 20 and result["arms"] == expected["arms"]
    for stage, seconds in result["stages"].items():
        print(f"{stage}: {expected['stages'][stage]} s, with its node lost {seconds} s")
