"""The command line that all verbs share: `--storage --run --json --address --cpus --gpus`, exit codes, logging.

Exit codes: 0 done, 1 failed (traceback, or errors listed), 2 bad input (one sentence), 130 interrupted;
`rayjobs.submit` has that of the job.
Standard output holds a verb's own lines alone; progress, logs and what Ray says go to standard error.
With `--json` the last line of standard output is one JSON object: the result, or `{"error": ..., "exit_code": ...}`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO, cast, get_origin, get_type_hints

import tyro

from cluster.connect import Connection, connect, disconnect
from motionsynth.errors import InputError
from rayjobs import telemetry
from rayjobs.watchdog import Limits
from storage import Storage

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
REPEAT_SECONDS = 5.0
"""After so long an interrupt that nobody has heard is repeated."""
STOP_SECONDS = 300
"""So long a verb that is told to stop may go on, to finish what would otherwise be lost."""


class JobError(RuntimeError):
    """Part of a job failed though the input is sound; the message lists what failed and how to go on.

    Args:
        message: For people.
        exit_code: Of the process.
        report: What the JSON object has besides the message and the code.
    """

    def __init__(
        self, message: str, *, exit_code: int = FAILED, report: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.report = dict(report or {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """Options of every verb.

    Attributes:
        storage: A folder, file:///absolute/path or s3://bucket/prefix (endpoint and credentials: AWS_* variables).
        run: Name of the run; its files lie under runs/NAME.
        json: Print the result as one JSON object in the last line of standard output.
        address: "local" starts a private Ray, "auto" joins the cluster of this machine (default: join inside
            `ray job submit`, else start).
        cpus: Logical CPUs of the local Ray (default: cores + 2); of a cluster, the size to which it can grow.
        gpus: GPUs to which a cluster can grow (default: those that it has; a local Ray finds its own).
    """

    storage: str
    run: str = "default"
    json: bool = False
    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None

    def __post_init__(self) -> None:
        check_name("run", self.run)

    def open_storage(self) -> Storage:
        """The storage at `--storage`, checked to be writable."""
        storage = Storage(self.storage)
        storage.check()
        return storage

    def connect(self, storage: Storage) -> Connection:
        """Ray, with the settings that the workers need for this storage; credentials they find on their node."""
        connection = connect(self.address, self.cpus, storage.worker_env(), self.gpus)
        # Ray puts its own handler in the place of ours.
        _interrupt_on_sigterm()
        return connection


def check_name(what: str, name: str) -> str:
    """Return a name that becomes part of object keys.

    Raises:
        InputError: it is empty or has other characters than letters, digits, '.', '_' and '-'.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"The {what} name '{name}' cannot be used; allowed are 1 to 100 letters, digits, '.', '_' and '-', and "
            "no '.' or '-' at the start."
        )
    return name


