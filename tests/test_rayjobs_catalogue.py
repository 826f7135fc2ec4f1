"""Filtering and ordering against the plain way: going through the clips one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from rayjobs.catalogue import Catalogue, Wish
from storage import Storage
from storage.dataset import write_dataset
from storage.decisions import decide
from storage.header import Header
from tests.tiny_motion import make_tiny_set


def graded() -> MotionSet:
    """Half of the clips synthetic, with quality columns; some without a value."""
    motions = make_tiny_set(2)
    rng = np.random.default_rng(0)
    clips = []
    for i, m in enumerate(motions.motions):
        if i % 2:
            value = lambda: None if rng.random() < 0.2 else float(rng.random())  # noqa: E731
            m = replace(
                m, source="synthetic", class_confidence=value(), novelty=value(), accepted=bool(i % 3),
                rejected_by=None if i % 3 else "copy",
            )  # fmt: skip
        clips.append(m)
    return replace(motions, motions=tuple(clips))


@pytest.fixture
def found(storage_uri: str) -> tuple[Catalogue, MotionSet]:
    storage, motions = Storage(storage_uri), graded()
    write_dataset(storage, "data/tiny", motions, Header.of(motions), rows_per_shard=7)
    decide(storage, "data/tiny", {motions.motions[4].sample_id: "odd", motions.motions[9].sample_id: ""})
    return Catalogue(storage, "data/tiny"), motions


def ids(catalogue: Catalogue, wish: Wish) -> list[str]:
    total, rows = catalogue.select(wish, 0, 1000)
    assert total == len(rows)
    return [r["sample_id"] for r in rows]


def test_every_filter_says_what_going_through_the_clips_says(found: tuple[Catalogue, MotionSet]) -> None:
    catalogue, motions = found
    marked = {motions.motions[4].sample_id, motions.motions[9].sample_id}
    cases = {
        Wish: lambda m: True,
        lambda: Wish(label=1): lambda m: m.label == 1,
        lambda: Wish(source="synthetic"): lambda m: m.source == "synthetic",
        lambda: Wish(state="marked"): lambda m: m.sample_id in marked,
        lambda: Wish(state="refused"): lambda m: m.accepted is False,
        lambda: Wish(state="accepted"): lambda m: m.accepted is not False and m.sample_id not in marked,
        lambda: Wish(ranges={"novelty": (0.2, 0.7)}): lambda m: (
            m.novelty is not None and 0.2 <= m.novelty <= 0.7
        ),
        lambda: Wish(label=0, ranges={"class_confidence": (None, 0.5)}): lambda m: (
            m.label == 0 and m.class_confidence is not None and m.class_confidence <= 0.5
        ),
    }
    for wish, rule in cases.items():
        expected = [m.sample_id for m in motions.motions if rule(m)]
        assert ids(catalogue, wish()) == expected and expected


def test_clips_without_a_value_come_last_both_ways(found: tuple[Catalogue, MotionSet]) -> None:
    catalogue, motions = found
    known = {m.sample_id: m.novelty for m in motions.motions if m.novelty is not None}
    for descending in (False, True):
        order = ids(catalogue, Wish(order="novelty", descending=descending))
        assert order[: len(known)] == sorted(known, key=lambda i: known[i], reverse=descending)
        assert len(order) == len(motions)
    assert ids(catalogue, Wish(descending=True)) == [m.sample_id for m in motions.motions][::-1]


def test_pages_and_single_clips(found: tuple[Catalogue, MotionSet]) -> None:
    catalogue, motions = found
    total, rows = catalogue.select(Wish(), 40, 5)
    assert total == len(motions) and [r["sample_id"] for r in rows] == [
        m.sample_id for m in motions.motions[40:45]
    ]
    assert catalogue.select(Wish(), 10_000, 5) == (total, [])
    for m in motions.motions[::11]:
        np.testing.assert_array_equal(catalogue.motion(m.sample_id).positions, m.positions)
    assert "nobody" not in catalogue
    assert [r["mark"] for r in catalogue.select(Wish(state="marked"), 0, 9)[1]] == ["odd", ""]


def test_bad_wishes_and_damaged_shards_are_one_sentence(tmp_path: Path) -> None:
    for wish in ({"state": "gone"}, {"order": "size"}, {"source": "both"}, {"ranges": {"label": (0, 1)}}):
        with pytest.raises(InputError, match="allowed:|Known:"):
            Wish(**wish)
    storage, motions = Storage(tmp_path), graded()
    manifest = write_dataset(storage, "data/tiny", motions, Header.of(motions), rows_per_shard=30)
    storage.write(f"data/tiny/{manifest.shards[1].key}", b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        Catalogue(storage, "data/tiny")
