"""The usual time of a unit, however units finish, and the limits that follow from it."""

from __future__ import annotations

import math

import pytest

from motionsynth.errors import InputError
from rayjobs.watchdog import Limits, Pace


def pace(at_once: int, moments: list[float], kind: str = "") -> Pace:
    p = Pace(at_once, 0.0)
    for m in moments:
        p.finished(kind, m)
    return p


def test_one_worker_the_median_interval_not_the_mean() -> None:
    assert pace(1, []).usual() is None
    assert pace(1, [10, 12, 14, 1014, 1016]).usual() == 2  # the mean is above 200


@pytest.mark.parametrize(
    "moments",
    [
        [60 * (i + 1) for i in range(20) for _ in range(4)],  # four workers in step
        [15.0 * (i + 4) for i in range(80)],  # four workers one after the other
    ],
)
def test_many_workers_the_time_of_a_unit_not_of_the_gaps(moments: list[float]) -> None:
    assert pace(4, moments).usual() == 60


def test_before_all_workers_have_finished_one_the_slowest_so_far_counts() -> None:
    assert pace(16, [50, 55, 70]).usual() == 70


def test_kinds_are_told_apart_and_the_slowest_at_work_counts() -> None:
    p = pace(1, [1, 2, 3], "tcn")
    assert p.usual(["tcn"]) == 1
    p.begins("stgcn", 3)
    assert p.usual(["tcn", "stgcn"]) is None
    p.finished("stgcn", 103)
    assert p.usual(["tcn", "stgcn"]) == 100 and p.usual(["tcn"]) == 1


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.from_environment() == Limits()
    monkeypatch.setenv("MOTIONSYNTH_STALL_FACTOR", "5")
    monkeypatch.setenv("MOTIONSYNTH_STALL_SECONDS", "30")
    monkeypatch.setenv("MOTIONSYNTH_STALL_FIRST_SECONDS", "90")
    limits = Limits.from_environment()
    assert [limits.allowed(usual) for usual in (None, 1.0, 100.0)] == [90, 30, 500]
    monkeypatch.setenv("MOTIONSYNTH_STALL_FACTOR", "0")
    assert Limits.from_environment().allowed(1.0) == math.inf


@pytest.mark.parametrize("wrong", ["soon", "-1", "nan", "inf"])
def test_wrong_limits_are_named(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("MOTIONSYNTH_STALL_SECONDS", wrong)
    with pytest.raises(InputError, match=f"MOTIONSYNTH_STALL_SECONDS is '{wrong}'"):
        Limits.from_environment()
