"""The documents are followed: every command in them runs here, or `ELSEWHERE` says what it would take."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from urllib.request import urlopen

import pytest

from motionsynth.errors import InputError
from rayjobs import cli
from storage import Storage
from tests.documents import PAGES, ROOT, Command, commands, files
from tests.web_server import serving

FOLLOWED = (
    "README.md",
    "docs/concepts.md",
    "docs/verbs.md",
    "docs/operations.md",
    "docs/study.md",
    "docs/tuning.md",
)
"""Run one after the other in one folder, so that what one page made, another need not make again."""
ALONE = ("docs/your-dataset.md", "docs/your-generator.md", "docs/publishing.md")
"""Have a test of their own, the last one `test_docs_publishing.py`."""
ELSEWHERE = {
    r"HOST|BUCKET|s3://bucket|^ray |--address auto": "a cluster or a bucket; see test_rayjobs_submit.py and faults/",
    r"^kubectl": "a Kubernetes; see test_cluster_kuberay.py",
    r"nucla|sbu|ui_prmd|utd_mhad|RAW_FOLDER|--run (motion_gan|skel_diffusion) ": "research data, hours; see the tables",
    r" \.\.\. ": "abbreviated; see test_tuning_search.py",
    r"^(make|pip install|\. |\.venv/bin/pre-commit)|=faults.jsonl make": "what installs the tests and runs them",
    r"tests.faults.table": "a run of the fault suite",
}

SHORT = "short.json"
"""A recipe in place of the demo's, which trains for minutes."""

RIGHT = {"rayjobs.study": "Nobody has answered yet"}
"""Refusals that are right here; with answers: test_rayjobs_study.py."""


def elsewhere(command: Command) -> bool:
    return any(re.search(pattern, command.text) for pattern in ELSEWHERE)


def test_every_command_is_run_or_says_what_it_would_take() -> None:
    rest = [
        c for page in PAGES if page not in (*FOLLOWED, *ALONE) for c in commands(page) if not elsewhere(c)
    ]
    assert not rest, "\n".join(f"{c.page}: {c.text}" for c in rest)
    listed = [c.text for page in PAGES for c in commands(page)]
    assert not [pattern for pattern in ELSEWHERE if not any(re.search(pattern, text) for text in listed)]


def arguments_of(command: Command) -> tuple[str, list[str]]:
    """Module and arguments: a recipe that trains in seconds, searches of two trials, and the tour for `make demo`."""
    assert command.ours is not None
    module, arguments = command.ours
    swaps = {"demo": SHORT, "demo_out": "out", "synthetic_per_class=20,40,160": "synthetic_per_class=2,4,8"}
    out = [swaps.get(a, a) for a in arguments]
    if "--run" in out and out[(at := out.index("--run") + 1)] == SHORT:
        out[at] = "tour"
    if "CHECKPOINT" in out:
        made = [
            o.key
            for o in Storage("out").list("runs/tour")
            if o.key.endswith("/config.json") and "/step-" in o.key
        ]
        out[out.index("CHECKPOINT")] = str(Path(made[0]).parent)
    if module == "rayjobs.compose":
        out[out.index("--per-class") + 1] = "4"
    if "--trials" in out:
        out[out.index("--trials") + 1] = "2"
    elif module == "tuning.search":
        out += ["--trials", "2"]
    return module, out


def run(command: Command) -> None:
    """As a user would, but verbs share one Ray of this process."""
    if command.ours is None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        text = re.sub(r"(^|(?<= ))python ", f"{shlex.quote(sys.executable)} ", command.text)
        text = text.replace('"base": "demo", "draws": 3', '"base": "debug", "draws": 1').replace(
            "demo", SHORT
        )
        subprocess.run(text, shell=True, check=True, env=env, timeout=600)
        return
    module, arguments = arguments_of(command)
    if module == "rayjobs.explore" or (
        module == "rayjobs.study" and not {"--export", "--machine"} & set(arguments)
    ):
        with (
            serving(module, *arguments, cwd=Path.cwd()) as (address, _),
            urlopen(address, timeout=60) as answer,
        ):
            assert answer.status == 200 and b"<html" in answer.read()
        return
    found = import_module(module)
    try:
        found.verb(cli.parse(found.Options, arguments))
    except InputError as e:
        if module not in RIGHT or RIGHT[module] not in str(e):
            raise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages are followed, with the user's own data that they speak of."""
    out = tmp_path_factory.mktemp("pages")
    for name, text in files("docs/your-dataset.md").items():
        (out / name).write_text(text, "utf-8")
    subprocess.run([sys.executable, "make_clips.py"], cwd=out, check=True, timeout=120)
    shutil.copy(out / "arms.toml", out / "my_body.toml")
    recipe = {"base": "debug", "draws": 1, "scores": [{"training": {"recogniser": "tcn"}, "seeds": 2}]}
    (out / SHORT).write_text(json.dumps(recipe))
    return out


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    monkeypatch.chdir(folder)
    steps = [c for c in commands(page) if not elsewhere(c)]
    assert steps
    for command in steps:
        if "folder_with_parquet" in command.text:
            shutil.copytree("out/data/clips", "folder_with_parquet")
        run(command)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_data_can_be_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None) -> None:
    page = "docs/your-dataset.md"
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
