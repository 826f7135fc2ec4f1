"""What each worker works on: a field of its log lines, and what a stalled job shows.

A worker that holds one unit (a shard, a recogniser, a training) for more than a few seconds says so in Ray's key-value
store, which needs no dashboard and no further actor. From there the driver reads who holds what, since when, and asks
the processes of its own machine for their Python stacks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SPACE = b"motionsynth-units"
SAY_AFTER_SECONDS = 2.0
"""A unit held for less is not worth two requests to Ray's head."""
STACK_SECONDS = 3.0
"""Time that a process has to write down its stacks."""

_fields: ContextVar[Mapping[str, str]] = ContextVar("fields", default={})  # noqa: B039


@contextlib.contextmanager
def unit(kind: str, name: str) -> Iterator[None]:
    """Whatever runs inside belongs to this unit.

    Args:
        kind: shard, recogniser, training, trial or bed: the field's name in a JSON log line.
        name: Which one.
    """
    _number_the_log()
    outer = _fields.get()
    token = _fields.set({**outer, kind: name})
    holder = _holder() if not outer else None  # of nested units the outermost is what the driver waits for
    if holder:
        holder.hold(f"{kind} {name}")
    try:
        yield
    finally:
        _fields.reset(token)
        if holder:
            holder.hold("")


def log_fields() -> Mapping[str, str]:
    """The units that this thread is in, by kind."""
    return _fields.get()


def _number_the_log() -> None:
    make = logging.getLogRecordFactory()
    if getattr(make, "numbers_units", False):
        return

    def numbered(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.__dict__.update(_fields.get())
        return record

    numbered.numbers_units = True  # pyright: ignore[reportFunctionMemberAccess]
    logging.setLogRecordFactory(numbered)


class _Holder:
    """A thread that tells Ray what this process holds."""

    def __init__(self) -> None:
        import ray

        # Ray redirects a worker's standard error to a file of its own in the session's log folder.
        self.stacks = os.path.realpath("/proc/self/fd/2")
        # In C, so that it answers whatever Python waits for.
        faulthandler.register(signal.SIGUSR1, 2, all_threads=True)
        context = ray.get_runtime_context()
        self.key = f"{context.get_job_id()}/{context.get_worker_id()}".encode()
        self.node = context.get_node_id()
        self.what, self.since = "", time.time()
        self.changed = threading.Event()
        threading.Thread(target=self._tell, daemon=True).start()

    def hold(self, what: str) -> None:
        self.what, self.since = what, time.time()
        self.changed.set()

    def _tell(self) -> None:
        from ray.experimental import internal_kv as kv

        said = ""
        while True:
            self.changed.wait(None if said == self.what else SAY_AFTER_SECONDS)
            self.changed.clear()
            what, since = self.what, self.since
            wait = since + SAY_AFTER_SECONDS - time.time()
            if what == said or (what and wait > 0):
                continue
            held = {
                "what": what, "since": since, "pid": os.getpid(), "host": socket.gethostname(), "node": self.node,
                "stacks": self.stacks,
            }  # fmt: skip
            try:
                if what:
                    kv._internal_kv_put(self.key, json.dumps(held).encode(), overwrite=True, namespace=SPACE)
                else:
                    kv._internal_kv_del(self.key, namespace=SPACE)
                said = what
            except Exception:
                # The head does not answer: the unit itself need not know.
                logger.debug("what is held cannot be told", exc_info=True)
                time.sleep(SAY_AFTER_SECONDS)


_of_process: list[_Holder] = []


def _holder() -> _Holder | None:
    """This process's, if it is a worker of Ray."""
    if not _of_process:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return None
        import ray._private.worker as worker

        if worker.global_worker.mode != worker.WORKER_MODE:
            return None
        try:
            _of_process.append(_Holder())
        except OSError:
            logger.debug("what is held cannot be told", exc_info=True)
            return None
    return _of_process[0]


def held() -> list[dict[str, Any]]:
    """What the workers of this driver's job have held for more than a few seconds, longest first."""
    import ray
    from ray.experimental import internal_kv as kv

    job = f"{ray.get_runtime_context().get_job_id()}/".encode()
    found = [kv._internal_kv_get(key, namespace=SPACE) for key in kv._internal_kv_list(job, namespace=SPACE)]
    return sorted((json.loads(f) for f in found if f), key=lambda h: h["since"])


def stacks_of(held: Mapping[str, Any]) -> str:
    """The Python stacks of a worker that holds something, if it runs on this machine; else ""."""
    path, pid = Path(held["stacks"]), int(held["pid"])
    if held["host"] != socket.gethostname() or not path.is_file() or not _is_worker(pid):
        return ""
    before = path.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + STACK_SECONDS
    while time.monotonic() < end:
        time.sleep(0.2)
        text = path.read_bytes()[before:].decode(errors="replace")
        if "most recent call first" in text:
            return text
    return ""


def _is_worker(pid: int) -> bool:
    """Whether this process is still one of Ray's; another one would die of the signal."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
