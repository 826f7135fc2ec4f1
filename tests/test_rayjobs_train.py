"""Training on Ray Train: a killed worker changes nothing, a second run does nothing, other settings are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe, get_recipe
from rayjobs import train as job
from rayjobs.learning_curves import read_curves
from rayjobs.train import finished_checkpoint, train, with_steps
from storage import Storage
from storage.checkpoints import load_checkpoint
from tests.tiny_jobs import alone, checkpoints_of, join, prepare, recipe_of, same, weights


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


@pytest.fixture
def storage(tmp_path: Path, tiny_set: MotionSet) -> Storage:
    """The tiny set, prepared."""
    return prepare(Storage(tmp_path / "out"), tiny_set)


def test_interrupted_training_goes_on_where_it_stopped(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray: stopped at its second report, run again by someone else."""
    recipe = recipe_of()
    reports: list[int] = []

    def stop(metrics: dict[str, float]) -> None:
        reports.append(int(metrics["step"]))
        if len(reports) == 2:
            raise KeyboardInterrupt

    torch.set_num_threads(1)
    with pytest.raises(KeyboardInterrupt):
        job.run_loop(storage, "tiny", "broken", recipe, recipe.beds[0], tell=stop)
    prefix = checkpoints_of(recipe, "broken").removesuffix("/checkpoints")
    assert finished_checkpoint(storage, prefix) is None
    job.run_loop(storage, "tiny", "broken", recipe, recipe.beds[0], tell=stop)
    assert reports == [2, 4, 6, 8]
    assert same(weights(storage, recipe, "broken"), alone(storage, recipe, "whole"))
    whole = checkpoints_of(recipe, "whole").removesuffix("/checkpoints")
    # Of the last report before the end, too, which no later one could complete.
    assert read_curves(storage, prefix) == read_curves(storage, whole)
    info = finished_checkpoint(storage, prefix)
    assert info is not None
    config = load_checkpoint(storage, info.prefix)[1]
    assert config["finished"] and config["bed"]["shots"] == 2 and config["context"]["rare"]
    assert set(config["metrics"]) >= {"generator/reconstruction", "critic/flow"}


def test_a_finished_run_needs_no_ray_and_refuses_other_settings(storage: Storage) -> None:
    recipe = recipe_of()
    alone(storage, recipe, "r")
    result = train(storage, "tiny", "r", recipe, never)
    assert result["trained"] == 0 and result["beds"][0]["step"] == 8
    # How often it reports is no setting of the result.
    assert train(storage, "tiny", "r", recipe_of(report_every=4), never)["trained"] == 0
    with pytest.raises(InputError, match=r"Run 'r' already holds .* \(steps 6 there, 9 now\).*another --run"):
        train(storage, "tiny", "r", with_steps(recipe, 9), never)
    wider = replace(recipe, generator_config=replace(recipe.generator_config, critic_width=32))
    with pytest.raises(InputError, match="critic_width 16 there, 32 now"):
        train(storage, "tiny", "r", wider, never)


def test_a_generator_that_learns_nothing_needs_no_ray_train(storage: Storage, ray_local: None) -> None:
    """The same clips are kept, and Ray Train, which leaves a folder of its own, is not started for it."""
    learned = recipe_of()
    kept = replace(get_recipe("part_mix"), bed=learned.bed, draws=2, full=False)
    result = train(storage, "tiny", "r", kept, join)
    assert result["trained"] == 2 and [b["step"] for b in result["beds"]] == [1, 1]
    assert same(weights(storage, kept, "r"), alone(storage, kept, "alone"))
    assert not [o.key for o in storage.list("runs/r/tiny/ray")]


def test_bad_input_shows_before_ray_starts(storage: Storage) -> None:
    recipe = recipe_of()
    with pytest.raises(InputError, match="no protocol 'cross_view'"):
        train(storage, "tiny", "r", replace(recipe, bed=BedSpec(protocol="cross_view")), never)
    with pytest.raises(InputError, match="nothing"):
        train(storage, "nothing", "r", recipe, never)


def test_options_choose_the_recipe(storage: Storage) -> None:
    def chosen(**given) -> Recipe:
        return job.Options(storage=storage.uri, dataset="tiny", recipe="debug", **given).chosen(storage)

    assert chosen().bed == replace(get_recipe("debug").bed, protocol="cross_subject")
    other = chosen(scarcity="few", shots=7, draws=1, seed=3, split="test")
    assert (other.bed.scarcity, other.bed.shots, other.bed.seed, other.bed.split) == ("few", 7, 3, "test")
    assert other.draws == 1 and chosen(scarcity="fraction", fraction=0.5).bed.fraction == 0.5
    whole = job.Options(storage=storage.uri, dataset="tiny", recipe="motion_gan")
    assert [b.scarcity for b in whole.chosen(storage).beds] == ["rare"] * 3 + ["full"]
    assert [b.scarcity for b in replace(whole, scarce_only=True).chosen(storage).beds] == ["rare"] * 3
    for wrong, sentence in (
        ({"protocol": "fold1"}, "no protocol 'fold1'. Known: cross_subject"),
        ({"protocol": "cross_subject,fold1"}, "no protocol 'fold1'. Known: cross_subject"),
        ({"protocol": "cross_subject,cross_subject"}, "names a protocol twice"),
        ({"scarcity": "some"}, "Unknown scarcity 'some'"),
        ({"shots": 1}, "shots is 1"),
        ({"split": "train"}, "Unknown split 'train'"),
        ({"draws": -1}, "draws is -1"),
        ({"scarcity": "full", "scarce_only": True}, "leaves nothing of --scarcity full"),
    ):
        with pytest.raises(InputError, match=sentence):
            chosen(**wrong)


def test_more_workers_than_clips_in_a_batch_are_refused(storage: Storage) -> None:
    for workers in (0, 9):
        with pytest.raises(
            InputError, match=f"number of workers is {workers}; it must be from 1 to the batch of 8"
        ):
            train(storage, "tiny", "r", recipe_of(), never, workers=workers)
