"""Our web applications as they are used: a verb in a process of its own, its JSON calls, and a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(module: str, *options: str, cwd: Path = ROOT) -> Iterator[tuple[str, subprocess.Popen]]:
    """`python -m MODULE OPTIONS --port 0`; the address that it announces. Killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *options, "--port", "0"], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://[^/]+/", line):
                yield found[0], process
                return
        pytest.fail(f"{module} did not start:\n" + "".join(said))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def call(base: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and answer; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(base + path, data, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except HTTPError as e:
        said = e.read()
        try:
            return e.code, json.loads(said)
        except ValueError:
            return e.code, said.decode()


@contextmanager
def chromium(*flags: str, timeout: float = 30_000) -> Iterator[Any]:
    """A headless Chromium, with milliseconds to start in; skips where there is none.

    Containers have no user namespaces for its sandbox.
    """
    tools = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    names = (os.environ.get("MOTIONSYNTH_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    path = next((p for n in names if n and (p := shutil.which(n))), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set MOTIONSYNTH_CHROMIUM to its path")
    with tools.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", *flags], timeout=timeout
        )
        try:
            yield found
        finally:
            found.close()


@contextmanager
def browser() -> Iterator[Any]:
    """A page of it."""
    with chromium() as found:
        yield found.new_page(viewport={"width": 1280, "height": 860})
