"""A study as participants meet it: a real server in a process of its own, killed in the middle, and a real browser."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from motionsynth.motion import MotionSet
from motionsynth.splits import Split
from rayjobs import experiment, study
from rayjobs.cli import main
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests import web_server
from tests.tiny_motion import make_tiny_set
from tests.web_server import browser, call

pytest.importorskip("fastapi", reason="pip install 'motionsynth[web]'")

ROOT = Path(__file__).resolve().parents[1]
SPLITS = (Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),)
PER_TASK = 6


def options(storage: Storage, **given: Any) -> study.Options:
    fixed = {"dataset": "tiny", "recipe": "debug", "run": "r", "per_task": PER_TASK}
    return study.Options(storage=storage.uri, **(fixed | given))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A prepared dataset and a generated set of its first draw (real clips in disguise)."""
    storage = Storage(tmp_path_factory.mktemp("study"))
    real = make_tiny_set(4)
    header = Header.of(real, splits=tuple(s.to_dict() for s in SPLITS))
    write_dataset(storage, "data/tiny", real, header)
    recipe = options(storage).chosen(storage)
    prefix = experiment.synthetic_prefix("r", "tiny", recipe.beds[0], recipe.generator)
    clips = tuple(
        replace(m, sample_id=f"syn-{i:03d}", source="synthetic", generator="motion_gan")
        for i, m in enumerate(real.motions)
    )
    write_dataset(storage, prefix, replace(real, motions=clips), Header.of(real), kind="generated")
    return storage


