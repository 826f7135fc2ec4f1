"""Ask people about a run's clips: what is this person doing, and is it real? Or count what they answered.

    python -m rayjobs.study --dataset sample --recipe demo --storage out --run tour        serves http://127.0.0.1:8000
    python -m rayjobs.study --dataset sample --recipe demo --storage out --run tour --export
    python -m rayjobs.study --dataset sample --recipe demo --storage out --run tour --machine

Synthetic clips of one draw are shown among real ones of the same classes, of people whom the generator never saw.
Needs the extra: pip install 'motionsynth[web]'.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.perception import Plan, StudyDesign, format_scores, indistinguishable, scores
from motionsynth.recipes import Recipe
from rayjobs import cli, experiment, web_app
from rayjobs.study_store import AnswerStore, answers_of
from storage import MissingError, Storage
from storage.dataset import read_dataset
from storage.decisions import content_digest

logger = logging.getLogger(__name__)

CONSENT = """You will see short clips of moving stick figures and answer one question about each.

Kept are the code that you choose, your answers, and how long each took; nothing else about you. You can stop at any
time by closing the page, and go on later with the same code. Taking part is voluntary."""
MACHINE_SEEDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(experiment.Options):
    """Serve a perceptual study of one draw's synthetic clips, or count its answers.

    Attributes:
        draw: Whose synthetic clips.
        answers: SQLite file of the answers, on this machine's disk (default: study-RUN.sqlite).
        per_task: Clips that each participant sees for each of the two questions, half of them real.
        options: Most classes offered for "what is this person doing?".
        title: What participants see at the top.
        consent: Text file that participants agree to (default: a plain one).
        host: Address to listen on; anything but loopback lets everybody who reaches it take part.
        port: To listen on; 0 takes a free one.
        export: Print the scores and write the answers to storage, in place of serving.
        machine: The automatic counterpart: recognisers in place of people, clearly named so.
    """

    draw: int = 0
    answers: Path | None = None
    per_task: int = 20
    options: int = 10
    title: str = "Motion study"
    consent: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    export: bool = False
    machine: bool = False


def verb(options: Options) -> dict[str, Any]:
    """Serve, export or ask the machine; see the module."""
    if options.export and options.machine:
        raise InputError(
            "--export counts people's answers and --machine asks recognisers; give one of the two."
        )
    if options.split != "validation":
        raise InputError("A study shows people of the training half only; leave out --split test.")
    storage = options.open_storage()
    recipe = options.chosen(storage)
    bed, synthetic, request = clips_of(storage, options, recipe)
    if options.machine:
        return _machine(options, storage, recipe, bed, synthetic)
    design = StudyDesign(per_task=options.per_task, options=options.options, seed=options.seed)
    plan = Plan(bed.evaluate, synthetic, design)
    path = options.answers or Path(f"study-{options.run}.sqlite")
    if options.export and not path.exists():
        raise InputError(f"There are no answers at '{path}'; name the study's file with --answers.")
    store = AnswerStore(path, {**request, "design": asdict(design)})
    if options.export:
        return _export(options, storage, bed, store)
    return _serve(options, bed, synthetic, plan, store)


def clips_of(storage: Storage, options: Options, recipe: Recipe) -> tuple[Bed, MotionSet, dict[str, Any]]:
    """The bed of a draw, its synthetic clips, and what names both.

    Raises:
        InputError: several recipes, no such draw, or clips that are missing.
    """
    if recipe.compared:
        raise InputError(
            f"A study shows the clips of one generator; --recipe '{options.recipe}' names several."
        )
    beds = [b for b in recipe.beds if b.draw == options.draw]
    if not beds:
        raise InputError(f"--draw is {options.draw}; this run has {len(recipe.beds)}, counted from 0.")
    prefix = experiment.synthetic_prefix(options.run, options.dataset, beds[0], recipe.generator)
    try:
        digest = content_digest(storage, prefix)
    except MissingError:
        raise InputError(
            f"There are no synthetic clips of {recipe.generator} for {beds[0].key}; run `python -m rayjobs.train` and "
            "`python -m rayjobs.generate` with the same options first."
        ) from None
    data = experiment.data_digest(storage, options.dataset)
    bed = experiment.load_bed(storage, options.dataset, beds[0])
    synthetic, _ = read_dataset(storage, prefix)
    return bed, synthetic, {"data": data, "synthetic": digest, "bed": beds[0].key}


def _serve(
    options: Options, bed: Bed, synthetic: MotionSet, plan: Plan, store: AnswerStore
) -> dict[str, Any]:
    try:
        from rayjobs.study_app import Study, make_app
    except ImportError as e:
        raise InputError(f"{e.name} is not installed; run: pip install 'motionsynth[web]'.") from None
    consent = CONSENT if options.consent is None else _read(options.consent)
    study = Study(
        plan=plan, clips={m.sample_id: m for s in (bed.evaluate, synthetic) for m in s.motions}, motions=bed.evaluate,
        store=store, title=options.title, consent=consent, host=options.host,
    )  # fmt: skip
    ending = f"answers go to {store.path}; end it with ctrl-C, and the same command goes on."
    web_app.serve(make_app(study), options.host, options.port, lambda at: f"Study at {at} ; {ending}")
    found = store.rows()
    return {
        "answers": len(found),
        "participants": len({r["participant"] for r in found}),
        "file": str(store.path),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"The consent text '{path}' cannot be read ({e}); give a UTF-8 text file.") from None


def _export(options: Options, storage: Storage, bed: Bed, store: AnswerStore) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = store.rows()
    if not rows:
        raise InputError(f"Nobody has answered yet in '{store.path}'; export when somebody has.")
    answers = answers_of(rows)
    human = {"participants": len({a.participant for a in answers}), "answers": len(answers)}
    result = _counted(bed, answers, human)
    base = f"{experiment.run_prefix(options.run, options.dataset)}/perception-d{options.draw}"
    names = bed.train.class_names
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**r, "label_name": names[r["label"]]} for r in rows]), sink)
    storage.write(f"{base}.parquet", sink.getvalue())
    storage.write(f"{base}.json", json.dumps(cli.plain(result), indent=1).encode())
    print(f"answers: {storage.uri}/{base}.parquet")
    return {**result, "file": f"{base}.parquet"}


def _machine(
    options: Options, storage: Storage, recipe: Recipe, bed: Bed, synthetic: MotionSet
) -> dict[str, Any]:
    from motionsynth.arms import BedTensors
    from motionsynth.machine_perception import machine_answers

    answers = machine_answers(BedTensors.of(bed), synthetic, recipe.scores[0].training, range(MACHINE_SEEDS))
    result = _counted(bed, answers, None)
    key = f"{experiment.run_prefix(options.run, options.dataset)}/perception-machine-d{options.draw}.json"
    storage.write(key, json.dumps(cli.plain(result), indent=1).encode())
    return {**result, "file": key}


def _counted(bed: Bed, answers: Sequence[Any], human: Mapping[str, int] | None) -> dict[str, Any]:
    """Scores, printed and as JSON."""
    found = scores(answers)
    print(format_scores(found, bed.train.class_names, human))
    told_apart = indistinguishable(answers)
    if human and told_apart == told_apart:
        print(
            f"real and synthetic clips could not be told apart in {100 * told_apart:.0f} % (100: by nobody)"
        )
    return {
        "who": "people" if human is not None else "machine",
        "bed": bed.spec.key,
        "scores": [asdict(s) for s in found],
        "indistinguishable": told_apart,
        **(human or {}),
    }


if __name__ == "__main__":
    cli.main(Options, verb)
