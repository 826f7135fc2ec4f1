"""Progress of a long job: one line with the rate and the time left, a file that `status` reads, and a watchdog.

Where nothing finishes for far longer than usual (see `rayjobs.watchdog`), the job says what waits for what and fails,
instead of hanging for ever; what is finished stays.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rayjobs import cli, waiting
from rayjobs.board import Board
from rayjobs.watchdog import Interrupter, Limits, Pace, end_at_last

logger = logging.getLogger(__name__)

LOG_SECONDS = 5.0
"""Between lines where standard error is not a terminal."""
WATCH_SECONDS = 5.0
WARN_SECONDS = 60.0
WARN_FACTOR = 10.0
"""A warning when nothing has finished for so many times the usual time, and at least `WARN_SECONDS`."""
WARN_FIRST_SECONDS = 300.0
"""The same while nobody knows the usual time: workers that only just start are no news."""
FAILURES_SAID = 100
"""Failed units that are kept by name; the others are counted."""


class Progress:
    """Counts work units; use as a context manager.

    Args:
        title: What is going on, e.g. "generate".
        total: Units in the whole job.
        unit: Their name, e.g. "clips".
        done: Units that an earlier run finished; they do not count for the rate.
        at_once: Workers that finish units side by side.
        board: Where `status` finds this job.

    Raises:
        cli.JobError: at the end of the `with` block: the job stalled, and the watchdog ended it.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        done: int = 0,
        *,
        at_once: int = 1,
        board: Board | None = None,
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.failed: dict[str, str] = {}
        self.failures = 0
        self.limits = Limits.from_environment()
        self._before = done
        self._start = self._last_advance = self._last_shown = time.monotonic()
        self._moved_at = time.time()
        self._pace = Pace(at_once, self._start)
        self._held: Mapping[str, str] = {}
        self._advances, self._at_once = 0, at_once
        self._first_done = 0
        self._first_advance = 0.0
        self._terminal = sys.stderr.isatty()
        self._board, self._state = board, "running"
        self._stalled = ""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Progress:
        self._can_end = Interrupter.listen()
        self._watch.start()
        if self._board:
            self._board.start(self.to_dict)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._lock:
            Interrupter.wanted.clear()
        self._state = self._ended(error)
        self._show(last=True)
        if self._board:
            self._board.end()
        if self._stalled:
            raise cli.JobError(self._stalled) from None

    def advance(self, units: int, kind: str = "", *, timed: bool = True) -> None:
        """More units are finished.

        Args:
            units: How many; 0 says that the job lives.
            kind: Units of one kind take about as long as each other.
            timed: Whether this tells how long a unit takes; False where it was told when the unit's work was done.
        """
        self.done += units
        self._last_advance, self._moved_at = time.monotonic(), time.time()
        if timed:
            self._pace.finished(kind, self._last_advance)
        self._advances += 1
        if self._advances <= self._at_once:
            self._first_done, self._first_advance = self.done, self._last_advance
        self._show()

    def fail(self, name: str, sentence: str, kind: str = "") -> None:
        """One unit is given up; that, too, is a sign of life.

        Args:
            name: Which.
            sentence: Why.
            kind: See `advance`.
        """
        self.failures += 1
        if len(self.failed) < FAILURES_SAID:
            self.failed[name] = sentence
        self.advance(0, kind)

    def hold(self, units: Mapping[str, str]) -> None:
        """What is worked on now: kinds by name. As long as one of a new kind is, nobody knows how long that takes."""
        now = time.monotonic()
        for kind in units.values():
            self._pace.begins(kind, now)
        self._held = dict(units)

    @property
    def stalled(self) -> bool:
        """Whether the watchdog has given the job up."""
        return bool(self._stalled)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Units per second at present speed: since each worker has advanced once, as they take seconds to start.

        Before that since the start, which is too low; 0 before the first advance.
        """
        if self.done > self._first_done > 0:
            return (self.done - self._first_done) / max(self._last_advance - self._first_advance, 1e-9)
        return self.overall_rate

    @property
    def overall_rate(self) -> float:
        """Units per second of this run with its start-up."""
        return (self.done - self._before) / max(self.seconds, 1e-9)

    def line(self) -> str:
        """`generate: 512/2048 clips (25%), 830 clips/s, 2 s left`."""
        text = f"{self.title}: {self.done}/{self.total} {self.unit} ({self.done / max(self.total, 1):.0%})"
        left = self.total - self.done
        if rate := self.rate if left else self.overall_rate:
            text += f", {speed(rate, self.unit)}"
            text += f", {_duration(left / rate)} left" if left else f", took {_duration(self.seconds)}"
        return text + (f", {self.failures} failed" if self.failures else "")

    def to_dict(self) -> dict[str, Any]:
        """What the board says; see `docs/operations.md`."""
        allowed = self.allowed
        return {
            "state": self._state, "unit": self.unit, "total": self.total, "done": self.done, "rate": self.rate,
            "moved": self._moved_at, "seconds": self.seconds, "usual_seconds": self._usual(),
            "allowed_seconds": allowed if math.isfinite(allowed) else None,
            "failures": self.failures, "failed": self.failed, "said": self._stalled,
        }  # fmt: skip

    @property
    def allowed(self) -> float:
        """Seconds in which nothing may finish at present."""
        return self.limits.allowed(self._usual())

    def _usual(self) -> float | None:
        return self._pace.usual(self._held.values())

    def _ended(self, error: BaseException | None) -> str:
        if self._stalled:
            return "stalled"
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            return "interrupted"
        return "failed" if error is not None or self.failures else "done"

    def _show(self, last: bool = False) -> None:
        now = time.monotonic()
        if self._terminal:
            if last or now - self._last_shown > 0.1:
                self._last_shown = now
                print(f"\r{self.line():<78}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last or now - self._last_shown > LOG_SECONDS:
            self._last_shown = now
            fields = {"verb": self.title, "done": self.done, "total": self.total, "rate": round(self.rate, 3)}
            logger.info(self.line(), extra=fields)

    def _look(self) -> None:
        warn_at = 0.0
        while not self._over.wait(WATCH_SECONDS):
            last, usual, allowed = self._last_advance, self._usual(), self.allowed
            silent = time.monotonic() - last
            if silent > allowed:
                if self._end_stalled(last, silent, usual, allowed):
                    return
            elif silent > max(self._patience(usual), warn_at):
                logger.warning("%s%s", self._silence(silent, usual), self._and_then(allowed))
                warn_at = 2 * silent
            elif silent < warn_at / 2:
                warn_at = 0.0

    @staticmethod
    def _patience(usual: float | None) -> float:
        """Seconds without anything finished that are not worth a word."""
        return WARN_FIRST_SECONDS if usual is None else max(WARN_SECONDS, WARN_FACTOR * usual)

    def _silence(self, silent: float, usual: float | None) -> str:
        known = f"usual: {_duration(usual)}" if usual is not None else "how long is usual is not known yet"
        return f"{self.title}: nothing has finished for {_duration(silent)} ({known})"

    def _and_then(self, allowed: float) -> str:
        if not self._can_end or not math.isfinite(allowed):
            return "."
        return f"; after {_duration(allowed)} the job is ended."

    def _end_stalled(self, last: float, silent: float, usual: float | None, allowed: float) -> bool:
        """Say what waits for what and end the job; False if it moved meanwhile."""
        if not self._can_end:
            return True
        found = waiting.report(self._held)
        with self._lock:
            if self._over.is_set() or self._last_advance != last:
                return self._over.is_set()
            logger.error("%s; what waits for what:\n%s", self._silence(silent, usual), found)
            variable = "MOTIONSYNTH_STALL_FIRST_SECONDS" if usual is None else "MOTIONSYNTH_STALL_SECONDS"
            self._stalled = (
                f"{self._silence(silent, usual)} and {_duration(allowed)} are allowed, so the job is ended; what "
                "waits for what stands in its log. What is finished is kept: mend the cause and run the same command "
                f"again, or with a larger {variable} if a unit may really take so long."
            )
            Interrupter.wanted.set()
        if cli.runs_a_command():
            end_at_last(cli.FAILED, cli.runs_a_command)
        Interrupter.interrupt_until(self._over)
        return True


def speed(rate: float, unit: str) -> str:
    """Units per second for people: `830 clips/s`, or `2.4 recognisers/min` where it is less than one."""
    rate, per = (60 * rate, "min") if rate < 1 else (rate, "s")
    return f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/{per}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
