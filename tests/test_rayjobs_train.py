"""Training on Ray Train: a killed worker changes nothing, a second run does nothing, other settings are refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from cluster.connect import Connection, connect
from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import experiment
from rayjobs import train as job
from rayjobs.cli import JobError
from rayjobs.train import finished_checkpoint, train, with_steps
from storage import Storage
from storage.checkpoints import list_checkpoints, load_checkpoint
from storage.dataset import write_dataset
from storage.header import Header

SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


def join() -> Connection:
    return connect("local")


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


@pytest.fixture
def storage(tmp_path: Path, tiny_set: MotionSet) -> Storage:
    """The tiny set, prepared."""
    made = Storage(tmp_path / "out")
    write_dataset(made, "data/tiny", tiny_set, Header.of(tiny_set, splits=(SPLIT.to_dict(),)))
    return made


def recipe_of(**training: int) -> Recipe:
    """One draw of the debug recipe."""
    recipe = get_recipe("debug")
    return replace(
        recipe,
        training=replace(recipe.training, **training),
        bed=BedSpec(shots=2, split="test"),
        draws=1,
    )


def checkpoints_of(recipe: Recipe, run: str) -> str:
    return f"{experiment.bed_prefix(run, 'tiny', recipe.beds[0], recipe.generator)}/checkpoints"


def weights(storage: Storage, recipe: Recipe, run: str) -> dict[str, torch.Tensor]:
    info = finished_checkpoint(storage, checkpoints_of(recipe, run).removesuffix("/checkpoints"))
    assert info is not None
    return load_checkpoint(storage, info.prefix)[0]


def alone(storage: Storage, recipe: Recipe, run: str) -> dict[str, torch.Tensor]:
    """Undisturbed, in this process, without Ray; one thread as in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job.run_loop(storage, "tiny", run, recipe, recipe.beds[0])
    finally:
        torch.set_num_threads(threads)
    return weights(storage, recipe, run)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def train_workers() -> list[int]:
    """Process ids of the Train workers that descend from this process."""
    parent, name = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title, fields = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        name[int(folder.name)] = title
        parent[int(folder.name)] = int(fields.rsplit(")", 1)[1].split()[1])

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parent and ours(parent[pid]))

    return [pid for pid, title in name.items() if b"TrainWorker" in title and ours(pid)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_worker_changes_nothing(storage: Storage, ray_local: None) -> None:
    """kill -9 after the first checkpoint: the group starts again from it and ends at the very same weights."""
    recipe = recipe_of(steps=240, rare_steps=10, report_every=20)
    prefix = checkpoints_of(recipe, "storm")
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            if list_checkpoints(storage, prefix):
                for pid in train_workers():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.05)

    hunter = threading.Thread(target=kill_one)
    hunter.start()
    result = train(storage, "tiny", "storm", recipe, join)
    hunter.join()
    assert len(killed) == 1, "the training was over before its worker could be killed"
    assert result["trained"] == 1 and result["beds"][0]["step"] == 250
    # Two writers of TensorBoard events: the worker that died and the one that went on, from a later step.
    events = [
        o.key for o in storage.list(prefix.removesuffix("checkpoints") + "tensorboard") if "events" in o.key
    ]
    assert len(events) == 2 and any(not key.endswith(".0") for key in events)
    assert same(weights(storage, recipe, "storm"), alone(storage, recipe, "calm"))
    assert len(list_checkpoints(storage, prefix)) <= job.KEPT
    assert train(storage, "tiny", "storm", recipe, never)["trained"] == 0


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


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_failed_training_says_why(storage: Storage, ray_local: None) -> None:
    recipe = recipe_of()
    weights_ = dict(recipe.generator_config.loss_weights) | {"reconstruction": 1e39}
    recipe = replace(recipe, generator_config=replace(recipe.generator_config, loss_weights=weights_))
    with pytest.raises(JobError) as e:
        train(storage, "tiny", "r", recipe, join)
    first, *rest = str(e.value).splitlines()
    assert first == "Trainings failed; the others are kept:" and len(rest) == 1
    assert recipe.beds[0].key in rest[0] and "lower the learning rate or that term's weight" in rest[0]
