"""What waits for what in a job that no longer moves, as text: nothing here needs Ray's dashboard.

Every part is asked for with a time limit, since whatever holds up the job may hold up the answer.
"""

from __future__ import annotations

import faulthandler
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 20.0
"""Per part."""
LISTED = 20
"""Units, actors and tasks that are listed by name."""
LOG_LINES = 15


def report(waiting_for: Mapping[str, str] | None = None) -> str:
    """Everything that tells why nothing finishes.

    Args:
        waiting_for: What this process knows to be worked on, by name.
    """
    parts: list[tuple[str, Callable[[], str]]] = [("this process", _own_stacks)]
    if _ray_runs():
        parts = [
            ("held by workers for more than a few seconds", _held),
            ("resources", _resources),
            ("actors", _actors),
            ("tasks that are not done", _tasks),
            ("end of Ray Data's log", _data_log),
            *parts,
        ]
    if waiting_for:
        names = [*list(waiting_for)[:LISTED], *(["..."] if len(waiting_for) > LISTED else [])]
        parts.insert(0, (f"being worked on ({len(waiting_for)})", lambda: "\n".join(names)))
    return "\n".join(f"-- {title}\n{_answer(ask)}" for title, ask in parts)


def _answer(ask: Callable[[], str]) -> str:
    said: list[str] = []

    def run() -> None:
        try:
            said.append(ask() or "none")
        except Exception as e:
            said.append(f"not known ({type(e).__name__}: {' '.join(str(e).split())[:200]})")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    text = said[0] if said else f"no answer within {ANSWER_SECONDS:.0f} s"
    return "\n".join(f"   {line}" for line in text.splitlines())


def _ray_runs() -> bool:
    import sys

    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _held() -> str:
    from rayjobs import units

    lines = []
    for i, h in enumerate(units.held()[:LISTED]):
        lines.append(f"{h['what']}: process {h['pid']} on {h['host']}, for {time.time() - h['since']:.0f} s")
        if i < 3 and (stacks := units.stacks_of(h)):
            lines += [f"    {line}" for line in stacks.splitlines() if line.strip()]
    return "\n".join(lines)


def _resources() -> str:
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    nodes = ray.nodes()
    lines = [f"{sum(bool(n['Alive']) for n in nodes)} nodes alive, {sum(not n['Alive'] for n in nodes)} lost"]
    lines += [f"{k}: {free.get(k, 0):g} of {total[k]:g} free" for k in ("CPU", "GPU") if k in total]
    return "\n".join(lines)


def _actors() -> str:
    import ray._private.state as state

    mine = [a for a in (state.actors() or {}).values() if a["JobID"] == _job() and a["State"] != "DEAD"]
    found = Counter(
        (a["ActorClassName"], a["State"], f"process {a['Pid']}" if a["Pid"] else "no process yet")
        for a in mine
    )
    return _counted(found)


def _tasks() -> str:
    """From the events that every worker sends to Ray's head each second."""
    import ray._private.state as state
    from ray.core.generated import common_pb2

    status: Any = getattr(common_pb2, "TaskStatus")  # noqa: B009, generated
    found: Counter[tuple[str, ...]] = Counter()
    job = bytes.fromhex(_job())
    events: Any = state.state._get_all_task_events()
    for event in events:
        updates, name = event.state_updates, event.task_info.name
        if event.task_info.job_id != job or not name or not updates.state_ts_ns:
            continue
        last = status.Name(max(updates.state_ts_ns))
        if last in ("FINISHED", "FAILED"):
            continue
        since = time.time() - max(updates.state_ts_ns.values()) / 1e9
        where = f"process {updates.worker_pid}, for {since:.0f} s" if last == "RUNNING" else ""
        found[name, last, where] += 1
    return _counted(found)


def _job() -> str:
    import ray

    return ray.get_runtime_context().get_job_id()


def _counted(found: Mapping[tuple[str, ...], int]) -> str:
    lines = [f"{n} x {' '.join(filter(None, what))}" for what, n in sorted(found.items())]
    return "\n".join([*lines[:LISTED], *(["..."] if len(lines) > LISTED else [])])


def _data_log() -> str:
    import ray._private.worker as worker

    node: Any = worker._global_node
    if node is None:
        return "on the machine of Ray's head"
    logs = sorted(
        (Path(node.get_logs_dir_path()) / "ray-data").glob("*.log"), key=lambda p: p.stat().st_mtime
    )
    return "\n".join(logs[-1].read_text(errors="replace").splitlines()[-LOG_LINES:]) if logs else ""


def _own_stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
