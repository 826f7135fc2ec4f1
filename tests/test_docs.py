"""The documents are true: every command in them is understood, and those of the first pages are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rayjobs import cli
from tests.documents import PAGES, ROOT, Command, commands, files

OURS = [c for page in PAGES for c in commands(page) if c.ours is not None]


@pytest.mark.parametrize("command", OURS, ids=lambda c: f"{c.page}: {c.text[:70]}")
def test_every_command_is_understood(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module, arguments in command.verbs:
        there = ROOT / module.replace(".", "/")
        assert there.with_suffix(".py").is_file() or there.is_dir()
        found = import_module(module)
        # Abbreviated, or no verb: that it exists is all there is to see.
        if "..." not in arguments and hasattr(found, "Options"):
            cli.parse(found.Options, arguments)


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?://|mailto:)([^)#]+)", (ROOT / page).read_text("utf-8")):
            if not (ROOT / page).parent.joinpath(link).exists():
                wrong.append(f"{page}: {link}")
    assert not wrong, "\n".join(wrong)


def run(command: Command, recipe: str = "debug") -> None:
    """As a user would, but verbs share one Ray of this process, and train in seconds."""
    if command.ours is None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        text = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command.text)
        subprocess.run(text, shell=True, check=True, env=env, timeout=600)
        return
    module, arguments = command.ours
    arguments = [recipe if a == "demo" else a for a in arguments]
    found = import_module(module)
    found.verb(cli.parse(found.Options, arguments))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["docs/concepts.md", "docs/your-dataset.md"])
def test_a_newcomer_can_follow_the_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files(page).items():
        Path(name).write_text(text, "utf-8")
    steps = commands(page)
    assert len(steps) >= 5
    for command in steps:
        run(command)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_generator_of_the_page_works(tmp_path: Path) -> None:
    """The page's steps in a copy of the sources: the file, the line in `GENERATORS`, the recipe, the pipeline."""
    page = "docs/your-generator.md"
    for package in ("motionsynth", "storage", "cluster", "rayjobs", "tuning"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shown = files(page)
    (tmp_path / "motionsynth/generators/tiny_vae.py").write_text(shown["motionsynth/generators/tiny_vae.py"])
    registry = tmp_path / "motionsynth/generators/__init__.py"
    line = shown["motionsynth/generators/__init__.py"].splitlines()[1]
    registry.write_text(registry.read_text().replace("] = {\n", f"] = {{\n    {line}\n", 1))
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(tmp_path)}
    for command in commands(page):
        text = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command.text)
        if "tuning.search" not in text:
            done = subprocess.run(
                text, shell=True, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "out/runs/tiny/sample").glob("*/tiny_vae/synthetic/manifest.json"))
