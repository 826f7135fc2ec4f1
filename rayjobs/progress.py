"""Progress of a long job: one line with the rate and the time left, and a warning when nothing moves."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType

logger = logging.getLogger(__name__)

LOG_SECONDS = 5.0
"""Between lines where standard error is not a terminal."""
WATCH_SECONDS = 5.0
STALL_SECONDS = 60.0
STALL_FACTOR = 10.0
"""A warning when nothing has finished for so many times the usual interval, and at least `STALL_SECONDS`."""


class Progress:
    """Counts work units; use as a context manager.

    Args:
        title: What is going on, e.g. "generate".
        total: Units in the whole job.
        unit: Their name, e.g. "clips".
        done: Units that an earlier run finished; they do not count for the rate.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._before = done
        self._start = self._last_advance = self._last_shown = time.monotonic()
        self._intervals = 0
        self._first_done = 0
        self._first_advance = 0.0
        self._terminal = sys.stderr.isatty()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._warn_when_stalled, daemon=True)

    def __enter__(self) -> Progress:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._show(last=True)

    def advance(self, units: int) -> None:
        """More units are finished."""
        self.done += units
        self._last_advance = time.monotonic()
        self._intervals += 1
        if self._intervals == 1:
            self._first_done, self._first_advance = self.done, self._last_advance
        self._show()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Units per second at present speed: since the first advance, as workers take seconds to start.

        Before the second advance since the start, which is too low; 0 before the first.
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
            text += f", {rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"
            text += f", {_duration(left / rate)} left" if left else f", took {_duration(self.seconds)}"
        return text

    def _show(self, last: bool = False) -> None:
        now = time.monotonic()
        if self._terminal:
            if last or now - self._last_shown > 0.1:
                self._last_shown = now
                print(f"\r{self.line():<78}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last or now - self._last_shown > LOG_SECONDS:
            self._last_shown = now
            logger.info(self.line())

    def _warn_when_stalled(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            usual = (self._last_advance - self._start) / max(self._intervals, 1)
            silent = time.monotonic() - self._last_advance
            if silent > max(STALL_SECONDS, STALL_FACTOR * usual):
                logger.warning(
                    "%s: nothing has finished for %s%s; if it stays so, look into Ray's logs "
                    "(/tmp/ray/session_latest/logs/ray-data), interrupt and run the same command again.",
                    self.title,
                    _duration(silent),
                    f" (usual: {_duration(usual)})" if self._intervals else "",
                )
                # Next warning after as long again.
                if self._over.wait(silent):
                    return


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
