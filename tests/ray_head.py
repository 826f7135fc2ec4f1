"""A real head (`ray start --head`) with ports, token and folder of its own, for the tests of submitted jobs."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.storage_fixtures import free_ports

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A running head.

    Attributes:
        dashboard: Port on which it takes jobs.
        gcs: Port by which drivers and further nodes join.
        env: Environment of a client, with the token; no variable of AWS.
        folder: Ray's temporary folder, with its logs.
    """

    dashboard: int
    gcs: int
    env: dict[str, str]
    folder: Path

    @property
    def address(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.dashboard}"


def processes_of(folder: str) -> list[int]:
    """Processes of the Ray session in this folder, and no others: its path stands on their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and folder.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@contextmanager
def running_head(cpus: int = 2, env: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Start a head and end it. It takes jobs only some seconds later; submitting waits for that.

    Args:
        cpus: Logical CPUs.
        env: What its processes, and so every job, have in their environment: a cluster's own keys, say.
    """
    # Short: the path of a Unix socket ends at 107 characters.
    folder = tempfile.mkdtemp(prefix="ms", dir="/tmp")
    port, dashboard, agent, ray_client, grpc, metrics, runtime_env = free_ports(7)
    client = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    client |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # As in an activated environment: a job's command starts with `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        f"--num-cpus={cpus}",
        f"--temp-dir={folder}",
        f"--port={port}",
    ]
    command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={ray_client}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}"]
    # Ray's fixed range for workers could hold one of the ports above; 0 lets the system choose.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={200 << 20}", "--disable-usage-stats"]
    log_path = Path(folder, "head.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env=client | {"PATH": path} | dict(env or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(3)
            pytest.fail(f"the head ended at once: {log_path.read_text()}")
        yield Head(dashboard=dashboard, gcs=port, env=client, folder=Path(folder))
    finally:
        # Not `ray stop`, which would end every Ray of this machine.
        for pid in {process.pid, *processes_of(folder)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    """One head for all tests of a file."""
    with running_head() as head:
        yield head
