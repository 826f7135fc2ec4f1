"""The whole job from one command: prepare, train, generate, preview, refine (with --refined), score, report.

Finished stages are skipped on re-run.

    python -m rayjobs.pipeline --dataset sample --recipe demo --storage demo_out --run demo
    python -m rayjobs.pipeline --dataset nucla --raw RAW_FOLDER --recipe motion_gan --storage out --run first
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionsynth.errors import InputError
from rayjobs import cli, experiment, generate_beds, prepare, refine, score, train
from rayjobs import report as report_verb
from storage import MissingError, Storage
from storage.manifest import read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(score.Options):
    """Prepare, train, generate, refine (with --refined), score and report.

    Attributes:
        raw: Raw folder of the dataset; not needed when it is prepared already, nor for `sample`.
        gpus_per_worker: 0 trains and samples on CPUs; a fraction shares a GPU.
        steps: Steps of a generator's stage 1 (default: the recipe's).
        clips_seen: Real clips that each generator sees in its training (default: by the recipe's steps).
    """

    raw: tuple[Path, ...] = ()
    gpus_per_worker: float = 0.0
    steps: int = 0
    clips_seen: int = 0


def verb(options: Options) -> dict[str, Any]:
    """Run every stage that is not finished."""
    storage = options.open_storage()
    began = time.monotonic()
    seconds: dict[str, float] = {}

    def stage(name: str) -> None:
        seconds[name] = round(time.monotonic() - began - sum(seconds.values()), 1)

    connect = lambda: options.connect(storage)  # noqa: E731
    if options.raw or not _prepared(storage, options.dataset):
        if options.dataset != "sample" and not options.raw:
            raise InputError(
                f"Dataset '{options.dataset}' is not prepared in this storage; give its raw folder with --raw, or run "
                "`python -m rayjobs.prepare` first."
            )
        source = prepare.Options(
            storage=options.storage, dataset=options.dataset, raw=options.raw, address=options.address,
            cpus=options.cpus,
        )  # fmt: skip
        prepare.verb(source)
    stage("prepare")
    recipe = score.with_scores(options.chosen(storage), options.recogniser, options.seeds, options.training)
    recipe = train.with_steps(recipe, options.steps, options.clips_seen)
    only = score.chosen_arms(recipe, options.arms)
    args = (storage, options.dataset, options.run, recipe, connect)
    trained, made = {"beds": []}, {"beds": []}
    if experiment.is_hybrid(storage, options.dataset):
        print(f"{options.dataset} brings its own synthetic clips: nothing is trained or generated")
    else:
        trained = train.train(*args, gpus_per_worker=options.gpus_per_worker)
        train.report(trained)
        stage("train")
        made = generate_beds.generate_beds(*args, gpus_per_actor=options.gpus_per_worker)
        generate_beds.report_beds(made)
        stage("generate")
        if options.refined:
            refine.report(refine.refine(*args))
            stage("refine")
    scored = score.score(*args, workers=options.workers, only=only, refined=options.refined)
    score.report(scored)
    stage("score")
    written = report_verb.write_report(
        *args[:4], report_verb.command_of(options, options.recogniser), part=bool(only)
    )
    stage("report")
    report_verb.report(written)
    print("seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in seconds.items()))
    result = {k: v for k, v in scored.items() if k != "text"}
    result |= {"stages": seconds, "report": written["report"]}
    return result | {"trained_generators": trained["beds"], "generated": made["beds"]}


def _prepared(storage: Storage, dataset: str) -> bool:
    try:
        return bool(read_manifest(storage, experiment.data_prefix(dataset)))
    except MissingError:
        return False


if __name__ == "__main__":
    cli.main(Options, verb)
