"""The benchmarks run, count right and refuse to compare what does not compare."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import card
from benchmarks import control_plane as plane
from benchmarks import generate as bench
from benchmarks import kinetic_gan as kinetic_bench
from benchmarks import stgcn as stgcn_bench
from benchmarks import train as train_bench
from benchmarks.motions import random_bodies
from benchmarks.report import table, write_json
from motionsynth.errors import InputError
from motionsynth.generators import GENERATORS
from motionsynth.generators.base import normal, request_rng
from motionsynth.motion import invalid_reason
from motionsynth.recognisers import RECOGNISERS

SMALL = {"width": 64, "critic_width": 16, "style": 8, "noise": 4, "action": 8, "frames": 16}


def small(**changes: Any) -> bench.Settings:
    values = {
        "clips": (24, 48),
        "repeats": 1,
        "shard_size": 8,
        "batch": 4,
        "generator_config": SMALL,
        "every": 50,
    }
    return bench.Settings(**(values | changes))


def test_all_ways_write_the_same_shards(ray_local: None) -> None:
    lines: list[str] = []
    settings = small(ways=("plain", "bare x1", "job x1"), clips=(24,))
    result = bench.measure(settings, run=bench.run_once, tell=lines.append)
    assert [(r["way"], r["clips"]) for r in result["sizes"]] == [
        ("plain", 24),
        ("bare x1", 24),
        ("job x1", 24),
    ]
    assert len({r["digest"] for r in result["runs"]}) == 1 and len(lines) == 3
    assert len({r["bytes"] for r in result["runs"]}) == 1 and result["runs"][0]["bytes"] > 1000
    assert all(
        r["seconds"] > 0 and r["driver_peak_mib"] >= r["driver_start_mib"] > 10 for r in result["runs"]
    )
    assert result["marginal"] == []
    json.dumps(result)


def fake_run(digest: str = "same") -> Any:
    """Plain costs 2 ms a clip, the others 1 ms and 10 s to start; their driver grows by a byte-sized 3 MiB."""

    def run(way: str, clips: int, uri: str, settings: bench.Settings) -> dict[str, Any]:
        Path(uri, "out").mkdir()
        seconds = 0.002 * clips if way == "plain" else 10 + 0.001 * clips
        return {
            "way": way, "clips": clips, "seconds": seconds, "steady": 2.0, "bytes": 10 * clips,
            "driver_start_mib": 100.0, "driver_peak_mib": 110.0 + (3.0 if clips > 24 else 0.0), "load": 0.0,
            "digest": "other" if way == digest else "same",
        }  # fmt: skip

    return run


def test_marginal_cost_leaves_the_start_out() -> None:
    result = bench.measure(small(ways=("plain", "job x2"), clips=(24, 30, 48), repeats=3), run=fake_run())
    plain, job = result["marginal"]
    assert (
        plain["relative"] == 1
        and plain["ms/clip"] == pytest.approx(2)
        and plain["start s"] == pytest.approx(0)
    )
    assert job["relative"] == pytest.approx(0.5) and job["start s"] == pytest.approx(10)
    assert job["driver growth MiB"] == pytest.approx(3)
    assert len(result["runs"]) == 3 * 3 * 2
    firsts = [r["way"] for r in result["runs"]][::2]
    assert {"plain", "job x2"} == set(firsts), "the ways must take turns in going first"


def test_ways_that_write_other_bytes_are_not_compared() -> None:
    with pytest.raises(InputError, match="wrote different shards for the same 24 clips"):
        bench.measure(small(ways=("plain", "job x1")), run=fake_run(digest="job x1"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"clips": (48, 24)}, r"sizes are \(48, 24\); give ascending"),
        ({"clips": ()}, "give ascending"),
        ({"repeats": 0}, "repeats is 0"),
        ({"ways": ("plain", "magic")}, "Unknown way 'magic'. Known: plain, bare x1"),
    ],
)
def test_wrong_settings_of_generate(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(**change)


def test_driver_memory_sees_what_comes_and_goes() -> None:
    with bench.DriverMemory() as memory:
        block = np.ones(16 << 20)
        time.sleep(3 * bench.SAMPLE_SECONDS)
        del block
    assert memory.start is not None and memory.peak is not None
    assert 100 < memory.peak - memory.start < 400


def test_every_model_is_measured() -> None:
    settings = train_bench.Settings(repeats=1, seconds=0.0, batch=4, small=True)
    rows = train_bench.measure(settings)["rows"]
    wanted = dict.fromkeys(RECOGNISERS, ("training", "inference"))
    wanted |= dict.fromkeys(GENERATORS, ("training", "sampling"))
    for model, kinds in wanted.items():
        for kind in kinds:
            mine = [r for r in rows if (r["model"], r["what"]) == (model, kind)]
            assert len({r["shape"] for r in mine}) == 2 and all(r["clips/s"] > 0 for r in mine), (model, kind)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"device": "tpu"}, "device is 'tpu'; allowed"),
        ({"models": ("tcn", "gcn")}, "Unknown model 'gcn'. Known: cnn_lstm, "),
    ],
)
def test_wrong_settings_of_train(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        train_bench.Settings(**change)


def test_both_ways_of_stgcn_are_measured() -> None:
    settings = stgcn_bench.Settings(sizes=((6, 8),), batches=(2, 3), repeats=1)
    rows = stgcn_bench.measure(settings)["rows"]
    assert [(r["channels"], r["frames"], r["batch"]) for r in rows] == [(6, 8, 2), (6, 8, 3)]
    assert all(r["ratio"] == pytest.approx(r["plain ms"] / r["ours ms"]) and r["ours ms"] > 0 for r in rows)
    with pytest.raises(InputError, match="repeats is 0"):
        stgcn_bench.Settings(repeats=0)


def test_both_ways_of_sampling_kinetic_gan_are_measured() -> None:
    rows = kinetic_bench.measure(kinetic_bench.Settings(batches=(2, 3), calls=1, repeats=1, classes=2))[
        "rows"
    ]
    assert [r["clips per call"] for r in rows] == [2, 3]
    assert all(r["ratio"] == pytest.approx(r["ours clips/s"] / r["published clips/s"]) for r in rows)
    with pytest.raises(InputError, match="repeats is 0"):
        kinetic_bench.Settings(repeats=0)


def test_the_published_path_samples_what_the_published_generator_samples() -> None:
    """But for its truncation, which takes a mean of other noise in every call, and for metres."""
    config = replace(kinetic_bench.PublishedKineticGANConfig(), truncation=1.0)
    model = kinetic_bench.build(config, 2)
    requests = [kinetic_bench.SampleRequest(sample_id=str(i), label=i % 2, seed=i) for i in range(3)]
    made = model.to_metres(kinetic_bench.published_call(model, requests))
    rngs = [request_rng(r) for r in requests]
    z, noise = normal(rngs, model.config.latent), normal(rngs, model.synthesis.noise_size)
    whole = torch.from_numpy(model.clips(requests, z, noise, [(64, 1)] * 3))
    torch.testing.assert_close(made, whole, atol=2e-3, rtol=0)


def test_bad_input_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        train_bench.main(["--models", "gcn"])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("Unknown model 'gcn'. Known: ")


def test_random_bodies_are_valid_motions() -> None:
    motions = random_bodies("kinect25", 2, 64, classes=3, clips=6)
    assert motions.num_persons == 2 and motions.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert all(invalid_reason(m, motions.skeleton) is None for m in motions.motions)


def test_table_and_json(tmp_path: Path) -> None:
    rows = [{"way": "plain", "clips": 65536, "s": 1.23456}, {"way": "a", "clips": 1, "s": None}]
    assert table(rows).splitlines() == [
        "way     clips      s",
        "plain  65,536  1.235",
        "a           1      -",
    ]
    write_json(tmp_path / "r.json", {"rows": rows})
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == rows
    write_json(None, {})


def test_the_control_plane_is_measured_phase_by_phase(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = plane.Settings(shards=(6, 9), actors=0, storage=str(tmp_path))
    result = plane.measure(settings, run=plane.run_once, tell=lines.append)
    assert [r["phase"] for r in result["rows"]] == list(plane.PHASES) * 2 and len(lines) == 14
    made = {(r["phase"], r["shards"]): r["made"] for r in result["rows"] if "made" in r}
    assert made == {
        ("make", 6): 6, ("resume done", 6): 0, ("resume half", 6): 3,
        ("make", 9): 9, ("resume done", 9): 0, ("resume half", 9): 5,
    }  # fmt: skip
    assert [r["shards"] for r in result["sizes"]] == [6, 9]
    assert all(r["shards/s"] > 0 and r["driver peak MiB"] > 10 for r in result["sizes"])
    json.dumps(result)
    with pytest.raises(InputError, match="at least 2 shards"):
        plane.Settings(shards=(1,))


def test_a_cards_use_is_operations_over_its_peak() -> None:
    a, b = torch.randn(8, 4), torch.randn(4, 2)
    assert card.operations(lambda: a @ b) == 2 * 8 * 4 * 2
    settings = card.Settings(
        device="cpu", batches=(4, 8), compiled=(), whole=(4,), repeats=1, seconds=0.01, small=True
    )
    lines: list[str] = []
    result = card.measure(settings, tell=lines.append)
    rows = result["rows"]
    assert [(r["what"], r["way"], r["batch"]) for r in rows[:2]] == [
        ("training, network", "float32", 4),
        ("sampling, network", "float32", 4),
    ]
    assert len(rows) == 2 * 2 * 2 + 2 and len(lines) == len(rows) + 1
    assert all(r["clips/s"] > 0 and r["% of peak"] > 0 for r in rows)
    json.dumps(result)


@pytest.mark.parametrize(
    ("changes", "match"), [({"batches": (1,)}, "at least 2 clips"), ({"device": "tpu"}, "allowed: cpu, cuda")]
)
def test_a_cards_benchmark_refuses_what_it_cannot_measure(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        replace(card.Settings(device="cpu"), **changes)
