"""Grade the synthetic clips of every draw of a run, so that only good ones reach a recogniser.

    python -m rayjobs.refine --dataset nucla --recipe motion_gan --storage out --run first
    python -m rayjobs.score --dataset nucla --recipe motion_gan --storage out --run first --refined

The teachers of a draw (see `motionsynth.refine`) see its training clips alone, and grade the clips of all generators
that were trained on it. What `generate` wrote stays as it is: the graded set lies beside it under `synthetic-refined`,
with every clip, its quality columns, and the thresholds in its header. To choose the best of many, generate more
clips (`generate --per-class`) than --quota keeps.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from cluster.connect import Connection
from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.protocol import REFINED
from motionsynth.recipes import Recipe
from motionsynth.refine_config import RULES, RefineConfig
from rayjobs import cli, experiment, units
from rayjobs.board import Board
from rayjobs.progress import Progress
from storage import ConflictError, MissingError, Storage
from storage.dataset import read_dataset, write_dataset
from storage.decisions import content_digest, decided, read_decisions
from storage.manifest import Manifest, read_manifest

logger = logging.getLogger(__name__)

MAX_RETRIES = 3
"""Times that Ray tries a draw again when its worker dies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Grade the synthetic clips of every draw of a run.

    Attributes:
        quota: Accepted clips to keep of each class, chosen to match its real clips (default: the recipe's; 0: all).
        published_threshold: Metres: take Dong's published rule, which filters drift alone, in place of GRM+.
        replace: Put the result in the place of one with other settings.
    """

    quota: int | None = None
    published_threshold: float | None = None
    replace: bool = False


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `refine`."""
    storage = options.open_storage()
    recipe = options.chosen(storage)
    given = {"quota": options.quota, "published_threshold": options.published_threshold}
    config = replace(recipe.refine, **{k: v for k, v in given.items() if v is not None})
    result = refine(
        storage,
        options.dataset,
        options.run,
        replace(recipe, refine=config),
        partial(options.connect, storage),
        replace_other=options.replace,
    )
    report(result)
    return result


def refine(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    connect: Callable[[], Connection],
    *,
    replace_other: bool = False,
) -> dict[str, Any]:
    """Grade every generated set of the recipe's beds that is not graded yet; one Ray task for each bed.

    Args:
        storage, dataset, run: Where.
        recipe: What; `recipe.refine` says how.
        connect: Called only if there is work to do: starts or joins Ray.
        replace_other: Put the result in the place of one with other settings.

    Returns:
        `beds`: of each bed and generator its prefix, clips, accepted clips and refusals by class; JSON-serialisable.

    Raises:
        InputError: a generated set is missing, or the dataset brings its own synthetic clips.
        ConflictError: a set was graded with other settings and `replace_other` is false.
        JobError: beds failed; the others are done.
    """
    began = time.monotonic()
    if experiment.is_hybrid(storage, dataset):
        raise InputError(
            f"'{dataset}' brings its own synthetic clips; refine the set that it was composed of, and compose it anew "
            "with --synthetic."
        )
    sets = [(spec, one.generator) for spec in recipe.beds for one in recipe.each]
    todo: dict[BedSpec, list[str]] = {}
    clips: dict[BedSpec, int] = {}
    for spec, generator in sets:
        raw = _raw(storage, dataset, run, spec, generator)
        done = graded(storage, dataset, run, spec, generator)
        wanted = origin(storage, dataset, run, spec, generator, recipe.refine)
        if done is not None and _settings(done) == wanted:
            continue
        if done is not None and not replace_other:
            where = storage.sub(_target(run, dataset, spec, generator)).uri
            raise ConflictError(
                f"'{where}' was refined from other clips or settings; choose another run name, or --replace it."
            )
        todo.setdefault(spec, []).append(generator)
        clips[spec] = clips.get(spec, 0) + raw.rows
    if todo:
        at_once = int(connect().cpus)
        _run_all(storage, dataset, run, recipe.refine, todo, clips, at_once)
    beds = []
    for spec, generator in sets:
        manifest = read_manifest(storage, _target(run, dataset, spec, generator))
        beds.append(
            {
                "bed": spec.key,
                "generator": generator,
                "prefix": _target(run, dataset, spec, generator),
                "clips": manifest.rows,
                "accepted": manifest.totals.accepted,
                "classes": manifest.extra["classes"],
                "manifest": manifest.digest,
            }
        )
    return {
        "beds": beds,
        "refined": sum(map(len, todo.values())),
        "seconds": round(time.monotonic() - began, 2),
    }


def _target(run: str, dataset: str, spec: BedSpec, generator: str) -> str:
    return experiment.synthetic_prefix(run, dataset, spec, REFINED + generator)


def _raw(storage: Storage, dataset: str, run: str, spec: BedSpec, generator: str) -> Manifest:
    try:
        return read_manifest(storage, experiment.synthetic_prefix(run, dataset, spec, generator))
    except MissingError:
        raise InputError(
            f"There are no synthetic clips of {generator} for {spec.key} to refine; run `python -m rayjobs.train` and "
            "`python -m rayjobs.generate` with the same options first."
        ) from None


def graded(storage: Storage, dataset: str, run: str, spec: BedSpec, generator: str) -> Manifest | None:
    """The manifest of a generator's refined clips on a bed, None while there is none."""
    try:
        return read_manifest(storage, _target(run, dataset, spec, generator))
    except MissingError:
        return None


def _settings(manifest: Manifest) -> dict[str, Any]:
    return {k: v for k, v in manifest.header.extra["refined"].items() if k != "thresholds"}


def origin(
    storage: Storage, dataset: str, run: str, spec: BedSpec, generator: str, config: RefineConfig
) -> dict[str, Any]:
    """What decides a refined set: the settings, the clips that are graded and those that the teachers see."""
    return {
        "settings": json.loads(json.dumps(asdict(config))),
        "synthetic": content_digest(storage, experiment.synthetic_prefix(run, dataset, spec, generator)),
        "data": experiment.data_digest(storage, dataset),
    }


def refine_bed(
    storage: Storage, dataset: str, run: str, config: RefineConfig, spec: BedSpec, generators: Sequence[str]
) -> None:
    """Fit the refiner of one bed on its training clips, grade the clips of these generators, write the sets.

    Shards are named by their content and the manifest is written last, so an interrupted bed is simply done again.
    """
    with units.unit("bed", spec.key):
        _refine_bed(storage, dataset, run, config, spec, generators)


def _refine_bed(
    storage: Storage, dataset: str, run: str, config: RefineConfig, spec: BedSpec, generators: Sequence[str]
) -> None:
    import torch

    from motionsynth.refine import fit_refiner, published_rule, refusals

    torch.set_num_threads(1)
    train = experiment.load_bed(storage, dataset, spec).train
    published = config.published_threshold
    refiner = None if published is not None else fit_refiner(train, config)
    for generator in generators:
        raw = _raw(storage, dataset, run, spec, generator)
        prefix = experiment.synthetic_prefix(run, dataset, spec, generator)
        made, header = read_dataset(storage, prefix)
        if refiner is not None:
            graded, thresholds = refiner.select(refiner.grade(made.motions)), refiner.thresholds()
        else:
            graded, thresholds = published_rule(made.motions, train, published or 0.0), {"drift": published}
        graded = decided(graded, read_decisions(storage, prefix))  # no grade outweighs a person's mark
        note = origin(storage, dataset, run, spec, generator, config) | {"thresholds": thresholds}
        write_dataset(
            storage,
            _target(run, dataset, spec, generator),
            replace(made, motions=graded),
            replace(header, extra={**header.extra, "refined": note}),
            replace=True,
            kind="refined",
            request=raw.request,
            extra={"classes": refusals(graded, made.class_names)},
        )


def _run_all(
    storage: Storage,
    dataset: str,
    run: str,
    config: RefineConfig,
    todo: Mapping[BedSpec, Sequence[str]],
    clips: Mapping[BedSpec, int],
    at_once: int,
) -> None:
    import ray

    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(refine_bed)
    running = {task.remote(storage, dataset, run, config, spec, names): spec for spec, names in todo.items()}
    failed: list[str] = []
    board = Board(storage, experiment.run_prefix(run, dataset), "refine")
    at_once = min(at_once, len(todo))
    with Progress("refine", sum(clips.values()), "clips", at_once=at_once, board=board) as progress:
        while running:
            progress.hold({spec.key: "" for spec in running.values()})
            done, _ = ray.wait(list(running))
            for ref in done:
                spec = running.pop(ref)
                try:
                    ray.get(ref)
                    progress.advance(clips[spec])
                except Exception as e:
                    failed.append(f"{spec.key}: {cli.last_line(e)}")
                    progress.fail(spec.key, cli.last_line(e))
    if failed:
        listed = "\n".join(f"  {f}" for f in sorted(failed))
        raise cli.JobError(f"{len(failed)} of {len(todo)} draws failed; the others are refined:\n{listed}")


def report(result: Mapping[str, Any]) -> None:
    """The result for people: by generator, over all draws, what was accepted of each class and which rule refused."""
    for generator in dict.fromkeys(b["generator"] for b in result["beds"]):
        mine = [b for b in result["beds"] if b["generator"] == generator]
        names = dict.fromkeys(name for b in mine for name in b["classes"])
        found = {name: [b["classes"][name] for b in mine if name in b["classes"]] for name in names}
        rules = [r for r in RULES if any(r in c["refused"] for cs in found.values() for c in cs)]
        head = f"{generator:<34}{'clips':>7}{'accepted':>10}" + "".join(f"{r:>14}" for r in rules)
        print(f"\n{head}\n{'-' * len(head)}")
        for name, classes in found.items():
            clips, accepted = (sum(c[k] for c in classes) for k in ("clips", "accepted"))
            refused = "".join(f"{sum(c['refused'].get(r, 0) for c in classes):>14}" for r in rules)
            print(f"{name[:33]:<34}{clips:>7}{accepted / clips:>10.0%}{refused}")
    print(
        "a clip counts under every rule that refuses it; "
        f"refined {result['refined']} of {len(result['beds'])} sets in {result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    cli.main(Options, verb)
