"""Verbs submitted to a real head: real exit codes, one run per request, an unbroken log, no secret."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.recipes import get_recipe
from rayjobs.job_request import PACKAGE_BYTES, make_request
from rayjobs.job_server import JobServer
from rayjobs.submit import submit
from storage import Storage
from storage.checkpoints import list_checkpoints
from storage.dataset import read_dataset
from storage.header import Header
from storage.schema import encode
from tests.ray_head import Head, running_head
from tests.storage_fixtures import S3Server

ROOT = Path(__file__).resolve().parents[1]
OURS = "of-the-submitter-1b7e"
"""Keys of the machine that submits; the cluster has its own."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def head(s3_server: S3Server) -> Iterator[Head]:
    """A cluster whose nodes have access to the bucket."""
    with running_head(cpus=3, env=s3_server.env) as running:
        yield running


@pytest.fixture
def server(head: Head, monkeypatch: pytest.MonkeyPatch) -> JobServer:
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.env["RAY_AUTH_TOKEN"])
    return JobServer(head.address, patience=300)  # it trains beside the head, on however busy a machine


def command(address: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "rayjobs.submit", "--address", address, *words]


def start(head: Head, address: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(address, *words),
        cwd=ROOT,
        env=head.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, this suite perhaps among them, are deaf to ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(head: Head, *words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(head.address, *words),
        cwd=ROOT,
        env=head.env | env,
        capture_output=True,
        text=True,
        timeout=600,
    )


def checkout_of(folder: Path, script: str) -> Path:
    """A checkout whose `status` is this script: what a job does is then up to the test."""
    for package in ("motionsynth", "storage", "cluster", "rayjobs", "tuning"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    (folder / "rayjobs" / "status.py").write_text(script)
    return folder


def files_with(head: Head, text: str) -> list[Path]:
    """What Ray wrote on the head, logs above all."""
    found = []
    for path in head.folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path)
    return found


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.2)


def test_a_verb_on_a_cluster_that_has_only_just_started(
    head: Head, s3_server: S3Server, tiny_set: MotionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkout travels, the result is in the bucket, and no secret of the submitter is anywhere in the cluster."""
    raw = tmp_path / "tiny.parquet"
    raw.write_bytes(encode(tiny_set, Header.of(tiny_set)))
    bucket = f"s3://{s3_server.bucket}/submit-{uuid.uuid4().hex[:8]}"
    verb = ["--", "prepare", "--storage", bucket, "--dataset", "parquet", "--json", "--raw"]
    env = s3_server.env | {
        "AWS_ACCESS_KEY_ID": OURS, "AWS_SECRET_ACCESS_KEY": OURS, "AWS_SESSION_TOKEN": OURS,
    }  # fmt: skip

    done = run(head, "--json", *verb, str(raw), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    # It joined the head that runs it, it did not start another Ray.
    assert "Joined the Ray cluster" in done.stdout and "Started a local Ray" not in done.stdout
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["status"] == "SUCCEEDED" and last["exit_code"] == 0 and last["result"]["kept"] == 24
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    assert len(read_dataset(Storage(bucket), "data/tiny")[0]) == 24

    token = head.env["RAY_AUTH_TOKEN"]
    listed = requests.get(
        f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    job = next(j for j in listed.json() if j["submission_id"] == last["id"])
    assert job["runtime_env"]["env_vars"]["AWS_ENDPOINT_URL"] == s3_server.endpoint
    assert OURS not in listed.text and token not in listed.text
    # The search finds what is there: the job's id stands in many files, the submitter's keys in none.
    assert files_with(head, last["id"]) and files_with(head, OURS) == []

    failed = run(head, *verb, str(tmp_path / "none.parquet"), **env)
    assert failed.returncode == 2, failed.stderr
    assert "none.parquet' does not exist" in failed.stdout and "exit code 2" in failed.stderr


class Proxy:
    """Forwards a port to another until it is cut; then all connections are gone, and new ones refused for a while."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [one, other]
            for pair in ((one, other), (other, one)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self, seconds: float) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends = []
        time.sleep(seconds)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()


def test_exit_code_seven_and_every_line_once_though_the_connection_breaks(head: Head, tmp_path: Path) -> None:
    script = """
import sys, time
for i in range(200):
    print(f"line {i} ü", flush=True)
    time.sleep(0.1)
sys.exit(7)
"""
    folder = checkout_of(tmp_path / "sent", script)
    proxy = Proxy(head.dashboard)
    words = ["--working-dir", str(folder), "--json", "--", "status", "--storage", str(tmp_path / "out")]
    process = start(head, f"http://127.0.0.1:{proxy.port}", *words)
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line.rstrip("\n"))
        if line.startswith(("line 15 ", "line 45 ")):
            proxy.cut(3)
    error = process.communicate()[1]
    assert process.returncode == 7, error
    assert [h for h in heard if h.startswith("line")] == [f"line {i} ü" for i in range(200)]
    assert error.count("broke off") >= 2
    last = json.loads(heard[-1])
    assert last["exit_code"] == 7 and last["status"] == "FAILED" and "exit code 7" in last["error"]


