"""Metrics for Prometheus, and log lines as JSON.

Metrics go through `ray.util.metrics` to the metrics port of the node where they are counted, with the prefix `ray_`,
some ten seconds later; `cluster/grafana.json` draws them. Outside Ray nothing is counted. `MOTIONSYNTH_LOG=json` turns
the log lines of driver and workers into one JSON object each, with the fields of `rayjobs.units` (shard, recogniser,
training, trial, bed) and whatever a line brings besides.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from motionsynth.errors import InputError

LOG = "MOTIONSYNTH_LOG"
PREFIX = "motionsynth_"
SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Upper bounds of the histograms' buckets."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A counter, or the histogram of seconds, and what its values are told apart by."""

    says: str
    tags: tuple[str, ...] = ()
    seconds: bool = False


METRICS = {
    "clips_made": Metric("Synthetic clips that were written"),
    "bytes_written": Metric("Bytes of the shards that were written"),
    "shards_finished": Metric("Shards that were written"),
    "shards_failed": Metric("Attempts at a shard that ended with an error"),
    "shard_seconds": Metric("Seconds per shard that was written", seconds=True),
    "training_steps": Metric("Steps of generators' trainings", ("generator",)),
    "recognisers_trained": Metric("Recognisers that were trained and judged", ("recogniser",)),
    "recogniser_seconds": Metric("Seconds per recogniser", ("recogniser",), seconds=True),
}


def exported_names() -> set[str]:
    """The names under which Prometheus finds the metrics."""
    out = set()
    for name, metric in METRICS.items():
        ends = ("_bucket", "_count", "_sum") if metric.seconds else ("_total",)
        out |= {f"ray_{PREFIX}{name}{end}" for end in ends}
    return out


def count(name: str, amount: float = 1, **tags: str) -> None:
    """Add to a counter; 0 adds nothing."""
    if amount and _counting():
        _metric(name).inc(float(amount), tags)


def observe(name: str, seconds: float, **tags: str) -> None:
    """Add to a histogram."""
    if _counting():
        _metric(name).observe(seconds, tags)


@contextlib.contextmanager
def timed(name: str, **tags: str) -> Iterator[None]:
    """Time what runs inside and say so in the log; what raises is not counted."""
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    observe(name, seconds, **tags)
    logging.getLogger(__name__).info("done in %.3f s", seconds, extra={"seconds": round(seconds, 3)})


def shard_made(clips: int, size: int) -> None:
    """A shard was written: of so many clips and bytes."""
    count("shards_finished")
    count("clips_made", clips)
    count("bytes_written", size)


def _counting() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@cache
def _metric(name: str) -> Any:
    from ray.util.metrics import Counter, Histogram

    metric = METRICS[name]
    if metric.seconds:
        return Histogram(PREFIX + name, metric.says, boundaries=list(SECONDS), tag_keys=metric.tags)
    return Counter(PREFIX + name, metric.says, tag_keys=metric.tags)


def as_json() -> bool:
    """Whether log lines are to be JSON.

    Raises:
        InputError: `MOTIONSYNTH_LOG` is neither text nor json.
    """
    wish = os.environ.get(LOG) or "text"
    if wish not in ("text", "json"):
        raise InputError(f"{LOG} is '{wish}'; it must be text or json, or unset.")
    return wish == "json"


def formatter() -> logging.Formatter:
    """Of this process's log lines."""
    return JsonFormatter() if as_json() else logging.Formatter(TEXT)


TEXT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object a line, under the names that Ray's own JSON lines (`ray.LoggingConfig`) have in the workers."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said: dict[str, Any] = {
            "asctime": self.formatTime(record), "levelname": record.levelname, "name": record.name,
            "message": record.getMessage(), "filename": record.filename, "lineno": record.lineno,
        }  # fmt: skip
        if record.exc_info:
            said["exc_text"] = self.formatException(record.exc_info)
        said |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        return json.dumps(said, default=str)
