"""The progress line on a clock that the test moves; a real job in which one shard never ends."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from motionsynth.motion import MotionSet
from rayjobs import progress as module
from rayjobs.cli import JobError
from rayjobs.generate import claim, request_for
from rayjobs.progress import Progress
from rayjobs.status import report, status
from storage import Storage
from storage.checkpoints import save_checkpoint
from tests.tiny_generators import small_generator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_does_not_count_the_start_up(clock: list[float]) -> None:
    p = Progress("generate", 1000, "clips")
    assert p.line() == "generate: 0/1000 clips (0%)"
    clock[0] += 10
    p.advance(100)
    assert p.line() == "generate: 100/1000 clips (10%), 10 clips/s, 2 min left"
    clock[0] += 1
    p.advance(100)
    assert p.line() == "generate: 200/1000 clips (20%), 100 clips/s, 8 s left"
    clock[0] += 9
    p.advance(800)
    assert p.line() == "generate: 1000/1000 clips (100%), 50 clips/s, took 20 s"


def test_two_workers_that_report_together_are_no_burst(clock: list[float]) -> None:
    p = Progress("train", 2400, "steps", at_once=2)
    for seconds in (280, 6, 114, 6):
        clock[0] += seconds
        p.advance(200)
    # Not 200 steps in the six seconds between the first reports of the two.
    assert p.line() == "train: 800/2400 steps (33%), 3.3 steps/s, 8 min left"


def test_slow_units_are_told_by_the_minute(clock: list[float]) -> None:
    p = Progress("score", 45, "recognisers")
    for _ in range(11):
        clock[0] += 25
        p.advance(1)
    assert p.line() == "score: 11/45 recognisers (24%), 2.4 recognisers/min, 14 min left"


def test_what_an_earlier_run_did_is_no_speed_of_this_one(clock: list[float]) -> None:
    p = Progress("generate", 1000, "clips", done=900)
    clock[0] += 10
    assert p.line() == "generate: 900/1000 clips (90%)"
    p.advance(50)
    assert p.line() == "generate: 950/1000 clips (95%), 5.0 clips/s, 10 s left"


def test_failures_are_counted_and_only_so_many_kept_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILURES_SAID", 1)
    p = Progress("generate", 10, "clips")
    p.fail("a", "no room")
    p.fail("b", "no room")
    said = p.to_dict()
    assert p.line().endswith("2 failed") and said["failures"] == 2 and said["failed"] == {"a": "no room"}


def test_how_long_nothing_may_finish_follows_the_kind_that_is_worked_on(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTIONSYNTH_STALL_FACTOR", "3")
    monkeypatch.setenv("MOTIONSYNTH_STALL_SECONDS", "1")
    monkeypatch.setenv("MOTIONSYNTH_STALL_FIRST_SECONDS", "5000")
    p = Progress("score", 10, "recognisers")
    p.hold({"a": "tcn"})
    assert p.allowed == 5000
    for _ in range(3):
        clock[0] += 2
        p.advance(1, "tcn")
    assert p.allowed == 6
    p.hold({"b": "tcn", "c": "stgcn"})
    assert p.allowed == 5000  # nobody knows how long the slow one takes
    clock[0] += 100
    p.advance(1, "stgcn")
    assert p.allowed == 300
    p.hold({"d": "tcn"})
    assert p.allowed == 6


def test_a_stall_is_said_before_it_ends_the_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(module, "WARN_SECONDS", 0.05)
    with caplog.at_level(logging.WARNING, "rayjobs"), Progress("generate", 10, "clips") as p:
        p._over.wait(0.3)  # while nobody knows how long is usual, a start may take longer
    assert not caplog.records
    monkeypatch.setattr(module, "WARN_FIRST_SECONDS", 0.05)
    with caplog.at_level(logging.WARNING, "rayjobs"), Progress("generate", 10, "clips") as p:
        p._over.wait(0.3)
    assert any("nothing has finished" in r.message for r in caplog.records)
    assert any("after 2.0 h the job is ended" in r.message for r in caplog.records)


def test_the_main_thread_is_got_out_of_a_wait_and_what_it_waits_for_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.05)
    monkeypatch.setenv("MOTIONSYNTH_STALL_FIRST_SECONDS", "0.3")
    never = threading.Event()
    with pytest.raises(JobError, match="MOTIONSYNTH_STALL_FIRST_SECONDS"), Progress("score", 1, "x") as p:
        p.hold({"stgcn of strong": "stgcn"})
        never.wait(60)
    assert not never.is_set()
    assert "stgcn of strong" in caplog.text and "never.wait(60)" not in caplog.text
    assert f'"{Path(__file__)}"' in caplog.text  # where this thread waits


def test_a_job_that_moves_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.05)
    monkeypatch.setenv("MOTIONSYNTH_STALL_FACTOR", "0")
    monkeypatch.setenv("MOTIONSYNTH_STALL_FIRST_SECONDS", "0.1")
    with Progress("generate", 10, "clips"):
        time.sleep(0.5)
    monkeypatch.setenv("MOTIONSYNTH_STALL_FACTOR", "1")
    monkeypatch.setenv("MOTIONSYNTH_STALL_FIRST_SECONDS", "30")
    monkeypatch.setenv("MOTIONSYNTH_STALL_SECONDS", "30")
    with Progress("generate", 10, "clips") as p:
        for _ in range(10):
            time.sleep(0.05)
            p.advance(1)


# A verb like any other, but for the grade: one shard of six blocks for ever.
HANGING = """
import time
from dataclasses import dataclass
from functools import partial
from rayjobs import cli
from rayjobs.generate import Wanted, generate, read_request

