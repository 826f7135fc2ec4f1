"""Figures of a dataset, counted from its columns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.splits import Split
from storage import Storage
from storage.dataset import write_dataset
from storage.facts import read_facts
from storage.header import Header

SPLIT = Split(name="cross_subject", by="subject", train=("01", "02"), test=("03",))


def mixed(tiny_set: MotionSet) -> MotionSet:
    """The tiny set, and six synthetic clips: four of two parents, two without; one is refused."""
    made = []
    for i, m in enumerate(tiny_set.motions[:6]):
        parent = (
            ("+".join(x.sample_id for x in tiny_set.motions[:2]) if i < 2 else tiny_set.motions[0].sample_id)
            if i < 4
            else None
        )
        made.append(
            replace(
                m, sample_id=f"syn-{i}", source="synthetic", parent_id=parent, generator="g", checkpoint="c",
                seed=10 + i, subject="", accepted=None if i else False,
            )
        )  # fmt: skip
    return tiny_set.extended(made)


def test_counts_agree_with_the_clips(storage_uri: str, tiny_set: MotionSet) -> None:
    storage, motions = Storage(storage_uri), mixed(tiny_set)
    write_dataset(storage, "d", motions, Header.of(motions, (SPLIT.to_dict(),)), rows_per_shard=7)
    f = read_facts(storage, "d")
    assert f.real == {0: 8, 1: 8, 2: 8} and f.synthetic == {0: 6} and f.people == {0: 4, 1: 4, 2: 4}
    assert f.subjects == ("01", "02", "03", "04") and f.views == ("01", "02")
    lengths = [m.num_frames for m in motions.motions]
    assert f.frames == (min(lengths), pytest.approx(sum(lengths) / 30), max(lengths))
    assert f.hours == pytest.approx(sum(lengths) / 30 / 3600) and f.fps == (30.0,) and f.persons == {1: 30}
    assert f.parents == {m.sample_id for m in tiny_set.motions[:2]} and f.orphans == 2
    assert f.generators == {"g": 6} and f.checkpoints == {"c": 6} and f.seeds == (10, 15)
    assert f.ids == {"tiny": {m.sample_id for m in tiny_set.motions}}
    # A clip that nobody performed is on no side of a split that has not seen its generator.
    assert f.parts == {(True, ("train",)): 12, (True, ("test",)): 6, (True, ("",)): 11, (False, ("",)): 1}
    assert f.refused == 1 and f.num_real == 24 and f.num_synthetic == 6


def test_a_damaged_shard_is_one_sentence(tmp_path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path)
    manifest = write_dataset(storage, "d", tiny_set, Header.of(tiny_set))
    storage.write(f"d/{manifest.shards[0].key}", b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet; delete it and run"):
        read_facts(storage, "d")
