"""The whole job from one command, and from the same command again: nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from motionsynth.recipes import get_recipe
from rayjobs import experiment
from rayjobs.pipeline import Options, verb
from rayjobs.score import QUALITY
from storage import Storage
from storage.dataset import read_dataset, verify

ROOT = Path(__file__).resolve().parents[1]


def command(storage: Path, *more: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "rayjobs.pipeline",
            "--dataset",
            "sample",
            "--recipe",
            "debug",
            "--draws",
            "1",
        ),
        *("--storage", str(storage), "--run", "r", "--json", *more),
    ]


def stored(storage: Storage) -> dict[str, str]:
    """Every object but tables, report and what running jobs say, which are written anew on each run."""
    written = ("/score-", "/report-", "/progress-")
    return {o.key: storage.digest(o.key) for o in storage.list() if not any(w in o.key for w in written)}


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_one_command_does_it_all_once(tmp_path: Path) -> None:
    """On the bundled sample."""
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    recipe = get_recipe("debug")
    rivals = {"adjusted", "interpolation", "difference", "feature"}
    arms = {"weak", "strong", *rivals, "motion_gan", "adjusted:motion_gan", "ceiling"}
    assert {a["arm"] for a in result["arms"]} == arms and result["trained"] == len(arms) + 1
    assert list(result["stages"]) == ["prepare", "train", "generate", "score", "report"]
    assert [b["step"] for b in result["trained_generators"]] == [
        recipe.training.steps + recipe.training.rare_steps
    ]
    storage = Storage(tmp_path)
    (spec,) = (
        b
        for b in Options(storage=storage.uri, dataset="sample", recipe="debug", draws=1).chosen(storage).beds
    )
    prefix = experiment.bed_prefix("r", "sample", spec, recipe.generator)
    made, _ = read_dataset(storage, f"{prefix}/synthetic")
    rare = experiment.load_bed(storage, "sample", spec).rare
    assert sorted(set(made.labels.tolist())) == list(rare)
    assert (
        len(made) == recipe.synthetic_per_class * len(rare) and verify(storage, f"{prefix}/synthetic") == []
    )
    assert storage.read(f"{prefix}/preview.png")[:4] == b"\x89PNG"
    assert QUALITY not in {a["arm"] for a in result["arms"]} and len(result["quality"]) == 1
    assert "recogniser tcn" in done.stdout
    report = tmp_path / result["report"]
    assert str(report) in done.stdout and '<section id="motions"' in report.read_text("utf-8")

    before = stored(storage)
    again = verb(
        Options(storage=storage.uri, dataset="sample", recipe="debug", draws=1, run="r", address="nowhere:1")
    )
    # Every stage is skipped: Ray, at an address where none is, was never asked for.
    assert again["trained"] == 0 and stored(storage) == before
    plain = json.loads(json.dumps(again["arms"]).replace("NaN", "null"))
    assert plain == result["arms"] and again["generated"][0]["shards_made"] == 0

    # Refined later: what is there stays, and its arm and figures alone are new.
    done = subprocess.run(
        command(tmp_path, "--refined"), cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    more = json.loads(done.stdout.splitlines()[-1])
    assert (
        list(more["stages"]) == ["prepare", "train", "generate", "refine", "score", "report"]
        and more["trained"] == 2
    )
    assert {a["arm"] for a in more["arms"]} == arms | {"refined:motion_gan"} and len(more["quality"]) == 2
    assert before.items() < stored(storage).items()


def test_an_unprepared_dataset_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Dataset 'nucla' is not prepared in this storage; give .*--raw"):
        verb(Options(storage=str(tmp_path), dataset="nucla", recipe="debug", address="nowhere:1"))


def test_errors_are_json_too(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--recipe", "none", "--dataset", "nucla"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 2 == last["exit_code"] and "not prepared" in last["error"]
    assert len(done.stderr.splitlines()) == 1
