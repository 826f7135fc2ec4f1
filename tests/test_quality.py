"""The report on a generated set: real clips pass for real, and what is not motion does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from motionsynth.arms import BedTensors
from motionsynth.beds import BedSpec, make_bed
from motionsynth.metrics import frozen, time_shuffled
from motionsynth.motion import MotionSet
from motionsynth.quality import format_quality, quality_report
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set

TRAINING = RecogniserTraining(steps=40, batch=24)


@pytest.fixture(scope="module")
def world() -> tuple[BedTensors, MotionSet]:
    """A bed of every other repetition, and the ones between as a perfect generator's clips."""
    motions = make_tiny_set(8)
    even = motions.select(i for i, m in enumerate(motions.motions) if int(m.repetition) % 2 == 0)
    split = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
    bed = make_bed(even, (split,), BedSpec(scarcity="full", split="test"))
    unseen = tuple(
        replace(m, source="synthetic")
        for m in motions.motions
        if int(m.repetition) % 2 and m.subject in ("01", "02", "03")
    )
    return BedTensors.of(bed), replace(motions, motions=unseen)


@pytest.fixture(scope="module")
def reports(world: tuple[BedTensors, MotionSet]) -> dict[str, dict[str, Any]]:
    tensors, perfect = world
    sets = {"perfect": perfect, "frozen": frozen(perfect), "shuffled": time_shuffled(perfect)}
    sets["copies"] = replace(tensors.bed.train, motions=tensors.bed.train.motions)
    sets["mislabelled"] = replace(
        perfect, motions=tuple(replace(m, label=(m.label + 1) % 3) for m in perfect.motions)
    )
    return {name: quality_report(tensors, s, TRAINING) for name, s in sets.items()}


def test_real_clips_lie_at_the_floor(reports: dict[str, dict[str, Any]]) -> None:
    frechet = reports["perfect"]["frechet"]
    assert 0.5 < frechet["ratio"] < 2
    assert all(0.3 < d["ratio"] < 4 for d in frechet["per_class"].values()) and len(frechet["per_class"]) == 3
    assert reports["perfect"]["agreement"] > 0.95
    assert 0.8 < reports["perfect"]["consistency"]["energy_ratio"] < 1.25


@pytest.mark.parametrize("wrong", ["frozen", "shuffled"])
def test_what_is_no_motion_lies_far_above(wrong: str, reports: dict[str, dict[str, Any]]) -> None:
    assert reports[wrong]["frechet"]["ratio"] > 3 * reports["perfect"]["frechet"]["ratio"]


def test_each_fault_shows_in_its_own_figure(reports: dict[str, dict[str, Any]]) -> None:
    assert reports["frozen"]["consistency"]["energy_ratio"] < 0.01
    assert reports["shuffled"]["consistency"]["gap"] > 5 * reports["perfect"]["consistency"]["gap"]
    assert reports["shuffled"]["physics"]["speeds"] > reports["perfect"]["physics"]["speeds"] + 0.05
    assert reports["mislabelled"]["agreement"] < 0.05
    per_class = [d["ratio"] for d in reports["mislabelled"]["frechet"]["per_class"].values()]
    assert min(per_class) > 5
    assert reports["frozen"]["coverage"]["precision"] < 0.5 < reports["perfect"]["coverage"]["precision"]
    assert reports["perfect"]["interaction"] is None  # one person
    # Copies of training clips: perfect by every figure but one.
    assert reports["copies"]["memorisation"]["median"] < 1e-3
    assert reports["perfect"]["memorisation"]["median"] > 0.01


def test_the_report_reads_no_held_out_clip(world: tuple[BedTensors, MotionSet]) -> None:
    tensors, perfect = world
    blind = replace(
        tensors,
        bed=replace(tensors.bed, evaluate=tensors.bed.evaluate.select(())),
        evaluate=tensors.evaluate.select(np.zeros(0, int)),
    )
    a, b = (quality_report(t, perfect, replace(TRAINING, steps=4)) for t in (tensors, blind))
    assert a == b


def test_it_is_json_and_one_line_per_set(reports: dict[str, dict[str, Any]]) -> None:
    json.dumps(reports, allow_nan=False)
    text = format_quality(list(reports.values())).splitlines()
    assert len(text) == 2 + len(reports) and {len(line) for line in text} == {len(text[0])}
    assert reports["perfect"]["synthetic_clips"] == 72 and reports["perfect"]["bed"] in text[2]


def test_a_set_of_some_classes_is_compared_with_those(world: tuple[BedTensors, MotionSet]) -> None:
    tensors, perfect = world
    report = quality_report(
        tensors, perfect.select(np.flatnonzero(perfect.labels == 1)), replace(TRAINING, steps=4)
    )
    assert list(report["frechet"]["per_class"]) == ["wave left hand"]
    assert report["features"]["real_clips"] == 24 and report["synthetic_clips"] == 24


def test_a_single_real_clip_is_no_distribution_and_the_report_says_so(
    world: tuple[BedTensors, MotionSet], reports: dict[str, dict[str, Any]]
) -> None:
    """The other arms' table must not be lost over it."""
    bed, perfect = world[0].bed, world[1]
    lonely = [i for i, m in enumerate(bed.full.motions) if m.label != 1 or m.sample_id == "c1_s01_r0_v01"]
    one = BedTensors.of(replace(bed, train=bed.full.select(lonely), full=bed.full.select(lonely)))
    made = perfect.select(np.flatnonzero(perfect.labels == 1)[:5])
    report = quality_report(one, made, replace(TRAINING, steps=4))
    assert "have 1 and 5 clips; at least 2" in report["not_measured"] and report["synthetic_clips"] == 5
    shown = format_quality([report, reports["perfect"]]).splitlines()
    assert "not measured: " in shown[2] and bed.spec.key in shown[2] and len(shown) == 4
