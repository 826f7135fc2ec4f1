"""What travels with a job to a cluster: this checkout without what no job needs, and no secret.

A submission packs its working directory into the cluster's memory (Ray's limit is 500 MiB). Ray itself leaves out
`.git` and environments, and what `.gitignore` names; this adds that file's patterns for a client that was told not
to read it, and the folders that no verb opens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motionsynth.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds our packages."""

PACKAGES = ("motionsynth", "storage", "cluster", "rayjobs", "tuning")
"""What a working directory must hold, since workers import it from there."""

NEVER_SENT = (".git/", ".venv/", "venv/", "__pycache__/", "/tests/", "/docs/", "/benchmarks/", "/.ci/")
"""gitignore patterns of what is never sent, whatever `.gitignore` says."""

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of variables that a runtime_env must not carry: the dashboard and the job's record show it to every reader."""


def runtime_env(folder: Path = ROOT, env_vars: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The `runtime_env` of a submitted job.

    Args:
        folder: Checkout to send; it must hold our packages.
        env_vars: Environment of the driver and its workers, such as AWS_ENDPOINT_URL, and MOTIONSYNTH_REVISION, since
            the code travels without its repository. A secret does not belong here: nodes get theirs from an
            instance role, a service account or a Kubernetes Secret.

    Returns:
        `working_dir`, `excludes` (gitignore patterns) and `env_vars`, ready for `JobSubmissionClient.submit_job`.

    Raises:
        InputError: `folder` is no checkout, or a variable's name says that it holds a secret.
    """
    folder = Path(folder).resolve()
    missing = [name for name in PACKAGES if not (folder / name / "__init__.py").is_file()]
    if missing:
        raise InputError(
            f"The folder '{folder}' cannot be sent to a cluster as it has no {', '.join(missing)}; give the checkout "
            "of motionsynth, the folder that holds rayjobs/."
        )
    secret = sorted(name for name in env_vars or {} if SECRET.search(name))
    if secret:
        raise InputError(
            f"The environment of a job would hold {', '.join(secret)}, and everyone who sees the dashboard could read "
            "it; give the cluster's nodes access to the bucket by a role, a service account or a Kubernetes Secret."
        )
    # One thread per worker: parallelism is the number of workers, and results do not depend on core counts.
    env = {"OMP_NUM_THREADS": "1"} | dict(env_vars or {})
    return {"working_dir": str(folder), "excludes": excludes(folder), "env_vars": env}


def excludes(folder: Path = ROOT) -> list[str]:
    """gitignore patterns of what does not travel: `NEVER_SENT` and those of the folder's `.gitignore`."""
    ignore = folder / ".gitignore"
    lines = ignore.read_text().splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return list(dict.fromkeys([*patterns, *NEVER_SENT]))
