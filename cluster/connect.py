"""The one place that starts or joins Ray, and the sum that refuses a plan that would wait for ever.

`connect()` starts a private local Ray unless the process runs inside a cluster (the entry point of
`ray job submit`, where `RAY_ADDRESS` is set) or is told to join one with `--address auto`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionsynth.errors import InputError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds our packages; workers find them there."""

OBJECT_STORE_BYTES = 400 << 20
"""Only statistics rows cross the object store, so it stays small whatever the size of the job."""

SPARE_CPUS = 2
"""Logical CPUs that a local Ray has beyond the cores: a driver task or a Ray Data source mostly sleeps, but
where actors hold every CPU it is never scheduled and the job hangs silently (ray#44687)."""

OF_A_PRIVATE_RAY = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
"""No cloud takes its node away, and Ray Train's watcher for that is a process more per training. And Train sees that a
training has ended when it next looks, by default every two seconds, which here are a third of a short one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What `connect` reached.

    Attributes:
        address: "local", or the address that was joined.
        cpus: Logical CPUs that a plan may count on.
        gpus: GPUs that a plan may count on.
        started: Whether this call started Ray (then whoever called it also shuts it down).
    """

    address: str
    cpus: float
    gpus: float
    started: bool


def cores() -> int:
    """CPU cores that this process may use (a container's or `taskset`'s limit counts)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def connect(
    address: str | None = None,
    num_cpus: int | None = None,
    env_vars: Mapping[str, str] | None = None,
    num_gpus: int | None = None,
) -> Connection:
    """Start a local Ray or join a cluster; a process that is connected already keeps its connection.

    Args:
        address: "local" starts a private Ray; "auto" or "host:port" joins one; None joins when `RAY_ADDRESS`
            is set (so it is inside `ray job submit`) and else starts.
        num_cpus: Logical CPUs of a local Ray (default: cores + 2). Of a joined cluster: the size to which it
            can grow, for `plan_resources` (default: its present size).
        env_vars: Environment of every worker, besides our own (`Storage.worker_env()` belongs here: workers
            on other machines do not see this process's environment). No secrets: Ray logs them. The workers
            of a local Ray inherit this process's environment, those of a cluster that of their node.
        num_gpus: Of a joined cluster: the GPUs to which it can grow, for `plan_resources` (default: those that it
            has, which is none where GPU nodes start when they are asked for).

    Raises:
        InputError: no cluster answers at `address`, or it is a `ray://` address.
    """
    if num_cpus is not None and num_cpus < 1:
        raise InputError(f"The number of logical CPUs is {num_cpus}; it must be at least 1.")
    if num_gpus is not None and num_gpus < 0:
        raise InputError(f"The number of GPUs is {num_gpus}; it must be at least 0.")
    started = False
    address = address or ("auto" if os.environ.get("RAY_ADDRESS") else "local")
    if address.startswith("ray://"):
        raise InputError(
            f"The address '{address}' is a Ray Client address, which cannot drive Ray Data and Ray Train; "
            "submit the command with `ray job submit --address http://HOST:8265 -- python -m rayjobs...`."
        )
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        if address == "local":
            _start(num_cpus or cores() + SPARE_CPUS, env_vars or {})
        else:
            _join(address, env_vars or {})
        started = True
        _quiet()
    import ray

    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    if address != "local":
        cpus, gpus = max(cpus, float(num_cpus or 0)), max(gpus, float(num_gpus or 0))
    return Connection(address=address, cpus=cpus, gpus=gpus, started=started)


def disconnect() -> None:
    """Leave Ray; a local one that this process started ends. Harmless when not connected."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def _private_token() -> None:
    """Choose Ray's authentication on purpose, as the default differs between hosts and versions.

    Other users of this machine must not be able to run code in our Ray; the token lives in this process and its
    children only, where Ray's own default leaves it in ~/.ray/auth_token.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if "ray" in sys.modules:
        # Ray read the mode when it was imported; this is how it refreshes it itself.
        from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]

        Config.initialize("")


def _start(num_cpus: int, env_vars: Mapping[str, str]) -> None:
    _private_token()
    # Without address="local" Ray attaches to whatever /tmp/ray/ray_current_cluster names.
    options: dict[str, Any] = {
        "address": "local",
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "logging_level": logging.ERROR,
        # What workers print stays in Ray's log files: jobs print their own progress, and errors come as exceptions.
        "log_to_driver": False,
        "runtime_env": {
            "env_vars": {**_worker_env(), **OF_A_PRIVATE_RAY, "PYTHONPATH": _python_path(), **env_vars}
        },
    }
    try:
        _init(**options)
    except Exception as e:
        if "timed out during startup" not in str(e):
            raise
        # Ray's processes have some 30 s to find each other, which a busy machine may not give them.
        logger.warning("Ray did not start in time; trying once more.")
        disconnect()
        _init(**options)
    logger.info("Started a local Ray with %d logical CPUs on %d cores.", num_cpus, cores())


def _join(address: str, env_vars: Mapping[str, str]) -> None:
    job_env = _job_runtime_env()
    env = {**_worker_env(), **env_vars}
    if "working_dir" not in job_env:
        env["PYTHONPATH"] = _python_path()
    # What the submitter set wins; Ray refuses a driver that sets the same variable to something else.
    env = {k: v for k, v in env.items() if k not in job_env.get("env_vars", {})}
    try:
        if address != "auto":
            # Ray itself would try for two minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        _init(address=address, logging_level=logging.ERROR, runtime_env={"env_vars": env})
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(
            f"No Ray cluster answers at the address '{address}' ({' '.join(str(e).split())[:200]}); start one, or "
            "leave --address out to run on this machine."
        ) from None
    logger.info("Joined the Ray cluster at '%s'.", address)


def _init(**options: Any) -> None:
    """`ray.init`; with `MOTIONSYNTH_LOG=json` its workers write one JSON object a line, with Ray's ids."""
    import ray

    as_json = os.environ.get("MOTIONSYNTH_LOG") == "json"
    handlers, level = logging.root.handlers[:], logging.root.level
    ray.init(**options, logging_config=ray.LoggingConfig(encoding="JSON") if as_json else None)
    if as_json:
        # This process writes JSON already; Ray's further handler would say everything twice.
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def _worker_env() -> dict[str, str]:
    # One thread per worker: parallelism is the number of workers, and results do not depend on core counts.
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _python_path() -> str:
    return os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    )


