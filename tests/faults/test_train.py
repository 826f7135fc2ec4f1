"""Train workers and drivers of trainings that die around a report: the weights are those of the undisturbed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from motionsynth.motion import MotionSet
from rayjobs import train as job
from rayjobs.cli import JobError
from rayjobs.train import train
from storage import Storage
from storage.checkpoints import list_checkpoints
from tests.faults.processes import WAIT_SECONDS, kill_held, pid_of, wait_until_gone
from tests.faults.proxy import Proxy
from tests.tiny_jobs import alone, checkpoints_of, join, prepare, recipe_of, same, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


def test_a_worker_killed_around_its_reports_changes_nothing(
    storage: Storage,
    wire: Proxy,
    tiny_set: MotionSet,
    tmp_path: Path,
    ray_local: None,
    cost: Callable[..., None],
) -> None:
    """Before the first checkpoint exists, between the files of one, and between its last file and its report."""
    recipe = recipe_of()
    calm = alone(prepare(Storage(tmp_path), tiny_set), recipe, "r")
    prepare(storage, tiny_set)
    moments = {
        "before its first checkpoint": ("before", "/step-000000002/model"),
        "between the files of a checkpoint": ("before", "/step-000000004/config"),
        "after a checkpoint, before its report": ("after", "/step-000000006/config"),
    }
    faults = {name: wire.add(kind, "PUT", path) for name, (kind, path) in moments.items()}  # type: ignore[arg-type]
    died: dict[str, float] = {}

    def kill_all() -> None:
        for name, fault in faults.items():
            died[name] = kill_held(fault)[1]

    killer = threading.Thread(target=kill_all, daemon=True)
    killer.start()
    result = train(storage, "tiny", "r", recipe, join)
    killer.join()
    assert result["trained"] == 1 and result["beds"][0]["step"] == 8
    assert same(weights(storage, recipe, "r"), calm)
    # Two events files for each start at another step: the dead one's, and that of the one that went on.
    board = checkpoints_of(recipe, "r").removesuffix("checkpoints") + "tensorboard"
    assert {o.key.rpartition(".")[2] for o in storage.list(board)} == {"0", "2", "6"}
    assert len(list_checkpoints(storage, checkpoints_of(recipe, "r"))) <= job.KEPT
    assert train(storage, "tiny", "r", recipe, never)["trained"] == 0
    for name in moments:
        seconds = wire.first("PUT", "/(model|config)", after=died[name]) - died[name]
        cost(
            f"SIGKILL of a Train worker {name}",
            seconds,
            found="weights equal",
            how="until the next checkpoint",
        )


def test_driver_of_a_training_killed_and_the_same_command_again(
    storage: Storage, wire: Proxy, tiny_set: MotionSet, tmp_path: Path, cost: Callable[..., None]
) -> None:
    recipe = recipe_of()
    calm = alone(prepare(Storage(tmp_path), tiny_set), recipe, "r")
    prepare(storage, tiny_set)
    words = [sys.executable, "-m", "rayjobs.train", "--storage", storage.uri, "--run", "r", "--json"]
    words += ["--dataset", "tiny", "--recipe", "debug", "--draws", "1", "--shots", "2", "--split", "test"]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    held = wire.add("during", "PUT", "/step-000000006/model")
    first = start()
    worker = pid_of(held.caught.get(timeout=WAIT_SECONDS))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    died = time.monotonic()
    wait_until_gone({worker})
    held.release.set()
    again = start()
    out, err = again.communicate(timeout=2 * WAIT_SECONDS)
    assert again.returncode == 0, out + err
    assert json.loads(out.splitlines()[-1])["trained"] == 1
    assert same(weights(storage, recipe, "r"), calm)
    seconds = wire.first("PUT", "/step-000000006/config", after=died) - died
    cost(
        "SIGKILL of the driver of a training; the same command again",
        seconds,
        found="weights equal",
        how="until the next checkpoint",
    )


def test_bad_input_in_a_worker_is_said_once_and_not_tried_again(
    storage: Storage, wire: Proxy, tiny_set: MotionSet, ray_local: None
) -> None:
    """A loss that is no number stays one: Ray's own retries would only cost time."""
    prepare(storage, tiny_set)
    recipe = recipe_of()
    heavy = dict(recipe.generator_config.loss_weights) | {"reconstruction": 1e39}
    recipe = replace(recipe, generator_config=replace(recipe.generator_config, loss_weights=heavy))
    with pytest.raises(JobError) as e:
        train(storage, "tiny", "r", recipe, join)
    first, *rest = str(e.value).splitlines()
    assert first == "Trainings failed; the others are kept:" and len(rest) == 1
    assert recipe.beds[0].key in rest[0] and "lower the learning rate or that term's weight" in rest[0]
    # Each process reads the dataset's one shard once: the driver, and the one worker.
    assert wire.answers("GET", "/data/tiny/shards/") == [200, 200]
