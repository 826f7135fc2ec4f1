"""The plan is what the jobs then do: shards and bytes to the object, what is left, and what would wait for ever."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cluster.connect import Connection
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.splits import Split
from rayjobs import generate, generate_beds, plan, train
from rayjobs.generate import Wanted, request_for
from storage import Storage
from storage.checkpoints import save_checkpoint
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_generators import ready_generator
from tests.tiny_motion import make_tiny_set

HAVE = Connection(address="local", cpus=4.0, gpus=0.0, started=False)
BYTES_TOLERANCE = 0.1
"""As docs/operations.md states it."""


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Ray was asked for, though nobody gave an address")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("rayjobs.cli.connect", never)


@pytest.fixture
def one(tmp_path: Path, tiny_set: MotionSet) -> Storage:
    """A checkpoint."""
    storage = Storage(tmp_path / "out")
    generator = ready_generator("motion_gan", tiny_set)
    config = {
        "generator": "motion_gan",
        "generator_config": dataclasses.asdict(generator.config),
        "context": generator.context.to_dict(),
    }
    save_checkpoint(storage, "runs/r/checkpoint", generator.state_dict(), config)
    return storage


def options(storage: Storage, **given) -> plan.Options:
    return plan.Options(storage=storage.uri, run="r", **given)


def test_shards_and_bytes_are_those_that_generate_writes(one: Storage) -> None:
    given = {"checkpoint": "runs/r/checkpoint", "counts": ("0=70", "2=50"), "shard_size": 40, "batch": 16}
    (stage,), cost = plan.planned(options(one, **given), one, HAVE)
    assert (stage.verb, stage.total, stage.left, stage.parts["clips left"]) == ("generate", 3, 3, 120)
    assert cost is not None and cost.clip > 0 and stage.seconds and stage.bytes
    request = request_for(one, "runs/r/checkpoint", {0: 70, 2: 50}, shard_size=40, batch=16)
    (made,) = generate.generate(one, [Wanted("runs/r/synthetic", request)], connect=None)
    assert made["shards"] == stage.total
    assert made["bytes"] == pytest.approx(stage.bytes, rel=BYTES_TOLERANCE)

    first, *_ = one.list("runs/r/synthetic/shards")
    (stage,), _ = plan.planned(options(one, **given), one, HAVE)
    assert (stage.total, stage.left, stage.seconds, stage.bytes) == (3, 0, 0, 0)
    one.delete(first.key)
    (stage,), _ = plan.planned(options(one, **given), one, HAVE)
    assert (stage.total, stage.left, stage.parts["clips left"]) == (3, 1, 40)
    assert first.size == pytest.approx(stage.bytes, rel=BYTES_TOLERANCE)


def test_what_would_wait_for_ever_is_refused_with_the_arithmetic(one: Storage) -> None:
    wish = options(one, checkpoint="runs/r/checkpoint", per_class=300, actors=5)
    with pytest.raises(InputError, match="5 workers x 1 CPU .* = 5 CPUs, but Ray has 4 .* at most 4 workers"):
        plan.planned(wish, one, HAVE)
    wish = dataclasses.replace(wish, actors=2, gpus_per_actor=1.0)
    with pytest.raises(InputError, match="2 workers x 1 GPU = 2 GPUs, but Ray has 0"):
        plan.planned(wish, one, HAVE)


def test_hours_cost_and_a_million_clips_follow_from_the_rate(one: Storage) -> None:
    wish = options(one, checkpoint="runs/r/checkpoint", per_class=100, actors=2)
    stages, cost = plan.planned(wish, one, HAVE)
    assert cost is not None
    prices = plan.Prices(machine=3.0, cpu=0.5)
    result = plan.summary(stages, cost, HAVE, 2, prices)
    million = result["million_clips"]
    assert million["cpu_hours"] == pytest.approx(cost.clip * 1e6 / 3600)
    assert million["hours"] == pytest.approx(million["cpu_hours"] / 2)
    assert million["cost"] == pytest.approx(million["hours"] * (2 * 3.0 + 2 * 0.5))
    assert result["total"]["cost"] == pytest.approx(result["stages"][0]["hours"] * 7)
    assert plan.summary(stages, cost, HAVE, 2, plan.Prices())["total"]["cost"] is None
    with pytest.raises(InputError, match="price of a cpu is -1"):
        plan.Prices(cpu=-1.0)


def test_on_gpus_that_are_not_here_there_is_no_time_but_a_sum(one: Storage, capsys) -> None:
    have = dataclasses.replace(HAVE, gpus=8.0)
    wish = options(one, checkpoint="runs/r/checkpoint", per_class=300, gpus_per_actor=0.5, actors=4)
    stages, cost = plan.planned(wish, one, have)
    assert (stages[0].gpus, stages[0].seconds, cost) == (2.0, None, None)
    plan.report(plan.summary(stages, cost, have, 1, plan.Prices()))
    assert "time not known" in capsys.readouterr().out


def test_a_run_is_followed_from_nothing_to_its_end(tmp_path: Path, capsys) -> None:
    storage = Storage(tmp_path / "out")
    split = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
    motions = make_tiny_set(2)
    write_dataset(storage, "data/tiny", motions, Header.of(motions, splits=(split.to_dict(),)))
    wish = options(storage, dataset="tiny", recipe="debug", shots=2, draws=2, scarce_only=True, per_class=5)
    result = plan.verb(wish)
    first, second, third = result["stages"]
    assert [s["verb"] for s in result["stages"]] == ["train", "generate", "score"]
    assert (first["total"], first["left"], second["total"], second["left"]) == (2, 2, 2, 2)
    assert third["total"] == third["left"] > 4
    assert all(s["seconds"] > 0 and s["hidden"] for s in result["stages"])
    assert result["million_clips"]["bytes"] > 1e6
    said = capsys.readouterr().out
    assert "2 of 2 trainings left" in said and "1 million clips" in said and "cost" not in said

    recipe = dataclasses.replace(wish.chosen(storage), synthetic_per_class=5)
    train.run_loop(storage, "tiny", "r", recipe, recipe.beds[0])
    written = sum(o.size for o in storage.list("runs/r") if "/checkpoints/" in o.key)
    assert first["bytes"] / 2 == pytest.approx(
        written, rel=0.5
    )  # its header and JSON weigh much at this size
    train.run_loop(storage, "tiny", "r", recipe, recipe.beds[1])
    made = generate_beds.generate_beds(storage, "tiny", "r", recipe, None, previews=False)
    assert sum(b["bytes"] for b in made["beds"]) == pytest.approx(second["bytes"], rel=0.25)  # untrained then
    first, second, third = plan.verb(wish)["stages"]
    assert (first["left"], second["left"], third["left"]) == (0, 0, third["total"])


def test_one_form_at_a_time(one: Storage) -> None:
    with pytest.raises(InputError, match="got neither"):
        plan.verb(options(one))
