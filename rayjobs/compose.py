"""A hybrid dataset: the real clips of a dataset and the synthetic clips that a run made for it, under data/NAME.

    python -m rayjobs.compose --dataset nucla --recipe kinetic_gan --per-class 500 --storage out --run r --as mixed
    python -m rayjobs.score --dataset mixed --recipe kinetic_gan --scarcity full --storage out --run r

The clips are those that `train` and `generate` made with the same options (`--scarcity full` unless another is given).
Synthetic clips are trained on and judge nothing; `--as-published` composes as the paper did, and every score says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import tyro

from motionsynth import hybrid
from motionsynth.errors import InputError
from motionsynth.hybrid import Hybrid, Provenance
from motionsynth.motion import MotionSet
from motionsynth.recipes import Recipe
from motionsynth.splits import Split
from rayjobs import cli, experiment
from storage import ConflictError, MissingError, Storage
from storage.checkpoints import checkpoint_digest, read_config
from storage.dataset import read_dataset, write_dataset
from storage.header import Header
from storage.manifest import Manifest, read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Compose real and synthetic clips into one prepared dataset.

    Attributes:
        name: Name of the new dataset.
        scarcity: Of the bed on which the generator was trained.
        draw: Of that bed.
        per_class: Synthetic clips of each class (the paper's number by default).
        splits: official: those of the real dataset that hold nothing out which the generator saw; or 80/10/10, by
            people, all synthetic clips in training (default: official).
        as_published: Pool real and synthetic clips and split them 80/10/10 at random, as the paper did.
        synthetic: Prefix of another generated set in storage (default: that of the run's bed).
        replace: Put the result in the place of another dataset of this name.
    """

    name: Annotated[str, tyro.conf.arg(name="as")]
    scarcity: str = "full"
    draw: int = 0
    per_class: int = 500
    splits: str = ""
    as_published: bool = False
    synthetic: str = ""
    replace: bool = False


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `compose`."""
    storage = options.open_storage()
    if options.as_published and options.splits == "official":
        raise InputError("--as-published splits 80/10/10 at random; leave out --splits official.")
    result = compose(storage, options, options.chosen(storage))
    report(result)
    return result


def compose(storage: Storage, options: Options, recipe: Recipe) -> dict[str, Any]:
    """Read both sets, check whom the generator saw, write the dataset, its manifest last.

    Raises:
        InputError: clips are missing or do not fit (see `motionsynth.hybrid.compose`).
        ConflictError: another dataset has the name.
    """
    target = experiment.data_prefix(options.name)
    if options.name == options.dataset:
        raise InputError(f"--as '{options.name}' is the real dataset itself; choose another name.")
    if recipe.compared:
        raise InputError(
            f"compose takes the clips of one generator, --recipe names {1 + len(recipe.compared)}; give one."
        )
    if len(recipe.protocols) > 1:
        raise InputError(
            f"compose makes one dataset for one protocol, --protocol names {len(recipe.protocols)}; give one."
        )
    bed = replace(recipe.bed, draw=options.draw)
    prefix = options.synthetic or (
        experiment.synthetic_prefix(options.run, options.dataset, bed, recipe.generator)
    )
    real, header = read_dataset(storage, experiment.data_prefix(options.dataset))
    digest = experiment.data_digest(storage, options.dataset)
    made, manifest, provenance = _generated(storage, prefix, bed.key, options.dataset, digest)
    composed = hybrid.compose(
        real, made, [Split.from_dict(s) for s in header.splits], provenance, name=options.name,
        per_class=options.per_class, protocol=recipe.bed.protocol, kind=options.splits or "official",
        as_published=options.as_published, seed=options.seed,
    )  # fmt: skip
    request = manifest.request or {}
    origin = {
        "real": {"dataset": options.dataset, "manifest": digest},
        "synthetic": {
            "prefix": prefix,
            "manifest": manifest.digest,
            "generator": manifest.header.extra.get("generator", ""),
            "checkpoint": request.get("checkpoint", ""),
            "checkpoint_digest": request.get("checkpoint_digest", ""),
        },
        "per_class": options.per_class,
        "seed": options.seed,
        "splits_left_out": list(composed.left_out),
    }
    published = {"as_published": True, "as_published_note": hybrid.PUBLISHED_NOTE}
    new = Header.of(
        composed.motions,
        splits=tuple(s.to_dict() for s in composed.splits),
        **{**header.extra, "hybrid": origin, **(published if options.as_published else {})},
    )
    try:
        written = write_dataset(storage, target, composed.motions, new, replace=options.replace)
    except ConflictError:
        raise ConflictError(
            f"'{storage.sub(target).uri}' already holds another dataset; choose another --as, or --replace it."
        ) from None
    return _summary(composed, written, target, asdict(bed)) | {"as_published": options.as_published}


def _generated(
    storage: Storage, prefix: str, bed: str, dataset: str, digest: str
) -> tuple[MotionSet, Manifest, Provenance]:
    """The generated set and what its generator was trained on, from the checkpoint that made it."""
    try:
        manifest = read_manifest(storage, prefix)
    except MissingError:
        raise InputError(
            f"There are no synthetic clips for {bed} under '{prefix}'; run `python -m rayjobs.train` and "
            "`python -m rayjobs.generate` with the same options first."
        ) from None
    request = manifest.request
    if request is None:
        raise InputError(f"'{prefix}' is not a generated set; give one that `rayjobs.generate` wrote.")
    checkpoint = request["checkpoint"]
    config = read_config(storage, checkpoint)
    if checkpoint_digest(storage, checkpoint) != request["checkpoint_digest"]:
        raise InputError(
            f"Checkpoint '{checkpoint}' is no longer the one that made '{prefix}', so nobody knows whom its clips "
            "show; generate them again under another run name."
        )
    if config.get("data", digest) != digest:
        raise InputError(
            f"The generator of '{prefix}' was trained on other clips: dataset '{dataset}' has been prepared anew "
            "since; train it again under another run name."
        )
    return read_dataset(storage, prefix)[0], manifest, Provenance.of(config)


def _summary(composed: Hybrid, written: Manifest, prefix: str, bed: Mapping[str, Any]) -> dict[str, Any]:
    sides = {}
    for s in composed.splits:
        sides[s.name] = {
            source: {
                side or "none": sum(s.side(m) == side for m in composed.motions.motions if m.source == source)
                for side in ("train", "validation", "test", "")
            }
            for source in ("real", "synthetic")
        }
    made = [m for m in composed.motions.motions if m.source == "synthetic"]
    names = composed.motions.class_names
    return {
        "dataset": composed.motions.dataset,
        "prefix": prefix,
        "bed": dict(bed),
        "clips": written.rows,
        "real": written.rows - len(made),
        "synthetic": {names[c]: sum(m.label == c for m in made) for c in sorted({m.label for m in made})},
        "splits": sides,
        "splits_left_out": list(composed.left_out),
        "manifest": written.digest,
    }


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    added = sum(result["synthetic"].values())
    print(
        f"{result['dataset']}: {result['real']:,} real and {added:,} synthetic clips of "
        f"{len(result['synthetic'])} classes under {result['prefix']}"
    )
    for name, by_source in result["splits"].items():
        parts = [
            f"{source} " + ", ".join(f"{n} {side}" for side, n in counts.items() if n)
            for source, counts in by_source.items()
        ]
        print(f"  split {name}: {'; '.join(parts)}")
    if result["splits_left_out"]:
        left = ", ".join(result["splits_left_out"])
        print(f"  left out, because the generator was trained on what they hold out: {left}")
    if result["as_published"]:
        print(f"  {hybrid.PUBLISHED_NOTE}")


if __name__ == "__main__":
    cli.main(Options, verb)
