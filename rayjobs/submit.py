"""Run a verb on a remote cluster: submit it as a job, follow its log, end with its exit code.

    python -m rayjobs.submit --address http://HOST:8265 -- pipeline --dataset sample --recipe demo \\
        --storage s3://bucket/x --run demo
    python -m rayjobs.submit --address http://HOST:8265 --status             all jobs of ours; with an ID, that one
    python -m rayjobs.submit --address http://HOST:8265 --stop ID            lets it save a checkpoint first

The same command again never runs the same thing twice: its id is a hash of the verb, its options and the files that
travel. A job that is pending or running is followed, one that has succeeded is shown again, and one that has failed or
was stopped is started again under its id with -2, -3, ... after it, where it goes on, as every verb does. Ctrl-C leaves
the job running.

The options after -- are checked here, before anything is sent. The checkout travels, without what .gitignore names. No
secret does: nodes have access to the bucket by a role, a service account or a Kubernetes Secret. The head's token is
read from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ray.job_submission import JobDetails, JobStatus

from cluster.runtime_env import ROOT
from motionsynth.errors import InputError
from rayjobs import cli
from rayjobs.job_address import check_address, is_loopback
from rayjobs.job_request import PREFIX, STOP_WAIT_SECONDS, Request, make_request
from rayjobs.job_server import JobServer, exit_code


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Run a verb on a remote cluster; write it after --, as in: -- pipeline --dataset sample --storage s3://bucket/x

    Attributes:
        address: http://HOST:8265, the dashboard of the cluster's head (default: RAY_API_SERVER_ADDRESS).
        no_wait: Submit and leave.
        again: Start it also if the same request has succeeded already.
        status: Show the jobs of these ids, or all of ours.
        stop: Stop the job of this id: it goes on to its next checkpoint, for some minutes at most.
        working_dir: Checkout that travels (default: the one that runs this).
        shared: The folder given as --storage is mounted on every node.
        python: The cluster's Python.
        patience: Seconds for which a head is asked that does not answer or take jobs yet.
        json: Print the result as one JSON object in the last line of standard output.
    """

    address: str | None = None
    no_wait: bool = False
    again: bool = False
    status: tuple[str, ...] | None = None
    stop: str = ""
    working_dir: Path = ROOT
    shared: bool = False
    python: str = "python"
    patience: float = 120.0
    json: bool = False


def verb(options: Options, words: Sequence[str] | None) -> dict[str, Any]:
    """Run the command line's wish.

    Args:
        options: Those before `--`.
        words: The verb and its options, after `--`; None without one.
    """
    address = options.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise InputError(
            "Where to run is not given; add --address http://HOST:8265, the dashboard of the head."
        )
    check_address(address)
    asked = [
        n
        for n, on in (("--status", options.status is not None), ("--stop", options.stop), ("a verb", words))
        if on
    ]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} are given; give one of them.")
    if options.status is not None:
        return status(JobServer(address, options.patience), options.status)
    if options.stop:
        return stop(JobServer(address, options.patience), options.stop, wait=not options.no_wait)
    request = make_request(
        words or (), loopback=is_loopback(address), shared=options.shared, folder=options.working_dir,
        python=options.python,
    )  # fmt: skip
    return submit(
        JobServer(address, options.patience), request, again=options.again, wait=not options.no_wait
    )


def submit(server: JobServer, request: Request, *, again: bool = False, wait: bool = True) -> dict[str, Any]:
    """Start a request unless it is running or done, and follow it.

    Raises:
        JobError: the job ended with another exit code than 0, which the error has, or the follower was interrupted.
    """
    name = _start(server, request, again)
    if not wait:
        return report(server.job(name))
    last_object: list[str] = []
    try:
        details = server.follow(name, _Shown(last_object).show)
    except KeyboardInterrupt:
        cli.interrupt_heard()
        raise cli.JobError(
            f"Left; {name} goes on. The same command follows it again; to stop it: "
            f"python -m rayjobs.submit --address {server.address} --stop {name}",
            exit_code=cli.INTERRUPTED,
            report={"id": name},
        ) from None
    result = report(details)
    if request.as_json and last_object:
        result["result"] = json.loads(last_object[-1])
    code = result["exit_code"]
    if code:
        raise cli.JobError(_about_end(details, code), exit_code=code, report=result)
    print(f"{name} succeeded", file=sys.stderr)
    return result


