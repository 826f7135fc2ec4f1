"""Small jobs that many tests run: a checkpoint to sample, a request for 48 clips, a training of one draw."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from cluster.connect import Connection, connect
from motionsynth.beds import BedSpec
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import experiment, train
from rayjobs import generate as job
from rayjobs.generate import Wanted, request_for
from rayjobs.shard_pool import Grade
from storage import Storage
from storage.checkpoints import load_checkpoint, save_checkpoint
from storage.dataset import write_dataset
from storage.header import Header
from storage.shards import GenerationRequest
from tests.tiny_generators import ready_generator

CHECKPOINT = "runs/r/generator"
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


def join() -> Connection:
    """The Ray of the tests."""
    return connect("local")


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker: sums over other thread counts round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def save(storage: Storage, name: str, tiny_set: MotionSet, seed: int = 0) -> str:
    """A small generator with fresh weights as a checkpoint; its prefix."""
    generator = ready_generator(name, tiny_set, seed=seed)
    content = {
        "generator": name,
        "generator_config": dataclasses.asdict(generator.config),
        "context": generator.context.to_dict(),
    }
    save_checkpoint(storage, CHECKPOINT, generator.state_dict(), content)
    return CHECKPOINT


def wanted(storage: Storage, seed: int = 7, per_class: int = 16) -> GenerationRequest:
    """48 clips in 6 shards."""
    return request_for(
        storage, CHECKPOINT, dict.fromkeys(range(3), per_class), seed=seed, shard_size=8, batch=4
    )


def generate(
    storage: Storage,
    prefix: str,
    request: GenerationRequest,
    *,
    connect: Callable[[], Connection] | None,
    actors: int | None = None,
    grade: Grade | None = None,
) -> dict[str, Any]:
    """One set; `connect=None` makes it in this process."""
    with one_thread():
        (result,) = job.generate(
            storage, [Wanted(prefix, request)], connect=connect, actors=actors, grade=grade
        )
    return result


def digests(storage: Storage, prefix: str) -> dict[str, str]:
    """What really lies there, not what the manifest says; keys without the prefix."""
    at = storage.sub(prefix)
    return {o.key: hashlib.sha256(at.read(o.key)).hexdigest() for o in at.list("shards")}


def prepare(storage: Storage, tiny_set: MotionSet) -> Storage:
    """The tiny set as dataset `tiny`."""
    write_dataset(storage, "data/tiny", tiny_set, Header.of(tiny_set, splits=(SPLIT.to_dict(),)))
    return storage


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
    """Where the checkpoints of the recipe's one draw lie."""
    return f"{experiment.bed_prefix(run, 'tiny', recipe.beds[0], recipe.generator)}/checkpoints"


def weights(storage: Storage, recipe: Recipe, run: str) -> dict[str, torch.Tensor]:
    """Those of the finished training."""
    info = train.finished_checkpoint(storage, checkpoints_of(recipe, run).removesuffix("/checkpoints"))
    assert info is not None
    return load_checkpoint(storage, info.prefix)[0]


def alone(storage: Storage, recipe: Recipe, run: str, tell: Any = None) -> dict[str, torch.Tensor]:
    """Undisturbed, in this process, without Ray."""
    with one_thread():
        train.run_loop(storage, "tiny", run, recipe, recipe.beds[0], tell=tell)
    return weights(storage, recipe, run)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
