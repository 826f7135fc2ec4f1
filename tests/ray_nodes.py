"""Worker nodes of a real head (`tests.ray_head`): each one a tree of processes, killed whole as a lost machine is."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ray_head import RAY, Head, running_head
from tests.storage_fixtures import free_ports

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180


def process_tree(roots: set[int]) -> set[int]:
    """These processes, what they started, and whatever runs in a session that one of them began."""
    parents, sessions = {}, {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal():
                # After the process's name, which stands in brackets and may hold blanks.
                state, parent, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    parents[int(entry.name)], sessions[int(entry.name)] = int(parent), int(session)
    found = set(roots)
    while more := {p for p in parents if parents[p] in found or sessions[p] in found} - found:
        found |= more
    return found & set(parents)


class Node:
    """One `ray start --block` in a session of its own, with all that it starts.

    Ray gives a node 30 s to start, which a busy machine may exceed; as a service manager does, it is started again.
    """

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        again = ["sh", "-c", f"until {shlex.join(command)}; do sleep 1; done"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                again, env=dict(env), stdout=out, stderr=out, start_new_session=True
            )

    def freeze(self) -> set[int]:
        """Stop all of its processes, so that none sees another one die and tells of it; returns them."""
        frozen: set[int] = set()
        while more := process_tree({self.process.pid, *frozen}) - frozen:
            _signal(more, signal.SIGSTOP)
            frozen |= more
        return frozen

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        _signal(self.freeze(), signal.SIGKILL)
        self.process.wait()


def _signal(pids: set[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, what)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head without CPUs, and the workers that were added to it.

    Attributes:
        env: Of the workers.
    """

    head: Head
    env: Mapping[str, str]
    workers: list[Node] = field(default_factory=list)

    def add_worker(self, cpus: int) -> Node:
        """A further node, at a loopback address of its own; it joins some seconds later."""
        agent, grpc, metrics, runtime_env = free_ports(4)
        # Ray takes 127.0.0.1 for the head's address.
        own = f"127.0.0.{len(self.workers) + 2}"
        command = [RAY, "start", "--block", f"--address=127.0.0.1:{self.head.gcs}", f"--num-cpus={cpus}"]
        command += [f"--node-ip-address={own}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"]
        command += [f"--runtime-env-agent-port={runtime_env}", "--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--object-store-memory={200 << 20}", "--disable-usage-stats"]
        self.workers.append(Node(command, self.env, self.head.folder / f"{own}.log"))
        return self.workers[-1]

    def submit(self, *entry: str) -> Job:
        """`ray job submit` of a module; returns once the cluster has taken it."""
        packages = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
        command = [RAY, "job", "submit", "--address", self.head.address, "--runtime-env-json", packages]
        command += ["--", sys.executable, "-m", *entry]
        log = self.head.folder / f"job-{time.monotonic_ns()}.log"
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with log.open("wb") as out:
                job = Job(subprocess.Popen(command, env=self.head.env, stdout=out, stderr=out), log)
            while job.process.poll() is None:
                if "submitted successfully" in job.said():
                    return job
                time.sleep(0.2)
            # The agent that runs jobs answers some seconds after the head.
            time.sleep(1)
        pytest.fail(f"the head took no job in {START_SECONDS} s: {log.read_text()[-1500:]}")


@dataclass(frozen=True, slots=True)
class Job:
    """A `ray job submit` that follows its job, and what that has printed."""

    process: subprocess.Popen
    log: Path

    def said(self) -> str:
        """All output so far."""
        return self.log.read_text(errors="replace")


@contextmanager
def ray_cluster(env: Mapping[str, str]) -> Iterator[Cluster]:
    """A head, ready for workers and jobs; all nodes are killed in the end.

    Args:
        env: Of every node, such as the credentials of a storage.
    """
    with running_head(0, env) as head:
        cluster = Cluster(head, {**head.env, **env})
        try:
            _wait(head)
            yield cluster
        finally:
            for node in cluster.workers:
                node.kill()


def _wait(head: Head) -> None:
    """Until the job server answers: a worker that comes before it gives up."""
    token = {"Authorization": f"Bearer {head.env['RAY_AUTH_TOKEN']}"}
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"{head.address}/api/version", headers=token), timeout=10
            ).close()
            return
        except (urllib.error.URLError, OSError) as e:
            if time.monotonic() > end:
                pytest.fail(f"the head was not ready after {START_SECONDS} s: {e}")
            time.sleep(0.3)
