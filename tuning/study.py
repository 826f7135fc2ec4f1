"""A study as it lies in storage: what was searched, and the trials with what each had reached at which rung.

    studies/NAME/study.json         what was searched
    studies/NAME/trials/ID.json     one per trial

Trial number 0 is the default setting: a search evaluates it before any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motionsynth.errors import InputError
from motionsynth.metrics_gain import Interval
from motionsynth.protocol import ScoreRecord
from rayjobs.cli import check_name
from storage import Storage
from tuning.space import KINDS, Axis

ROOT = "studies"
STUDY = "study.json"
METRICS = {"rare_ap": "rare AP", "rare_recall": "rare recall", "macro": "macro accuracy"}
"""What a search may maximise, fields of `ScoreRecord`, and how people read them. The first does not rise where rare
classes are merely named more readily."""
FORMER_METRIC = "rare_recall"
"""Of studies that do not say theirs: once there was no choice."""
DEFAULT = 0
"""Number of the trial of the default setting."""
ZERO_PLACE = -0.15
"""Where a weight of 0 stands, in units of its range: apart from the smallest weight, on the same side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """What a trial had reached after a fraction of the steps. `METRICS` in [0, 1], the gain in points.

    Attributes:
        gain: Over the strong arm, in the study's metric.
        seconds: That this rung took.
        runs: Of each recogniser: bed, seed, its metrics, and the study's of the strong arm.
    """

    fraction: float
    steps: int
    rare_recall: float
    rare_ap: float
    gain: Interval
    macro: float
    seconds: float
    runs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One setting.

    Attributes:
        rungs: From the first to the last that it reached.
        confirmed: The last one judged again by seeds that did not choose it; None where it was not.
        ended: False while it runs, and where the search was interrupted.
        error: Why it failed; "" if it did not.
    """

    id: str
    number: int
    values: Mapping[str, Any]
    rungs: tuple[Rung, ...]
    ended: bool
    error: str
    confirmed: Rung | None = None

    @property
    def final(self) -> Rung:
        """What it is worth: by new seeds where there are such, or else at its last rung."""
        return self.confirmed or self.rungs[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A search with its trials by number.

    Attributes:
        metric: What was maximised, of `METRICS`.
        rungs: Fractions of the steps at which trials are judged.
    """

    name: str
    metric: str
    dataset: str
    recipe: str
    algorithm: str
    seed: int
    axes: tuple[Axis, ...]
    rungs: tuple[float, ...]
    trials: tuple[Trial, ...]

    @property
    def goal(self) -> str:
        """The metric as people read it."""
        return METRICS[self.metric]

    def value(self, rung: Rung) -> float:
        """What is maximised, in [0, 1]."""
        return getattr(rung, self.metric)

    def finished(self, trial: Trial) -> bool:
        """Whether a trial has a figure at the last rung."""
        if not trial.rungs:
            return False
        last = trial.rungs[-1]
        return last.fraction >= self.rungs[-1] - 1e-9 and math.isfinite(self.value(last))

    def is_default(self, trial: Trial) -> bool:
        """Whether a trial has the recipe's own settings: population-based training may give trial 0 other ones."""
        return trial.number == DEFAULT and all(trial.values[a.name] == a.default for a in self.axes)

    def state(self, trial: Trial) -> str:
        """`finished`, `failed`, `stopped` (before the last rung), or `running` (or interrupted)."""
        if self.finished(trial):
            return "finished"
        return "failed" if trial.error else "stopped" if trial.ended else "running"


def lacking(records: Sequence[ScoreRecord], metric: str) -> str:
    """What to tell of records without the metric, in one sentence; "" where all have it."""
    bare = [r for r in records if not math.isfinite(getattr(r, metric))]
    if not bare:
        return ""
    return (
        f"{len(bare)} of {len(records)} recognisers have no {METRICS[metric]}: they were scored before records kept it "
        f"(give --metric {FORMER_METRIC}, or another --storage), or no held-out clip shows a rare class."
    )


def read_study(storage: Storage, name: str) -> Study:
    """A study as it lies in storage.

    Args:
        storage: Where.
        name: Of the study.

    Raises:
        InputError: there is none of that name, or one of its files is damaged.
    """
    base = f"{ROOT}/{check_name('study', name)}"
    if not storage.exists(f"{base}/study.json"):
        keys = [o.key.split("/") for o in storage.list(ROOT)]
        known = sorted({k[1] for k in keys if len(k) == 3 and k[2] == "study.json"})
        raise InputError(f"There is no study '{name}' in this storage. Known: {', '.join(known) or 'none'}.")
    head = _read(storage, f"{base}/study.json", _head)
    names = [a.name for a in head["axes"]]
    keys = [o.key for o in storage.list(f"{base}/trials") if o.key.endswith(".json")]
    trials = [_read(storage, key, lambda d: _trial(d, names)) for key in keys]
    return Study(name=name, trials=tuple(sorted(trials, key=lambda t: (t.number, t.id))), **head)


