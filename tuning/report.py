"""What a search found: the table of trials, pictures, the winner as a recipe file, and one reading of the test half.

    python -m tuning.report --storage out --run weights
    python -m rayjobs.pipeline --dataset nucla --recipe best.json --storage out --run tuned
    python -m tuning.report --storage out --run weights --test

Writes `report.md`, `trials.parquet`, `response.png` and `best.json` below `studies/RUN`, and the last of these also to
`--recipe-file`. `--test` trains the winner and the recipe as it was, both at their whole length (once, where they train
alike), and judges them by the test people, side by side with the real arms.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from motionsynth.protocol import REFINED, format_table, paired_difference, summarise
from motionsynth.recipe_files import recipe_from_dict, recipe_to_dict
from motionsynth.recipes import Recipe
from rayjobs import cli, refine, score, train
from rayjobs.generate_beds import generate_beds
from storage import Storage
from storage.revision import git_revision
from tuning.curves import response_curves
from tuning.objective import what_samples, what_trains
from tuning.space import applied
from tuning.study import METRICS, ROOT, STUDY, best, read_study
from tuning.tables import markdown, table

BEST = "best.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Report a search; --run names it.

    Attributes:
        recipe_file: Write the winner's recipe to this file, too.
        test: Judge the winner and the recipe as it was by the test people: once, and last.
        seeds: Seeds of each recogniser in that test (default: the recipe's).
        recogniser: Of that test (default: all of the recipe's).
        clips_seen: Real clips that each generator sees in that test (default: by the recipe's steps).
        gpus_per_worker: 0 trains and samples on CPUs.
    """

    recipe_file: Path | None = None
    test: bool = False
    seeds: int = 0
    recogniser: str = ""
    clips_seen: int = 0
    gpus_per_worker: float = 0.0


def verb(options: Options) -> dict[str, Any]:
    """Write the report; see the module."""
    storage = options.open_storage()
    result = write_report(storage, options.run)
    print(result.pop("text"))
    if options.recipe_file is not None:
        options.recipe_file.write_bytes(storage.read(f"{ROOT}/{options.run}/{BEST}"))
    if options.test:
        result["test"] = test_winner(options, storage)
        print(result["test"]["text"])
    return result


def write_report(storage: Storage, name: str) -> dict[str, Any]:
    """Write a study's report; returns its winner and the text for people.

    Raises:
        InputError: no such study, or no trial has finished.
    """
    study, base = read_study(storage, name), f"{ROOT}/{name}"
    winner = best(study)
    text = markdown(study)
    storage.write(f"{base}/report.md", text.encode())
    for file, write in (
        ("trials.parquet", partial(pq.write_table, table(study))),
        ("response.png", partial(response_curves, study)),
    ):
        sink = io.BytesIO()
        write(sink)
        storage.write(f"{base}/{file}", sink.getvalue())
    kept = json.loads(storage.read(f"{base}/{STUDY}"))
    _, tuned = recipes(kept, winner.values)
    storage.write(
        f"{base}/{BEST}", json.dumps(recipe_to_dict(tuned, kept["base"]["base"]), indent=1).encode()
    )
    return {
        "study": base,
        "trials": len(study.trials),
        "winner": winner.number,
        "values": dict(winner.values),
        "metric": study.metric,
        **{m: getattr(winner.final, m) for m in METRICS},
        "gain": asdict(winner.final.gain),
        "recipe": f"{base}/{BEST}",
        "text": text,
    }


def recipes(study: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Recipe, Recipe]:
    """The recipe as it was and with the winner's settings, both at their whole length."""
    base = recipe_from_dict(study["base"], f"Study of {study['recipe']}")
    return base, applied(base, {**study["fixed"], **values})


def test_winner(options: Options, storage: Storage) -> dict[str, Any]:
    """Train and judge winner and default on the test half, by the ordinary jobs.

    Where the default won, there is nothing to compare it with: the test half stays unread, and the text says so.

    Raises:
        InputError: no trial has finished.
    """
    kept = json.loads(storage.read(f"{ROOT}/{options.run}/{STUDY}"))
    study = read_study(storage, options.run)
    winner = best(study)
    if study.is_default(winner) and not kept["fixed"]:
        return {
            "winner": winner.number,
            "text": "The recipe as it was is the best of this search, so there is nothing to compare it with on the "
            "test people, and they were not read.",
        }
    searched = recipe_from_dict(kept["searched"], "The study")
    dataset, records = kept["dataset"], []
    connect = lambda: options.connect(storage)  # noqa: E731
    default, tuned = (_on_test(recipe, searched, options) for recipe in recipes(kept, winner.values))
    for name, recipe in (("default", default), ("tuned", tuned)):
        args = (storage, dataset, f"{options.run}-{name}", recipe)
        gpus = options.gpus_per_worker
        if recipe is not default and what_trains(recipe) == what_trains(default):
            where = {"trained": f"{options.run}-default", "sampling": what_samples(recipe)}
        else:
            where = {}
            train.train(*args, connect, gpus_per_worker=gpus)
        generate_beds(*args, connect, gpus_per_actor=gpus, **where)
        refined = REFINED.rstrip(":") if kept["refined"] else recipe.generator
        if kept["refined"]:
            refine.refine(*args, connect)
        arms = ("strong", refined, "ceiling") if name == "default" else ("strong", refined)
        score.score(*args, connect, only=arms)
        arm = f"{REFINED}{recipe.generator}" if kept["refined"] else recipe.generator
        tasks = [(t, bed) for t, bed in score.plan_tasks(*args, arms) if t.arm in ("strong", "ceiling", arm)]
        found = score.stored_records(storage, dataset, tasks)
        records += [
            replace(r, arm=name) if r.arm == arm else r for r in found if r.arm == arm or name == "default"
        ]
    text = []
    against = {}
    for recogniser in dict.fromkeys(r.recogniser for r in records):
        mine = [r for r in records if r.recogniser == recogniser]
        d = paired_difference(mine, "tuned", "default", study.metric)
        against[recogniser] = asdict(d)
        text += [
            f"recogniser {recogniser}, rare classes, test people",
            format_table(summarise(mine)),
            f"tuned - default: {d} points of {study.goal}, paired",
            "",
        ]
    result = {
        "git_revision": git_revision(),
        "winner": winner.number,
        "metric": study.metric,
        "tuned_over_default": against,
        "text": "\n".join(text),
    }
    storage.write(f"{ROOT}/{options.run}/report-test.json", json.dumps(cli.plain(result), indent=1).encode())
    return result


def _on_test(recipe: Recipe, searched: Recipe, options: Options) -> Recipe:
    """The recipe on the draws of the search, with the test half to judge by."""
    recipe = replace(
        recipe, bed=replace(searched.bed, split="test"), protocols=searched.protocols, draws=searched.draws, full=False,
    )  # fmt: skip
    return train.with_steps(
        score.with_scores(recipe, options.recogniser, options.seeds), 0, options.clips_seen
    )


if __name__ == "__main__":
    cli.main(Options, verb)
