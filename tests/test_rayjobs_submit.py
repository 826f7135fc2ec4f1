"""A verb as the entry point of `ray job submit`, on a head of our own with ports of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from motionsynth.motion import MotionSet
from storage import Storage
from storage.dataset import read_dataset
from storage.header import Header
from storage.schema import encode
from tests.ray_head import RAY, Head

ROOT = Path(__file__).resolve().parents[1]


def submit(head: Head, *entry: str) -> subprocess.CompletedProcess:
    """Submit and wait; the agent answers some seconds after the head."""
    env = head.env | {"RAY_API_SERVER_ADDRESS": head.address}
    packages = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    command = [RAY, "job", "submit", "--runtime-env-json", packages, "--", sys.executable, "-m", *entry]
    end = time.monotonic() + 90
    while True:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
        ready = "submitted successfully" in done.stdout
        if ready or time.monotonic() > end:
            return done
        time.sleep(1)


def test_prepare_as_a_submitted_job(ray_head: Head, tiny_set: MotionSet, tmp_path: Path) -> None:
    raw = tmp_path / "tiny.parquet"
    raw.write_bytes(encode(tiny_set, Header.of(tiny_set)))
    out = tmp_path / "out"
    verb = ["rayjobs.prepare", "--storage", str(out), "--dataset", "parquet", "--json"]

    done = submit(ray_head, *verb, "--raw", str(raw))
    assert done.returncode == 0, done.stdout + done.stderr
    # It joined the head that runs it, it did not start another Ray.
    assert "Joined the Ray cluster" in done.stdout and "Started a local Ray" not in done.stdout
    result = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"dataset"'))
    assert result["kept"] == 24
    assert len(read_dataset(Storage(out), "data/tiny")[0]) == 24

    failed = submit(ray_head, *verb, "--raw", str(tmp_path / "none.parquet"))
    assert failed.returncode == 1
    assert "none.parquet' does not exist" in failed.stdout and "exit code 2" in failed.stdout + failed.stderr