def _read(storage: Storage, key: str, of: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return of(json.loads(storage.read(key)))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(
            f"'{key}' is no file of a study ({type(e).__name__}: {e}); remove it and run the search again."
        ) from None


def _head(d: Mapping[str, Any]) -> dict[str, Any]:
    axes = []
    for a in d["axes"]:
        choice = a["kind"] == "choice"
        if a["kind"] not in KINDS:
            raise ValueError(f"unknown kind of axis '{a['kind']}'")
        low, high = (0.0, 0.0) if choice else (float(a["low"]), float(a["high"]))
        if a["kind"] in ("weight", "log") and not 0 < low <= high:
            raise ValueError(f"axis {a['name']} is logarithmic from {low} to {high}")
        choices = tuple(a["choices"]) if choice else ()
        axes.append(
            Axis(name=a["name"], kind=a["kind"], default=a["default"], low=low, high=high, choices=choices)
        )
    rungs = tuple(sorted(float(f) for f in d["rungs"]))
    same = {k: d[k] for k in ("dataset", "recipe", "algorithm", "seed")}
    same["metric"] = d.get("metric", FORMER_METRIC)
    if same["metric"] not in METRICS:
        raise ValueError(f"unknown metric '{same['metric']}'")
    return {**same, "axes": tuple(axes), "rungs": rungs or (1.0,)}


def _trial(d: Mapping[str, Any], axes: Sequence[str]) -> Trial:
    rungs = [_rung(r) for r in d["rungs"]]
    values = {a: d["values"][a] for a in axes}
    rungs.sort(key=lambda r: r.fraction)
    return Trial(
        id=d["id"],
        number=d["number"],
        values=values,
        rungs=tuple(rungs),
        ended=bool(d.get("ended", True)),
        error=d.get("error") or "",
        confirmed=_rung(d["confirmed"]) if d.get("confirmed") else None,
    )


def _rung(d: Mapping[str, Any]) -> Rung:
    gain = d["gain"] or {"n": 0}
    interval = Interval(**{k: number(gain.get(k)) for k in ("mean", "lo", "hi")}, n=gain["n"])
    figures = {k: number(d[k]) for k in ("fraction", "rare_recall", "macro", "seconds")}
    figures["rare_ap"] = number(d.get("rare_ap"))
    return Rung(steps=int(d["steps"]), gain=interval, runs=tuple(d["runs"]), **figures)


def number(value: float | None) -> float:
    """JSON writes NaN as null."""
    return math.nan if value is None else float(value)


def best(study: Study) -> Trial:
    """The finished trial of the highest metric; of equals the one that came first.

    Where trials were judged again by new seeds, it is the best of these, by these seeds.

    Raises:
        InputError: none has finished.
    """
    if again := [t for t in study.trials if t.confirmed is not None]:
        return max(again, key=lambda t: (study.value(t.final), -t.number))
    first = standing(study)[:1]
    if not first or not study.finished(first[0]):
        raise InputError(
            f"No trial of study '{study.name}' has reached the last rung yet; go on with the search first."
        )
    return first[0]


def standing(study: Study) -> list[Trial]:
    """All trials: finished ones by the metric, then the others by how far they came and the metric there."""

    def key(t: Trial) -> tuple[bool, float, float, int]:
        value = study.value(t.rungs[-1]) if t.rungs else math.nan
        reached = 0.0 if study.finished(t) or not t.rungs else t.rungs[-1].fraction
        return not study.finished(t), -reached, -value if math.isfinite(value) else math.inf, t.number

    return sorted(study.trials, key=key)


def place(axis: Axis, value: Any) -> float:
    """Where a number stands in a picture: 0 and 1 are the ends of the range; unlike by `Axis.position`, a value outside
    of it stands outside, and 0 on a logarithmic axis at `ZERO_PLACE`.
    """
    if axis.kind == "linear":
        return (value - axis.low) / (axis.high - axis.low) if axis.high > axis.low else value - axis.low
    if value <= 0:
        return ZERO_PLACE
    span = math.log(axis.high / axis.low)
    return math.log(value / axis.low) / (span or 1.0)


def searched(axis: Axis) -> str:
    """An axis's range in words."""
    if axis.kind == "choice":
        return " or ".join(text(c) for c in axis.choices)
    how = {"weight": ", logarithmic, or 0", "log": ", logarithmic"}.get(axis.kind, "")
    return f"{text(axis.low)} to {text(axis.high)}{how}"


def text(value: Any) -> str:
    """A setting as one writes it; 1 and 1.0 are one value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
