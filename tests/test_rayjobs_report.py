"""The verb: reads what training, generation and scoring left in storage; what is missing is one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from rayjobs import experiment
from rayjobs.learning_curves import read_curves
from rayjobs.report import Options, command_of, write_report
from storage import Storage
from storage.checkpoints import list_checkpoints, read_config
from tests.tiny_report import CLASS_NAMES, DATASET, RUN, recipe_of, run_in_storage

BASE = f"runs/{RUN}/{DATASET}"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return run_in_storage(tmp_path_factory.mktemp("report"), recipe_of())


@pytest.mark.slow
def test_the_report_shows_what_the_verbs_left(storage: Storage, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = write_report(storage, DATASET, RUN, recipe_of(), "make it", out=out)
    assert result["report"] == f"{BASE}/report-validation-tcn.html" and result["out"] == str(out)
    page = storage.read(result["report"]).decode()
    assert page == out.read_text("utf-8") and len(page.encode()) == result["bytes"] < 2_500_000
    anchors = re.findall(r'<section id="(\w+)"', page)
    assert {"gain", "motions", "quality", "nearest", "attention", "training"} <= set(anchors)
    data = json.loads(re.search(r'id="clips">(.*?)</script>', page)[1])
    assert [c["name"] for c in data["classes"]] == list(CLASS_NAMES)
    # The figures are those of the table.
    scores = json.loads(storage.read(f"{BASE}/score-validation-tcn.json"))
    made = next(a for a in scores["arms"] if a["arm"] == "motion_gan" and a["beds"] == "few")
    assert f"to {made['rare_recall']['mean']:.1f}\u00a0%" in page
    # Written again it is the same, byte for byte.
    digest = storage.digest(result["report"])
    write_report(storage, DATASET, RUN, recipe_of(), "make it")
    assert storage.digest(result["report"]) == digest
    # Without clips it lies beside that one, and is small.
    figures = write_report(storage, DATASET, RUN, recipe_of(), "make it", with_clips=False)
    assert (
        figures["report"] == f"{BASE}/report-validation-tcn-without-clips.html" and figures["bytes"] < 500_000
    )
    assert storage.digest(result["report"]) == digest


@pytest.mark.slow
def test_learning_curves_are_those_that_training_reported(storage: Storage) -> None:
    recipe = recipe_of()
    prefix = experiment.bed_prefix(RUN, DATASET, recipe.beds[0], recipe.generator)
    curves = read_curves(storage, prefix)
    last = list_checkpoints(storage, f"{prefix}/checkpoints")[-1]
    metrics = read_config(storage, last.prefix)["metrics"]
    assert set(curves) == set(metrics)
    training = recipe.training
    steps = list(range(training.report_every, last.step + 1, training.report_every))
    for name, line in curves.items():
        assert [s for s, _ in line] == steps
        assert line[-1][1] == pytest.approx(metrics[name], rel=1e-5)


@pytest.mark.slow
def test_an_interrupted_training_has_one_curve(storage: Storage, tmp_path: Path) -> None:
    recipe = recipe_of()
    prefix = experiment.bed_prefix(RUN, DATASET, recipe.beds[0], recipe.generator)
    whole = read_curves(storage, prefix)
    (key,) = (o.key for o in storage.list(f"{prefix}/tensorboard"))
    data = storage.read(key)
    halves = Storage(tmp_path)
    halves.write("t/tensorboard/events.1.host.0", data[: len(data) - 5])  # died while it wrote
    name, line = next(iter(read_curves(halves, "t").items()))
    assert line == whole[name][: len(line)]
    # A file of a higher first step counts more, whatever its name's order.
    halves.write("t/tensorboard/events.0.host.4", data)
    assert read_curves(halves, "t") == whole


@pytest.mark.slow
def test_what_is_missing_is_one_sentence(storage: Storage) -> None:
    recipe = recipe_of()
    with pytest.raises(
        InputError, match="has no scores at .*score-validation-tcn-part.json'; run .*rayjobs.score"
    ):
        write_report(storage, DATASET, RUN, recipe, part=True)
    with pytest.raises(InputError, match="There are .*score-validation-tcn.json: give their --split"):
        test = replace(recipe, bed=replace(recipe.bed, split="test"))
        write_report(storage, DATASET, RUN, test)
    with pytest.raises(
        InputError, match="was scored with bed .*'shots': 3.* but the options say .*'shots': 5"
    ):
        write_report(storage, DATASET, RUN, replace(recipe, bed=replace(recipe.bed, shots=5)))
    with pytest.raises(InputError, match="--out '.*/nowhere/x.html' cannot be written .*folder that exists"):
        write_report(
            storage, DATASET, RUN, recipe, out=Path(storage.uri.removeprefix("file://")) / "nowhere/x.html"
        )
    with pytest.raises(InputError, match="--projection is 'umap'; allowed: pca, tsne"):
        Options(storage=storage.uri, dataset=DATASET, projection="umap")


def test_the_command_is_what_was_asked_for_without_paths() -> None:
    options = Options(
        storage="/secret/place", dataset="d", recipe="/home/me/tuned.json,demo", run="x", shots=7
    )
    assert command_of(options, "", "--without-clips").endswith("--shots 7 --without-clips --storage STORAGE")
    assert command_of(options, "stgcn") == (
        "python -m rayjobs.report --dataset d --recipe tuned.json,demo --run x --split validation --shots 7 "
        "--recogniser stgcn --storage STORAGE"
    )
