"""When a job that no longer moves is ended, and how its main thread is got out of whatever it waits for.

A unit (a shard, a recogniser, a report of a training) usually takes as long as the median lap: the time in which as
many units finish as are worked on at once. With one worker that is the interval between two of them; with many it is
what one unit takes, however evenly or in bursts they finish. The mean would let one long wait hide the next.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from motionsynth.errors import InputError

logger = logging.getLogger(__name__)

LAPS = 1000
"""Last laps that the median is taken over."""
REPEAT_SECONDS = 5.0
"""Between interrupts of a main thread that has not heard the last one (Python drops one raised in a destructor)."""
LAST_RESORT_SECONDS = 120.0
"""After so long a process that a command started, and that did not end by itself, is ended from outside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long nothing may finish; each field is set by an environment variable.

    Attributes:
        factor: Times the usual time of a unit (MOTIONSYNTH_STALL_FACTOR); 0 ends no job.
        floor: Seconds, never less than these (MOTIONSYNTH_STALL_SECONDS).
        first: Seconds while nobody knows the usual time, as at the start (MOTIONSYNTH_STALL_FIRST_SECONDS).
    """

    factor: float = 20.0
    floor: float = 600.0
    first: float = 7200.0

    @staticmethod
    def from_environment() -> Limits:
        """As the environment has it.

        Raises:
            InputError: a variable is not a number from 0.
        """
        given = {}
        for field, variable in (("factor", "FACTOR"), ("floor", "SECONDS"), ("first", "FIRST_SECONDS")):
            name = f"MOTIONSYNTH_STALL_{variable}"
            text = os.environ.get(name, "")
            if not text:
                continue
            try:
                given[field] = float(text)
            except ValueError:
                given[field] = math.nan
            if not 0 <= given[field] < math.inf:
                raise InputError(f"{name} is '{text}'; it must be a number from 0, or unset.")
        return Limits(**given)

    def allowed(self, usual: float | None) -> float:
        """Seconds in which nothing may finish; infinite where no job is ended."""
        if not self.factor:
            return math.inf
        return self.first if usual is None else max(self.floor, self.factor * usual)


class Pace:
    """How long units usually take, from the moments at which they finished.

    Args:
        at_once: Units that are worked on at once.
        start: When the work began.
    """

    def __init__(self, at_once: int, start: float) -> None:
        self.at_once, self._start = max(1, at_once), start
        self._moments: dict[str, deque[float]] = {}

    def begins(self, kind: str, now: float) -> None:
        """A unit of this kind is worked on; units of one kind take about as long as each other."""
        self._moments.setdefault(kind, deque([now], maxlen=LAPS + self.at_once))

    def finished(self, kind: str, now: float) -> None:
        """A unit of this kind is done."""
        self.begins(kind, self._start)
        self._moments[kind].append(now)

    def usual(self, kinds: Iterable[str] = ()) -> float | None:
        """Seconds of a unit: the slowest of these kinds (default: of all), None while one of them is not known."""
        laps = [self._lap(kind) for kind in set(kinds) or set(self._moments)]
        known = [lap for lap in laps if lap is not None]
        return max(known) if known and len(known) == len(laps) else None

    def _lap(self, kind: str) -> float | None:
        moments = list(self._moments.get(kind, ()))
        laps = [b - a for a, b in zip(moments, moments[self.at_once :], strict=False)]
        if not laps and len(moments) > 1:
            # The first ones began together, so the last of them took as long as all.
            laps = [moments[-1] - moments[0]]
        return statistics.median(laps) if laps else None


class Interrupter:
    """Raises KeyboardInterrupt in the main thread, wherever it waits, until it has heard.

    Ray's own waits (`ray.get`, `ray.wait`, Ray Data's iterators) return for a real signal alone. SIGUSR2 is used so
    that neither ctrl-C's nor SIGTERM's handlers, which mean that somebody wants the job to end, are touched.
    """

    wanted = threading.Event()

    @staticmethod
    def listen() -> bool:
        """Make this process ready; False where that cannot be: outside its main thread."""
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGUSR2, Interrupter._raise)
        return True

    @staticmethod
    def _raise(signum: int, frame: object) -> None:
        if Interrupter.wanted.is_set():
            raise KeyboardInterrupt

    @staticmethod
    def interrupt_until(heard: threading.Event) -> None:
        """Interrupt the main thread again and again until `heard` is set; `wanted` must be set before."""
        while not heard.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
            heard.wait(REPEAT_SECONDS)


def end_at_last(code: int, runs: Callable[[], bool]) -> None:
    """End this process from a thread of its own if it has not ended by itself `LAST_RESORT_SECONDS` from now.

    For a command that was told to end and cannot: a destructor that waits for what will never come.

    Args:
        code: Exit code.
        runs: Whether the command still does; a process that outlives it (a test's, a notebook's) is left alone.
    """

    def end() -> None:
        time.sleep(LAST_RESORT_SECONDS)
        if not runs():
            return
        logger.error("The job was to end %.0f s ago and still runs; it is ended now.", LAST_RESORT_SECONDS)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()