def _start(server: JobServer, request: Request, again: bool) -> str:
    """Id of the attempt to follow: the last one, or a new one where that has ended and is to run again."""
    while True:
        attempts = {_attempt(j, request.id): j for j in server.jobs() if _attempt(j, request.id)}
        last = max(attempts, default=0)
        if last:
            job = attempts[last]
            name = str(job.submission_id)
            if not job.status.is_terminal():
                print(f"{name} is {job.status.value.lower()} already; following it", file=sys.stderr)
                return name
            if job.status == JobStatus.SUCCEEDED and not again:
                print(f"{name} has succeeded already; --again would run it once more", file=sys.stderr)
                return name
        name = f"{request.id}-{last + 1}" if last else request.id
        if server.start(request, name):
            print(f"submitted {name} to {server.address}", file=sys.stderr, flush=True)
            return name


def _attempt(job: JobDetails, first: str) -> int:
    """1 for the first attempt of this request, 2, 3, ... for further ones, 0 for another job."""
    found = re.fullmatch(re.escape(first) + r"(?:-(\d+))?", str(job.submission_id))
    return int(found[1] or 1) if found else 0


class _Shown:
    """Writes a log to standard output and keeps the last line of it that is a JSON object."""

    def __init__(self, last_object: list[str]) -> None:
        self._last_object = last_object
        self._line = ""

    def show(self, text: str) -> None:
        print(text, end="", flush=True)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.startswith("{") and line.endswith("}"):
                try:
                    json.loads(line)
                except ValueError:
                    continue
                self._last_object[:] = [line]


def _about_end(details: JobDetails, code: int) -> str:
    name = details.submission_id
    if details.status == JobStatus.STOPPED:
        return f"{name} was stopped; the same command starts it again where it stopped."
    if details.driver_exit_code is None:
        return f"{name} failed before its command ran: {' '.join(str(details.message).split())[:1000]}"
    if code == 127:
        return (
            f"{name} ended with exit code 127: the head has no such command; name its Python with --python."
        )
    cure = (
        "mend the command line"
        if code == cli.BAD_INPUT
        else "the same command starts it again where it stopped"
    )
    return f"{name} ended with exit code {code}; {cure}."


def stop(server: JobServer, name: str, *, wait: bool = True) -> dict[str, Any]:
    """Stop a job and wait until it has ended; one that has ended already is left as it is."""
    details = server.job(name)
    if not details.status.is_terminal():
        server.stop(name)
        print(
            f"told {name} to stop; it has {STOP_WAIT_SECONDS} s to save what it has",
            file=sys.stderr,
            flush=True,
        )
        details = server.wait(name) if wait else server.job(name)
    print(f"{name}: {details.status.value.lower()}")
    return report(details)


def status(server: JobServer, names: Sequence[str]) -> dict[str, Any]:
    """Show some jobs, or all of ours."""
    found = [server.job(n) for n in names] or [
        j for j in server.jobs() if str(j.submission_id).startswith(PREFIX)
    ]
    rows = [report(j) for j in found]
    for row in rows:
        code = "" if row["exit_code"] is None else f", exit code {row['exit_code']}"
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["started"]))
        print(f"{row['id']}: {row['status'].lower()}{code}, started {started}, {row['seconds']:.0f} s")
        print(f"  {row['command']}")
    if not rows:
        print(f"the cluster at {server.address} has no job of ours")
    return {"jobs": rows}


def report(details: JobDetails) -> dict[str, Any]:
    """A job as a JSON-serialisable mapping."""
    began = (details.start_time or 0) / 1000
    return {
        "id": details.submission_id,
        "status": details.status.value,
        "exit_code": exit_code(details),
        "command": details.entrypoint,
        "started": began,
        "seconds": (details.end_time / 1000 if details.end_time else time.time()) - began,
    }


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Our own options, and what stands after `--` (None without one)."""
    args = list(argv)
    return (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, None)


def main(argv: Sequence[str]) -> NoReturn:
    """The command. Never returns."""
    own, words = split_words(argv)
    cli.main(Options, lambda options: verb(options, words), own)


if __name__ == "__main__":
    main(sys.argv[1:])
