"""Starting, joining and planning. Ray is a process-wide state, so each connection lives in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.connect import Connection, connect, cores, plan_resources, room
from motionsynth.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, **env: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=clean | env
    )


START = """
import os, socket, ray
from cluster.connect import connect, disconnect, cores
first = connect(num_cpus=3, env_vars={"AWS_REGION": "us-east-9"})
second = connect()

@ray.remote
def look():
    import motionsynth
    return {k: os.environ.get(k) for k in ("AWS_REGION", "OMP_NUM_THREADS")}, motionsynth.__file__

seen, where = ray.get(look.remote())
assert seen == {"AWS_REGION": "us-east-9", "OMP_NUM_THREADS": "1"}, seen
assert where.startswith(os.getcwd()), where

@ray.remote
def watches_for_preemption():
    from ray._private.ray_constants import env_bool
    from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
    return env_bool(ENABLE_PREEMPTION_WATCHER_ENV_VAR, True)

assert not ray.get(watches_for_preemption.remote())
assert first.started and not second.started
assert first.cpus == second.cpus == 3.0 and first.address == "local"
assert ray.cluster_resources()["object_store_memory"] < 500e6
assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
address = ray.get_runtime_context().gcs_address

# Another process without the token is not let in.
import subprocess, sys
env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
other = subprocess.run([sys.executable, "-c", f"import ray; ray.init(address={address!r})"],
                       env=env | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, timeout=60)
assert other.returncode != 0 and "InvalidAuthToken" in other.stderr, other.stdout + other.stderr
disconnect(); disconnect()
assert not ray.is_initialized()
print("ok")
"""


def test_local_ray_is_private_bounded_and_finds_our_packages() -> None:
    done = run_python(START)
    assert done.stdout.endswith("ok\n"), done.stdout + done.stderr


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_an_address_where_no_cluster_answers_is_one_sentence(address: str) -> None:
    code = f"""
from cluster.connect import connect
from motionsynth.errors import InputError
try:
    connect({address!r})
except InputError as e:
    print(e)
"""
    done = run_python(
        code, RAY_AUTH_MODE="disabled", RAY_TMPDIR="/nowhere", RAY_gcs_rpc_server_connect_timeout_s="1"
    )
    assert f"No Ray cluster answers at the address '{address}'" in done.stdout, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_ray_client_address_is_refused() -> None:
    with pytest.raises(InputError, match="ray job submit"):
        connect("ray://head:10001")


def test_the_arithmetic_is_shown() -> None:
    sentence = plan_resources(actors=2, cpus_per_actor=1, tasks=1, cpus=3)
    assert sentence == "2 workers x 1 CPU + 1 tasks x 1 CPU = 3 CPUs of 3."
    with pytest.raises(InputError) as e:
        plan_resources(actors=2, cpus_per_actor=1, tasks=1, cpus=2)
    assert str(e.value) == (
        "2 workers x 1 CPU + 1 tasks x 1 CPU = 3 CPUs, but Ray has 2 and the job would wait for ever; "
        "use at most 1 workers or give it more with --cpus 3."
    )


def test_room_is_what_cpus_and_gpus_allow() -> None:
    far = Connection(address="10.0.0.1:6379", cpus=16.0, gpus=2.0, started=False)
    near = replace(far, address="local", cpus=float(cores() + 2))
    assert room(far) == 16 and room(near) == cores()
    assert room(far, 4.0) == 4 and room(far, 0.5) == 32
    assert room(far, 1.0, 0.25) == 8 and room(far, 1.0, 0.01) == 16 and room(far, 1.0, 2.0) == 1
    assert room(replace(far, gpus=1.0, cpus=99.0), 1.0, 1 / 49) == 49
    assert room(replace(far, gpus=0.0), 1.0, 0.5) == 0
    # On a private Ray what computes on a GPU may have the CPUs beyond the cores, too.
    assert room(near, 1.0, 0.01) == cores() + 2


@pytest.mark.parametrize("share", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_share_of_a_gpu_that_nobody_can_hold_is_one_sentence(share: float) -> None:
    one = Connection(address="10.0.0.1:6379", cpus=16.0, gpus=4.0, started=False)
    with pytest.raises(InputError, match=f"The GPUs per worker are {share:g}; allowed: 0 "):
        room(one, 1.0, share)
    with pytest.raises(InputError, match="a share of one up to 1, or a whole number"):
        plan_resources(actors=1, cpus_per_actor=1, gpus_per_actor=share, cpus=4, gpus=4)


def test_gpus_are_counted_too() -> None:
    assert plan_resources(actors=2, cpus_per_actor=1, gpus_per_actor=0.5, cpus=4, gpus=1)
    with pytest.raises(InputError, match="use at most 1 workers"):
        plan_resources(actors=2, cpus_per_actor=1, gpus_per_actor=1, cpus=4, gpus=1)
    with pytest.raises(InputError, match="set the GPUs per worker to 0, or say with --gpus to how many"):
        plan_resources(actors=1, cpus_per_actor=1, gpus_per_actor=1, cpus=4, gpus=0)


@given(
    actors=st.integers(1, 40),
    per_actor=st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]),
    tasks=st.integers(0, 4),
    cpus=st.integers(1, 64),
)
def test_the_advice_fits_and_is_the_most_that_fits(
    actors: int, per_actor: float, tasks: int, cpus: int
) -> None:
    def fits(n: int, total: float) -> bool:
        try:
            return bool(plan_resources(actors=n, cpus_per_actor=per_actor, tasks=tasks, cpus=total))
        except InputError:
            return False

    try:
        plan_resources(actors=actors, cpus_per_actor=per_actor, tasks=tasks, cpus=cpus)
    except InputError as e:
        message = str(e)
        assert fits(actors, int(message.rsplit("--cpus ", 1)[1].rstrip(".")))
        if "at most" in message:
            most = int(message.split("at most ")[1].split()[0])
            assert fits(most, cpus) and not fits(most + 1, cpus)
        else:
            assert not fits(1, cpus)


GROWS = """
import subprocess, sys, ray
from cluster.connect import Connection, connect, cores, plan_resources, room
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=100 << 20)
for cpus, gpus in ((None, None), (8, 4)):
    joined = connect("auto", num_cpus=cpus, num_gpus=gpus)
    print(joined.started, joined.cpus, joined.gpus)
here = connect("local", num_cpus=8, num_gpus=4)
print(here.cpus, here.gpus)
"""


def test_a_plan_may_count_on_what_a_cluster_can_grow_to() -> None:
    """Where GPU nodes start when asked for there is none yet, and a plan that counts those there refuses."""
    done = run_python(GROWS, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False 1.0 0.0", "False 8.0 4.0", "1.0 0.0"]


def test_no_negative_number_of_gpus() -> None:
    with pytest.raises(InputError, match="number of GPUs is -1; it must be at least 0"):
        connect("auto", num_gpus=-1)


@pytest.mark.parametrize("actors", [0, -1])
def test_no_workers_is_refused(actors: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        plan_resources(actors=actors, cpus_per_actor=1, cpus=4)
