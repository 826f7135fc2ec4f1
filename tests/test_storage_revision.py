"""The recorded revision is that of this code, not of whatever repository lies around it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import revision

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def load_copy(folder: Path) -> Callable[[], str]:
    shutil.copy(revision.__file__, folder / "revision.py")
    spec = importlib.util.spec_from_file_location("revision_copy", folder / "revision.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.git_revision


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_commit_dirt_and_foreign_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOTIONSYNTH_REVISION", raising=False)
    git(tmp_path, "init", "-q")
    (tmp_path / "other.txt").write_text("x")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-q", "-m", "foreign")
    foreign = git(tmp_path, "rev-parse", "HEAD")
    assert foreign not in load_copy(tmp_path)()
    git(tmp_path, "add", "revision.py")
    git(tmp_path, "commit", "-q", "-m", "ours")
    assert load_copy(tmp_path)() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "other.txt").write_text("changed")
    assert load_copy(tmp_path)() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("MOTIONSYNTH_REVISION", "v1.2.3")
    assert load_copy(tmp_path)() == "v1.2.3"
