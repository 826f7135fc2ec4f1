"""Nothing that a job writes or shows holds a secret: storage, output, Ray's logs, command lines.

By design the secrets are in one place besides the driver: the environment of its own Ray processes, which the system
shows to the same user and to root alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from motionsynth.motion import MotionSet
from storage import Storage
from storage.header import Header
from storage.schema import encode
from tests.storage_fixtures import SECRET_KEY
from tests.tiny_jobs import SPLIT

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "../../../../outside"
"""A class name and a sample id that would leave the prefix if they ever became part of a key."""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets lie in it, and the path of a Unix socket ends at 107 characters."""
    folder = tempfile.mkdtemp(prefix="ms", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def command_lines() -> dict[str, bytes]:
    """Of every process of this machine that can be seen."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[entry.name] = (entry / "cmdline").read_bytes()
    return found


def everything(storage: Storage) -> Iterator[tuple[str, bytes]]:
    """Every object of a storage with its key and what S3 notes about it."""
    client, (bucket, _, prefix) = storage.client(), storage.uri.removeprefix("s3://").partition("/")
    for o in storage.list():
        head = client.head_object(Bucket=bucket, Key=f"{prefix}/{o.key}")
        noted = json.dumps([o.key, head["ResponseMetadata"], head["Metadata"]], default=str)
        yield o.key, storage.read(o.key) + noted.encode()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_secret_in_what_a_job_writes_or_shows(
    s3_uri: str, tiny_set: MotionSet, short_folder: Path
) -> None:
    names = (OUTSIDE, *tiny_set.class_names[1:])
    motions = [replace(m, label_name=names[m.label], dataset="parquet") for m in tiny_set.motions]
    motions[0] = replace(motions[0], sample_id=OUTSIDE)
    odd = replace(tiny_set, dataset="parquet", class_names=names, motions=tuple(motions))
    raw = short_folder / "tiny.parquet"
    raw.write_bytes(encode(odd, Header.of(odd, splits=(SPLIT.to_dict(),))))
    token = secrets.token_hex(32)
    ray, temporary = short_folder / "ray", short_folder / "tmp"
    ray.mkdir()
    temporary.mkdir()
    env = os.environ | {"RAY_TMPDIR": str(ray), "TMPDIR": str(temporary), "HOME": str(short_folder)}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "AWS_SESSION_TOKEN": ""}
    words = [sys.executable, "-m", "rayjobs.pipeline", "--storage", s3_uri, "--run", "quiet", "--json"]
    words += ["--dataset", "parquet", "--raw", str(raw), "--recipe", "debug", "--draws", "1"]

    seen: dict[str, bytes] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            seen.update(command_lines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, timeout=800)
    finally:
        over.set()
        watcher.join()
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    storage = Storage(s3_uri)
    written = dict(everything(storage))
    written |= {"standard output": done.stdout, "standard error": done.stderr}
    logs = [p for folder in (ray, temporary) for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    written |= {str(p): p.read_bytes() for p in logs}
    written |= {f"command line of {pid}": line for pid, line in seen.items()}
    # The search reaches what it should: Ray's logs, checkpoints, clips, scores, and the workers' command lines.
    for part in ("raylet.out", "checkpoints/", "synthetic/manifest.json", "scores/", "command line"):
        assert any(part in name for name in written), f"nothing of {part} was searched"
    assert any(b"ray::" in line for line in seen.values())
    # What does travel in a `runtime_env`, Ray's logs show.
    assert any("runtime_env_agent" in name and b"AWS_ENDPOINT_URL" in data for name, data in written.items())
    for secret in (SECRET_KEY.encode(), token.encode()):
        assert [name for name, data in written.items() if secret in data] == []
    assert not any("outside" in key for key in written)
