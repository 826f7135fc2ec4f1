"""Actors, drivers and nodes that die in the middle of a generation, and drivers that do the same work at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from rayjobs.generate import prefix_of
from storage import Storage
from storage.dataset import read_dataset
from tests.faults.outcome import whole
from tests.faults.processes import WAIT_SECONDS, gone, kill_held, parent_of, pid_of, wait_until_gone
from tests.faults.proxy import Proxy
from tests.tiny_jobs import CHECKPOINT, digests, generate, join, save, wanted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
RUN = "storm"
PREFIX = prefix_of(RUN)


def command(storage: Storage, *more: str, actors: int = 2) -> subprocess.Popen:
    """The request for the 48 clips from the command line."""
    words = [sys.executable, "-m", "rayjobs.generate", "--storage", storage.uri, "--run", RUN, "--json"]
    words += [
        "--checkpoint",
        CHECKPOINT,
        "--per-class",
        "16",
        "--seed",
        "7",
        "--shard-size",
        "8",
        "--batch",
        "4",
    ]
    return subprocess.Popen(
        [*words, "--actors", str(actors), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def result_of(process: subprocess.Popen) -> dict[str, Any]:
    """What the command reports at its end."""
    out, err = process.communicate(timeout=2 * WAIT_SECONDS)
    assert process.returncode == 0, out + err
    return json.loads(out.splitlines()[-1])


def test_actors_killed_before_during_and_after_the_put(
    storage: Storage,
    wire: Proxy,
    calm: dict[str, str],
    tiny_set: MotionSet,
    ray_local: None,
    cost: Callable[..., None],
) -> None:
    """SIGKILL of whoever writes the shard; "after": the object is there and nobody has heard of it."""
    save(storage, "motion_gan", tiny_set)
    shards = {"before": "/shards/000000-", "during": "/shards/000002-", "after": "/shards/000004-"}
    faults = {moment: wire.add(moment, "PUT", path) for moment, path in shards.items()}  # type: ignore[arg-type]
    died: dict[str, float] = {}

    def kill_all() -> None:
        for moment, fault in faults.items():
            died[moment] = kill_held(fault)[1]

    killer = threading.Thread(target=kill_all, daemon=True)
    killer.start()
    generate(storage, "g", wanted(storage), connect=join, actors=2)
    killer.join()
    found = whole(storage, "g", calm)
    # The dead never heard an answer; those that took their place found nothing, nothing, and the finished object.
    assert {m: wire.answers("PUT", path) for m, path in shards.items()} == {
        "before": [0, 200], "during": [0, 200], "after": [200, 412],
    }  # fmt: skip
    for moment, path in shards.items():
        seconds = wire.first("PUT", path, after=died[moment]) - died[moment]
        cost(
            f"SIGKILL of a generation actor {moment} its PUT",
            seconds,
            found=found,
            how="until the shard's next PUT",
        )


@pytest.mark.parametrize(
    "name", ["motion_gan", pytest.param("skel_diffusion", id="one_that_walks_down_noise")]
)
def test_driver_killed_and_the_same_command_again(
    name: str,
    storage: Storage,
    wire: Proxy,
    calm: dict[str, str],
    tiny_set: MotionSet,
    tmp_path: Path,
    cost: Callable[..., None],
) -> None:
    save(storage, name, tiny_set)
    if name != "motion_gan":
        at = Storage(tmp_path)
        save(at, name, tiny_set)
        result = generate(at, "calm", wanted(at), connect=None)
        calm = digests(at, "calm") | {"manifest": result["manifest"]}
    held = wire.add("during", "PUT", "/shards/000003-")
    first = command(storage)
    actor = pid_of(held.caught.get(timeout=WAIT_SECONDS))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    died = time.monotonic()
    # The driver's Ray dies with it: nothing goes on writing behind our back.
    wait_until_gone({actor})
    held.release.set()
    left = digests(storage, PREFIX)
    assert len(left) < 6 and left.items() <= calm.items()
    with pytest.raises(InputError, match="unfinished") as e:
        read_dataset(storage, PREFIX)

    again = result_of(command(storage))
    assert again["shards_made"] == 6 - len(left)
    # Everything is done: nothing is made, neither here nor by Ray.
    assert generate(storage, PREFIX, wanted(storage), connect=None)["shards_made"] == 0
    if name == "motion_gan":
        cost(
            "SIGKILL of the driver of a generation; the same command again",
            wire.first("PUT", "/shards/000003-", after=died) - died,
            found=whole(storage, PREFIX, calm),
            how="until the next shard",
            says=f"to readers: {str(e.value).split('; ')[1]}",
        )
    else:
        whole(storage, PREFIX, calm)


def test_two_drivers_do_the_same_request_at_once(
    storage: Storage, wire: Proxy, calm: dict[str, str], tiny_set: MotionSet, cost: Callable[..., None]
) -> None:
    save(storage, "motion_gan", tiny_set)
    # The first to come waits for the other in its first shard, so that both see all the work before them.
    held = wire.add("pause", "PUT", "/shards/00000[0-5]-", times=2)
    both = [command(storage, actors=1) for _ in range(2)]
    held.caught.get(timeout=WAIT_SECONDS)
    held.caught.get(timeout=WAIT_SECONDS)
    held.release.set()
    results = [result_of(p) for p in both]
    assert [r["manifest"] for r in results] == [calm["manifest"]] * 2
    found = whole(storage, PREFIX, calm)
    answers = [s for i in range(6) for s in wire.answers("PUT", f"/shards/00000{i}-")]
    assert set(answers) <= {200, 412} and answers.count(200) == 6 and 412 in answers
    extra = len(answers) - 6
    cost(
        "two drivers, the same request at the same time",
        0.0,
        found=found,
        how=f"({extra} of 6 shards made twice)",
    )


def node_of(pid: int, nodes: list[Any]) -> Any:
    """The node of a Ray cluster on which a worker runs: its raylet is the worker's parent."""
    raylets = {n.all_processes["raylet"][0].process.pid: n for n in nodes}
    return raylets[parent_of(pid)]


