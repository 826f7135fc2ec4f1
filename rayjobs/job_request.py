"""What `rayjobs.submit` sends: a verb whose options were checked here, the working directory, and an id of both.

The id is a hash of the verb, its options, the files that travel and the addresses of the storage, so the same request
has the same id wherever it is submitted from. No secret is part of it, nor of anything else that is sent.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cluster.runtime_env import ROOT, runtime_env
from motionsynth.errors import InputError
from rayjobs import cli
from storage import Storage
from storage.header import canonical_json
from storage.revision import git_revision

PREFIX = "motionsynth-"
"""Of the ids of our jobs."""

PACKAGE_BYTES = 100 << 20
"""Largest package that a head takes by HTTP (Ray's `DASHBOARD_CLIENT_MAX_SIZE`); its store alone could hold 512 MiB."""

STOP_WAIT_SECONDS = cli.STOP_SECONDS + 60
"""Ray kills a job that is told to stop after 3 s unless the job's own environment says otherwise."""

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""What a job must know of the storage and the dashboard may show. Keys are not sent: the nodes have theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A job to submit.

    Attributes:
        module: The verb's module, such as rayjobs.pipeline.
        id: Submission id of its first attempt; a further one has "-2", "-3" after it.
        entrypoint: Shell command that the head runs.
        runtime_env: What travels: working directory, excludes, environment.
        metadata: What the dashboard shows of it.
        as_json: Whether its last line of output is a JSON object.
    """

    module: str
    id: str
    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    as_json: bool


def verbs() -> dict[str, str]:
    """Name -> module of every verb: a file that ends in `cli.main(Options, verb)`, read without importing it."""
    found = {}
    for package in ("rayjobs", "tuning"):
        for path in sorted((ROOT / package).glob("*.py")):
            if "\n    cli.main(Options, verb)" in path.read_text():
                name = path.stem if package == "rayjobs" else f"{package}.{path.stem}"
                found[name] = f"{package}.{path.stem}"
    return found


def make_request(
    words: Sequence[str],
    *,
    loopback: bool,
    shared: bool = False,
    folder: Path = ROOT,
    python: str = "python",
) -> Request:
    """Check a command line as far as this machine can, and pack up what it needs.

    Args:
        words: `pipeline --dataset sample ...`, with or without `python -m rayjobs.` before it.
        loopback: Whether the cluster is on this machine, so that a folder of it can be the storage.
        shared: Whether a folder can be the storage since it is mounted on every node.
        folder: Working directory to send.
        python: Command on the head that runs the verb.

    Raises:
        InputError: unknown verb, an option that the verb does not take, a storage that workers do not share, a file
            that does not travel, or too much to send.
    """
    module, args = _verb_of(words)
    options = cli.parse(importlib.import_module(module).Options, args)
    storage = Storage(options.storage)  # refuses an address with credentials in it
    if not storage.uri.startswith("s3://"):
        if not (loopback or shared):
            raise InputError(
                f"--storage '{options.storage}' is a folder, and the cluster's workers do not see the folders of this "
                "machine; give s3://bucket/prefix, or --shared before the -- if every node has it mounted there."
            )
        # A job runs in its own copy of the working directory.
        args = _with_storage(args, storage.uri)
    env = (
        {k: os.environ[k] for k in ENDPOINTS if os.environ.get(k)} if storage.uri.startswith("s3://") else {}
    )
    wanted = {
        "module": module,
        "options": cli.plain(asdict(options)) | {"storage": storage.uri},
        "endpoints": env,
        "python": python,
    }
    revision = git_revision()
    environment = runtime_env(
        folder,
        env
        | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS)}
        | ({"MOTIONSYNTH_REVISION": revision} if revision != "unknown" else {}),
    )
    packed = packed_files(folder, environment.get("excludes", ()))
    _refuse_too_large(folder, packed)
    _refuse_left_behind(options, set(packed))
    digest = hashlib.sha256(canonical_json(wanted | {"code": code_digest(packed)}).encode()).hexdigest()
    return Request(
        module=module,
        id=f"{PREFIX}{module.removeprefix('rayjobs.').replace('.', '-')}-{digest[:12]}",
        entrypoint=shlex.join([python, "-m", module, *args]),
        runtime_env=environment,
        metadata={"job_name": f"{module} {options.run}", "revision": revision},
        as_json=options.json,
    )


def _verb_of(words: Sequence[str]) -> tuple[str, list[str]]:
    rest = list(words)
    if rest[:2] in (["python", "-m"], ["python3", "-m"]):
        rest = rest[2:]
    known = verbs()
    if not rest:
        raise InputError(
            f"No verb is given; write it after --, such as -- pipeline --dataset sample ... Known: {', '.join(known)}."
        )
    name = rest[0].removeprefix("rayjobs.")
    if name not in known:
        raise InputError(f"Unknown verb '{rest[0]}'. Known: {', '.join(known)}.")
    return known[name], rest[1:]


def _with_storage(args: Sequence[str], uri: str) -> list[str]:
    """The arguments with another storage address; the verb's own parser has accepted them."""
    out = list(args)
    for i, word in enumerate(out):
        if word == "--storage":
            out[i + 1] = uri
        elif word.startswith("--storage="):
            out[i] = f"--storage={uri}"
    return out


def packed_files(folder: Path, excludes: Sequence[str]) -> dict[str, Path]:
    """The files that Ray will pack, by their path below the folder in a fixed order; as Ray itself chooses them."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE, get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    root, found = folder.absolute(), {}

    def add(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(root).as_posix()] = path

    quiet = logging.getLogger("rayjobs.packaging")
    quiet.setLevel(logging.ERROR)
    patterns = [*get_runtime_env_default_excludes(), *excludes]
    ignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    _dir_travel(root, [_get_excludes(root, patterns)], add, include_gitignore=ignore, logger=quiet)
    return dict(sorted(found.items()))


def code_digest(packed: Mapping[str, Path]) -> str:
    """Which code travels: of a changed working tree another one, of another commit with the same files the same."""
    whole = hashlib.sha256()
    for name, path in packed.items():
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _refuse_too_large(folder: Path, packed: Mapping[str, Path]) -> None:
    """Before anything is read or sent. Ray packs without compression, and each name stands twice in a zip."""
    sizes: Counter[str] = Counter()
    for name, path in packed.items():
        parts = name.split("/")
        sizes["/".join(parts[:2]) + ("/" if len(parts) > 2 else "")] += (
            path.stat().st_size + 100 + 2 * len(name)
        )
    total = sum(sizes.values())
    if total >= PACKAGE_BYTES:
        largest = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in sizes.most_common(3))
        raise InputError(
            f"The working directory '{folder}' would be a package of {total / 2**20:.0f} MiB, and a cluster takes "
            f"{PACKAGE_BYTES >> 20}; name what no job needs in .gitignore or .rayignore. The largest: {largest}."
        )


def _refuse_left_behind(options: Any, packed: set[str]) -> None:
    """A relative path is one in the working directory; what does not travel is not there on the cluster."""
    given: list[tuple[str, str]] = []
    for field in fields(options):
        value = getattr(options, field.name)
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, Path):
                given.append((field.name, str(one)))
            elif isinstance(one, str) and field.name in ("recipe", "skeleton"):
                given += [(field.name, part) for part in one.split(",") if part.endswith((".json", ".toml"))]
    for name, path in given:
        inside = os.path.normpath(path)
        if not os.path.isabs(path) and not any(p == inside or p.startswith(f"{inside}/") for p in packed):
            raise InputError(
                f"--{name.replace('_', '-')} '{path}' does not travel to the cluster: it is not in the working "
                "directory or is ignored there; put it there, or give an absolute path that the head can read."
            )
