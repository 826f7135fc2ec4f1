"""A whole search, killed on the way: nothing that was finished is done again, and the winner is a recipe that runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from motionsynth.errors import InputError
from motionsynth.recipe_files import read_recipe
from motionsynth.splits import Split
from rayjobs import progress as progress_module
from rayjobs import train
from rayjobs.progress import Progress
from storage import ConflictError, Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.hostile import Hostile
from tests.tiny_motion import make_tiny_set
from tuning import report, search
from tuning.space import Axis
from tuning.study import read_study
from tuning.trials import Halving, Recorder, confirm_best, load_records, values_of

ROOT = Path(__file__).resolve().parents[1]
SPLIT = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
FLOW = Axis(name="loss_weights.flow", kind="weight", default=0.5, low=0.05, high=5.0)
SHARE = Axis(name="synthetic_share", kind="linear", default=0.5, low=0.1, high=0.5)


def prepare(storage: Storage) -> Storage:
    motions = make_tiny_set(2)
    write_dataset(storage, "data/tiny", motions, Header.of(motions, splits=(SPLIT.to_dict(),)))
    return storage


def options(storage: Storage, **more: Any) -> search.Options:
    """A search that would need Ray at an address where none is."""
    base = {"storage": storage.uri, "dataset": "tiny", "recipe": "debug", "shots": 2, "draws": 1, "run": "s"}
    return search.Options(**{**base, "address": "nowhere:1", **more})


def command(storage: Storage, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "tuning.search", "--storage", storage.uri, "--dataset", "tiny"),
        *("--recipe", "debug", "--shots", "2", "--draws", "1", "--run", "s", "--json", *more),
    ]


def children(pid: int) -> dict[int, bytes]:
    """Command lines of the processes below one."""
    parent, title = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title[int(folder.name)] = (folder / "cmdline").read_bytes()
            parent[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue

    def below(one: int) -> bool:
        return one == pid or (one in parent and below(parent[one]))

    return {one: line for one, line in title.items() if one != pid and below(one)}


def wait_for(what: Any, process: subprocess.Popen, seconds: float = 200) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        assert process.poll() is None, "the search ended before it could be disturbed"
        time.sleep(0.1)
    raise AssertionError("nothing to disturb came up")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twice_it_goes_on_and_its_winner_runs(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    wanted = command(storage, "--trials", "5", "--at-once", "2", "--algorithm", "random", "--confirm", "2")
    process = subprocess.Popen(wanted, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # A trial in the middle: Tune starts it again.
        trial = wait_for(
            lambda: [p for p, line in children(process.pid).items() if b"ray::ImplicitFunc" in line], process
        )
        os.kill(trial[0], signal.SIGKILL)
        # The driver, once some trials are done.
        wait_for(lambda: sum(r["ended"] for r in load_records(storage, "s")) >= 1, process)
        process.kill()
    finally:
        process.kill()
        process.communicate()
    before = {r["id"]: r for r in load_records(storage, "s") if r["ended"]}
    assert 1 <= len(before) < 5
    # Tune's own state is pickled, and nobody reads it again, whatever somebody may have put into its place.
    theirs = [p for p in (tmp_path / "out" / "studies" / "s" / "tune").rglob("*") if p.is_file()]
    assert any(p.suffix == ".pkl" for p in theirs)
    for path in theirs:
        path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))

    done = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    result = json.loads(done.stdout.splitlines()[-1])
    records = load_records(storage, "s")
    assert [r["number"] for r in records] == list(range(5)) and all(r["ended"] for r in records)
    searched = [{k: v for k, v in r.items() if k != "confirmed"} for r in records]
    assert {r["id"]: r for r in searched if r["id"] in before} == before
    assert result["trials"] == 5 and done.stdout.count("\ntrial ") == 5 - len(before)
    # What each number tries is decided by the seed, whatever was killed.
    _, axes = search.planned(options(storage), storage)
    assert [r["positions"] for r in records] == [search.positions_of(axes, 0, n) for n in range(5)]
    # Trial 0 is the recipe as it is, and is never stopped early.
    assert records[0]["values"] == {a.name: a.default for a in axes}
    assert records[0]["rungs"][-1]["fraction"] == 1.0

    # The best and the default were judged again by a seed that had not chosen them, and the best by it won.
    again = {r["number"]: r["confirmed"] for r in records if r.get("confirmed")}
    ended = [r for r in records if r["rungs"][-1]["fraction"] == 1]
    best = sorted(ended, key=lambda r: (-r["rungs"][-1]["rare_ap"], r["number"]))[:2]
    assert set(again) == {0, *(r["number"] for r in best)}
    assert all({run["seed"] for run in judged["runs"]} == {1} for judged in again.values())
    assert result["winner"] == max(again, key=lambda n: (again[n]["rare_ap"], -n))
    assert re.search(
        r"judged again by 1 new seeds of each draw, at most about \d+\.\d minutes\n", done.stdout
    )

    # Once more: nothing is left to do, and Ray is not asked for.
    again = search.verb(options(storage, trials=5, at_once=2, algorithm="random", confirm=2))
    assert again["winner"] == result["winner"]
    base = tmp_path / "out" / "studies" / "s"
    assert (base / "response.png").read_bytes()[:4] == b"\x89PNG"
    rows = pq.read_table(base / "trials.parquet").to_pylist()
    assert len(rows) == sum(len(r["rungs"]) for r in records) + sum(bool(r.get("confirmed")) for r in records)
    assert "loss_weights.flow" in (base / "report.md").read_text()
    # The winner's recipe is read by every job.
    winner = records[result["winner"]]["values"]
    recipe = read_recipe(base / "best.json")
    assert recipe.generator_config.loss_weights["flow"] == winner["loss_weights.flow"]
    assert recipe.synthetic_per_class == winner["synthetic_per_class"]
    chosen = train.Options(
        storage=storage.uri, dataset="tiny", recipe=str(base / "best.json"), shots=2, draws=1
    ).chosen(storage)
    assert chosen.training == recipe.training and chosen.bed.shots == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_s3_with_tpe_and_the_test_half_last(s3_uri: str) -> None:
    storage = prepare(Storage(s3_uri))
    more = ("--trials", "2", "--only", "mixing", "--minutes", "60")
    done = subprocess.run(command(storage, *more), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    records = load_records(storage, "s")
    assert [r["number"] for r in records] == [0, 1] and all(len(r["rungs"]) == 1 for r in records)
    # The generator was trained once, for all of them.
    assert len({o.key.split("/")[1] for o in storage.list("runs") if "/checkpoints/" in o.key}) == 1
    assert any("events.out.tfevents" in o.key for o in storage.list("studies/s/tune"))
    study = read_study(storage, "s")
    # Whoever won, let trial 1 have done so: then there is something to compare.
    record = records[1] | {"confirmed": records[1]["confirmed"] | {"rare_ap": 1.5}}
    storage.write("studies/s/trials/00001.json", json.dumps(record).encode())
    judged = subprocess.run(
        [
            *(sys.executable, "-m", "tuning.report", "--storage", storage.uri, "--run", "s"),
            *("--test", "--seeds", "2", "--json"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    result = json.loads(judged.stdout.splitlines()[-1])
    assert result["winner"] == 1 and result["test"]["tuned_over_default"]["tcn"]["n"] == 2
    assert all(line in judged.stdout for line in ("\ntuned ", "\ndefault ", "\nceiling ", "tuned - default:"))
    assert json.loads(storage.read("data/tiny-test-readings.json"))["readings"] >= 1
    # They differ in mixing alone: one training on the test half's draws serves both.
    trained = {o.key.split("/")[1] for o in storage.list("runs") if "/checkpoints/" in o.key}
    assert "s-default" in trained and "s-tuned" not in trained
    assert study.algorithm == "tpe" and storage.exists("studies/s/report-test.json")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_population_changes_its_settings_and_repeats_itself(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    wanted = command(storage, "--trials", "4", "--algorithm", "pbt", "--only", "weights", "--reduction", "2")
    done = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    records = load_records(storage, "s")
    assert [r["number"] for r in records] == [0, 1, 2, 3]
    assert all([j["fraction"] for j in r["rungs"]] == [0.5, 1.0] and r["ended"] for r in records)
    # One of four took over another's generator and settings, changed: what it started with is not what it has.
    _, axes = search.planned(replace(options(storage), only="weights", algorithm="pbt"), storage)
    moved = [r for r in records if r["values"] != values_of(axes, r["positions"])]
    assert len(moved) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"trials": 0}, "--trials is 0; it must be at least 1"),
        ({"reduction": 1}, "--reduction is 1"),
        ({"minutes": -1.0}, "--minutes is -1.0"),
        ({"algorithm": "grid"}, "Unknown algorithm 'grid'. Known: tpe, random, pbt"),
        ({"algorithm": "pbt", "rungs": 1}, "give --rungs of at least 2"),
        ({"algorithm": "pbt", "only": "mixing"}, "search at least one setting of the training"),
        ({"metric": "top1"}, "Unknown metric 'top1'. Known: rare_ap, rare_recall, macro"),
        ({"split": "test"}, "A search reads validation people only"),
        ({"arms": "weak"}, "A search has no --arms"),
        ({"only": "mixed"}, "no group of axes 'mixed'"),
        ({"only": "refining"}, "add --refined"),
        ({"recipe": "debug,kinetic_gan"}, "A search is over one recipe"),
        ({"scarcity": "full"}, "nothing to maximise"),
        ({"vary": ("loss_weights.foo=1:2",)}, "no loss term 'foo'"),
        ({"vary": ("loss_weights.flow=-2:2",)}, "both ends must be above 0"),
        ({"vary": ("flow",)}, "must be NAME=LOW:HIGH"),
        ({"vary": ("mixup=0:0.5", "mixup=0:0.4")}, "each name once"),
        ({"minutes": 1e-6}, "the budget is 1e-06; raise --minutes"),
        ({"resume": True}, "There is no study 's' to resume"),
        ({"confirm": -1}, "--confirm is -1; it must be at least 0"),
    ],
)
def test_wrong_wishes_are_one_sentence_before_ray_starts(
    tmp_path: Path, more: dict[str, Any], sentence: str
) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    with pytest.raises(InputError) as caught:
        search.verb(options(storage, **more))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not storage.list("runs") and not storage.list("studies")


def test_a_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        search.verb(replace(options(Storage(tmp_path)), storage=str(tmp_path / "file" / "out")))


def test_more_than_ray_has_is_refused_with_the_sum(tmp_path: Path, ray_local: None) -> None:
    """Six logical CPUs and no GPU."""
    storage = prepare(Storage(tmp_path / "out"))
    for more, sentence in (
        ({"gpus_per_trial": 1.0}, "GPU"),
        ({"at_once": 4, "cpus_per_trial": 2.0, "trials": 9}, "4 workers x 2 CPU + 0 tasks x 1 CPU = 8 CPUs"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            search.verb(options(storage, address="local", run=f"r{len(more)}", **more))
    assert not storage.list("studies")


def test_another_study_of_the_name_is_refused(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    first = options(storage)
    job, axes = search.planned(first, storage)
    study = search.study_of(first, job, axes)
    assert search.check_study(storage, "s", study, resume=False)
    search.begin_study(storage, "s", study)
    # More trials are the same study.
    more = search.study_of(replace(first, trials=99), job, axes)
    assert not search.check_study(storage, "s", more, resume=True)
    other = replace(first, vary=("mixup=0:0.3",))
    job, axes = search.planned(other, storage)
    with pytest.raises(ConflictError, match="started with other settings .*axes.*choose another --run"):
        search.check_study(storage, "s", search.study_of(other, job, axes), resume=False)


def test_a_study_from_before_there_was_a_choice_goes_on_by_recall(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    by_recall, by_ap = options(storage, metric="rare_recall"), options(storage)
    job, axes = search.planned(by_recall, storage)
    study = search.study_of(by_recall, job, axes)
    search.begin_study(storage, "s", {k: v for k, v in study.items() if k != "metric"})
    assert not search.check_study(storage, "s", study, resume=True)
    job, axes = search.planned(by_ap, storage)
    with pytest.raises(ConflictError, match=r"started with other settings \(metric\)"):
        search.check_study(storage, "s", search.study_of(by_ap, job, axes), resume=True)


def test_a_study_from_before_recipes_named_their_rivals_goes_on(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    job, axes = search.planned(options(storage), storage)
    study = search.study_of(options(storage), job, axes)
    without = {r: {k: v for k, v in study[r].items() if k != "rivals"} for r in ("base", "searched")}
    search.begin_study(storage, "s", study | without)
    assert not search.check_study(storage, "s", study, resume=True)
    with pytest.raises(ConflictError, match=r"started with other settings \(searched\)"):
        search.check_study(storage, "s", study | {"searched": study["searched"] | {"draws": 9}}, resume=True)


def fake(number: int, **config: float) -> Any:
    return SimpleNamespace(trial_id=f"t{number}", config=config)


def test_halving_stops_what_is_behind_and_never_the_default() -> None:
    at = {"loss_weights.flow": FLOW.position(0.5), "synthetic_share": 0.2}
    default = {**at, "synthetic_share": SHARE.position(0.5)}
    known = [{1: 0.5, 3: 0.6}, {1: 0.6, 3: 0.7}, {1: 0.7, 3: 0.8}]

    def verdict(recall: float, config: dict[str, float]) -> str:
        scheduler = Halving([FLOW, SHARE], known, max_t=4, reduction_factor=3)
        trial = SimpleNamespace(trial_id="x", config=config)
        scheduler.on_trial_add(None, trial)  # pyright: ignore
        return scheduler.on_trial_result(None, trial, {"units": 1, "value": recall})

    assert verdict(0.4, at) == Halving.STOP and verdict(0.9, at) == Halving.CONTINUE
    assert verdict(0.4, default) == Halving.CONTINUE


def test_records_keep_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    storage = Storage(tmp_path)
    tpe = options(storage, trials=3)
    positions = [search.positions_of((FLOW, SHARE), 0, n) for n in range(3)]
    assert values_of((FLOW, SHARE), positions[0]) == {"loss_weights.flow": 0.5, "synthetic_share": 0.5}
    judged = {"fraction": 1.0, "rare_ap": 0.5, "gain": {"mean": 1.0}, "trained": 6}
    axes = (FLOW, SHARE)
    first = Recorder(storage, "s", axes, search.to_start(tpe, axes, []), 3, "rare_ap")
    for n in (1, 0):  # two trials start at once, the default second
        first.on_trial_start(0, [], fake(n, **positions[n]))
    first.on_trial_result(0, [], fake(0, **positions[0]), {"judged": json.dumps(judged), "values": "{}"})
    first.on_trial_complete(0, [], fake(0, **positions[0]))
    assert "trial 0 (1 of 3 done): rare AP 50.0 %, +1.0 over strong" in capsys.readouterr().out
    # Killed here. The next search gives the unfinished trial its number, and the new one the next.
    second = Recorder(
        storage, "s", axes, search.to_start(tpe, axes, load_records(storage, "s")), 3, "rare_ap"
    )
    for n in (2, 1):
        second.on_trial_start(0, [], fake(10 + n, **positions[n]))
    second.on_trial_result(
        0, [], fake(11, **positions[1]), {"error": "Loss term 'x' became nan", "judged": ""}
    )
    second.on_trial_complete(0, [], fake(11, **positions[1]))
    assert "trial 1 (2 of 3 done): Loss term 'x' became nan" in capsys.readouterr().out
    records = load_records(storage, "s")
    assert [(r["number"], r["ended"]) for r in records] == [(0, True), (1, True), (2, False)]
    assert [r["positions"] for r in records] == positions
    # Stopped by the clock and not by its rivals: not ended.
    planned = search.to_start(tpe, axes, load_records(storage, "s"))
    assert planned == {2: positions[2]}
    third = Recorder(storage, "s", axes, planned, 3, "rare_ap", minutes=1e-9)
    third.on_trial_start(0, [], fake(22, **positions[2]))
    third.on_trial_result(
        0, [], fake(22, **positions[2]), {"judged": json.dumps({**judged, "fraction": 0.3}), "values": "{}"}
    )
    third.on_trial_complete(0, [], fake(22, **positions[2]))
    assert not load_records(storage, "s")[2]["ended"]


def test_how_long_a_trial_usually_takes_is_not_told_by_those_that_were_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    progress = Progress("search", 40, "trials", at_once=2)
    progress.hold({"trials": ""})
    recorder = Recorder(Storage(tmp_path), "s", (FLOW, SHARE), {}, 40, "rare_ap", progress=progress)

    def trial(number: int, trained: int) -> None:
        config = search.positions_of((FLOW, SHARE), 0, number)
        judged = {"fraction": 1.0, "rare_ap": 0.5, "gain": {"mean": 1.0}, "trained": trained}
        recorder.on_trial_start(0, [], fake(number, **config))
        recorder.on_trial_result(
            0, [], fake(number, **config), {"judged": json.dumps(judged), "values": "{}"}
        )
        recorder.on_trial_complete(0, [], fake(number, **config))

    for n in range(20):
        now[0] += 0.1
        trial(n, 0)
    assert progress.done == 20 and progress.to_dict()["usual_seconds"] is None
    for n in range(20, 28, 2):  # two at a time, which end together
        now[0] += 200.0
        trial(n, 6)
        trial(n + 1, 6)
    assert progress.done == 28 and progress.to_dict()["usual_seconds"] == pytest.approx(200, abs=5)


def test_what_is_known_before_it_starts(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    at = [search.positions_of((FLOW, SHARE), 7, n) for n in range(4)]
    assert at[0] == {"loss_weights.flow": FLOW.position(0.5), "synthetic_share": 1.0} and at[1] != at[2]
    # The driver was killed while trial 0 had not started yet.
    records = [
        {"number": 1, "positions": at[1], "ended": True},
        {"number": 2, "positions": at[2], "ended": False},
    ]
    for algorithm, numbers in (("tpe", [0, 2]), ("random", [0, 2, 3]), ("pbt", [0, 1, 2, 3])):
        wish = options(storage, trials=4, seed=7, algorithm=algorithm)
        planned = search.to_start(wish, (FLOW, SHARE), records)
        assert list(planned) == numbers and all(planned[n] == at[n] for n in numbers)


def test_nothing_is_read_where_the_default_won(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    first = options(storage)
    job, axes = search.planned(first, storage)
    search.begin_study(storage, "s", search.study_of(first, job, axes))
    judged = {
        "fraction": 1.0, "steps": 8, "rare_recall": 0.5, "rare_ap": 0.5, "macro": 0.5, "seconds": 1.0, "runs": [],
        "gain": {"mean": 1.0, "lo": 0.0, "hi": 2.0, "n": 2},
    }  # fmt: skip
    record = {
        "id": "00000", "number": 0, "positions": search.positions_of(axes, 0, 0), "ended": True, "error": "",
        "values": {a.name: a.default for a in axes}, "rungs": [judged],
    }  # fmt: skip
    storage.write("studies/s/trials/00000.json", json.dumps(record).encode())
    chosen = report.Options(storage=storage.uri, run="s", address="nowhere:1", test=True)
    assert report.verb(chosen)["test"]["winner"] == 0
    assert "nothing to compare it with" in capsys.readouterr().out
    assert not storage.exists("data/tiny-test-readings.json")


def test_trials_that_do_not_say_where_their_clips_lie_are_not_judged_again(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    first = options(storage)
    job, _ = search.planned(first, storage)
    record = {
        "id": "00000",
        "number": 0,
        "values": {},
        "error": "",
        "rungs": [{"fraction": 1.0, "rare_ap": 0.5}],
    }
    storage.write("studies/s/trials/00000.json", json.dumps(record).encode())
    with pytest.raises(InputError, match="do not say where their clips lie.* --confirm 0, or another --run"):
        confirm_best(job, "s", 4, 1, lambda: pytest.fail("Ray was asked for"))


def test_a_report_needs_a_finished_trial(tmp_path: Path) -> None:
    storage = prepare(Storage(tmp_path / "out"))
    first = options(storage)
    search.begin_study(storage, "s", search.study_of(first, *search.planned(first, storage)))
    with pytest.raises(InputError, match="No trial of study 's' has reached the last rung"):
        report.write_report(storage, "s")
    with pytest.raises(InputError, match="no study 'other' in this storage. Known: s"):
        report.write_report(storage, "other")
