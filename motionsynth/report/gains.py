"""What the records say, in the figures and sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motionsynth.protocol import ScoreRecord
from motionsynth.report.run import Run

Interval = Mapping[str, Any]
"""`metrics_gain.Interval` as JSON: mean, lo, hi (None without an interval), n, level."""


def signed(value: float, digits: int = 1) -> str:
    """With a sign, a real minus, and no minus before zero."""
    text = f"{value:+.{digits}f}".replace("-", "\u2212")
    return text if any(c in "123456789" for c in text) else f"{0:.{digits}f}"


def bounds(d: Interval) -> str:
    """`[+1.8, +5.2]`, or nothing where there is no interval."""
    return "" if d["lo"] is None else f"[{signed(d['lo'])}, {signed(d['hi'])}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a generator's clips did to one recogniser, over the strong real arm.

    Attributes:
        tone: "gain", "loss" or "open" (the interval includes zero, or there is none).
        title, text: For people.
    """

    arm: str
    recogniser: str
    tone: str
    title: str
    text: str


def verdicts(run: Run) -> list[Verdict]:
    """One for each recogniser and generator, the first recogniser first."""
    out = []
    for name in run.recognisers:
        rows = {a["arm"]: a for a in arms_of(run, name)}
        out += [
            _verdict(run, rows[g], rows["strong"], rows) for g in run.generators if {g, "strong"} <= set(rows)
        ]
    return out


def arms_of(run: Run, recogniser: str, beds: str = "") -> list[Mapping[str, Any]]:
    """Lines of the arms table: of the scarce draws, or of "full"."""
    return [
        a
        for a in run.result["arms"]
        if a["recogniser"] == recogniser and a["beds"] == (beds or run.scarcity) and a["rare_recall"]
    ]


def _verdict(run: Run, own: Mapping[str, Any], strong: Mapping[str, Any], rows: Mapping[str, Any]) -> Verdict:
    d, arm = own["difference"], own["arm"]
    what = "recall" if run.scarcity == "full" else "rare-class recall"
    way = f"{strong['rare_recall']['mean']:.1f}\u00a0% to {own['rare_recall']['mean']:.1f}\u00a0%"
    measured = f"{signed(d['mean'])} points {bounds(d)}".strip()
    if d["lo"] is None:
        tone, title = "open", f"{arm} was measured once: nothing is shown yet"
        text = f"Its clips took {what} from {way} ({measured}); an interval needs more draws or seeds."
    elif d["lo"] > 0:
        tone, title = "gain", f"{arm} gains {d['mean']:.1f} points of {what}"
        text = f"Its clips raised {what} from {way}: {measured}, and the interval excludes zero."
    elif d["hi"] < 0:
        tone, title = "loss", f"{arm} loses {-d['mean']:.1f} points of {what}"
        text = f"Its clips lowered {what} from {way}: {measured}, and the interval excludes zero."
    else:
        tone, title = "open", f"{arm} shows no gain"
        text = f"Its clips took {what} from {way}: {measured}, an interval that includes zero."
    if people := own.get("people_difference"):
        held = (
            "" if people["lo"] > 0 or people["hi"] < 0 or tone == "open" else "; it need not hold for others"
        )
        text += f" Over the {people['n']} people who judge the interval is {bounds(people)}{held}."
    rivals = [
        r
        for r in run.result["against_rivals"]
        if r["recogniser"] == own["recogniser"] and r["arm"] == arm and r["rival"] in rows
    ]
    if rivals:
        best = max(rivals, key=lambda r: rows[r["rival"]]["rare_recall"]["mean"])
        text += (
            f" The best rival that needs no such training, {best['rival']}, comes to "
            f"{rows[best['rival']]['rare_recall']['mean']:.1f}\u00a0%; against it: "
            + f"{signed(best['mean'])} {bounds(best)}".strip()
            + "."
        )
    return Verdict(arm=arm, recogniser=own["recogniser"], tone=tone, title=title, text=text)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """One class while it is rare; recalls in [0, 1], NaN where unknown.

    Attributes:
        clips: Held-out clips of the class, per recogniser trained.
    """

    label: int
    before: float
    after: float
    ceiling: float
    clips: float

    @property
    def gain(self) -> float:
        """Percentage points."""
        return 100 * (self.after - self.before)


def class_changes(run: Run, recogniser: str, arm: str) -> list[ClassChange]:
    """Every class that is judged, the largest gain first."""
    rows = {a: _recalls(run, recogniser, a) for a in ("strong", arm, "ceiling")}
    out = []
    for label in rows[arm]:
        if label not in rows["strong"]:
            continue
        own = _of(run, recogniser, arm)
        sizes = [sum(r.confusion[label]) for r in own if label in _counted(run, r)]
        out.append(
            ClassChange(
                label=label, before=rows["strong"][label], after=rows[arm][label],
                ceiling=rows["ceiling"].get(label, math.nan), clips=float(np.mean(sizes)),
            )
        )  # fmt: skip
    return sorted(out, key=lambda c: (-c.gain, c.label))


def _of(run: Run, recogniser: str, arm: str) -> list[ScoreRecord]:
    return [r for r in run.judged if r.recogniser == recogniser and r.arm == arm]


def _counted(run: Run, record: ScoreRecord) -> Sequence[int]:
    """The classes that a record is about."""
    return record.rare if record.rare else range(len(run.class_names))


def _recalls(run: Run, recogniser: str, arm: str) -> dict[int, float]:
    seen: dict[int, list[float]] = {}
    for r in _of(run, recogniser, arm):
        for c in _counted(run, r):
            if not math.isnan(r.recalls[c]):
                seen.setdefault(c, []).append(r.recalls[c])
    return {c: float(np.mean(v)) for c, v in sorted(seen.items())}


def confusion_change(run: Run, recogniser: str, arm: str) -> np.ndarray:
    """[K, K] percentage points: of each true class (row), what is named otherwise than by the strong arm.

    Rows sum to 0. A row is the mean over the draws in which its class is rare; NaN where it never is, or is not shown.
    """
    return 100 * (_confusion(run, recogniser, arm) - _confusion(run, recogniser, "strong"))


def _confusion(run: Run, recogniser: str, arm: str) -> np.ndarray:
    k = len(run.class_names)
    total, count = np.zeros((k, k)), np.zeros(k)
    for r in _of(run, recogniser, arm):
        for c in _counted(run, r):
            row = np.array(r.confusion[c], float)
            if row.sum():
                total[c] += row / row.sum()
                count[c] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(count, count, np.nan)[:, None]


def largest_changes(change: np.ndarray, most: int = 8) -> list[tuple[int, int, float]]:
    """(true class, named class, points), the largest first; recalls (the diagonal) are left out."""
    off = np.nan_to_num(change.copy())
    np.fill_diagonal(off, 0)
    order = np.argsort(-np.abs(off), axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, off.shape)
    return [(int(i), int(j), float(off[i, j])) for i, j in zip(rows, columns, strict=True) if off[i, j]]
