"""Generation plans: what a sample is must not depend on how the work is cut or who does it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from storage import Storage
from storage.shards import GenerationRequest, SampleRange, ShardSpec, key_of, list_done, plan, sample_seed

ROOT = Path(__file__).resolve().parents[1]
REQUEST = GenerationRequest(
    checkpoint="runs/a/step-000000100",
    checkpoint_digest="d" * 64,
    counts={2: 7, 0: 10},
    seed=3,
    shard_size=4,
    dataset="nucla",
    extra={"guidance": 2.5},
)


def samples(request: GenerationRequest) -> dict[tuple[int, str], int]:
    return {(s.label, s.sample_id): s.seed for spec in plan(request) for s in spec.samples()}


@settings(max_examples=50)
@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 40), min_size=1),
    st.integers(1, 50),
    st.integers(0, 2**63),
)
def test_a_plan_covers_the_request_exactly_once(counts: dict[int, int], size: int, seed: int) -> None:
    if not sum(counts.values()):
        counts[0] = 1
    specs = plan(replace(REQUEST, counts=counts, shard_size=size, seed=seed))
    made = [s for spec in specs for s in spec.samples()]
    assert Counter(s.label for s in made) == Counter({k: n for k, n in counts.items() if n})
    assert len({s.sample_id for s in made}) == len({s.seed for s in made}) == len(made)
    assert all(spec.rows == size for spec in specs[:-1]) and 1 <= specs[-1].rows <= size
    assert [spec.index for spec in specs] == list(range(len(specs)))
    assert len({key_of(spec) for spec in specs}) == len(specs)
    assert all(0 <= s.seed < 2**63 for s in made)
    assert all(sum(spec.counts.values()) == spec.rows == len(list(spec.samples())) for spec in specs)


def test_samples_do_not_depend_on_shard_size_or_on_other_counts() -> None:
    want = samples(REQUEST)
    assert samples(replace(REQUEST, shard_size=1)) == want == samples(replace(REQUEST, shard_size=1000))
    more = samples(replace(REQUEST, counts={0: 25, 1: 5, 2: 7}))
    assert want.items() <= more.items() and len(more) == 37


@pytest.mark.parametrize(
    "change", [{"checkpoint_digest": "e" * 64}, {"seed": 4}, {"dataset": "sbu"}, {"extra": {"guidance": 2.0}}]
)
def test_another_request_gives_other_ids_and_keys(change: dict) -> None:
    other = replace(REQUEST, **change)
    assert not {i for _, i in samples(other)} & {i for _, i in samples(REQUEST)}
    assert not {key_of(s) for s in plan(other)} & {key_of(s) for s in plan(REQUEST)}


def test_ids_and_seeds_are_the_same_in_every_process() -> None:
    code = (
        "from tests.test_storage_shards import *\n"
        "print([key_of(s) for s in plan(REQUEST)], sorted(samples(REQUEST).items())[-1])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PATH": "/usr/bin", "PYTHONHASHSEED": h},
            capture_output=True,
            text=True,
        )
        for h in ("1", "2")
    ]
    assert (
        runs[0].stdout
        == runs[1].stdout
        == f"{[key_of(s) for s in plan(REQUEST)]} {sorted(samples(REQUEST).items())[-1]}\n"
    )
    # These may never change: runs of older versions are resumed and compared by them.
    assert sample_seed(0, 0, 0) == 1514418728207454864
    assert plan(REQUEST)[0].id == "b674864f18999c60"


def test_json_round_trip() -> None:
    for spec in plan(REQUEST):
        again = ShardSpec.from_dict(spec.to_dict())
        assert again == spec and again.id == spec.id
    assert GenerationRequest.from_dict(REQUEST.to_dict()) == replace(REQUEST, counts={0: 10, 2: 7})


def test_list_done_is_resume(storage_uri: str) -> None:
    storage, specs = Storage(storage_uri), plan(REQUEST)
    assert list_done(storage, "runs/a", specs) == frozenset()
    for spec in (specs[0], specs[3]):
        storage.sub("runs/a").write(key_of(spec), b"x")
    storage.sub("runs/b").write(key_of(specs[1]), b"x")
    storage.sub("runs/a").write(key_of(specs[2]), b"")
    assert list_done(storage, "runs/a", specs) == {specs[0].id, specs[3].id}
    assert list_done(storage.sub("runs/a"), "", specs) == {specs[0].id, specs[3].id}
    assert list_done(storage, "runs/a", plan(replace(REQUEST, seed=9))) == frozenset()


def test_bad_requests() -> None:
    for change, says in [
        ({"counts": {0: 0}}, "asks for 0 clips"),
        ({"counts": {}}, "asks for 0 clips"),
        ({"counts": {0: -1, 1: 5}}, "must be 0 or more"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"extra": {"x": object()}}, "JSON"),
    ]:
        with pytest.raises(InputError, match=says):
            replace(REQUEST, **change)
    with pytest.raises(InputError, match="start < stop"):
        SampleRange(label=0, start=3, stop=3)


def cut_by_hand(request: GenerationRequest) -> list[tuple[tuple[int, int, int], ...]]:
    """Fill one shard after the other, class by class."""
    shards: list[tuple[tuple[int, int, int], ...]] = []
    ranges: list[tuple[int, int, int]] = []
    room = request.shard_size
    for label, count in sorted(request.counts.items()):
        start = 0
        while start < count:
            stop = min(count, start + room)
            ranges.append((label, start, stop))
            room, start = room - (stop - start), stop
            if not room:
                shards.append(tuple(ranges))
                ranges, room = [], request.shard_size
    return [*shards, tuple(ranges)] if ranges else shards


@settings(max_examples=100)
@given(st.dictionaries(st.integers(0, 9), st.integers(0, 40), min_size=1), st.integers(1, 50))
def test_any_shard_of_a_plan_is_known_without_those_before_it(counts: dict[int, int], size: int) -> None:
    if not sum(counts.values()):
        counts[0] = 1
    request = replace(REQUEST, counts=counts, shard_size=size)
    specs, want = plan(request), cut_by_hand(request)
    assert [tuple((r.label, r.start, r.stop) for r in specs[i].ranges) for i in range(len(specs))] == want
    assert len(specs) == len(want) and specs.clips == sum(counts.values())
    assert [specs.rows(i) for i in range(len(specs))] == [s.rows for s in specs]
    assert specs[-1] == list(specs)[-1] and specs[1:] == list(specs)[1:]
    with pytest.raises(IndexError):
        specs[len(specs)]


def test_a_plan_of_any_length_is_at_hand() -> None:
    specs = plan(replace(REQUEST, counts={0: 10**12, 3: 5}, shard_size=256))
    assert len(specs) == 3906250001 and specs.clips == 10**12 + 5
    assert specs[3906250000].ranges == (SampleRange(label=3, start=0, stop=5),)
    assert specs[10**9].ranges == (SampleRange(label=0, start=256 * 10**9, stop=256 * 10**9 + 256),)
