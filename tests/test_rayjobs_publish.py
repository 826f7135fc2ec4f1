"""The verb on a real run: clips, weights and a composed dataset are published, or refused by their sources' terms."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motionsynth.datasets import DATASETS
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.splits import Split
from rayjobs import compose, experiment, publish, score
from rayjobs import train as train_job
from rayjobs.generate import request_for
from rayjobs.shard_pool import ShardWriter, header_of
from storage import Storage
from storage.checkpoints import checkpoint_digest, load_checkpoint, read_config
from storage.dataset import read_dataset, verify, write_dataset
from storage.header import Header
from storage.manifest import Manifest, write_manifest
from storage.shards import plan
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
RIGHT = "The authors allowed it by letter."


def named(motions: MotionSet, dataset: str) -> MotionSet:
    """The clips as if they came from a dataset of this name."""
    return replace(
        motions, dataset=dataset, motions=tuple(replace(m, dataset=dataset) for m in motions.motions)
    )


def clips_of(storage: Storage, dataset: str) -> None:
    """A prepared dataset, a generator trained on it, clips of the generator, and a dataset composed of both."""
    motions = named(make_tiny_set(2), dataset)
    header = Header.of(motions, (SPLIT.to_dict(),), title="Tiny", terms="see there")
    write_dataset(storage, f"data/{dataset}", motions, header)
    given = {"storage": storage.uri, "dataset": dataset, "recipe": "debug", "run": "r"}
    options = compose.Options(**given, name=f"{dataset}-mix", per_class=4)
    recipe = options.chosen(storage)
    (bed,) = [b for b in recipe.beds if b.scarcity == "full"] or recipe.beds[:1]
    prefix = experiment.bed_prefix("r", dataset, bed, recipe.generator)
    train_job.run_loop(storage, dataset, "r", recipe, bed)
    info = train_job.finished_checkpoint(storage, prefix)
    assert info is not None
    request = request_for(storage, info.prefix, dict.fromkeys(range(3), 4), seed=7, shard_size=12)
    record = ShardWriter(storage, None, False).write(f"{prefix}/synthetic", plan(request)[0])
    header = header_of(read_config(storage, info.prefix))
    manifest = Manifest(kind="generated", header=header, shards=(record,), request=request.to_dict())
    write_manifest(storage, f"{prefix}/synthetic", manifest)
    compose.verb(options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(tmp_path_factory.mktemp("publish"))
    for dataset in ("ui_prmd", "nucla"):
        clips_of(storage, dataset)
    write_dataset(storage, "data/tiny", make_tiny_set(), Header.of(make_tiny_set()))
    return storage


def run(storage: Storage, out: Path, **given) -> tuple[dict, str]:
    options = publish.Options(storage=storage.uri, out=str(out), **given)
    result = publish.verb(options)
    return result, (out / "README.md").read_text()


def test_generated_clips_tell_whom_they_show_and_how_they_were_made(
    made: Storage, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    result, card = run(made, tmp_path / "out", data="runs/r/ui_prmd")
    assert (
        result["license"] == "PDDL-1.0"
        and result["clips"] == 12
        and verify(Storage(tmp_path / "out"), "") == []
    )
    made_by = read_dataset(Storage(tmp_path / "out"), "")[0]
    parents = {m.parent_id for m in made_by.motions}
    assert (
        f"12 synthetic clips derive from {len(parents)} real clips" in card
        and "they add variants, no people" in card
    )
    config = read_config(
        made, result["prefix"].rpartition("/")[0] + "/checkpoints" + "/" + _step(made, "ui_prmd")
    )
    trained = sum(len(c) for c in config["context"]["clips"])
    assert f"| trained on | {trained} real clips |" in card and "| seed of the request | 7 |" in card
    assert json.dumps(config["training"]["steps"]) in card and '"loss_weights"' in card
    assert (
        "was not measured" in card
        and DATASETS["ui_prmd"].citation in card
        and DATASETS["ui_prmd"].terms in card
    )
    shown = capsys.readouterr().out
    assert "configuration all: 12 train" in shown and DATASETS["ui_prmd"].terms in shown


def _step(storage: Storage, dataset: str) -> str:
    steps = {
        o.key.split("/checkpoints/")[1].split("/")[0]
        for o in storage.list(f"runs/r/{dataset}")
        if "/checkpoints/" in o.key
    }
    return max(steps)


@pytest.mark.parametrize(
    "given",
    [{"data": "nucla"}, {"data": "runs/r/nucla"}, {"data": "nucla-mix"}, {"checkpoint": "runs/r/nucla"}],
)
def test_what_shows_people_of_an_unlicensed_dataset_is_refused_without_a_right(
    made: Storage, tmp_path: Path, given: dict
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as e:
        run(made, out, **given, license="CC-BY-4.0")
    assert DATASETS["nucla"].terms in str(e.value) and "--i-have-the-right" in str(e.value)
    assert "\n" not in str(e.value) and not out.exists()
    result, card = run(made, out, **given, i_have_the_right=RIGHT)
    assert (
        result["right"] == RIGHT and f'in their own words: "{RIGHT}"' in card and 'license: "unknown"' in card
    )
    assert DATASETS["nucla"].terms in card


def test_ntu_is_refused_whatever_is_said_also_under_another_name(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path / "store")
    ids = [f"S001C001P{i:03d}R001A050" for i in range(24)]
    renamed = tuple(replace(m, sample_id=i) for m, i in zip(tiny_set.motions, ids, strict=True))
    hidden = replace(tiny_set, motions=renamed)
    write_dataset(storage, "data/hidden", hidden, Header.of(hidden))
    open_ = named(tiny_set, "ntu60")
    write_dataset(storage, "data/ntu60", open_, Header.of(open_))
    for name in ("hidden", "ntu60"):
        with pytest.raises(InputError, match='whose terms forbid it: "Free for academic research') as e:
            run(storage, tmp_path / "out", data=name, license="MIT", i_have_the_right=RIGHT)
        assert DATASETS["ntu60"].terms in str(e.value)
    assert not (tmp_path / "out").exists()


def test_a_composed_dataset_has_its_protocol_and_all_its_sources(made: Storage, tmp_path: Path) -> None:
    result, card = run(made, tmp_path / "out", data="ui_prmd-mix", title="Mixed | clips")
    assert result["configs"]["cross_subject"] == {"train": 48, "test": 12} and result["configs"]["all"] == {
        "train": 60
    }
    assert (
        "# Mixed | clips" in card and "48 recorded clips (4 subjects, 2 views) and 12 synthetic clips" in card
    )
    assert "Judge a recogniser by real clips of people it never saw" in card
    test = {m.source for m in read_dataset(Storage(tmp_path / "out"), "")[0].motions if m.subject == "04"}
    assert test == {"real"}


def test_weights_say_that_they_carry_real_clips_and_load_with_the_same_digest(
    made: Storage, tmp_path: Path
) -> None:
    result, card = run(made, tmp_path / "model", checkpoint="runs/r/ui_prmd")
    config = read_config(made, result["prefix"])
    trained = [len(c) for c in config["context"]["clips"]]
    assert result["carried_clips"] == sum(min(64, n) for n in trained) > 0
    assert f"Its tensors hold {sum(trained)} real training clips" in card
    there = Storage(tmp_path)
    assert checkpoint_digest(there, "model") == result["digest"] == checkpoint_digest(made, result["prefix"])
    tensors, loaded = load_checkpoint(there, "model")
    before = load_checkpoint(made, result["prefix"])[0]
    assert loaded == config and all(torch.equal(tensors[k], v) for k, v in before.items())
    # The state of its training stays at home.
    assert not [o.key for o in there.list("model") if o.key.startswith("state")]
    assert made.list(result["prefix"]) and any("state-" in o.key for o in made.list(result["prefix"]))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_scores_stand_in_the_card_as_they_were_written(
    made: Storage, tmp_path: Path, ray_local: None
) -> None:
    from cluster.connect import connect

    given = {"storage": made.uri, "dataset": "ui_prmd-mix", "recipe": "debug", "run": "r", "scarcity": "full"}
    recipe = score.Options(**given).chosen(made)
    result = score.score(made, "ui_prmd-mix", "r", recipe, lambda: connect("local"), workers=1)
    _, card = run(made, tmp_path / "out", data="ui_prmd-mix")
    assert result["text"] in card and "whichever way they came out" in card
    assert "judged by people held out of the training half" in card
    # A table of single arms is no result to print.
    score.score(
        made, "ui_prmd-mix", "r", recipe, lambda: connect("local"), workers=1, only=("strong", "hybrid")
    )
    assert run(made, tmp_path / "out", data="ui_prmd-mix")[1] == card


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "needs --data or --checkpoint, one of the two; got neither"),
        ({"data": "tiny", "checkpoint": "c"}, "got both"),
        ({"data": "tiny"}, "come from 'tiny', of which no terms are known; say .* --license SPDX"),
        ({"data": "tiny", "license": "free"}, "'free' is no SPDX"),
        ({"data": "none"}, "'none' names no finished dataset"),
        ({"data": "../x"}, "Object key"),
        ({"data": "runs/r"}, "'runs/r' holds 2 sets of clips; name one of them: runs/r/nucla"),
        ({"checkpoint": "runs/r"}, "'runs/r' holds 2 checkpoints"),
        ({"checkpoint": "data/tiny"}, "names no finished checkpoint"),
        ({"data": "tiny", "license": "MIT", "date": "today"}, "--date 'today' is no date"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    made: Storage, tmp_path: Path, given: dict, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as e:
        run(made, tmp_path / "out", **given)
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


def test_the_command(made: Storage, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rayjobs.publish",
        "--storage",
        made.uri,
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, "--data", "tiny"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--license SPDX" in done.stderr
    more = ["--data", "tiny", "--license", "CC-BY-4.0"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (
        json.loads(done.stdout.splitlines()[-1])["clips"] == 24 and (tmp_path / "out" / "SHA256SUMS").exists()
    )
