"""Which code wrote something: recorded in checkpoints and dataset headers."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def git_revision() -> str:
    """Commit of this code, with "-dirty" when tracked files were changed.

    `MOTIONSYNTH_REVISION` wins where the code travels without its repository (containers, Ray's working
    directory); without either, the installed version, else "unknown".
    """
    if given := os.environ.get("MOTIONSYNTH_REVISION"):
        return given
    here = Path(__file__).resolve()
    # The file must belong to the repository that git finds: an installed copy may lie inside another one.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) and (
        head := _git(here.parent, "rev-parse", "HEAD")
    ):
        return head + ("-dirty" if _git(here.parent, "status", "--porcelain", "--untracked-files=no") else "")
    try:
        return f"motionsynth {metadata.version('motionsynth')}"
    except metadata.PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
