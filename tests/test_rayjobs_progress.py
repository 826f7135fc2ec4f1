"""The progress line on a clock that the test moves."""

from __future__ import annotations

import logging

import pytest

from rayjobs import progress as module
from rayjobs.progress import Progress


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


def test_what_an_earlier_run_did_is_no_speed_of_this_one(clock: list[float]) -> None:
    p = Progress("generate", 1000, "clips", done=900)
    clock[0] += 10
    assert p.line() == "generate: 900/1000 clips (90%)"
    p.advance(50)
    assert p.line() == "generate: 950/1000 clips (95%), 5.0 clips/s, 10 s left"


def test_a_stall_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(module, "STALL_FACTOR", 0.0)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.02)
    with caplog.at_level(logging.WARNING, "rayjobs"), Progress("generate", 10, "clips") as p:
        p._over.wait(0.3)
    assert any("nothing has finished" in r.message for r in caplog.records)