def main(
    options: type[Any], verb: Callable[[Any], Mapping[str, Any]], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse, run, report, exit. Never returns.

    Args:
        options: Dataclass derived from `Common`; its docstring becomes the help text.
        verb: What to do; prints its own tables, returns the result as a JSON-serialisable mapping.
        argv: Arguments (default: those of the process).
    """
    _commands.append(options)
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    try:
        # Ray's threads print its messages, and what workers print, on standard output.
        with contextlib.redirect_stdout(cast(TextIO, _OfMainThread(sys.stdout))):
            code, report = _run(options, verb, args)
        # What they said twice they held back until now.
        with contextlib.redirect_stdout(sys.stderr):
            disconnect()
        if as_json:
            print(json.dumps(plain(report), allow_nan=False))
        sys.stdout.flush()
    finally:  # also after --help
        _commands.pop()
    raise SystemExit(code)


class _OfMainThread:
    """A standard output for the main thread, which prints the tables; other threads write to standard error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        own = threading.current_thread() is threading.main_thread()
        return (self._stream if own else sys.stderr).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_commands: list[type[Any]] = []


def runs_a_command() -> bool:
    """Whether this process is a verb's own, so that it may be ended."""
    return bool(_commands)


def _run(
    options: type[Any], verb: Callable[[Any], Mapping[str, Any]], args: list[str]
) -> tuple[int, Mapping[str, Any]]:
    _interrupt_on_sigterm()
    try:
        set_up_logging()
        Limits.from_environment()  # a wrong one must show before anything starts
        return 0, dict(verb(parse(options, args)))
    except InputError as e:
        return _failed(BAD_INPUT, str(e))
    except JobError as e:
        code, report = _failed(e.exit_code, str(e))
        return code, e.report | dict(report)
    except KeyboardInterrupt:
        return _failed(INTERRUPTED, "Interrupted; run the same command again to go on where it stopped.")
    except Exception as e:
        traceback.print_exc()
        return _failed(FAILED, f"{type(e).__name__}: {e}", shown=True)
    finally:
        interrupt_heard()  # as whatever else it was turned into


def _failed(code: int, message: str, shown: bool = False) -> tuple[int, Mapping[str, Any]]:
    if not shown:
        print(message, file=sys.stderr)
    return code, {"error": message, "exit_code": code}


def parse(options: type[Any], args: list[str]) -> Any:
    """The options of a verb.

    Raises:
        InputError: the command line is not understood, or a value is not allowed.
    """
    args = _gathered(options, args)
    program = options.__module__ if options.__module__ != "__main__" else _module_of_main()
    heard = io.StringIO()
    try:
        # tyro draws a box over several lines; a user's mistake is to be one sentence.
        with contextlib.redirect_stderr(heard):
            return tyro.cli(
                options, args=args, prog=f"python -m {program}", config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as e:
        if not e.code:
            raise
        lines = [
            line for line in heard.getvalue().splitlines() if not line.startswith("\u256d")
        ]  # the box's title
        said = [re.sub(r"[\u2500-\u257f]|-{4,}", " ", line) for line in lines]
        said = [s.strip() for s in said if s.strip() and "full helptext" not in s and "--help" not in s]
        raise InputError(
            f"The command line is not understood ({' '.join(' '.join(said).split())}); see python -m {program} --help."
        ) from None


def _gathered(options: type[Any], args: list[str]) -> list[str]:
    """Arguments where an option of several values stands once, with all that is given for it, at the end.

    Of `--vary A --vary B` tyro would take B alone, without a word.
    """
    several = {
        "--" + name.replace("_", "-")
        for name, kind in get_type_hints(options).items()
        if get_origin(kind) is tuple
    }
    given: dict[str, list[str]] = {}
    out: list[str] = []
    values = out
    for arg in args:
        name, sign, value = arg.partition("=")
        name = name.replace("_", "-")
        if name in several:
            values = given.setdefault(name, [])
            values += [value] if sign else []
            continue
        if arg.startswith("--"):
            values = out
        values.append(arg)
    return out + [word for name, words in given.items() for word in (name, *words)]


def _module_of_main() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "rayjobs"


def set_up_logging() -> None:
    """Log lines of ours to standard error, as text or JSON (`MOTIONSYNTH_LOG`); of the libraries only warnings.

    Raises:
        InputError: `MOTIONSYNTH_LOG` is neither text nor json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(telemetry.formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("motionsynth", "storage", "cluster", "rayjobs", "tuning"):
        logging.getLogger(name).setLevel(logging.INFO)
    # A module run by `python -m` has this name.
    logging.getLogger("__main__").setLevel(logging.INFO)


def _interrupt_on_sigterm() -> None:
    """`ray job stop` and cluster managers send SIGTERM: end as at ctrl-C, since every job can be resumed."""

    def interrupt(signum: int, frame: object) -> None:
        # Python drops what is raised while it runs a destructor or a weakref's callback: then say it again.
        signal.setitimer(signal.ITIMER_REAL, REPEAT_SECONDS)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGALRM, interrupt)


def interrupt_heard() -> None:
    """For who caught an interrupt and goes on for a while: it is not repeated."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def last_line(error: Exception) -> str:
    """The end of an error that came from a worker: what it said, without the traceback before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def parse_fields(option: str, given: Sequence[str]) -> dict[str, Any]:
    """`["guidance=2", "solver=ddim", 'sources={"label": 1}']` -> values by field; JSON where it is JSON, else text.

    Args:
        option: The command line's option, for the message.
        given: Its values.

    Raises:
        InputError: an entry is not FIELD=VALUE, or a field comes twice.
    """
    out: dict[str, Any] = {}
    for entry in given:
        name, sign, value = entry.partition("=")
        if not (name and sign and value) or name in out:
            raise InputError(f"{option} has '{entry}'; it must be FIELD=VALUE, each field once.")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def plain(value: Any) -> Any:
    """As JSON can hold it: numpy scalars as numbers, tuples as lists, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
