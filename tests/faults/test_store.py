"""A store that is away, slow, broken, full or damaged, and credentials that it does not know."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from rayjobs import cli, pipeline, score, status, train
from rayjobs import generate as generation
from rayjobs.cli import JobError
from storage import Storage
from storage.checkpoints import CONFIG, latest_checkpoint, list_checkpoints
from storage.dataset import read_dataset, verify
from storage.manifest import MANIFEST
from tests.faults.outcome import whole
from tests.faults.processes import WAIT_SECONDS
from tests.faults.proxy import Proxy
from tests.storage_fixtures import Seaweed
from tests.tiny_jobs import (
    CHECKPOINT,
    alone,
    checkpoints_of,
    digests,
    generate,
    join,
    prepare,
    recipe_of,
    same,
    save,
    wanted,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OUTAGE_SECONDS = 20


@contextmanager
def away(seaweed: Seaweed, wire: Proxy, path: str, how: str) -> Iterator[dict[str, float]]:
    """The server is killed, or stopped, for 20 seconds as soon as somebody writes to a path."""
    back: dict[str, float] = {}
    held = wire.add("pause", "PUT", path)

    def out() -> None:
        held.caught.get(timeout=WAIT_SECONDS)
        seaweed.signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        held.release.set()
        time.sleep(OUTAGE_SECONDS)
        if how == "killed":
            seaweed.start()
        else:
            seaweed.signal(signal.SIGCONT)
        back["at"] = time.monotonic()

    outage = threading.Thread(target=out, daemon=True)
    outage.start()
    try:
        yield back
    finally:
        held.release.set()
        outage.join(WAIT_SECONDS)


def test_the_server_is_killed_for_20_seconds_while_actors_write(
    seaweed: Seaweed,
    wire: Proxy,
    storage: Storage,
    calm: dict[str, str],
    tiny_set: MotionSet,
    ray_local: None,
    cost: Callable[..., None],
) -> None:
    """On the same folder and ports it comes back; nobody but the clock has noticed."""
    save(storage, "motion_gan", tiny_set)
    with away(seaweed, wire, "/shards/000002-", "killed") as back:
        generate(storage, "g", wanted(storage), connect=join, actors=2)
    seconds = wire.first("PUT", "/shards/", after=back["at"]) - back["at"]
    cost(
        "the S3 server killed for 20 s in a generation",
        OUTAGE_SECONDS + seconds,
        found=whole(storage, "g", calm),
        says="log: ... cannot write ... now; trying for another ... s",
        how="until the next shard",
    )


def test_the_server_is_stopped_for_20_seconds_while_a_training_writes(
    seaweed: Seaweed,
    wire: Proxy,
    storage: Storage,
    tiny_set: MotionSet,
    tmp_path: Path,
    cost: Callable[..., None],
) -> None:
    recipe = recipe_of()
    calm = alone(prepare(Storage(tmp_path), tiny_set), recipe, "r")
    prepare(storage, tiny_set)
    began = time.monotonic()
    with away(seaweed, wire, "/step-000000004/model", "stopped"):
        weights = alone(storage, recipe, "r")
    assert same(weights, calm)
    cost(
        "the S3 server stopped for 20 s in a training",
        time.monotonic() - began,
        found="weights equal",
        how="for the whole training",
    )


TROUBLES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "S3 answers 500 three times to a PUT": ("answer", "PUT", "/shards/000001-", {"status": 500, "times": 3}),
    "S3 answers 503 seven times to a PUT": ("answer", "PUT", "/shards/000001-", {"status": 503, "times": 7}),
    "S3 takes 2 s for each of three PUTs": ("delay", "PUT", "/shards/", {"seconds": 2.0, "times": 3}),
    "S3's answer to a PUT is lost twice": ("lose", "PUT", "/shards/000001-", {"times": 2}),
    "S3's answer to a GET is lost six times": ("lose", "GET", "/config.json", {"times": 6}),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_store_in_trouble_costs_time_and_nothing_else(
    trouble: str,
    wire: Proxy,
    storage: Storage,
    calm: dict[str, str],
    tiny_set: MotionSet,
    cost: Callable[..., None],
) -> None:
    """Answers 500, 503 seven times running (more than boto's own patience), slow, or lost after the work was done."""
    save(storage, "motion_gan", tiny_set)
    request = wanted(storage)
    generate(storage, "warm", request, connect=None)
    began = time.monotonic()
    generate(storage, "quiet", request, connect=None)
    quiet = time.monotonic() - began
    kind, method, path, more = TROUBLES[trouble]
    fault = wire.add(kind, method, path, **more)  # type: ignore[arg-type]
    began = time.monotonic()
    generate(storage, "g", request, connect=None)
    seconds = time.monotonic() - began - quiet
    assert fault.times == 0
    if kind == "lose" and method == "PUT":
        # The first PUT did its work and nobody heard; the others found the same bytes.
        assert wire.answers("PUT", "/g/shards/000001-") == [200, 412, 412]
    cost(trouble, seconds, found=whole(storage, "g", calm), how="more than undisturbed")


@contextmanager
def little_room(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """A folder on a disk of so many bytes; gives what makes room. Without root: no file may be larger than a page."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode == 0:
        try:
            yield lambda: _run("mount", "-o", "remount,size=64m", str(folder))
        finally:
            _run("umount", str(folder))
        return
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def test_a_full_disk_is_one_sentence_and_half_of_nothing(
    calm: dict[str, str], tiny_set: MotionSet, tmp_path: Path, cost: Callable[..., None]
) -> None:
    """The shards lie on a tmpfs that is too small for them; afterwards there is room, and the same command."""
    storage = Storage(tmp_path)
    save(storage, "motion_gan", tiny_set)
    request = wanted(storage)
    # What the request notes lies on the disk before it is full.
    generation.claim(storage, "g", request)
    shards = tmp_path / "g" / "shards"
    shards.mkdir()
    with little_room(shards, 192 << 10) as make_room:
        with pytest.raises(JobError, match=r"of 6 shards failed") as e:
            generate(storage, "g", request, connect=None)
        assert "; free some space and run again" in str(e.value) or "File too large" in str(e.value)
        left = digests(storage, "g")
        assert len(left) < 6 and left.items() <= calm.items() and not storage.exists(f"g/{MANIFEST}")
        assert [p for p in shards.iterdir() if p.name.startswith(".tmp-")] == []
        make_room()
        began = time.monotonic()
        generate(storage, "g", request, connect=None)
        found = whole(storage, "g", calm)
    cost(
        "the disk is full; room is made, the same command again",
        time.monotonic() - began,
        found=found,
        says=str(e.value).splitlines()[1].split(": ", 2)[-1],
        how="for the second run",
    )


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_corrupt_shard_is_named_and_its_cure_works(
    damage: str, storage: Storage, calm: dict[str, str], tiny_set: MotionSet, cost: Callable[..., None]
) -> None:
    save(storage, "motion_gan", tiny_set)
    request = wanted(storage)
    generate(storage, "g", request, connect=None)
    key = f"g/{sorted(digests(storage, 'g'))[2]}"
    data = bytearray(storage.read(key))
    data[len(data) // 2] ^= 1
    storage.delete(key)
    if damage != "missing":
        storage.write(key, bytes(data) if damage == "flipped" else bytes(data[:-100]))
    with pytest.raises(
        InputError, match=r"Shard '.*000002-.*run the same `python -m rayjobs\.generate`"
    ) as e:
        read_dataset(storage, "g")
    assert verify(storage, "g") == [str(e.value)]
    storage.delete(key)
    began = time.monotonic()
    assert generate(storage, "g", request, connect=None)["shards_made"] == 1
    cost(
        f"a shard {damage}; deleted, the same command again",
        time.monotonic() - began,
        found=whole(storage, "g", calm),
        says=str(e.value).split("parquet' ")[1],
        how="for the second run",
    )


def test_a_shard_cut_short_before_the_manifest_stops_the_manifest(
    storage: Storage, calm: dict[str, str], tiny_set: MotionSet
) -> None:
    save(storage, "motion_gan", tiny_set)
    request = wanted(storage)
    generate(storage, "g", request, connect=None)
    key = f"g/{sorted(digests(storage, 'g'))[2]}"
    storage.delete(f"g/{MANIFEST}")
    storage.write(key, storage.read(key)[:-100])
    with pytest.raises(InputError, match=r"000002-.* delete it and run the same"):
        generate(storage, "g", request, connect=None)
    assert not storage.exists(f"g/{MANIFEST}")
    storage.delete(key)
    generate(storage, "g", request, connect=None)
    whole(storage, "g", calm)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no config"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str,
    storage: Storage,
    tiny_set: MotionSet,
    caplog: pytest.LogCaptureFixture,
    cost: Callable[..., None],
) -> None:
    recipe = recipe_of()
    prepare(storage, tiny_set)
    calm = alone(storage, recipe, "calm")

    def stop(metrics: dict[str, float]) -> None:
        if metrics["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone(storage, recipe, "r", tell=stop)
    prefix = checkpoints_of(recipe, "r")
    newest = latest_checkpoint(storage, prefix)
    assert newest is not None and newest.step == 4
    (model,) = [o.key for o in storage.list(newest.prefix) if "model-" in o.key]
    if damage == "no config":
        storage.delete(f"{newest.prefix}/{CONFIG}")
    else:
        data = bytearray(storage.read(model))
        data[len(data) // 2] ^= 1
        storage.write(model, bytes(data[: len(data) // 2] if damage == "truncated" else data))
    caplog.clear()
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    assert same(alone(storage, recipe, "r"), calm)
    said = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert said and "goes on from step 2" in caplog.text
    assert [c.step for c in list_checkpoints(storage, prefix)][-1] == 8
    cost(
        f"the newest checkpoint {'without its config' if damage == 'no config' else damage}; trained on",
        time.monotonic() - began,
        found="weights equal",
        says=f"log: {said[0].split(chr(39))[-1].strip()}",
        how="for the second run",
    )


def test_a_damaged_finished_checkpoint_makes_no_clips(storage: Storage, tiny_set: MotionSet) -> None:
    save(storage, "motion_gan", tiny_set)
    request = wanted(storage)
    (model,) = [o.key for o in storage.list(CHECKPOINT) if "model-" in o.key]
    data = bytearray(storage.read(model))
    data[len(data) // 2] ^= 1
    storage.write(model, bytes(data))
    with pytest.raises(JobError, match="is damaged .*; use an earlier checkpoint or train again"):
        generate(storage, "g", request, connect=None)
    assert digests(storage, "g") == {}


VERBS: dict[str, tuple[Any, Any, list[str]]] = {
    "train": (train.Options, train.verb, ["--dataset", "tiny", "--recipe", "debug"]),
    "generate": (generation.Options, generation.verb, ["--checkpoint", CHECKPOINT, "--per-class", "1"]),
    "score": (score.Options, score.verb, ["--dataset", "tiny", "--recipe", "debug"]),
    "pipeline": (pipeline.Options, pipeline.verb, ["--dataset", "sample", "--recipe", "debug"]),
    "status": (status.Options, status.verb, []),
}


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
@pytest.mark.parametrize("verb", VERBS)
def test_wrong_credentials_are_one_sentence_and_nothing_is_written(
    verb: str,
    variable: str,
    storage: Storage,
    tiny_set: MotionSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    cost: Callable[..., None],
) -> None:
    prepare(storage, tiny_set)
    before = storage.list()
    options, action, words = VERBS[verb]
    began = time.monotonic()
    with monkeypatch.context() as patch:
        right = os.environ["AWS_SECRET_ACCESS_KEY"]
        patch.setenv(variable, "wrong-value-77")
        patch.setattr(cli, "disconnect", lambda: None)  # the Ray of the other tests
        with pytest.raises(SystemExit) as e:
            cli.main(options, action, ["--storage", storage.uri, *words])
    seconds = time.monotonic() - began
    said = capsys.readouterr()
    assert e.value.code == 2 and len(said.err.splitlines()) == 1
    assert "refused to list" in said.err and "check AWS_ACCESS_KEY_ID" in said.err
    assert "wrong-value-77" not in said.err + said.out and right not in said.err + said.out
    assert storage.list() == before
    if verb == "train" and variable == "AWS_SECRET_ACCESS_KEY":
        cost(
            "wrong credentials",
            seconds,
            found="nothing written",
            says=said.err.split("' ", 1)[1].strip(),
            how="to exit 2",
        )