def test_a_request_runs_once_and_what_failed_again(head: Head, tmp_path: Path) -> None:
    ran, fails = tmp_path / "ran", tmp_path / "fails"
    script = f"""
import sys, time
from pathlib import Path
with Path({str(ran)!r}).open("a") as f:
    f.write("ran\\n")
time.sleep(4)
print("did it")
sys.exit(Path({str(fails)!r}).exists())
"""
    folder = checkout_of(tmp_path / "sent", script)
    words = [
        "--working-dir", str(folder), "--json", "--", "status", "--storage", str(tmp_path / "out"), "--run",
    ]  # fmt: skip

    both = [start(head, head.address, *words, "twice") for _ in range(2)]
    said = [p.communicate(timeout=200) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert all("did it" in out for out, _ in said)
    # A third time: shown, not run. The words may differ as long as they say the same.
    third = run(head, *words[:4], "python", "-m", "rayjobs.status", "--run=twice", *words[5:7])
    assert third.returncode == 0 and "did it" in third.stdout and "succeeded already" in third.stderr
    names = {json.loads(out.splitlines()[-1])["id"] for out, _ in said} | {
        json.loads(third.stdout.splitlines()[-1])["id"]
    }
    assert len(names) == 1
    assert ran.read_text() == "ran\n"
    again = run(head, "--again", *words, "twice")
    assert json.loads(again.stdout.splitlines()[-1])["id"] == f"{names.pop()}-2"
    assert ran.read_text() == "ran\n" * 2

    fails.touch()
    first = run(head, *words, "flaky")
    fails.unlink()
    second = run(head, *words, "flaky")
    assert (first.returncode, second.returncode) == (1, 0)
    name = json.loads(first.stdout.splitlines()[-1])["id"]
    assert json.loads(second.stdout.splitlines()[-1])["id"] == f"{name}-2"


def test_ctrl_c_leaves_the_job_running_and_stop_ends_it(head: Head, tmp_path: Path) -> None:
    script = """
import signal, sys, time
def save(*_):
    time.sleep(8)  # longer than the 3 s after which Ray kills a job by default
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
print("at work", flush=True)
time.sleep(300)
"""
    folder = checkout_of(tmp_path / "sent", script)
    words = ["--working-dir", str(folder), "--json", "--", "status", "--storage", str(tmp_path / "out")]
    process = start(head, head.address, *words)
    assert process.stdout is not None
    assert any(line == "at work\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=200)
    assert process.returncode == 130 and "Traceback" not in error
    last = json.loads(out.splitlines()[-1])
    name = last["id"]
    assert f"--stop {name}" in last["error"]

    listed = json.loads(run(head, "--status", "--json").stdout.splitlines()[-1])["jobs"]
    assert [j["status"] for j in listed if j["id"] == name] == ["RUNNING"]
    left = run(head, "--no-wait", *words)
    assert left.returncode == 0 and json.loads(left.stdout.splitlines()[-1])["id"] == name
    stopped = run(head, "--stop", name, "--json")
    assert stopped.returncode == 0 and json.loads(stopped.stdout.splitlines()[-1])["status"] == "STOPPED"
    assert "saved" in Path(next(head.folder.rglob(f"job-driver-{name}.log"))).read_text()
    one = run(head, "--status", name)
    assert one.returncode == 0 and f"{name}: stopped, exit code 130" in one.stdout


def test_a_stopped_training_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    head: Head, s3_server: S3Server, server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{s3_server.bucket}/train-{uuid.uuid4().hex[:8]}"
    where = ["--dataset", "sample", "--storage", bucket]
    submit(server, make_request(["prepare", *where], loopback=True))
    # One bed; it reports every 50 steps, and is stopped when it has not yet done so.
    end = 160 + get_recipe("demo").training.rare_steps
    words = ["train", *where, "--recipe", "demo", "--scarcity", "full", "--run", "r", "--steps", "160"]
    request = make_request(words, loopback=True)
    first = submit(server, request, wait=False)["id"]
    log = lambda: "".join(p.read_text() for p in head.folder.rglob(f"job-driver-{first}.log"))  # noqa: E731
    wait_until(lambda: "training motion_gan on 1 draws" in log())
    done = run(head, "--stop", first)
    assert done.returncode == 0, done.stderr
    assert "stopping at the next checkpoint" in log()

    storage = Storage(bucket)
    keys = [o.key for o in storage.list("runs/r")]
    prefix = next(k.split("/checkpoints/")[0] for k in keys if "/checkpoints/" in k)
    saved = list_checkpoints(storage, f"{prefix}/checkpoints")[-1].step
    assert 50 <= saved < end

    result = submit(server, request)
    assert result["id"] == f"{first}-2" and result["status"] == "SUCCEEDED"
    assert list_checkpoints(storage, f"{prefix}/checkpoints")[-1].step == end
    # The second began where the first had ended: its events say so.
    events = [o.key for o in storage.list(f"{prefix}/tensorboard")]
    assert sorted(k.rpartition(".")[2] for k in events) == ["0", str(saved)]


@pytest.mark.parametrize(("token", "words"), [("", "wants a token (401)"), ("0" * 64, "refuses the token")])
def test_a_missing_or_wrong_token_is_explained(head: Head, server: JobServer, token: str, words: str) -> None:
    done = run(head, "--status", "--json", RAY_AUTH_TOKEN=token, RAY_AUTH_MODE="disabled")
    assert done.returncode == 2
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert words in error and "RAY_AUTH_TOKEN_PATH" in error and error.count(". ") == 0


def test_the_token_may_be_in_a_file_and_the_address_is_the_one_given(
    head: Head, server: JobServer, tmp_path: Path
) -> None:
    """Ray's own client would go where RAY_ADDRESS points, whatever address it is given."""
    (tmp_path / "token").write_text(head.env["RAY_AUTH_TOKEN"] + "\n")
    done = run(
        head, "--status", "--json", RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"),
        RAY_ADDRESS="http://127.0.0.1:1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_unknown_job_is_one_sentence(server: JobServer) -> None:
    with pytest.raises(InputError, match="knows no job 'motionsynth-x'"):
        server.job("motionsynth-x")


def test_a_head_takes_no_larger_package_than_we_think(head: Head) -> None:
    """The sentence about the size of the working directory is true as long as this is."""
    answers = []
    for size in (PACKAGE_BYTES - 1, PACKAGE_BYTES + 1):
        sent = requests.put(
            f"{head.address}/api/packages/gcs/_ray_pkg_{size}.zip", data=bytes(size), timeout=120,
            headers={"Authorization": f"Bearer {head.env['RAY_AUTH_TOKEN']}"},
        )  # fmt: skip
        answers.append(sent.status_code)
    assert answers[0] == 200 and answers[1] >= 400
