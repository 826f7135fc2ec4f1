"""Fixtures that every test may use; of storage backends see `storage_fixtures.py`, of a Ray head `ray_head.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: tests run side by side, and threads that wait for a core that another test holds make a
# computation of milliseconds one of seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before Ray is imported: what it would hold back it says at once, not in the middle of a later test's output.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import pytest
from hypothesis import settings

from motionsynth.motion import MotionSet
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]

pytest_plugins = ["tests.storage_fixtures", "tests.ray_head"]

# A deadline is a timed assertion: it fails on a busy machine, whatever the code does.
settings.register_profile("motionsynth", deadline=None)
settings.load_profile("motionsynth")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of raw research datasets; skips where there is none."""
    folder = Path(os.environ.get("MOTIONSYNTH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"No research data at {folder}; set MOTIONSYNTH_DATA to its folder to run this test.")
    return folder


@pytest.fixture(scope="session")
def tiny_set() -> MotionSet:
    """24 clips on kinect20: 3 classes, 4 subjects, 2 views, rigid bones."""
    return make_tiny_set()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray for all tests. More logical CPUs than cores, so that no test waits for another's actors.

    Its workers have the credentials of the tests' S3 server, as they inherit the environment in which Ray starts.
    """
    import ray

    from cluster.connect import connect
    from tests.storage_fixtures import use_credentials

    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch)
        connect("local", num_cpus=6)
    yield
    ray.shutdown()
