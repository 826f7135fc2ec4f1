"""The verb: every generated set of a run graded once, the raw one untouched, refused clips kept from recognisers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from motionsynth import teachers as cross
from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.protocol import REFINED
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.refine_config import RULES, RefineConfig
from rayjobs import experiment, score
from rayjobs import refine as job
from rayjobs.refine import refine, refine_bed
from rayjobs.status import report as report_status
from rayjobs.status import status
from storage import ConflictError, Storage
from storage.dataset import read_dataset, verify, write_dataset
from storage.header import Header
from storage.manifest import read_manifest
from tests.test_rayjobs_score import SPLIT, arms_at, join, never, prepared, recipe_of, synthesise

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return prepared(tmp_path)


def prefix_of(recipe: Recipe, bed: int = 0, name: str = "motion_gan") -> str:
    return experiment.synthetic_prefix("r", "tiny", recipe.beds[bed], name)


def objects(storage: Storage, folder: str) -> dict[str, str]:
    return {o.key: storage.digest(o.key) for o in storage.list(folder)}


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Beds are refined here and named in the list, without Ray."""
    seen: list[str] = []

    def run(
        storage: Storage, dataset: str, run: str, config: RefineConfig, todo: Any, clips: Any, at_once: int
    ) -> None:
        for spec, names in todo.items():
            seen.append(spec.key)
            refine_bed(storage, dataset, run, config, spec, names)

    monkeypatch.setattr(job, "_run_all", run)
    return seen


def test_sets_are_graded_once_and_the_raw_ones_stay(
    storage: Storage,
    ray_local: None,
    capsys: pytest.CaptureFixture,
) -> None:
    recipe = recipe_of()
    synthesise(storage, recipe)
    raw = objects(storage, prefix_of(recipe))
    result = refine(storage, "tiny", "r", recipe, join)
    assert result["refined"] == 2 and [b["bed"] for b in result["beds"]] == [b.key for b in recipe.beds]
    assert objects(storage, prefix_of(recipe)) == raw
    for i, bed in enumerate(result["beds"]):
        assert (
            bed["prefix"] == prefix_of(recipe, i, REFINED + "motion_gan")
            and verify(storage, bed["prefix"]) == []
        )
        graded, header = read_dataset(storage, bed["prefix"])
        made, _ = read_dataset(storage, prefix_of(recipe, i))
        assert [m.sample_id for m in graded.motions] == [m.sample_id for m in made.motions]
        assert all(m.accepted is None for m in made.motions)
        assert all(m.accepted == (m.rejected_by is None) and m.novelty is not None for m in graded.motions)
        assert bed["clips"] == len(made) and bed["accepted"] == len(graded.accepted())
        assert sum(c["accepted"] for c in bed["classes"].values()) == bed["accepted"]
        # The header says what the columns were compared with.
        note = header.extra["refined"]
        assert note["settings"]["folds"] == 2 and set(note["thresholds"]["classes"]) == set(made.class_names)
        assert note["synthetic"] == read_manifest(storage, prefix_of(recipe, i)).digest
    job.report(result)
    shown = capsys.readouterr().out
    assert "accepted" in shown and any(rule in shown for rule in RULES) and "refined 2 of 2 sets" in shown

    before = objects(storage, "runs")
    again = refine(storage, "tiny", "r", recipe, never)
    assert again["refined"] == 0 and again["beds"] == result["beds"] and objects(storage, "runs") == before


