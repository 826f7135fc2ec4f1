"""One HTML file that shows a scored run: what was gained, on which classes, and what the synthetic motions look like.

    python -m rayjobs.report --dataset sample --recipe demo --storage out --run tour

Reads what the other verbs left in storage and needs neither Ray nor a network; the pipeline ends with it. The file lies
beside the scores as `report-SPLIT-RECOGNISERS.html`; it holds real clips, so the dataset's terms hold for it.
With `--without-clips` it holds none, only figures, and its name ends in `-without-clips.html`.
"""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motionsynth.beds import Bed, BedSpec
from motionsynth.datasets import DATASETS
from motionsynth.errors import InputError
from motionsynth.generators import load_generator
from motionsynth.protocol import HYBRID, REFINED, ScoreRecord
from motionsynth.recipes import Recipe
from rayjobs import cli, experiment, score
from rayjobs.learning_curves import read_curves
from rayjobs.score_tables import base_of
from rayjobs.train import finished_checkpoint
from storage import MissingError, Storage
from storage.checkpoints import load_checkpoint
from storage.dataset import read_dataset
from storage.manifest import read_manifest

if TYPE_CHECKING:
    from motionsynth.report import GeneratedSet

ATTENDED_CLIPS = 16
"""Training clips of a class over which a generator's attention is averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Write the report of a scored run.

    Attributes:
        recogniser: Report what this one judged (see `rayjobs.score`), instead of the recipe's.
        part: Report a scoring of some arms only (`rayjobs.score --arms`).
        out: A local file, to be written besides the one in storage.
        projection: pca, or tsne, which needs scikit-learn.
        without_clips: Figures alone, for those who may not have the clips: no player, no drawn pairs.
    """

    recogniser: str = ""
    part: bool = False
    out: Path | None = None
    projection: str = "pca"
    without_clips: bool = False

    def __post_init__(self) -> None:
        from motionsynth.report.run import PROJECTIONS

        super(Options, self).__post_init__()
        if self.projection not in PROJECTIONS:
            raise InputError(f"--projection is '{self.projection}'; allowed: {', '.join(PROJECTIONS)}.")


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `write_report`."""
    storage = options.open_storage()
    recipe = score.with_scores(options.chosen(storage), options.recogniser, 0)
    more = ["--without-clips"] * options.without_clips
    if options.projection != "pca":
        more += ["--projection", options.projection]
    result = write_report(
        storage, options.dataset, options.run, recipe, command_of(options, options.recogniser, *more),
        part=options.part, projection=options.projection, with_clips=not options.without_clips, out=options.out,
    )  # fmt: skip
    report(result)
    return result


def write_report(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    command: str = "",
    *,
    part: bool = False,
    projection: str = "pca",
    with_clips: bool = True,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write the report of what the recipe's recognisers were scored at; or some arms of it (`part`).

    Args:
        storage, dataset, run, recipe: Which run; of the recipe count its beds, generators and recognisers.
        command: What writes it anew, to be shown.
        part: Of a scoring of some arms only (`--arms`).
        projection: See `Options`.
        with_clips: False leaves out the player and drawn pairs.
        out: See `Options`.

    Returns:
        `report` (its key), `uri`, `bytes`, `seconds`; `out` where one was written.

    Raises:
        InputError: nothing was scored, or other beds were; or what was scored is gone.
    """
    import torch

    began, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)  # one clip at a time: more threads only wait for each other
    try:
        base, page = _render(
            storage, dataset, run, recipe, part, command=command, projection=projection, with_clips=with_clips
        )
    finally:
        torch.set_num_threads(threads)
    folder, _, name = base.rpartition("/")
    key = f"{folder}/report-{name.removeprefix('score-')}{'' if with_clips else '-without-clips'}.html"
    storage.write(key, page)
    written = {"report": key, "uri": f"{storage.uri.rstrip('/')}/{key}", "bytes": len(page)}
    if out is not None:
        try:
            out.write_bytes(page)
        except OSError as e:
            raise InputError(
                f"--out '{out}' cannot be written ({e.strerror}); give a file in a folder that exists."
            ) from None
        written["out"] = str(out)
    return written | {"seconds": round(time.monotonic() - began, 2)}


def _render(
    storage: Storage, dataset: str, run: str, recipe: Recipe, part: bool, **how: Any
) -> tuple[str, bytes]:
    """Beginning of the scores' names, and the page; `how` are further fields of `motionsynth.report.Run`."""
    from motionsynth.report import Run, render

    base, result, records = _scores(storage, dataset, run, recipe, part)
    page = render(
        Run(
            result=result,
            records=records,
            sets=_sets(storage, dataset, run, recipe, result),
            about=_about(storage, dataset),
            seed=recipe.bed.seed,
            **how,
        )
    ).encode()
    return base, page


