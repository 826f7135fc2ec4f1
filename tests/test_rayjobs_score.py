"""Scoring: every record is trained once, the test half is counted, what is missing is one sentence."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pyarrow.parquet as pq
import pytest

from cluster.connect import Connection, connect
from motionsynth.beds import Bed, BedSpec
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.plans import ScorePlan, score_plan
from motionsynth.protocol import ScoreRecord, summarise
from motionsynth.recipes import Recipe, get_recipe
from motionsynth.recognisers import RECOGNISERS
from motionsynth.rivals import interpolate_clips
from motionsynth.splits import Split
from rayjobs import experiment, score
from rayjobs.cli import JobError
from rayjobs.score_tables import tables as tables_of
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))


def join() -> Connection:
    return connect("local")


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


def prepared(folder: Path) -> Storage:
    """The tiny set, prepared."""
    motions = make_tiny_set(2)
    made = Storage(folder / "out")
    write_dataset(made, "data/tiny", motions, Header.of(motions, splits=(SPLIT.to_dict(),)))
    return made


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return prepared(tmp_path)


def recipe_of(split: str = "test", draws: int = 2, **bed) -> Recipe:
    return replace(
        get_recipe("debug"),
        draws=draws,
        bed=BedSpec(**{"shots": 3, "split": split} | bed),
    )


def synthesise(storage: Storage, recipe: Recipe, run: str = "r", count: int = 4) -> None:
    """Clips under the run, as if its generator had made them."""
    for spec in recipe.beds:
        bed = experiment.load_bed(storage, "tiny", spec)
        wanted = dict.fromkeys(bed.rare or range(3), count)
        made: MotionSet = replace(bed.train, motions=tuple(interpolate_clips(bed.train, wanted, seed=1)))
        prefix = f"{experiment.bed_prefix(run, 'tiny', spec, recipe.generator)}/synthetic"
        write_dataset(storage, prefix, made, Header.of(made))


def arms_at(tasks: list[tuple[score.Task, Bed]], scarcity: str = "rare") -> list[str]:
    return [t.arm for t, _ in tasks if t.bed.scarcity == scarcity]


def test_missing_clips_are_one_sentence(storage: Storage) -> None:
    with pytest.raises(
        InputError,
        match="no synthetic clips of motion_gan for cross_subject-test-rare-k3-s0-d0; run .*generate",
    ):
        score.score(storage, "tiny", "r", recipe_of(), never)
    # Nothing was read that counts.
    assert not storage.exists("data/tiny-test-readings.json")


def test_what_has_no_room_reads_nothing(storage: Storage) -> None:
    small = Connection(address="local", cpus=1.0, gpus=0.0, started=False)
    asked = partial(score.score, storage, "tiny", "r", recipe_of(), lambda: small, only=("strong",))
    with pytest.raises(InputError, match="but Ray has 0"):
        asked(gpus_per_worker=0.5)
    with pytest.raises(InputError, match="use at most 1 workers"):
        asked(workers=2)
    assert not storage.exists("data/tiny-test-readings.json")


def test_tasks_are_planned_once(storage: Storage) -> None:
    recipe = recipe_of(draws=3)
    synthesise(storage, recipe)
    tasks = [t for t, _ in score.plan_tasks(storage, "tiny", "r", recipe)]
    arms = [
        "weak",
        "strong",
        "adjusted",
        "interpolation",
        "difference",
        "feature",
        "motion_gan",
        "adjusted:motion_gan",
        "ceiling",
        score.QUALITY,
    ]
    assert [t.arm for t in tasks] == arms * 3
    ids = {}
    for t in tasks:
        ids.setdefault(t.arm, set()).add(t.id)
    # All test draws have one ceiling between them.
    assert {arm: len(i) for arm, i in ids.items()} == dict.fromkeys(arms, 3) | {"ceiling": 1}
    assert {t.arm for t in tasks if t.synthetic} == {"motion_gan", "adjusted:motion_gan", score.QUALITY}
    again = [t.id for t, _ in score.plan_tasks(storage, "tiny", "r", recipe)]
    assert again == [t.id for t in tasks]

    # Other synthetic clips: new records for the arms that use them, the old ones for the others.
    synthesise(storage, recipe, run="other", count=5)
    other = [t for t, _ in score.plan_tasks(storage, "tiny", "other", recipe)]
    changed = {a.arm for a, b in zip(tasks, other, strict=True) if a.id != b.id}
    assert changed == {"motion_gan", "adjusted:motion_gan", score.QUALITY}

    two = replace(recipe, scores=(ScorePlan(training=recipe.scores[0].training, seeds=2),))
    more = [t for t, _ in score.plan_tasks(storage, "tiny", "r", two)]
    assert {t.id for t in tasks} < {t.id for t in more}
    assert sum(t.arm == score.QUALITY for t in more) == 3  # a set is measured once


def test_a_recipe_says_which_rivals_and_arms_asked_for_are_there_all_the_same(storage: Storage) -> None:
    recipe = replace(recipe_of(), draws=1, rivals=("difference",))
    synthesise(storage, recipe)
    own = ["weak", "strong", "difference", "motion_gan", "ceiling", score.QUALITY]
    assert [t.arm for t, _ in score.plan_tasks(storage, "tiny", "r", recipe)] == own
    asked = score.chosen_arms(recipe, "adjusted,adjusted:motion_gan")
    tasks = score.plan_tasks(storage, "tiny", "r", recipe, asked)
    assert [t.arm for t, _ in tasks] == ["strong", "adjusted", "adjusted:motion_gan"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_second_run_trains_nothing_and_the_test_half_is_counted(
    storage: Storage, ray_local: None, capsys: pytest.CaptureFixture
) -> None:
    recipe = recipe_of()
    synthesise(storage, recipe)
    first = score.score(storage, "tiny", "r", recipe, join, workers=1)
    # 9 arms and the quality of the set in 2 draws, with one ceiling for both.
    assert first["trained"] == 19 and first["test_readings"] == 1
    again = score.score(storage, "tiny", "r", recipe, never)
    assert again["trained"] == 0 and again["test_readings"] == 1
    untimed = ("seconds", "trained")
    assert {k: v for k, v in again.items() if k not in untimed} == {
        k: v for k, v in first.items() if k not in untimed
    }

    # What is stored says the same as what was returned.
    base = "runs/r/tiny/score-test-tcn"
    stored = json.loads(storage.read(f"{base}.json"))
    assert (
        stored["arms"] == json.loads(json.dumps(score.cli.plain(first["arms"])))
        and len(stored["quality"]) == 2
    )
    rows = pq.read_table(io.BytesIO(storage.read(f"{base}.parquet"))).to_pylist()
    assert len(rows) == 18 and {r["arm"] for r in rows} == {a["arm"] for a in first["arms"]}
    table = {s.arm: s for s in summarise([ScoreRecord.from_dict(r) for r in rows])}
    for a in first["arms"]:
        assert a["runs"] == 2 and a["rare_recall"]["mean"] == table[a["arm"]].rare_recall.mean
    assert [(a["arm"], a["rival"]) for a in first["against_rivals"]] == [
        *(("motion_gan", r) for r in ("adjusted", "interpolation", "difference", "feature")),
        ("adjusted:motion_gan", "adjusted"),
    ]
    for a in first["against_rivals"]:
        gap = table[a["arm"]].rare_recall.mean - table[a["rival"]].rare_recall.mean
        assert a["n"] == 2 and a["mean"] == pytest.approx(gap)
    assert any("tfevents" in o.key for o in storage.list(f"{base}-tensorboard"))
    score.report(first)
    shown = capsys.readouterr().out
    rare = experiment.load_bed(storage, "tiny", recipe.beds[0]).rare[0]
    assert "was read 1 time in" in shown and "motion_gan" in shown and first["class_names"][rare] in shown

    # Another run has the real arms for nothing, and a look at a few arms leaves the whole table alone.
    few = score.score(storage, "tiny", "other", recipe, never, only=("weak", "strong"))
    assert few["trained"] == 0 and {a["arm"] for a in few["arms"]} == {"weak", "strong"}
    assert storage.exists("runs/other/tiny/score-test-tcn-part.json")
    assert not storage.exists("runs/other/tiny/score-test-tcn.json")

    # A lost record is trained again, alone, and comes out the same; that is another reading.
    (lost,) = [
        t.id
        for t, b in score.plan_tasks(storage, "tiny", "r", recipe)
        if t.arm == "strong" and b.spec.draw == 1
    ]
    before = json.loads(storage.read(f"scores/tiny/{lost}.json"))
    storage.delete(f"scores/tiny/{lost}.json")
    third = score.score(storage, "tiny", "r", recipe, join, workers=1)
    assert third["trained"] == 1 and third["test_readings"] == 2
    after = json.loads(storage.read(f"scores/tiny/{lost}.json"))
    assert before | {"seconds": 0} == after | {"seconds": 0}


def test_a_hybrid_dataset_counts_as_a_reading_of_the_real_one(storage: Storage) -> None:
    motions = make_tiny_set(2)
    header = Header.of(
        motions, splits=tuple(s.to_dict() for s in FOLDS), hybrid={"real": {"dataset": "tiny"}}
    )
    write_dataset(storage, "data/mixed", motions, header)
    assert score._count_reading(storage, "mixed", recipe_of(), True) == 1
    assert score._count_reading(storage, "tiny", recipe_of(), True) == 2
    assert not storage.exists("data/mixed-test-readings.json")


FOLDS = tuple(
    Split(
        name=f"fold{i}", by="subject", train=tuple(s for s in ("01", "02", "03", "04") if s != f"0{i}"), test=(f"0{i}",)
    )
    for i in (1, 2, 3)
)  # fmt: skip


def test_all_folds_or_some_are_asked_for_by_name(tmp_path: Path) -> None:
    storage, motions = Storage(tmp_path), make_tiny_set()
    write_dataset(storage, "data/tiny", motions, Header.of(motions, splits=tuple(s.to_dict() for s in FOLDS)))

    def chosen(protocol: str) -> Recipe:
        options = score.Options(storage=storage.uri, dataset="tiny", recipe="debug", protocol=protocol)
        return options.chosen(storage)

    assert chosen("").protocols == ("fold1",)  # the dataset's first, as the recipe's is not there
    assert chosen("all").protocols == ("fold1", "fold2", "fold3")
    assert [b.protocol for b in chosen("fold3, fold1").beds] == ["fold3"] * 2 + ["fold1"] * 2
    for wrong in ("fold4", "fold1,fold4", "fold1,all"):
        with pytest.raises(
            InputError, match="Known: fold1, fold2, fold3, several of them joined by commas, or all"
        ) as e:
            chosen(wrong)
        assert repr(wrong.split(",")[-1]) in str(e.value)


def test_several_generators_are_arms_of_one_table(storage: Storage) -> None:
    recipe = replace(recipe_of(draws=1), full=True, compared=(get_recipe("kinetic_gan"),))
    other = recipe.each[1]
    assert other.generator == "kinetic_gan" and other.beds == recipe.beds and not other.compared
    synthesise(storage, recipe)
    with pytest.raises(
        InputError, match="no synthetic clips of kinetic_gan for cross_subject-test-rare-k3-s0-d0"
    ):
        score.plan_tasks(storage, "tiny", "r", recipe)
    synthesise(storage, other, count=5)
    tasks = score.plan_tasks(storage, "tiny", "r", recipe)
    both = ["motion_gan", "kinetic_gan"]
    rivals = ["adjusted", "interpolation", "difference", "feature"]
    twice = [f"adjusted:{g}" for g in both]
    assert arms_at(tasks) == [
        "weak",
        "strong",
        *rivals,
        *both,
        *twice,
        "ceiling",
        score.QUALITY,
        score.QUALITY,
    ]
    assert arms_at(tasks, "full") == [
        "weak", "strong", *both, "tstr:motion_gan", "tstr:kinetic_gan", score.QUALITY, score.QUALITY,
    ]  # fmt: skip
    for t, _ in tasks:
        wanted = t.arm.removeprefix("tstr:").removeprefix("adjusted:")
        assert not t.synthetic if wanted not in (*both, score.QUALITY) else t.synthetic.split("/")[-2] in both
        if wanted in both:
            assert t.synthetic.endswith(f"/{wanted}/synthetic")
    # The arms that need neither generator are those of a run that compares nothing.
    alone = score.plan_tasks(storage, "tiny", "r", replace(recipe, compared=()))
    assert {t.id for t, _ in alone} < {t.id for t, _ in tasks}


def test_chosen_arms(storage: Storage) -> None:
    recipe = replace(recipe_of(draws=1), full=True)
    only = score.chosen_arms(recipe, "motion_gan, weak")
    assert only == ("strong", "motion_gan", "weak") and score.chosen_arms(recipe, "") == ()
    synthesise(storage, recipe)
    tasks = score.plan_tasks(storage, "tiny", "r", recipe, only)
    assert arms_at(tasks) == arms_at(tasks, "full") == ["weak", "strong", "motion_gan"]
    some = score.chosen_arms(recipe, "tstr,quality")
    tasks = score.plan_tasks(storage, "tiny", "r", recipe, some)
    assert arms_at(tasks) == ["strong", score.QUALITY]
    assert arms_at(tasks, "full") == ["strong", "tstr:motion_gan", score.QUALITY]
    for given in ("adjusted", "adjusted:motion_gan"):
        tasks = score.plan_tasks(storage, "tiny", "r", recipe, score.chosen_arms(recipe, given))
        assert arms_at(tasks) == ["strong", given] and arms_at(tasks, "full") == ["strong"]
    for absent in ("hybrid", "tstr"):
        given = score.chosen_arms(recipe, absent)
        with pytest.raises(
            InputError, match=f"names '{absent}', which no bed of this run has. Its beds have: adjusted, "
        ):
            score.plan_tasks(storage, "tiny", "r", replace(recipe, full=False), given)
    with pytest.raises(
        InputError, match="Unknown arm 'kinetic_gan' in --arms. Known: weak, strong, ceiling, .*quality"
    ):
        score.chosen_arms(recipe, "strong,kinetic_gan")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_folds_make_one_table(tmp_path: Path, ray_local: None, capsys: pytest.CaptureFixture) -> None:
    storage, motions = Storage(tmp_path), make_tiny_set(2)
    write_dataset(storage, "data/tiny", motions, Header.of(motions, splits=tuple(s.to_dict() for s in FOLDS)))
    recipe = replace(recipe_of(draws=1, protocol="fold1"), protocols=("fold1", "fold2", "fold3"))
    synthesise(storage, recipe)
    result = score.score(storage, "tiny", "r", recipe, join, workers=1)
    # 9 arms and the quality of the set, in each fold.
    assert result["trained"] == 30 and result["test_readings"] == 1
    assert result["protocols"] == ["fold1", "fold2", "fold3"]
    for a in result["arms"]:
        assert a["runs"] == 3 and (a["arm"] == "strong" or a["difference"]["n"] == 3)
    rows = pq.read_table(io.BytesIO(storage.read("runs/r/tiny/score-test-tcn.parquet"))).to_pylist()
    assert {r["bed"].split("-")[0] for r in rows} == set(recipe.protocols) and len(rows) == 27
    score.report(result)
    assert "tiny, 3 protocols pooled (fold1, fold2, fold3), a third" in capsys.readouterr().out
    # A fold alone is there already.
    alone = score.score(storage, "tiny", "r", replace(recipe, protocols=("fold2",)), never)
    assert alone["trained"] == 0 and all(a["runs"] == 1 for a in alone["arms"])


def test_records_of_classes_that_nobody_shows_make_a_table() -> None:
    """Null in JSON, NaN in the table; the other draws still count."""
    record = ScoreRecord(
        protocol=1, dataset="d", bed="b", draw=0, split="test", arm="strong", recogniser="tcn", seed=0, top1=0.5,
        macro=0.5, rare_recall=math.nan, recalls=(0.5, math.nan), rare=(1,), confusion=((1, 1), (0, 0)), real_clips=3,
        synthetic_clips=0, steps=1, seconds=0.0,
    )  # fmt: skip
    stored = json.loads(json.dumps(score.cli.plain(record.to_dict()), allow_nan=False))
    shown = replace(record, draw=1, rare=(0,), rare_recall=0.5)
    tables = tables_of([ScoreRecord.from_dict(stored), shown], recipe_of())
    assert tables["rare_recalls"][0]["rare_recalls"] == {0: 0.5}
    (strong,) = tables["arms"]
    assert strong["rare_recall"]["mean"] == 50 and strong["rare_recall"]["n"] == 1


def test_the_training_is_set_from_the_command_line() -> None:
    recipe = get_recipe("motion_gan")
    tcn, tacnn = score.with_scores(recipe, "", 0, ("synthetic_share=0.3", "mixup=0.2")).scores
    assert (tcn.training.synthetic_share, tacnn.training.mixup) == (0.3, 0.2)
    assert replace(tcn.training, synthetic_share=0.5, mixup=0.0) == recipe.scores[0].training
    for wrong, sentence in (
        ("synthetic_share=0.7", "it must lie between 0 and 0.5"),
        ("synthetic_share=much", "synthetic_share is 'much'; it must be of type float, as 0.5 is"),
        ("steps=2.5", "steps is 2.5; it must be of type int"),
        ("recogniser=tcn", "has no setting 'recogniser' that could be set here. Known: optimiser"),
    ):
        with pytest.raises(InputError, match=sentence):
            score.with_scores(recipe, "", 0, (wrong,))


def test_a_recogniser_that_the_recipe_lacks_has_its_own_plan() -> None:
    recipe = get_recipe("motion_gan")
    only = score.with_scores(recipe, "tacnn", 1)
    assert [(p.training.recogniser, p.seeds) for p in only.scores] == [("tacnn", 1)]
    assert score.with_scores(recipe, "skeleton_cnn", 0).scores == (score_plan("skeleton_cnn"),)
    # What the recipe itself says about a recogniser comes first.
    debug = get_recipe("debug")
    assert score.with_scores(debug, "tcn", 0) == debug
    known = ", ".join(sorted(RECOGNISERS))
    with pytest.raises(InputError, match=f"Unknown recogniser 'lstm'. Known: {known}"):
        score.with_scores(recipe, "lstm", 0)


def test_as_many_workers_as_cores_and_gpus_take() -> None:
    big = Connection(address="10.0.0.1:6379", cpus=16.0, gpus=2.0, started=False)
    assert score.pool_size(big, 100) == 16 and score.pool_size(big, 5) == 5
    assert score.pool_size(big, 100, 0, 0.25) == 8 and score.pool_size(big, 100, 0, 0.05) == 16
    with pytest.raises(InputError, match="use at most 4 workers"):
        score.pool_size(big, 100, 5, 0.5)
    with pytest.raises(InputError, match="set the GPUs per worker to 0"):
        score.pool_size(replace(big, gpus=0.0), 100, 0, 0.5)


class DyingScorer(score.Scorer):
    """A scorer whose process dies in the first `deaths` calls, as when memory runs out; then it does its work."""

    deaths = score.MAX_RETRIES + 1

    def run(self, task: score.Task) -> str:
        tally = Path(self.prefix) / "deaths"
        died = tally.stat().st_size if tally.exists() else 0
        if died < self.deaths:
            with tally.open("a") as f:
                f.write("x")
            os._exit(1)
        (Path(self.prefix) / task.id).touch()
        return task.id


class AlwaysDyingScorer(DyingScorer):
    deaths = 10_000


class LostTogether(DyingScorer):
    deaths = 3


def three_tasks() -> list[score.Task]:
    training = recipe_of().scores[0].training
    return [
        score.Task(
            id=f"t{i}",
            bed=BedSpec(),
            arm="weak",
            training=training,
            seed=i,
            generator="",
            synthetic="",
            per_class=1,
        )
        for i in range(3)
    ]


@pytest.mark.parametrize("kind", [DyingScorer, AlwaysDyingScorer])
def test_a_worker_that_ray_gives_up_is_replaced_a_few_times(
    kind: type[DyingScorer],
    storage: Storage,
    tmp_path: Path,
    ray_local: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its death must not fail the tasks that others, or its successor, can do."""
    tasks = three_tasks()
    monkeypatch.setattr(score, "Scorer", kind)
    monkeypatch.setattr(score.experiment, "scores_prefix", lambda dataset: str(tmp_path))
    monkeypatch.setattr(score, "MAX_LOST", 1)
    if kind is DyingScorer:
        score.train_tasks(storage, "tiny", "r", tasks, 1)
        assert sorted(p.name for p in tmp_path.glob("t*")) == ["t0", "t1", "t2"]
    else:
        monkeypatch.setattr(score, "MAX_RETRIES", 0)  # each death is a process that starts again
        with pytest.raises(JobError, match="3 of 3 recognisers failed"):
            score.train_tasks(storage, "tiny", "r", tasks, 1)


def test_a_node_may_be_lost_with_all_its_workers(
    storage: Storage, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "Scorer", LostTogether)
    monkeypatch.setattr(score.experiment, "scores_prefix", lambda dataset: str(tmp_path))
    monkeypatch.setattr(score, "MAX_RETRIES", 0)
    monkeypatch.setattr(score, "MAX_LOST", 1)
    score.train_tasks(storage, "tiny", "r", three_tasks(), 3)
    assert sorted(p.name for p in tmp_path.glob("t*")) == ["t0", "t1", "t2"]
