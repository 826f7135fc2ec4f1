"""A cluster's job server (the dashboard of its head): submit, follow, stop, with one sentence for what goes wrong.

Built on Ray's JobSubmissionClient, which neither waits for a head that is starting nor survives a dropped connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from motionsynth.errors import InputError
from rayjobs import cli
from rayjobs.job_address import check_address, token_header
from rayjobs.job_request import Request

logger = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_SECONDS = 2.0
TELL_SECONDS = 10.0
"""Between lines that say what is being waited for."""
REQUEST_SECONDS = (10, 120)
"""To connect, and between two bytes of an answer; Ray's own client would wait for ever."""
QUIET_SECONDS = 120.0
"""After so long without a line the log is opened anew, as nothing tells a silent job from a connection that is gone."""
LAST_TRIES = 3
"""To read the rest of the log of a job that has ended."""
KILLED = 128
"""A shell's exit code for a process killed by signal N is 128 + N."""


# Ray tells of every ignored file and every closed connection; what matters of it we say ourselves.
for _name in (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
):
    logging.getLogger(_name).setLevel(logging.ERROR)


class _Client(JobSubmissionClient):
    """Ray's, with a time limit on every request."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super()._do_request(method, endpoint, **{"timeout": REQUEST_SECONDS, **options})


class JobServer:
    """Jobs of the cluster at an address.

    Args:
        address: http(s)://HOST:PORT of its dashboard.
        patience: Seconds for which a head that does not answer, or not yet with jobs, is asked again.

    Raises:
        InputError: it is no such address, nothing answers there, or it wants another token.
    """

    def __init__(self, address: str, patience: float) -> None:
        self.address = check_address(address)
        self.patience = patience
        self._reached = False
        # Ray's client would go to these instead, whatever address it is given.
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(name, None)
        self._client = self._patiently(lambda: _Client(self.address, headers=token_header()))
        self._reached = True

    def jobs(self) -> list[JobDetails]:
        """Every job that was submitted to the cluster, in the order of their start."""
        found = [j for j in self._patiently(lambda: self._client.list_jobs()) if j.submission_id]
        return sorted(found, key=lambda j: j.start_time or 0)

    def job(self, name: str) -> JobDetails:
        """One job.

        Raises:
            InputError: the cluster does not know it.
        """
        try:
            return self._patiently(lambda: self._client.get_job_info(name))
        except RuntimeError as e:
            if _status_of(e) != 404:
                raise
            raise InputError(
                f"The cluster at {self.address} knows no job '{name}' (a head that was started anew has forgotten "
                "them); --status lists those that it knows."
            ) from None

    def start(self, request: Request, name: str) -> bool:
        """Submit under this id; False if it is taken, so that of two who submit at once only one starts a job."""
        try:
            self._patiently(
                lambda: self._client.submit_job(
                    entrypoint=request.entrypoint, submission_id=name, runtime_env=request.runtime_env,
                    metadata=request.metadata,
                )
            )  # fmt: skip
        except RuntimeError as e:
            if "already exists" not in str(e):
                raise
            return False
        return True

    def stop(self, name: str) -> None:
        """Tell a job to stop; it has the time that its request gives it."""
        self._patiently(lambda: self._client.stop_job(name))

    def wait(self, name: str) -> JobDetails:
        """Until a job has ended, however long."""
        while True:
            details = self.job(name)
            if details.status.is_terminal():
                return details
            time.sleep(RETRY_SECONDS)

    def follow(self, name: str, show: Callable[[str], None]) -> JobDetails:
        """Show a job's log as it grows, each character once, until the job has ended.

        A connection that drops is made anew, and what was shown already is skipped.
        """
        shown = ended = 0
        while True:
            skip, whole = shown, True
            try:
                for text in self._tail(name):
                    new = text[skip:]
                    skip = max(0, skip - len(text))
                    if new:
                        show(new)
                        shown += len(new)
            except _DroppedError as e:
                whole = False
                logger.info("The log of %s broke off (%s); it goes on.", name, e)
            try:
                details = self.job(name)
            except InputError as e:
                raise cli.JobError(str(e)) from None
            ended += details.status.is_terminal()
            # The log of a node that is gone cannot be read to its end.
            if ended and (whole or ended > LAST_TRIES):
                return details
            time.sleep(RETRY_SECONDS)

    def _tail(self, name: str) -> Iterator[str]:
        """The log from its beginning until the server closes it.

        In a thread: an interrupt of this one then ends neither an event loop nor a request half way.
        """
        heard: queue.Queue[str | BaseException | None] = queue.Queue()

        async def read() -> None:
            async for text in self._client.tail_job_logs(name):
                heard.put(text)

        def run() -> None:
            try:
                asyncio.run(read())
                heard.put(None)
            except BaseException as e:
                heard.put(e)

        threading.Thread(target=run, daemon=True).start()
        while True:
            try:
                said = heard.get(timeout=QUIET_SECONDS)
            except queue.Empty:
                raise _DroppedError(f"silent for {QUIET_SECONDS:g} s") from None
            if said is None:
                return
            if isinstance(said, BaseException):
                raise _DroppedError(str(said) or type(said).__name__)
            yield said

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call again while the head is not ready, and say so.

        Raises:
            InputError: nothing answers, or it is no job server, or it wants another token.
            JobError: the head answers, but takes no jobs.
            RuntimeError: what the server refuses for good; see `_status_of`.
        """
        began = told = time.monotonic()
        while True:
            answers = False
            try:
                return call()
            except AuthenticationError as e:
                raise InputError(self._about_token(str(e))) from None
            except requests.exceptions.JSONDecodeError:
                raise InputError(self._no_server("what answers is no Ray")) from None
            except requests.exceptions.HTTPError as e:
                code = e.response.status_code if e.response is not None else 0
                answers, reason = True, f"HTTP {code}"
                if code < 500:
                    raise InputError(self._no_server(reason)) from None
            except (requests.exceptions.RequestException, OSError) as e:
                reason = _reason(e)
                if reason in (UNKNOWN_HOST, BAD_CERTIFICATE):
                    raise InputError(self._no_server(reason)) from None
            except RuntimeError as e:
                if "Version check returned 404" in str(e):
                    raise InputError(self._no_server("what answers is no Ray")) from None
                if (_status_of(e) or 0) < 500 or "already exists" in str(e):
                    raise
                answers, reason = True, _said(e)
            waited = time.monotonic() - began
            if waited + RETRY_SECONDS > self.patience:
                if not answers and self._reached:
                    raise cli.JobError(
                        f"The cluster at {self.address} has not answered for {waited:.0f} s ({reason}); a job there "
                        "may still be running, and the same command follows it again."
                    ) from None
                if not answers:
                    raise InputError(self._no_server(f"tried for {waited:.0f} s: {reason}")) from None
                raise cli.JobError(
                    f"The head at {self.address} answers but took no job for {waited:.0f} s ({reason}); if it is not "
                    "still starting, the port of its agent may be taken by another Ray of its host."
                ) from None
            if told == began or time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                print(
                    f"waiting for {self.address}, {waited:.0f} of at most {self.patience:.0f} s: {reason}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
            time.sleep(RETRY_SECONDS)

    def _no_server(self, reason: str) -> str:
        return (
            f"No Ray cluster takes jobs at '{self.address}' ({reason}); give the address of its head's dashboard, such "
            "as http://HOST:8265, forwarded to this machine if need be."
        )

    def _about_token(self, said: str) -> str:
        what = "refuses the token that it was given (403)" if "failed" in said else "wants a token (401)"
        return (
            f"The cluster at {self.address} {what}; set RAY_AUTH_TOKEN to the token that its head was started with, or "
            "RAY_AUTH_TOKEN_PATH to a file that holds it."
        )


class _DroppedError(Exception):
    """A log's connection is gone."""


UNKNOWN_HOST = "there is no host of this name"
BAD_CERTIFICATE = "its certificate cannot be trusted"


def _reason(error: Exception) -> str:
    """Why no connection came about, in a few words."""
    seen: BaseException | None = error
    said = ""
    while seen is not None:
        said += f" {type(seen).__name__} {seen}"
        seen = seen.__cause__ or seen.__context__
    if "NameResolution" in said or "Name or service not known" in said:
        return UNKNOWN_HOST
    if "SSL" in said:
        return BAD_CERTIFICATE
    if "refused" in said:
        return "connection refused"
    return "no answer in time" if "imeout" in said else cli.last_line(error)[:200]


def _said(error: RuntimeError) -> str:
    """The end of what the server said; it may be a whole traceback."""
    return re.sub(r"^.*status code \d+: ", "", cli.last_line(error)).rstrip(".")[:200]


def _status_of(error: RuntimeError) -> int | None:
    """HTTP status of what Ray's client raised."""
    found = re.search(r"status code (\d{3})", str(error))
    return int(found[1]) if found else None


def exit_code(details: JobDetails) -> int | None:
    """What the job's command ended with: as a shell would say it; None while it runs."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return cli.INTERRUPTED
    if details.status == JobStatus.FAILED:
        code = details.driver_exit_code or cli.FAILED
        return code if code > 0 else KILLED - code
    return None
