"""Synthetic clips for every draw of a run: the recipe's counts for each bed's rare classes, and a preview picture.

What `python -m rayjobs.generate --dataset NAME --recipe NAME` and the pipeline call; single checkpoints and the shard
machinery are in `rayjobs.generate`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.connect import Connection
from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.recipes import Recipe
from rayjobs import experiment
from rayjobs.generate import Wanted, generate, request_for
from rayjobs.train import finished_checkpoint
from storage import Storage
from storage.dataset import read_dataset

SHARD_SIZE = 128
PREVIEW_CLASSES = 6


def generate_beds(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    connect: Callable[[], Connection] | None,
    *,
    actors: int | None = None,
    gpus_per_actor: float = 0.0,
    trained: str = "",
    sampling: Mapping[str, Any] | None = None,
    previews: bool = True,
) -> dict[str, Any]:
    """Generate for every bed that is not done, with every generator of the recipe and those it is compared with.

    Args:
        storage, dataset, run, recipe: What, and where the clips are to lie.
        connect: Called only if there is work to do; None makes everything in this process (see `generate`).
        actors, gpus_per_actor: See `generate`.
        trained: Run whose checkpoints are sampled (default: `run`).
        sampling: See `request_for`.
        previews: Draw a picture of each set.

    Raises:
        InputError: a bed has no finished checkpoint.
        JobError: shards failed; the others are done.
    """
    began = time.monotonic()
    beds, wanted = [], []
    for one, spec in [(r, spec) for r in recipe.each for spec in r.beds]:
        prefix = experiment.bed_prefix(run, dataset, spec, one.generator)
        info = finished_checkpoint(
            storage, experiment.bed_prefix(trained or run, dataset, spec, one.generator)
        )
        if info is None:
            raise InputError(
                f"There is no finished training of {one.generator} for {spec.key}; run `python -m rayjobs.train` with "
                "the same options first."
            )
        bed = experiment.load_bed(storage, dataset, spec)
        request = request_for(
            storage, info.prefix, dict.fromkeys(classes_to_make(bed), recipe.synthetic_per_class), seed=spec.seed,
            shard_size=SHARD_SIZE, sampling=sampling,
        )  # fmt: skip
        wanted.append(Wanted(experiment.synthetic_prefix(run, dataset, spec, one.generator), request))
        beds.append((one.generator, spec, prefix, bed.train))
    made = generate(storage, wanted, connect=connect, actors=actors, gpus_per_actor=gpus_per_actor)
    results = []
    for (generator, spec, prefix, train), result in zip(beds, made, strict=True):
        picture = f"{prefix}/preview"
        if previews and (result["shards_made"] or not storage.exists(f"{picture}.png")):
            _preview(storage, picture, train, read_dataset(storage, result["prefix"])[0])
        results.append({"bed": spec.key, "generator": generator, "preview": f"{picture}.png", **result})
    return {"beds": results, "seconds": round(time.monotonic() - began, 2)}


def classes_to_make(bed: Bed) -> list[int]:
    """The rare classes of a bed, or all where none is; nobody can make clips of a class that no training clip shows."""
    shown = set(bed.train.labels.tolist())
    return [c for c in bed.rare or range(bed.train.num_classes) if c in shown]


def _preview(storage: Storage, key: str, real: Any, synthetic: Any) -> None:
    from motionsynth.view import animate, preview

    classes = [int(c) for c in sorted(set(synthetic.labels.tolist()))[:PREVIEW_CLASSES]]
    for suffix, draw in ((".png", preview), (".gif", animate)):
        picture = io.BytesIO()
        draw(real, synthetic, picture, classes=classes)
        storage.write(key + suffix, picture.getvalue())


def report_beds(result: Mapping[str, Any]) -> None:
    """The result for people."""
    for bed in result["beds"]:
        print(
            f"{bed['generator']} on {bed['bed']}: {bed['clips']:,} clips in {bed['shards']} shards; preview "
            f"{bed['preview']}"
        )
    made = sum(b["clips_made"] for b in result["beds"])
    print(f"made {made:,} clips in {result['seconds']:.0f} s")
