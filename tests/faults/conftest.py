"""A real S3 server of these tests' own behind a wire that breaks, and a report on what each fault cost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motionsynth.motion import MotionSet
from storage import Storage
from tests.faults.proxy import Proxy
from tests.faults.table import REPORT, Cost
from tests.storage_fixtures import Seaweed, start_seaweed, use_server
from tests.tiny_jobs import digests, generate, save, wanted


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server that may be paused, killed and started again."""
    folder = tmp_path_factory.mktemp("seaweed")
    server = start_seaweed(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def wire(seaweed: Seaweed) -> Iterator[Proxy]:
    """What stands between a job and the server."""
    with Proxy(seaweed.answers.endpoint) as proxy:
        yield proxy


@pytest.fixture
def storage(wire: Proxy, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An unused prefix on the server, reached through the wire; the environment is set for it."""
    return Storage(use_server(monkeypatch, wire.endpoint))


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_set: MotionSet) -> dict[str, str]:
    """Digest of every shard of the request for 48 clips, and of the manifest, when nothing disturbs it."""
    at = Storage(tmp_path_factory.mktemp("calm"))
    save(at, "motion_gan", tiny_set)
    result = generate(at, "calm", wanted(at), connect=None)
    return digests(at, "calm") | {"manifest": result["manifest"]}


@pytest.fixture
def cost(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Note what a fault cost: into the test's record and, if the variable names one, a file for the table."""

    def note(fault: str, seconds: float, *, found: str, says: str = "", how: str = "") -> None:
        entry = Cost(fault=fault, seconds=round(seconds, 1), found=found, says=says, how=how)
        record_property("fault", json.dumps(entry.to_dict()))
        if path := os.environ.get(REPORT):
            with Path(path).open("a") as f:
                f.write(json.dumps(entry.to_dict()) + "\n")

    return note
