"""Browsing as a person does it: a real server, a real browser, marks that the next reader honours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from motionsynth.motion import MotionSet
from rayjobs import explore
from rayjobs.cli import main
from storage import Storage
from storage.dataset import read_dataset, write_dataset
from storage.decisions import read_decisions
from storage.header import Header
from tests.tiny_motion import make_tiny_set
from tests.web_server import browser, call, serving

pytest.importorskip("fastapi", reason="pip install 'motionsynth[web]'")


def filled(uri: str) -> tuple[Storage, MotionSet]:
    """A prepared dataset, and a generated set with quality columns."""
    storage, real = Storage(uri), make_tiny_set(2)
    write_dataset(storage, "data/tiny", real, Header.of(real), rows_per_shard=20)
    made = tuple(
        replace(m, sample_id=f"syn-{i:02d}", source="synthetic", novelty=i / 50, class_confidence=1 - i / 50)
        for i, m in enumerate(real.motions)
    )
    write_dataset(storage, "runs/r/synthetic", replace(real, motions=made), Header.of(real), kind="generated")
    return storage, real


def test_what_is_marked_reads_as_refused(storage_uri: str) -> None:
    storage, _ = filled(storage_uri)
    with serving("rayjobs.explore", "--storage", storage.uri) as (base, _):
        assert call(base, "api/sets")[1]["sets"] == ["data/tiny", "runs/r/synthetic"]
        about = call(base, "api/about", {"set": 1})[1]
        assert (about["kind"], about["clips"], about["quality"]) == (
            "generated", 48, ["class_confidence", "novelty"],
        )  # fmt: skip
        query = {"set": 1, "order": "novelty", "descending": True, "ranges": {"novelty": [0.5, None]}}
        found = call(base, "api/clips", query)[1]
        assert found["total"] == 23 and found["clips"][0]["sample_id"] == "syn-47"
        clip = call(base, "api/clip", {"set": 1, "sample_id": "syn-03"})[1]
        assert len(clip["persons"]) == 1 and len(clip["persons"][0][0]) == 20 and len(clip["bones"]) == 19
        mark = {"set": 1, "sample_id": "syn-03", "bad": True, "reason": "folds"}
        assert call(base, "api/mark", mark)[1]["marked"] == 1
        assert call(base, "api/clips", {"set": 1, "state": "marked"})[1]["clips"][0]["mark"] == "folds"
        refused = [
            m.sample_id for m in read_dataset(storage, "runs/r/synthetic")[0].motions if m.accepted is False
        ]
        assert refused == ["syn-03"]
        assert call(base, "api/mark", {**mark, "bad": False})[1] == {"marked": 0, "decision": None}
    assert read_decisions(storage, "runs/r/synthetic") == {}


def test_what_is_asked_is_checked(tmp_path: Path) -> None:
    storage, _ = filled(str(tmp_path))
    with serving("rayjobs.explore", "--storage", storage.uri, "--data", "runs") as (base, _):
        assert call(base, "api/sets")[1]["sets"] == ["runs/r/synthetic"]
        assert (
            call(base, "api/about", {"set": 7})[0] == 404 and call(base, "api/about", {"set": -1})[0] == 422
        )
        assert call(base, "api/clip", {"set": 0, "sample_id": "../../x"})[0] == 404
        assert call(base, "api/clips", {"set": 0, "order": "secret"})[0] == 422
        assert call(base, "api/clips", {"set": 0, "ranges": {"label": [0, 1]}})[0] == 422
        assert call(base, "api/clips", {"set": 0, "start": -5})[0] == 422
        assert (
            call(base, "api/mark", {"set": 0, "sample_id": "syn-01", "bad": True, "reason": "x" * 201})[0]
            == 422
        )
        assert (
            call(base, "api/mark", {"set": 0, "sample_id": "syn-01", "bad": True}, Host="evil.example")[0]
            == 400
        )
        assert call(base, "static/../explore.py")[0] == 404
        assert read_decisions(storage, "runs/r/synthetic") == {}


def test_nothing_to_browse_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    filled(str(tmp_path / "full"))
    for args, sentence in (
        (["--storage", str(tmp_path / "empty")], "There is no finished dataset in"),
        (["--storage", str(tmp_path / "full"), "--data", "runs/other"], "at or below 'runs/other'"),
        (["--storage", str(tmp_path / "full"), "--host", "203.0.113.7"], "Cannot listen on"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(explore.Options, explore.verb, args)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and sentence in said and len(said.strip().splitlines()) == 1


def test_a_person_filters_watches_and_marks(tmp_path: Path) -> None:
    storage, _ = filled(str(tmp_path))
    with serving("rayjobs.explore", "--storage", storage.uri) as (base, _), browser() as page:
        problems: list[str] = []
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto(base)
        page.select_option("#set", label="runs/r/synthetic")
        page.get_by_text("1 to 48 of 48").wait_for()
        page.select_option("#label", label="wave left hand")
        page.get_by_text("1 to 16 of 16").wait_for()
        page.fill("#novelty-from", "0.6")
        page.press("#novelty-from", "Enter")
        page.get_by_text("1 to 2 of 2").wait_for()
        ink = "document.querySelector('#stage').toDataURL()"
        first = page.evaluate(ink)
        while page.evaluate(ink) == first:  # it moves; else the test's timeout ends this
            page.wait_for_timeout(50)
        page.click("#play")
        page.locator("#scrub").evaluate("e => { e.value = 5; e.dispatchEvent(new Event('input')); }")
        still = page.evaluate(ink)
        page.wait_for_timeout(300)
        assert (
            page.evaluate(ink) == still
            and page.evaluate("Number(document.querySelector('#scrub').value)") == 5
        )
        box = page.locator("#stage").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 180, box["y"] + 100)
        page.mouse.up()
        assert page.evaluate(ink) != still
        name = page.locator("#name").inner_text()
        page.fill("#reason", "leans")
        page.click("#mark")
        page.get_by_text("Take the mark back").wait_for()
        assert read_decisions(storage, "runs/r/synthetic")[name].reason == "leans"
        page.select_option("#state", label="marked")
        page.get_by_text("1 to 1 of 1").wait_for()
        assert page.locator("#rows tr.bad td").first.inner_text() == name and problems == []
        page.screenshot(path=str(tmp_path / "explore.png"))
