"""The generation job with every registered generator: the same bytes whatever dies on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.generators import GENERATORS
from motionsynth.motion import Motion, MotionSet
from rayjobs import generate as job
from rayjobs import shard_pool
from rayjobs.cli import JobError
from rayjobs.generate import Wanted, parse_counts, request_for
from storage import ConflictError, Storage
from storage.dataset import read_dataset
from storage.manifest import read_manifest
from storage.shards import GenerationRequest, plan
from tests.tiny_jobs import CHECKPOINT, digests, generate, join, save, wanted

ROOT = Path(__file__).resolve().parents[1]


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def reject_class_2(motions: list[Motion]) -> list[Motion]:
    return [dataclasses.replace(m, accepted=m.label != 2, novelty=0.5) for m in motions]


@dataclasses.dataclass(frozen=True)
class Made:
    """Sets of all generators, made in one pool; then each lost a shard and was made again."""

    storage: Storage
    requests: dict[str, GenerationRequest]
    results: dict[str, dict[str, Any]]
    again: dict[str, dict[str, Any]]
    before: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_set: MotionSet, ray_local: None) -> Made:
    storage = Storage(tmp_path_factory.mktemp("made"))
    names = sorted(GENERATORS)
    requests = {}
    for name in names:
        save(storage.sub(name), name, tiny_set)
        checkpoint = f"{name}/{CHECKPOINT}"
        requests[name] = request_for(storage, checkpoint, {0: 3, 2: 5}, seed=3, shard_size=4, batch=4)
    wishes = [Wanted(f"{name}/g", requests[name]) for name in names]

    def make() -> dict[str, dict[str, Any]]:
        found = job.generate(storage, wishes, connect=join, grade=reject_class_2)
        return dict(zip(names, found, strict=True))

    results = make()
    before = {name: digests(storage, f"{name}/g") for name in names}
    for name in names:
        storage.sub(f"{name}/g").delete(sorted(before[name])[1])
    return Made(storage, requests, results, make(), before)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_clips_are_what_was_asked_for_and_a_lost_shard_comes_back_equal(
    name: str, made: Made, tiny_set: MotionSet
) -> None:
    result, again = made.results[name], made.again[name]
    motions, header = read_dataset(made.storage, f"{name}/g")
    assert result["clips"] == len(motions) == 8 and result["shards"] == 2 and result["accepted"] == 3
    assert [(m.label, m.accepted, m.novelty) for m in motions.motions] == [(0, True, 0.5)] * 3 + [
        (2, False, 0.5)
    ] * 5
    assert header.skeleton == tiny_set.skeleton and header.class_names == tiny_set.class_names
    assert {(m.source, m.generator, m.checkpoint) for m in motions.motions} == {
        ("synthetic", name, made.requests[name].checkpoint_digest[:16])
    }
    assert len({m.seed for m in motions.motions}) == len({m.sample_id for m in motions.motions}) == 8
    assert all(np.isfinite(m.positions).all() and m.positions.std() > 0 for m in motions.motions)
    first, second = motions.motions[0].positions, motions.motions[1].positions
    assert first.shape != second.shape or not np.array_equal(first, second)
    assert again["shards_made"] == 1 and again["manifest"] == result["manifest"]
    assert digests(made.storage, f"{name}/g") == made.before[name]


@pytest.fixture
def saved(local: Storage, tiny_set: MotionSet) -> Storage:
    save(local, sorted(GENERATORS)[0], tiny_set)
    return local


def test_failed_shards_are_listed_and_the_rest_is_kept(saved: Storage, ray_local: None) -> None:
    def picky(motions: list[Motion]) -> list[Motion]:
        if any(m.label == 1 for m in motions):
            raise ValueError("class 1 is cursed")
        return motions

    request = wanted(saved)
    with pytest.raises(JobError) as e:
        generate(saved, "g", request, connect=join, grade=picky)
    message = str(e.value)
    assert message.startswith("2 of 6 shards failed") and message.count("class 1 is cursed") == 2
    assert not saved.exists("g/manifest.json")
    assert generate(saved, "g", request, connect=join)["shards_made"] == 2


def test_sets_share_a_pool_and_a_failure_in_one_leaves_the_other_whole(
    saved: Storage, ray_local: None
) -> None:
    calm, cursed = wanted(saved, seed=1, per_class=8), wanted(saved, seed=2, per_class=8)
    bad_seeds = {r.seed for s in plan(cursed) for r in s.samples() if r.label == 1}

    def picky(motions: list[Motion]) -> list[Motion]:
        if any(m.seed in bad_seeds for m in motions):
            raise ValueError("cursed")
        return motions

    wish = [Wanted("a", calm), Wanted("b", cursed)]
    with pytest.raises(JobError, match=r"1 of 6 shards failed[^!]*\n  b/shards/.*cursed"):
        job.generate(saved, wish, connect=join, grade=picky)
    assert read_manifest(saved, "a").rows == 24 and not saved.exists("b/manifest.json")
    first, second = job.generate(saved, wish, connect=join)
    assert (first["shards_made"], second["shards_made"]) == (0, 1)
    alone = generate(saved, "c", cursed, connect=join)
    assert [(r["clips"], r["manifest"]) for r in (second, alone)] == [(24, second["manifest"])] * 2
    assert first["manifest"] != second["manifest"]


def test_what_kills_every_actor_ends_the_job(
    saved: Storage, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(motions: list[Motion]) -> list[Motion]:
        os._exit(9)

    monkeypatch.setattr(shard_pool, "MAX_RESTARTS", 1)
    with pytest.raises(JobError, match="a worker was lost 2 times"):
        generate(saved, "g", wanted(saved), connect=join, actors=1, grade=deadly)
    assert saved.list("g/shards") == []


def test_one_prefix_holds_one_request(saved: Storage) -> None:
    job.claim(saved, "g", wanted(saved))
    with pytest.raises(ConflictError, match="another request"):
        generate(saved, "g", wanted(saved, seed=8), connect=never)


def test_a_changed_checkpoint_is_noticed_before_ray_starts(saved: Storage, tiny_set: MotionSet) -> None:
    request = wanted(saved)
    save(saved, sorted(GENERATORS)[0], tiny_set, seed=1)
    with pytest.raises(InputError, match="has changed"):
        generate(saved, "g", request, connect=never)


def test_actors_that_do_not_fit_are_refused(saved: Storage, ray_local: None) -> None:
    with pytest.raises(InputError, match=r"7 workers x 1 CPU .* Ray has 6 .* at most 6 workers"):
        generate(saved, "g", wanted(saved), connect=join, actors=7)


def test_counts() -> None:
    assert parse_counts((), 5, 3) == {0: 5, 1: 5, 2: 5}
    assert parse_counts(("2=7", "0=1"), 0, 3) == {2: 7, 0: 1}


@pytest.mark.parametrize("given", [("3=1",), ("1=x",), ("1",), ("1=2", "1=3"), ("-1=2",)])
def test_wrong_counts_are_named(given: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"--counts has '{given[-1]}'"):
        parse_counts(given, 0, 3)


@pytest.mark.parametrize(("given", "per_class"), [((), 0), (("1=2",), 5)])
def test_counts_must_be_given_in_one_way(given: tuple[str, ...], per_class: int) -> None:
    with pytest.raises(InputError, match="either"):
        parse_counts(given, per_class, 3)


def test_a_trained_generator_is_sampled_in_another_way(
    local: Storage, tiny_set: MotionSet, ray_local: None
) -> None:
    save(local, "motion_gan", tiny_set)
    plain, other = (
        request_for(local, CHECKPOINT, {0: 4}, shard_size=4, sampling=s)
        for s in ({}, {"style_prior": "normal"})
    )
    assert other.extra["sampling"] == {"style_prior": "normal"} and "sampling" not in plain.extra
    job.generate(local, [Wanted("p", plain), Wanted("o", other)], connect=join, actors=1)
    first, second = (read_dataset(local, p)[0].motions for p in "po")
    assert [m.seed for m in first] == [m.seed for m in second]
    # Style is drawn instead of taken from a real clip.
    assert not any(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({"width": 64}, "no setting 'width' .* Known: truncation, style_prior"),
        ({"truncation": 3}, "truncation is 3; it must lie between 0 and 2"),
        ({"truncation": "much"}, "truncation is 'much'; it must be of type float, as 1.0 is"),
        ({"truncation": True}, "truncation is True; it must be of type float"),
        ({"style_prior": [1]}, r"style_prior is \[1\]; it must be of type str"),
    ],
)
def test_wrong_sampling_is_refused_before_ray_starts(
    local: Storage, tiny_set: MotionSet, sampling: dict[str, Any], sentence: str
) -> None:
    save(local, "motion_gan", tiny_set)
    with pytest.raises(InputError, match=sentence):
        request_for(local, CHECKPOINT, {0: 1}, sampling=sampling)


def test_the_command(saved: Storage) -> None:
    command = [sys.executable, "-m", "rayjobs.generate", "--storage", saved.uri, "--run", "r", "--json"]
    command += ["--checkpoint", CHECKPOINT, "--counts", "1=6", "--shard-size", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["prefix"] == "runs/r/synthetic" and result["counts"] == {"wave left hand": 6}
    assert read_manifest(saved, "runs/r/synthetic").digest == result["manifest"]
    # Progress with a rate, on standard error; how fast is the machine's affair.
    assert re.search(r"generate: 6/6 clips \(100%\), [\d.,]+ clips/(s|min), took ", done.stderr), done.stderr


def test_a_missing_checkpoint_is_one_sentence(local: Storage) -> None:
    command = [
        sys.executable,
        "-m",
        "rayjobs.generate",
        "--storage",
        local.uri,
        "--checkpoint",
        "runs/r/none",
    ]
    done = subprocess.run(
        [*command, "--per-class", "1"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "no complete checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1