@contextmanager
def serving(storage: Storage, answers: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The verb as a process; its address."""
    options = ["--dataset", "tiny", "--recipe", "debug", "--run", "r", "--storage", storage.uri]
    options += ["--per-task", str(PER_TASK), "--answers", str(answers)]
    with web_server.serving("rayjobs.study", *options) as found:
        yield found


def join(base: str, code: str) -> Any:
    status, told = call(base, "api/join", {"code": code, "agree": True})
    assert status == 200, told
    return told


def give(base: str, code: str, number: int, answer: str) -> tuple[int, Any]:
    return call(base, "api/answer", {"code": code, "number": number, "answer": answer, "milliseconds": 1234})


def test_answers_survive_a_kill_and_the_participant_goes_on(made: Storage, tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    with serving(made, file) as (base, process):
        assert join(base, "ann") == {"answered": 0, "trials": 2 * PER_TASK}
        for n in range(5):
            trial = call(base, "api/trial", {"code": "ann"})[1]
            assert trial["number"] == n
            assert give(base, "ann", n, trial["answers"][0]["value"])[0] == 200
        process.send_signal(signal.SIGKILL)
        process.wait()
    with serving(made, file) as (base, process):
        assert join(base, "ann")["answered"] == 5
        told = {"done": False}
        while not (told := call(base, "api/trial", {"code": "ann"})[1])["done"]:
            # The confirmation of the last answer could have been lost: giving it again is no mistake.
            for _ in range(2):
                assert give(base, "ann", told["number"], told["answers"][0]["value"])[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    result = study.verb(options(made, answers=file, export=True))
    rows = pq.read_table(Path(made.uri) / result["file"]).to_pylist()
    assert [(r["participant"], r["trial"]) for r in rows] == [(0, n) for n in range(2 * PER_TASK)]
    assert result["answers"] == 2 * PER_TASK and result["participants"] == 1
    assert sum(r["correct"] for r in rows if r["source"] == "real" and r["task"] == "origin") == round(
        next(s for s in result["scores"] if (s["task"], s["source"]) == ("origin", "real"))["share"]["mean"]
        * PER_TASK / 2
    )  # fmt: skip
    # The code is the participant's own and leaves the file in no export.
    assert not any("ann" in str(r.values()) for r in rows)


def test_nothing_that_is_sent_tells_where_a_clip_is_from(made: Storage, tmp_path: Path) -> None:
    with serving(made, tmp_path / "a.sqlite") as (base, _):
        join(base, "blind")
        for n in range(2 * PER_TASK):
            trial = call(base, "api/trial", {"code": "blind"})[1]
            assert set(trial) == {"done", "trials", "number", "task", "question", "answers", "clip"}
            assert set(trial["clip"]) == {"fps", "bones", "persons"}
            values = [a["value"] for a in trial["answers"]]
            assert values == (["real", "synthetic"] if trial["task"] == "origin" else ["0", "1", "2"])
            give(base, "blind", n, values[0])


def test_many_participants_at_once_lose_no_answer(made: Storage, tmp_path: Path) -> None:
    file = tmp_path / "b.sqlite"

    def take_part(code: str) -> int:
        join(base, code)
        given = 0
        while not (trial := call(base, "api/trial", {"code": code})[1])["done"]:
            given += give(base, code, trial["number"], trial["answers"][-1]["value"])[0] == 200
        return given

    with serving(made, file) as (base, _), ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(take_part, [f"p-{i}" for i in range(8)]))
    assert counts == [2 * PER_TASK] * 8
    result = study.verb(options(made, answers=file, export=True))
    assert (result["participants"], result["answers"]) == (8, 16 * PER_TASK)
    rows = pq.read_table(Path(made.uri) / result["file"]).to_pylist()
    assert len({(r["participant"], r["trial"]) for r in rows}) == len(rows)


def test_what_is_sent_is_checked(made: Storage, tmp_path: Path) -> None:
    with serving(made, tmp_path / "c.sqlite") as (base, _):
        assert call(base, "api/join", {"code": "eve", "agree": False})[0] == 403
        for code in ("", "ab", "a b c", "x" * 41, "../../etc", 5, None):
            assert call(base, "api/join", {"code": code, "agree": True})[0] == 422
        assert call(base, "api/trial", {"code": "nobody"})[0] == 404
        join(base, "eve")
        assert give(base, "eve", 0, "42")[0] == 422 and give(base, "eve", 9999, "0")[0] == 422
        assert give(base, "nobody", 0, "0")[0] == 404
        trial = call(base, "api/trial", {"code": "eve"})[1]
        first, second = (trial["answers"][i]["value"] for i in (0, 1))
        status, said = give(base, "eve", 3, "0" if trial["task"] == "action" else "real")
        assert status == 409 and "not the next one" in said["detail"]
        assert give(base, "eve", 0, first)[0] == 200
        status, said = give(base, "eve", 0, second)
        assert status == 409 and "has its answer already" in said["detail"]
        extra = {"code": "eve", "number": 1, "answer": first, "milliseconds": 1, "correct": True}
        assert call(base, "api/answer", extra)[0] == 422
        assert call(base, "api/join", {"code": "x" * 5000, "agree": True})[0] == 413
        # A page of somebody else's that names a host of its own.
        assert call(base, "api/study", Host="evil.example")[0] == 400
        assert call(base, "api/../rayjobs/study.py")[0] == 404


def test_a_file_of_another_study_is_refused(
    made: Storage, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "d.sqlite"
    with serving(made, file) as (base, _):
        join(base, "ann")
    before = file.read_bytes()
    base_args = ["--dataset", "tiny", "--recipe", "debug", "--run", "r", "--storage", made.uri, "--export"]
    cases = [
        (["--answers", str(file), "--per-task", "8"], "holds the answers of another study"),
        (["--answers", str(tmp_path / "none.sqlite")], "There are no answers at"),
        (["--answers", str(file), "--per-task", str(PER_TASK)], "Nobody has answered yet"),
        (["--answers", str(ROOT / "README.md"), "--per-task", str(PER_TASK)], "cannot be used"),
        (["--answers", str(file), "--draw", "7"], "--draw is 7; this run has 2"),
        (["--answers", str(file), "--split", "test"], "people of the training half only"),
        (["--machine"], "give one of the two"),
        (
            ["--answers", str(file), "--recipe", "skel_diffusion"],
            "There are no synthetic clips of skel_diffusion",
        ),
    ]
    for more, sentence in cases:
        with pytest.raises(SystemExit) as stop:
            main(study.Options, study.verb, [*base_args, *more])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and sentence in said and len(said.strip().splitlines()) == 1, said
    assert file.read_bytes() == before and "motionsynth" in (ROOT / "README.md").read_text()


def test_a_machine_answers_under_its_own_name(made: Storage, capsys: pytest.CaptureFixture) -> None:
    result = study.verb(options(made, machine=True))
    assert result["who"] == "machine" and "participants" not in result
    assert capsys.readouterr().out.startswith("MACHINE score, no person was asked")
    kept = json.loads(made.read(result["file"]))
    assert {s["task"] for s in kept["scores"]} == {"action"} and kept["indistinguishable"] is None


def test_a_person_takes_part_in_a_browser(made: Storage, tmp_path: Path) -> None:
    with serving(made, tmp_path / "e.sqlite") as (base, process), browser() as page:
        problems: list[str] = []
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto(base)
        page.check("#agree")
        page.fill("#code", "grace")
        page.click("text=Start")
        for n in range(2 * PER_TASK):
            page.get_by_text(f"{n + 1} of {2 * PER_TASK}", exact=True).wait_for()
            if n == 0:
                ink = "document.querySelector('#stage').toDataURL()"
                first = page.evaluate(ink)
                while page.evaluate(ink) == first:  # it moves; else the test's timeout ends this
                    page.wait_for_timeout(50)
            if n == 4:
                page.reload()  # the same code goes on
                page.check("#agree")
                page.fill("#code", "grace")
                page.click("text=Start")
                page.get_by_text(f"5 of {2 * PER_TASK}", exact=True).wait_for()
            if n % 2:
                page.keyboard.press("2")
            else:
                page.click("#answers button >> nth=0")
        page.wait_for_selector("text=Thank you.")
        assert problems == []
        assert process.poll() is None
    result = study.verb(options(made, answers=tmp_path / "e.sqlite", export=True))
    assert result["answers"] == 2 * PER_TASK


def test_the_set_is_one_of_this_dataset(made: Storage) -> None:
    bed, synthetic, request = study.clips_of(made, options(made), options(made).chosen(made))
    assert isinstance(synthetic, MotionSet) and {m.source for m in synthetic.motions} == {"synthetic"}
    assert {m.subject for m in bed.evaluate.motions}.isdisjoint(m.subject for m in bed.train.motions)
    assert request["bed"] == bed.spec.key
