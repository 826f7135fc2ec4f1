"""What stands at an address and is no cluster: one sentence each. Real heads are met in test_rayjobs_submit.py."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus

from motionsynth.errors import InputError
from rayjobs import job_server
from rayjobs.cli import JobError
from rayjobs.job_server import JobServer, exit_code
from tests.storage_fixtures import free_ports

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """Address of a web server that answers everything like this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_where_nobody_answers_is_one_sentence_and_exit_code_2() -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = subprocess.run(
        [sys.executable, "-m", "rayjobs.submit", "--address", address, "--patience", "3", "--status", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"waiting for {address}, 0 of at most 3 s: connection refused" in done.stderr
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert f"No Ray cluster takes jobs at '{address}' (tried for" in error and "connection refused" in error


def test_a_host_that_does_not_exist_is_not_waited_for() -> None:
    with pytest.raises(InputError, match="there is no host of this name"):
        JobServer("http://no-such-host.invalid:8265", patience=1000)


@pytest.mark.parametrize(("status", "body"), [(404, b""), (200, b"<html>welcome</html>")])
def test_another_web_server_is_no_cluster(status: int, body: bytes) -> None:
    with answering(status, body) as address, pytest.raises(InputError, match="what answers is no Ray"):
        JobServer(address, patience=1000)


def test_a_gateway_without_a_head_behind_it_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(503, b"no backend") as address, pytest.raises(JobError, match="answers but took no job"):
        JobServer(address, patience=3)
    assert "waiting for" in capsys.readouterr().err


def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "REQUEST_SECONDS", (1, 1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="no answer in time"):
            JobServer(address, patience=3)


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        (JobStatus.PENDING, None, None),
        (JobStatus.RUNNING, None, None),
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 7, 7),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_exit_codes_are_those_of_a_shell(status: JobStatus, driver: int | None, code: int | None) -> None:
    record = {"type": "SUBMISSION", "status": status, "entrypoint": "", "driver_exit_code": driver}
    details = JobDetails(**record)
    assert exit_code(details) == code