def _scores(
    storage: Storage, dataset: str, run: str, recipe: Recipe, part: bool
) -> tuple[str, dict[str, Any], list[ScoreRecord]]:
    import pyarrow.parquet as pq

    base = base_of(run, dataset, recipe, part)
    if not storage.exists(f"{base}.json"):
        prefix = f"{experiment.run_prefix(run, dataset)}/score-"
        # A prefix is a folder: look in the run's.
        keys = [o.key for o in storage.list(experiment.run_prefix(run, dataset))]
        there = sorted(k for k in keys if k.startswith(prefix) and k.endswith(".json"))
        others = (
            f" There are {', '.join(there)}: give their --split, --recogniser and --part." if there else ""
        )
        raise InputError(
            f"Run '{run}' has no scores at '{base}.json'; run `python -m rayjobs.score` with the same options "
            f"first.{others}"
        )
    result = json.loads(storage.read(f"{base}.json"))
    own = {"bed": asdict(recipe.bed), "protocols": list(recipe.protocols or (recipe.bed.protocol,))}
    if differ := [k for k, v in own.items() if result[k] != v]:
        raise InputError(
            f"'{base}.json' was scored with {differ[0]} {result[differ[0]]}, but the options say {own[differ[0]]}; "
            "give the options that it was scored with, or score anew."
        )
    rows = pq.read_table(io.BytesIO(storage.read(f"{base}.parquet"))).to_pylist()
    return base, result, [ScoreRecord.from_dict(row) for row in rows]


def _sets(
    storage: Storage, dataset: str, run: str, recipe: Recipe, result: Mapping[str, Any]
) -> list[GeneratedSet]:
    """Every generated set whose arms were scored, from the beds that were scored."""
    from motionsynth.report import GeneratedSet

    arms = {a["arm"].rpartition(":")[2] for a in result["arms"]}
    protocols = [BedSpec(**{**result["bed"], "protocol": p, "draw": 0}) for p in result["protocols"]]
    scarce = result["bed"]["scarcity"] != "full"
    specs = [
        BedSpec(**{**asdict(p), "draw": d})
        for p in protocols
        for d in range(result["draws"] if scarce else 1)
    ]
    out = []
    for spec in specs:
        bed = experiment.load_bed(storage, dataset, spec)
        if len(bed.synthetic) and HYBRID in arms:
            out.append(GeneratedSet(generator=HYBRID, bed=bed, motions=bed.synthetic))
        for one in recipe.each:
            if one.generator in arms and not len(bed.synthetic):
                out.append(_set(storage, dataset, run, spec, bed, one.generator))
    return out


def _set(storage: Storage, dataset: str, run: str, spec: BedSpec, bed: Bed, generator: str) -> GeneratedSet:
    from motionsynth.report import GeneratedSet

    # Graded clips are the same ones, and say which were refused.
    names = (REFINED + generator, generator)
    for prefix in (experiment.synthetic_prefix(run, dataset, spec, n) for n in names):
        try:
            motions = read_dataset(storage, prefix)[0]
            break
        except MissingError:
            continue
    else:
        raise InputError(
            f"The clips of {generator} for {spec.key} that were scored are gone; run `python -m rayjobs.generate` and "
            "`python -m rayjobs.score` with the same options again."
        )
    prefix = experiment.bed_prefix(run, dataset, spec, generator)
    return GeneratedSet(
        generator=generator, bed=bed, motions=motions, curves=read_curves(storage, prefix),
        attention=_attention(storage, prefix, bed),
    )  # fmt: skip


def _attention(storage: Storage, prefix: str, bed: Bed) -> dict[int, list[float]]:
    """By class; empty where the run has no training of its own (`--trained`), or its generator no attention."""
    import torch

    from motionsynth.generators.base import Batch
    from motionsynth.recognition import to_tensors

    info = finished_checkpoint(storage, prefix)
    if info is None:
        return {}
    generator = load_generator(*load_checkpoint(storage, info.prefix))
    labels = bed.train.labels
    out = {}
    for c in sorted(set(bed.rare or labels.tolist())):
        clips = bed.train.select([i for i, label in enumerate(labels) if label == c][:ATTENDED_CLIPS])
        if not len(clips):
            continue
        tensors = to_tensors(clips, generator.context.num_persons)
        seconds = torch.tensor([m.num_frames / m.fps for m in clips.motions], dtype=torch.float32)
        alpha = generator.attention(Batch(x=tensors.x, y=tensors.y, seconds=seconds))
        if alpha is None:
            return {}
        out[c] = alpha.mean(0).tolist()
    return out


def _about(storage: Storage, dataset: str) -> Mapping[str, Any]:
    header = read_manifest(storage, experiment.data_prefix(dataset)).header
    known = DATASETS.get(header.dataset)
    return ({"may_redistribute": known.may_redistribute} if known else {}) | dict(header.extra)


def command_of(options: experiment.Options, recogniser: str = "", *more: str) -> str:
    """What writes this report anew, but for the place: a path of one machine says nothing on another.

    Args:
        options: Of the run.
        recogniser: That judged it, where not the recipe's.
        more: Further words.
    """
    recipes = ",".join(Path(r).name if r.endswith(".json") else r for r in options.recipe.split(","))
    parts = [
        "--dataset",
        options.dataset,
        "--recipe",
        recipes,
        "--run",
        options.run,
        "--split",
        options.split,
    ]
    for name in ("protocol", "scarcity", "shots", "fraction", "draws", "seed"):
        if value := getattr(options, name):
            parts += [f"--{name}", str(value)]
    if recogniser:
        parts += ["--recogniser", recogniser]
    return f"python -m rayjobs.report {shlex.join([*parts, *more])} --storage STORAGE"


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    print(
        f"\nreport: {result.get('out', result['uri'])} ({result['bytes'] / 1e6:.1f} MB); open it in a browser"
    )


if __name__ == "__main__":
    cli.main(Options, verb)