@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    \"\"\"Generate, and hang.\"\"\"

    hang: bool = True

def grade_and_hang(motions):
    if any(m.label == 1 and m.sample_id.endswith("000008") for m in motions):
        time.sleep(10_000)
    return motions

def verb(options):
    storage = options.open_storage()
    wish = [Wanted("runs/r/synthetic", read_request(storage, "runs/r/synthetic"))]
    grade = grade_and_hang if options.hang else (lambda motions: motions)
    (result,) = generate(storage, wish, actors=2, connect=partial(options.connect, storage), grade=grade)
    return result

if __name__ == "__main__":
    cli.main(Options, verb)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hanging_shard_ends_the_job_and_what_is_finished_stays(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path / "out")
    generator = small_generator("motion_gan", tiny_set)
    config = {
        "generator": "motion_gan",
        "generator_config": dataclasses.asdict(generator.config),
        "context": generator.context.to_dict(),
    }
    save_checkpoint(storage, "runs/r/checkpoint", generator.state_dict(), config)
    request = request_for(
        storage, "runs/r/checkpoint", dict.fromkeys(range(3), 16), seed=7, shard_size=8, batch=4
    )
    claim(storage, "runs/r/synthetic", request)
    (tmp_path / "verb.py").write_text(HANGING)
    command = [sys.executable, str(tmp_path / "verb.py"), "--storage", str(tmp_path / "out"), "--json"]
    limits = {"MOTIONSYNTH_STALL_FACTOR": "2", "MOTIONSYNTH_STALL_SECONDS": "8"}
    env = os.environ | {"PYTHONPATH": str(ROOT), "MOTIONSYNTH_STALL_FIRST_SECONDS": "240"} | limits
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["exit_code"] == 1 and "generate: nothing has finished for" in last["error"]
    # The shard, the process that holds it, and where in the code it stands.
    assert "shard runs/r/synthetic/shards/000003-" in done.stderr
    assert "in grade_and_hang" in done.stderr, done.stderr
    assert "MapWorker" in done.stderr and "RUNNING" in done.stderr and "CPU: " in done.stderr

    now = status(storage, "r")
    (job,) = now["jobs"]
    assert (job["verb"], job["state"], job["total"]) == ("generate", "stalled", 48)
    (made,) = now["generated"]
    assert made["state"] == "unfinished" and made["shards_done"] >= 4
    report(now)

    unhurried = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--no-hang"], env=unhurried, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    now = status(storage, "r")
    assert now["generated"][0]["state"] == "done" and now["jobs"][0]["state"] == "done"