def test_only_training_clips_of_the_bed_teach(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_of(split="validation", draws=2)
    synthesise(storage, recipe)
    taught: list[MotionSet] = []
    original = cross.to_tensors

    def spy(motions: MotionSet, persons: int):
        taught.append(motions)
        return original(motions, persons)

    monkeypatch.setattr(cross, "to_tensors", spy)
    for spec in recipe.beds:
        taught.clear()
        refine_bed(storage, "tiny", "r", recipe.refine, spec, ["motion_gan"])
        bed: Bed = experiment.load_bed(storage, "tiny", spec)
        real = {m.sample_id for s in taught for m in s.motions if m.source == "real"}
        assert real == {m.sample_id for m in bed.train.motions}
        held = {m.subject for m in bed.evaluate.motions} | {"04"}
        assert not held & {m.subject for s in taught for m in s.motions if m.source == "real"}


def test_an_interrupted_or_failing_bed_leaves_no_set_and_is_done_again(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    recipe = recipe_of()
    synthesise(storage, recipe)
    seen = in_this_process(monkeypatch)
    whole = refine(storage, "tiny", "r", recipe, join)
    target = whole["beds"][1]["prefix"]
    before = objects(storage, target)
    storage.delete(f"{target}/manifest.json")
    with pytest.raises(InputError, match="unfinished"):
        read_dataset(storage, target)
    with pytest.raises(InputError, match="no synthetic clips of refined:motion_gan .*; run .*refine` with"):
        score.plan_tasks(storage, "tiny", "r", recipe, refined=True)
    states = {r["prefix"]: r["state"] for r in status(storage, "r")["refined"]}
    assert states[target] == "unfinished" and list(states.values()).count("done") == 1
    seen.clear()
    again = refine(storage, "tiny", "r", recipe, join)
    assert seen == [recipe.beds[1].key] and again["beds"] == whole["beds"]
    assert objects(storage, target) == before
    report_status(status(storage, "r"))
    assert f"refined {target}: done, " in capsys.readouterr().out


def test_other_settings_need_replace(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_of(draws=1)
    synthesise(storage, recipe)
    seen = in_this_process(monkeypatch)
    first = refine(storage, "tiny", "r", recipe, join)
    other = replace(recipe, refine=replace(recipe.refine, published_threshold=1e-6))
    with pytest.raises(ConflictError, match="other clips or settings; choose another run name, or --replace"):
        refine(storage, "tiny", "r", other, never)
    second = refine(storage, "tiny", "r", other, join, replace_other=True)
    assert len(seen) == 2 and second["beds"][0]["manifest"] != first["beds"][0]["manifest"]
    # Nothing moves less than a micrometre in sum: the published rule refuses all.
    assert second["beds"][0]["accepted"] == 0
    graded, header = read_dataset(storage, second["beds"][0]["prefix"])
    assert {m.rejected_by for m in graded.motions} == {"drift"}
    assert header.extra["refined"]["thresholds"] == {"drift": 1e-6}


def test_refined_clips_are_an_arm_beside_the_unrefined_ones(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(recipe_of(draws=1), full=True)
    synthesise(storage, recipe)
    in_this_process(monkeypatch)
    plain = score.plan_tasks(storage, "tiny", "r", recipe)
    refine(storage, "tiny", "r", recipe, join)
    # Refining changes nothing of what was scored before.
    assert [t.id for t, _ in score.plan_tasks(storage, "tiny", "r", recipe)] == [t.id for t, _ in plain]
    tasks = score.plan_tasks(storage, "tiny", "r", recipe, refined=True)
    assert {t.id for t, _ in plain} < {t.id for t, _ in tasks}
    assert len({t.id for t, _ in tasks}) == len(tasks)
    name = "refined:motion_gan"
    # Refined clips are not tried with the adjusted loss.
    assert [a for a in arms_at(tasks) if "motion" in a] == ["motion_gan", name, "adjusted:motion_gan"]
    assert [a for a in arms_at(tasks, "full") if "motion" in a] == [
        "motion_gan", name, "tstr:motion_gan", f"tstr:{name}",
    ]  # fmt: skip
    for t, _ in tasks:
        assert t.synthetic.endswith("synthetic-refined") == t.generator.startswith(REFINED)
    only = score.chosen_arms(recipe, "refined")
    assert arms_at(score.plan_tasks(storage, "tiny", "r", recipe, only)) == ["strong", name]

    # Other grades are another record.
    other = replace(recipe, refine=replace(recipe.refine, published_threshold=1e6))
    refine(storage, "tiny", "r", other, join, replace_other=True)
    changed = {
        a.arm
        for (a, _), (b, _) in zip(
            tasks, score.plan_tasks(storage, "tiny", "r", recipe, refined=True), strict=True
        )
        if a.id != b.id
    }
    assert changed == {name, f"tstr:{name}", score.QUALITY}


def test_a_refused_clip_reaches_no_recogniser(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the stored set to the record: what the record counts is what was accepted."""
    recipe = recipe_of(draws=1)
    synthesise(storage, recipe, count=6)
    in_this_process(monkeypatch)
    quota = replace(recipe, refine=RefineConfig(folds=2, teacher=recipe.refine.teacher, confidence_percentile=0.0,
        novelty_percentiles=(0.0, 100.0), plausibility_percentile=100.0, quota=2))  # fmt: skip
    made = refine(storage, "tiny", "r", quota, join)["beds"][0]
    assert 0 < made["accepted"] < made["clips"] == 6
    tasks = score.plan_tasks(storage, "tiny", "r", quota, ("refined", score.QUALITY), refined=True)
    scorer = score.Scorer(storage, "tiny", "s")
    for t, _ in tasks:
        record = json.loads(storage.read(f"s/{scorer.run(t)}.json"))
        clips = made["accepted"] if t.generator.startswith(REFINED) else made["clips"]
        assert record["synthetic_clips"] == clips, t.arm


def test_several_generators_share_the_teachers_of_a_bed(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(recipe_of(draws=1), compared=(get_recipe("kinetic_gan"),))
    for one in recipe.each:
        synthesise(storage, one)
    seen = in_this_process(monkeypatch)
    result = refine(storage, "tiny", "r", recipe, join)
    assert seen == [recipe.beds[0].key] and [b["generator"] for b in result["beds"]] == [
        "motion_gan",
        "kinetic_gan",
    ]
    # The same clips under both names have the same grades.
    one, two = (read_dataset(storage, b["prefix"])[0].motions for b in result["beds"])
    assert [(m.novelty, m.accepted) for m in one] == [(m.novelty, m.accepted) for m in two]


def test_what_is_missing_or_cannot_be_refined_is_one_sentence(storage: Storage) -> None:
    recipe = recipe_of(draws=1)
    with pytest.raises(
        InputError, match="no synthetic clips of motion_gan for .*-d0 to refine; run .*generate"
    ):
        refine(storage, "tiny", "r", recipe, never)
    motions, _ = read_dataset(storage, "data/tiny")
    header = Header.of(motions, splits=(SPLIT.to_dict(),), hybrid={"real": {"dataset": "tiny"}})
    write_dataset(storage, "data/mixed", motions, header)
    with pytest.raises(InputError, match="'mixed' brings its own synthetic clips; refine the set"):
        refine(storage, "mixed", "r", recipe, never)


def test_the_command_answers_in_json_with_exit_code_2(storage: Storage) -> None:
    command = [
        sys.executable,
        "-m",
        "rayjobs.refine",
        "--storage",
        storage.uri.removeprefix("file://"),
        "--json",
    ]
    command += ["--dataset", "tiny", "--recipe", "debug", "--draws", "1", "--run", "r"]
    for more, says in (
        ([], "to refine; run"),
        (["--published-threshold", "-1"], "published_threshold is -1 m"),
    ):
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=60)
        last = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == 2 == last["exit_code"] and says in last["error"]
        assert len(done.stderr.splitlines()) == 1