def _job_runtime_env() -> dict:
    """The runtime_env of the `ray job submit` that this process is the entry point of, {} if it is none."""
    try:
        return json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    except json.JSONDecodeError:
        return {}


def ray_data() -> Any:
    """`ray.data` with its own progress log off: jobs print one line of theirs, with clips/s and the time left.

    Imported by those who use it: it takes a second.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # After the import, which sets levels of its own.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    return ray.data


def _quiet() -> None:
    """What Ray's libraries tell as they go is left out; see `ray_data`, too."""
    for name in ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)


def room(connection: Connection, cpus_each: float = 1.0, gpus_each: float = 0.0) -> int:
    """Processes that fit side by side; 0 where not even one does.

    A private Ray has a few logical CPUs more than the machine has cores, for what waits; what computes on CPUs gets
    one core each.

    Args:
        connection: To what.
        cpus_each, gpus_each: What each process holds.

    Raises:
        InputError: no process can hold so much of a GPU.
    """
    _check_gpus(gpus_each)
    cpus, fits = connection.cpus, float("inf")
    if gpus_each:
        fits = connection.gpus / gpus_each
    elif connection.address == "local":
        cpus = min(cores(), cpus)
    return int(min(fits, cpus / cpus_each) + 1e-9)


def _check_gpus(each: float) -> None:
    if not (0 <= each <= 1 or (each > 1 and each % 1 == 0)):
        raise InputError(
            f"The GPUs per worker are {each:g}; allowed: 0 for CPUs only, a share of one up to 1, or a whole number."
        )


def plan_resources(
    *,
    actors: int,
    cpus_per_actor: float,
    tasks: int = 1,
    cpus_per_task: float = 1.0,
    gpus_per_actor: float = 0.0,
    cpus: float,
    gpus: float = 0.0,
) -> str:
    """Check that actors and the tasks which feed them can run at the same time.

    Ray neither refuses nor reports a plan whose actors hold every CPU while a task that they wait for needs one:
    it hangs. So the sum is done before the start.

    Args:
        actors: Processes that hold their resources for the whole job (actor pool, Train workers, trial drivers).
        cpus_per_actor, gpus_per_actor: What each one holds.
        tasks: Short tasks that must be able to run beside them (Ray Data's source: 1).
        cpus_per_task: What each of those needs.
        cpus, gpus: What there is (`Connection.cpus`, `Connection.gpus`).

    Returns:
        The sum, as a sentence for the log.

    Raises:
        InputError: it does not fit, and the message holds the arithmetic and what would fit; or no process can hold so
            much of a GPU.
    """
    if actors < 1:
        raise InputError(f"The number of workers is {actors}; it must be at least 1.")
    _check_gpus(gpus_per_actor)
    need = actors * cpus_per_actor + tasks * cpus_per_task
    arithmetic = (
        f"{actors} workers x {cpus_per_actor:g} CPU + {tasks} tasks x {cpus_per_task:g} CPU = {need:g} CPUs"
    )
    if need > cpus + 1e-9:
        left = cpus - tasks * cpus_per_task
        fits = int((left + 1e-9) // cpus_per_actor) if cpus_per_actor > 0 and left > 0 else 0
        advice = f"use at most {fits} workers or " if fits else ""
        raise InputError(
            f"{arithmetic}, but Ray has {cpus:g} and the job would wait for ever; {advice}give it more with "
            f"--cpus {int(-(-need // 1))}."
        )
    if (need_gpus := actors * gpus_per_actor) > gpus + 1e-9:
        fits = int((gpus + 1e-9) // gpus_per_actor)
        advice = f"use at most {fits} workers" if fits else "set the GPUs per worker to 0"
        raise InputError(
            f"{actors} workers x {gpus_per_actor:g} GPU = {need_gpus:g} GPUs, but Ray has {gpus:g} and the job would "
            f"wait for ever; {advice}, or say with --gpus to how many a cluster can grow."
        )
    return f"{arithmetic} of {cpus:g}."