# Read by every Python of a node: its clock, and what it signs requests with, are off by so many seconds.
SKEW = """
import os, time
shift = float(os.environ.get("MOTIONSYNTH_TEST_CLOCK", "0"))
if shift:
    import datetime
    import botocore.compat
    clock, now = time.time, botocore.compat.get_current_datetime
    time.time = lambda: clock() + shift
    botocore.compat.get_current_datetime = lambda *a, **k: now(*a, **k) + datetime.timedelta(seconds=shift)
"""


def test_a_node_is_killed_and_the_nodes_clocks_differ(
    storage: Storage,
    wire: Proxy,
    calm: dict[str, str],
    tiny_set: MotionSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ray_local: None,
    cost: Callable[..., None],
) -> None:
    """Two nodes whose clocks are 20 minutes apart; the one that writes a shard is lost, raylet and actors at once."""
    from ray.cluster_utils import Cluster

    save(storage, "motion_gan", tiny_set)
    (tmp_path / "sitecustomize.py").write_text(SKEW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = {"object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        nodes = []
        for minutes in (10, -10):
            monkeypatch.setenv("MOTIONSYNTH_TEST_CLOCK", str(60 * minutes))
            nodes.append(cluster.add_node(num_cpus=2, **small))
        monkeypatch.delenv("MOTIONSYNTH_TEST_CLOCK")
        held = wire.add("during", "PUT", "/shards/000002-")
        driver = command(storage, "--address", cluster.address)
        actor = pid_of(held.caught.get(timeout=WAIT_SECONDS))
        cluster.remove_node(node_of(actor, nodes), allow_graceful=False)
        wait_until_gone({actor})
        died = time.monotonic()
        held.release.set()
        result = result_of(driver)
    finally:
        cluster.shutdown()
    assert result["manifest"] == calm["manifest"] and gone(actor)
    found = whole(storage, PREFIX, calm)
    seconds = wire.first("PUT", "/shards/000002-", after=died) - died
    cost(
        "a node lost in a generation (its raylet killed)",
        seconds,
        found=found,
        how="until the shard's next PUT",
    )
    cost("clocks of two nodes 20 minutes apart", 0.0, found=found)


def test_a_clock_that_the_server_refuses_is_one_sentence(
    storage: Storage, tiny_set: MotionSet, tmp_path: Path, cost: Callable[..., None]
) -> None:
    save(storage, "motion_gan", tiny_set)
    before = storage.list()
    (tmp_path / "sitecustomize.py").write_text(SKEW)
    words = [sys.executable, "-m", "rayjobs.generate", "--storage", storage.uri, "--checkpoint", CHECKPOINT]
    env = os.environ | {"PYTHONPATH": str(tmp_path), "MOTIONSYNTH_TEST_CLOCK": "7200"}
    began = time.monotonic()
    done = subprocess.run(
        [*words, "--per-class", "1"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "RequestTimeTooSkewed" in done.stderr and "check this machine's clock" in done.stderr
    assert storage.list() == before
    says = "(RequestTimeTooSkewed); renew the credentials and check this machine's clock"
    cost(
        "a machine's clock two hours off",
        time.monotonic() - began,
        found="nothing written",
        says=says,
        how="to exit 2",
    )
