"""Parts of cards: licences as the hub spells them, front matter, and texts that could break a table."""

from __future__ import annotations

import pytest

from motionsynth.datasets import DATASETS
from motionsynth.terms import grant
from storage.card_parts import About, cite, hub_licence, licence_address, scores_part, table, yaml

SCORE = {
    "dataset": "d", "protocols": ["cross_subject"], "draws": 3, "split": "test", "test_readings": 2,
    "git_revision": "abc",
    "bed": {"protocol": "cross_subject", "scarcity": "rare", "shots": 10}, "text": "arm  -0.3 [-2.5, +1.8]",
    "as_published": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("licence", "front", "address"),
    [
        ("PDDL-1.0", {"license": "pddl"}, "https://spdx.org/licenses/PDDL-1.0.html"),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}, "https://spdx.org/licenses/CC-BY-4.0.html"),
        ("0BSD", {"license": "other", "license_name": "0bsd"}, "https://spdx.org/licenses/0BSD.html"),
        ("LicenseRef-lab", {"license": "other", "license_name": "licenseref-lab"}, "LicenseRef-lab"),
        ("MIT OR Apache-2.0", {"license": "other", "license_name": "mit or apache-2.0"}, "MIT OR Apache-2.0"),
    ],
)
def test_licences(licence: str, front: dict, address: str) -> None:
    granted = grant("x", [], ["mine"], licence=licence)
    assert hub_licence(granted) == front and licence_address(granted) == address


def test_a_claimed_right_is_no_licence() -> None:
    granted = grant("x", [DATASETS["nucla"]], [], right="They said so.")
    assert hub_licence(granted) == {"license": "unknown"}
    assert DATASETS["nucla"].terms in licence_address(granted) and "They said so." in licence_address(granted)


def test_front_matter_and_tables_hold_any_text() -> None:
    pyyaml = pytest.importorskip("yaml")
    given = {"a": 'x: "y"\n---', "b": ["- #", {"c": True}], "d": "Ärger"}
    assert pyyaml.safe_load(yaml(given)) == given
    assert table([("a|b", "two\nlines")]) == "| a\\|b | two lines |"


def test_scores_are_quoted_with_what_they_mean() -> None:
    text = scores_part([SCORE], synthetic=True)
    assert SCORE["text"] in text and "had been read 2 times" in text and "judged by the test half" in text
    assert "a third of the classes at 10 shots, 3 draws" in text and "Composed as published" in text
    assert "not measured" in scores_part([], synthetic=True)


def test_what_to_cite() -> None:
    granted = grant("x", [DATASETS["ui_prmd"]], [])
    text = cite(granted, About(title="Clips", version="2.0", url="https://example.org", date="2026-11-25"))
    assert text.splitlines()[0] == "- Clips, version 2.0. 2026-11-25. https://example.org"
    assert DATASETS["ui_prmd"].citation in text and "motionsynth" in text
