"""A verb as the entry point of `ray job submit`, on a head of our own with ports of our own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from motionsynth.motion import MotionSet
from storage import Storage
from storage.dataset import read_dataset
from storage.header import Header
from storage.schema import encode
from tests.storage_fixtures import free_ports

ROOT = Path(__file__).resolve().parents[1]
RAY = str(Path(sys.executable).parent / "ray")


def processes_of(folder: str) -> list[int]:
    """Processes of the Ray session in this folder, and no others: its path stands on their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and folder.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.fixture
def head() -> Iterator[dict[str, str]]:
    """Environment of a client of a running head."""
    # Short: the path of a Unix socket ends at 107 characters.
    folder = tempfile.mkdtemp(prefix="ms", dir="/tmp")
    port, dashboard, agent, client, grpc, metrics, runtime_env = free_ports(7)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}"]
    # Ray's fixed range for workers could hold one of the ports above; 0 lets the system choose.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={200 << 20}", "--disable-usage-stats"]
    with Path(folder, "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(3)
            pytest.fail(f"the head ended at once: {Path(folder, 'head.log').read_text()}")
        yield env | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        # Not `ray stop`, which would end every Ray of this machine.
        for pid in {process.pid, *processes_of(folder)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def submit(env: dict[str, str], *entry: str) -> subprocess.CompletedProcess:
    """Submit and wait; the agent answers some seconds after the head."""
    packages = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    command = [RAY, "job", "submit", "--runtime-env-json", packages, "--", sys.executable, "-m", *entry]
    end = time.monotonic() + 90
    while True:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
        ready = "submitted successfully" in done.stdout
        if ready or time.monotonic() > end:
            return done
        time.sleep(1)


def test_prepare_as_a_submitted_job(head: dict[str, str], tiny_set: MotionSet, tmp_path: Path) -> None:
    raw = tmp_path / "tiny.parquet"
    raw.write_bytes(encode(tiny_set, Header.of(tiny_set)))
    out = tmp_path / "out"
    verb = ["rayjobs.prepare", "--storage", str(out), "--dataset", "parquet", "--json"]

    done = submit(head, *verb, "--raw", str(raw))
    assert done.returncode == 0, done.stdout + done.stderr
    # It joined the head that runs it, it did not start another Ray.
    assert "Joined the Ray cluster" in done.stdout and "Started a local Ray" not in done.stdout
    result = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"dataset"'))
    assert result["kept"] == 24
    assert len(read_dataset(Storage(out), "data/tiny")[0]) == 24

    failed = submit(head, *verb, "--raw", str(tmp_path / "none.parquet"))
    assert failed.returncode == 1
    assert "none.parquet' does not exist" in failed.stdout and "exit code 2" in failed.stdout + failed.stderr
