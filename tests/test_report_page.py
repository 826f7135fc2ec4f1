"""The page as text: one file that loads nothing, and no text of a dataset becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from motionsynth.errors import InputError
from motionsynth.report import render, sections
from motionsynth.report.motion_sections import embedded
from motionsynth.report.page import SECTIONS
from tests.tiny_report import CLASS_NAMES, run_in_memory


class Reader(HTMLParser):
    """Elements with their attributes, the text of scripts and styles, and unclosed elements."""

    VOID = {"meta", "input", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.raw.append((self.open[-1], data))
        else:
            self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render(run_in_memory())


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_every_element_is_closed_and_names_stay_text(reader: Reader) -> None:
    assert reader.open == []
    assert all(name in reader.text for name in CLASS_NAMES) and "Tiny <b>set</b>" in reader.text
    assert len([e for e, _ in reader.elements if e == "script"]) == 3
    assert "Only for <i>tests</i>" in reader.text and "i" not in {
        e for e, a in reader.elements if not a.get("class")
    }


def test_nothing_is_loaded_and_nothing_handles_events_inline(reader: Reader) -> None:
    names = {name for _, attributes in reader.elements for name in attributes}
    assert not [n for n in names if n.startswith("on")] and "style" not in names and "src" not in names
    links = [a["href"] for _, a in reader.elements if "href" in a]
    ids = {a["id"] for _, a in reader.elements if "id" in a}
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_policy_allows_what_is_inside_and_no_more(reader: Reader) -> None:
    (policy,) = (a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed["default-src"] == "'none'" and "unsafe" not in policy and "http" not in policy
    code = [text for kind, text in reader.raw if kind == "script"][-2:]
    styles = [text for kind, text in reader.raw if kind == "style"]
    for texts, rule in ((code, "script-src"), (styles, "style-src")):
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert allowed[rule].split() == [f"'sha256-{d}'" for d in digests]


def test_the_clips_come_back_from_the_page(reader: Reader) -> None:
    data = json.loads(next(text for kind, text in reader.raw if kind == "script"))
    assert [c["name"] for c in data["classes"]] == list(CLASS_NAMES)


def test_embedded_text_cannot_end_its_element() -> None:
    assert "</script><script>" not in embedded("x", {"a": "</script><script>evil()"})


def test_sections_are_those_that_have_something_to_show(page: str) -> None:
    anchors = re.findall(r'<section id="(\w+)"', page)
    # No figures of the generated set were given.
    assert anchors == [anchor for anchor, *_ in SECTIONS if anchor != "quality"]
    run = run_in_memory({"strong": [(0.5, 0.5, 0.5)], "ceiling": [(0.9, 0.9, 0.9)]})
    bare = replace(run, sets=[replace(run.sets[0], attention={}, curves={})])
    anchors = re.findall(r'<section id="(\w+)"', render(bare))
    assert anchors == ["gain", "motions", "projection", "nearest", "physics"]
    assert "No generator was scored beside the strong real arm" in render(bare)


@pytest.mark.parametrize(
    ("may", "said"),
    [
        (True, "Its terms allow passing clips on."),
        (False, "Its terms forbid passing clips on, and so this file."),
        (None, "Pass this file on only to those who may have these clips."),
    ],
)
def test_the_foot_says_who_may_have_the_file(may: bool | None, said: str) -> None:
    run = run_in_memory()
    assert said in Reader(render(replace(run, about={**run.about, "may_redistribute": may}))).text


def test_without_clips_no_coordinate_of_a_clip_is_inside() -> None:
    whole, reader = run_in_memory(), Reader(page := render(replace(run_in_memory(), with_clips=False)))
    anchors = re.findall(r'<section id="(\w+)"', page)
    assert anchors == [anchor for anchor, *_ in SECTIONS if anchor not in ("quality", "motions")]
    assert not [text for kind, text in reader.raw if kind == "script"] and "script-src 'none'" in page
    assert 'class="paper' in render(whole) and 'class="paper' not in page
    assert "No clip is inside this file" in reader.text and "three.js" not in reader.text


def test_the_same_run_gives_the_same_page(page: str) -> None:
    assert render(run_in_memory()) == page


def test_a_run_without_clips_is_one_sentence() -> None:
    with pytest.raises(InputError, match="needs at least one generated set; run .*rayjobs.generate"):
        render(replace(run_in_memory(), sets=[]))


def test_average_precision_stands_beside_recall_where_it_is_known() -> None:
    run = run_in_memory()
    shown = sections.gain(run)
    assert "average precision,\u00a0%" in shown and "68.3" in shown and "+39.2 [" in shown
    assert "named 1.00\u00a0\u00d7" in shown and "named nan" not in shown
    lacking = {"rare_ap": None, "ap_difference": None, "readiness": None}
    old = sections.gain(
        replace(run, result={**run.result, "arms": [a | lacking for a in run.result["arms"]]})
    )
    assert "average precision,\u00a0%" not in old and "named 1.00" not in old
