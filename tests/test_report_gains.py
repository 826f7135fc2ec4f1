"""What a report claims: a gain only where the paired interval excludes zero, and every class as the records have it."""

from __future__ import annotations

import numpy as np
import pytest

from motionsynth.report.gains import (
    bounds,
    class_changes,
    confusion_change,
    largest_changes,
    signed,
    verdicts,
)
from tests.tiny_report import run_in_memory

STRONG = [(0.5, 0.5, 0.5), (0.5, 0.6, 0.5)]


def moved(by: float, unequal: float = 0.0) -> list[tuple[float, ...]]:
    """The strong arm's recalls, moved; by other amounts for the two seeds."""
    return [tuple(v + by + s * unequal for v in row) for row, s in zip(STRONG, (-1, 1), strict=True)]


@pytest.mark.parametrize(
    ("own", "tone", "title"),
    [
        (moved(0.2, 0.001), "gain", "motion_gan gains 20.0 points of rare-class recall"),
        (moved(-0.2, 0.001), "loss", "motion_gan loses 20.0 points of rare-class recall"),
        (moved(0.1, 0.1), "open", "motion_gan shows no gain"),
        (moved(0.2)[:1], "open", "motion_gan was measured once: nothing is shown yet"),
    ],
)
def test_a_gain_is_claimed_only_if_the_interval_excludes_zero(own, tone: str, title: str) -> None:
    (verdict,) = verdicts(run_in_memory({"strong": STRONG, "motion_gan": own}))
    assert (verdict.tone, verdict.title) == (tone, title)
    assert "rival" not in verdict.text and "  " not in verdict.text and " ." not in verdict.text


@pytest.mark.parametrize(
    ("lo", "says"),
    [(-3.0, "is [\u22123.0, +43.0]; it need not hold for others."), (3.0, "is [+3.0, +43.0].")],
)
def test_the_verdict_says_whether_a_gain_holds_for_other_people(lo: float, says: str) -> None:
    run = run_in_memory({"strong": STRONG, "motion_gan": moved(0.2, 0.001)})
    (arm,) = (a for a in run.result["arms"] if a["arm"] == "motion_gan")
    assert arm["people_difference"] is None and "people" not in verdicts(run)[0].text
    arm["people_difference"] = {"mean": 20.0, "lo": lo, "hi": 43.0, "n": 5}
    assert f"Over the 5 people who judge the interval {says}" in verdicts(run)[0].text


def test_the_verdict_names_the_best_rival() -> None:
    run = run_in_memory(
        {"strong": STRONG, "motion_gan": moved(0.2), "difference": moved(0.3), "feature": moved(0.1)}
    )
    assert "difference, comes to 81.7\u00a0%; against it: \u221210.0" in verdicts(run)[0].text


def test_classes_are_sorted_by_their_gain() -> None:
    changes = class_changes(run_in_memory(), "tcn", "motion_gan")
    assert [c.label for c in changes] == [0, 1, 2]
    assert [round(c.gain) for c in changes] == [20, 20, -5]
    assert changes[0].before == 0.5 and changes[0].ceiling == 0.9 and changes[0].clips == 20


def test_confusion_changes_are_points_of_a_class_and_cancel() -> None:
    change = confusion_change(run_in_memory(), "tcn", "motion_gan")
    np.testing.assert_allclose(change.sum(1), 0, atol=1e-9)
    np.testing.assert_allclose(change, [[20, -20, 0], [0, 20, -20], [5, 0, -5]], atol=1e-9)
    assert largest_changes(change, 2) == [(0, 1, pytest.approx(-20)), (1, 2, pytest.approx(-20))]
    assert largest_changes(np.zeros((3, 3))) == []


def test_numbers_have_a_real_minus_and_no_minus_zero() -> None:
    assert [signed(v) for v in (1.25, -1.25, -0.01, 0.0)] == ["+1.2", "\u22121.2", "0.0", "0.0"]
    assert bounds({"lo": None, "hi": None}) == "" and bounds({"lo": -1.0, "hi": 2.0}) == "[\u22121.0, +2.0]"
