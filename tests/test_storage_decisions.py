"""Marks beside a dataset: every reader honours them, shards and manifest stay as they are."""

from __future__ import annotations

import pytest

from motionsynth.errors import InputError
from rayjobs import experiment
from storage import Storage
from storage.dataset import read_dataset, read_shards, verify, write_dataset
from storage.decisions import DECISIONS, Decision, content_digest, decide, read_decisions
from storage.header import Header
from storage.manifest import read_manifest
from tests.tiny_motion import make_tiny_set


def stored(uri: str) -> tuple[Storage, list[str]]:
    storage, motions = Storage(uri), make_tiny_set()
    write_dataset(storage, "data/tiny", motions, Header.of(motions), rows_per_shard=10)
    return storage, [m.sample_id for m in motions.motions]


def test_marked_clips_read_as_refused_and_a_mark_can_be_taken_back(storage_uri: str) -> None:
    storage, ids = stored(storage_uri)
    manifest, plain = read_manifest(storage, "data/tiny").digest, content_digest(storage, "data/tiny")
    decide(storage, "data/tiny", {ids[3]: "floats", ids[12]: ""})
    for motions in (
        read_dataset(storage, "data/tiny")[0].motions,
        [m for s in read_shards(storage, "data/tiny") for m in s.motions],
    ):
        refused = {m.sample_id: m.rejected_by for m in motions if m.accepted is False}
        assert refused == {ids[3]: "marked", ids[12]: "marked"} and len(motions) == len(ids)
    assert read_decisions(storage, "data/tiny")[ids[3]].reason == "floats"
    assert (
        read_manifest(storage, "data/tiny").digest == manifest == plain and verify(storage, "data/tiny") == []
    )
    marked = content_digest(storage, "data/tiny")
    # Another reason is no other content; another clip is.
    decide(storage, "data/tiny", {ids[3]: "sinks"})
    assert content_digest(storage, "data/tiny") == marked != plain
    decide(storage, "data/tiny", {}, good=[ids[3], ids[12]])
    assert content_digest(storage, "data/tiny") == plain
    assert all(m.accepted is None for m in read_dataset(storage, "data/tiny")[0].motions)


def test_a_mark_keeps_its_first_time(tmp_path) -> None:
    storage, ids = stored(str(tmp_path))
    first = decide(storage, "data/tiny", {ids[0]: "a"})[ids[0]]
    again = decide(storage, "data/tiny", {ids[0]: "b", ids[1]: "c"})
    assert (
        again[ids[0]] == Decision(sample_id=ids[0], reason="b", decided=first.decided) and first.decided > 0
    )
    assert list(again) == sorted(ids[:2])


def test_a_marked_real_clip_is_in_no_bed(tmp_path) -> None:
    storage, ids = stored(str(tmp_path))
    digest = experiment.data_digest(storage, "tiny")
    decide(storage, "data/tiny", {ids[5]: ""})
    motions, _ = experiment._dataset(Storage(str(tmp_path)), "tiny")
    assert ids[5] not in {m.sample_id for m in motions.motions} and len(motions) == len(ids) - 1
    assert experiment.data_digest(storage, "tiny") != digest


def test_bad_marks_are_one_sentence(tmp_path) -> None:
    storage, ids = stored(str(tmp_path))
    with pytest.raises(InputError, match="has 201 characters; at most 200"):
        decide(storage, "data/tiny", {ids[0]: "x" * 201})
    assert not storage.exists(f"data/tiny/{DECISIONS}")
    for damaged in (b"", b"PAR1 no", b"x" * 100):
        storage.write(f"data/tiny/{DECISIONS}", damaged)
        with pytest.raises(InputError, match="delete it to take all clips as they are"):
            read_dataset(storage, "data/tiny")
