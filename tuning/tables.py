"""What a study found, for people and as Parquet: its trials in order, which axes mattered, winner against default.

study = read_study(storage, "first")
print(markdown(study))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from motionsynth.errors import InputError
from motionsynth.metrics_gain import Interval, paired_interval
from tuning.study import (
    DEFAULT,
    METRICS,
    Rung,
    Study,
    best,
    number,
    place,
    searched,
    standing,
    text,
)

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST = 8
"""Finished trials below which an importance would be chance."""
STATES = {"finished": "finished", "stopped": "stopped early", "running": "still running", "failed": "failed"}
AT_TOP = 5
"""Trials that PED-ANOVA should at least have at the top, as Optuna's documentation advises."""


def importance(study: Study) -> dict[str, float]:
    """Share of each axis in what tells the best trials from all finished ones, largest first; they sum to 1.

    PED-ANOVA: Watanabe, Bansal & Hutter 2023 (IJCAI), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", by Optuna; relative to where the search looked, so that its own preference is no importance.
    The top is a tenth of the trials, and at least `AT_TOP` as far as there are so many. An axis on which all finished
    trials have one value gets 0. The shares say nothing of whether any axis matters at all.

    Returns:
        {} with fewer than `FEWEST` finished trials, one value of the metric, or no axis that varies.

    Raises:
        InputError: Optuna is not installed.
    """
    done = [t for t in study.trials if study.finished(t)]
    reached = [study.value(t.rungs[-1]) for t in done]
    free = [a for a in study.axes if len({text(t.values[a.name]) for t in done}) > 1]
    if len(done) < FEWEST or len(set(reached)) < 2 or not free:
        return {}
    try:
        import optuna
    except ModuleNotFoundError:
        raise InputError("Importances need Optuna, which is not installed; pip install optuna.") from None
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    spaces: dict[str, BaseDistribution] = {}
    settings: list[dict[str, Any]] = [{} for _ in done]
    for axis in free:
        own = [t.values[axis.name] for t in done]
        if axis.kind == "choice":
            at = [text(v) for v in own]
            spaces[axis.name] = CategoricalDistribution(tuple(dict.fromkeys(at)))
        else:
            at = [place(axis, v) for v in own]
            spaces[axis.name] = FloatDistribution(min(0.0, *at), max(1.0, *at))
        for setting, value in zip(settings, at, strict=True):
            setting[axis.name] = value
    # Equal values share a side: were all of them at the top, nothing would be told apart.
    above_worst = sum(v > min(reached) for v in reached)
    top = min(max(AT_TOP, math.ceil(len(done) / 10)), len(done) // 2, above_worst)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=(top - 0.5) / len(done))
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        held = optuna.create_study(direction="maximize")
        for setting, value in zip(settings, reached, strict=True):
            held.add_trial(
                optuna.trial.create_trial(params=setting, distributions=spaces, value=float(value))
            )
        shares = optuna.importance.get_param_importances(
            held, evaluator=evaluator, params=[a.name for a in free]
        )
    finally:
        optuna.logging.set_verbosity(said)
    return {k: float(v) for k, v in shares.items()} | {a.name: 0.0 for a in study.axes if a not in free}


def table(study: Study) -> pa.Table:
    """A row for every trial and rung, for Parquet; a trial without any has one row without figures, and one that was
    judged again has another row of that (`confirmed`).

    A column of an axis has its name: float64, or text for choices that are no numbers. `runs` holds each recogniser.

    Raises:
        InputError: an axis has the name of another column.
    """
    import pyarrow as pa

    names, figures = (
        {"bed": pa.string(), "recogniser": pa.string(), "seed": pa.int64()},
        (*METRICS, "strong"),
    )
    run = pa.struct(names | dict.fromkeys(figures, pa.float64()))
    columns = {
        "study": pa.string(), "trial": pa.string(), "number": pa.int64(), "state": pa.string(),
        "error": pa.string(), "fraction": pa.float64(), "steps": pa.int64(), "rare_recall": pa.float64(),
        "rare_ap": pa.float64(), "metric": pa.string(),
        "gain": pa.float64(), "gain_lo": pa.float64(), "gain_hi": pa.float64(), "macro": pa.float64(),
        "seconds": pa.float64(), "runs": pa.list_(run), "confirmed": pa.bool_(),
    }  # fmt: skip
    if taken := [a.name for a in study.axes if a.name in columns]:
        raise InputError(
            f"The axis '{taken[0]}' has the name of a column of the table; rename one of the two."
        )
    numeric = {
        a.name: all(
            isinstance(v, int | float) and not isinstance(v, bool)
            for v in (*a.choices, *(t.values[a.name] for t in study.trials))
        )
        for a in study.axes
    }
    columns |= {name: pa.float64() if is_number else pa.string() for name, is_number in numeric.items()}
    rows = []
    for t in study.trials:
        values = {n: float(t.values[n]) if yes else text(t.values[n]) for n, yes in numeric.items()}
        same = {
            "study": study.name,
            "trial": t.id,
            "number": t.number,
            "state": study.state(t),
            "metric": study.metric,
        }
        again = (t.confirmed,) if t.confirmed else ()
        for r in (*t.rungs, *again) or (None,):
            figures = {} if r is None else {
                "fraction": r.fraction, "steps": r.steps, "rare_recall": r.rare_recall, "rare_ap": r.rare_ap,
                "gain": r.gain.mean,
                "gain_lo": r.gain.lo, "gain_hi": r.gain.hi, "macro": r.macro, "seconds": r.seconds,
                "runs": list(r.runs), "confirmed": r is t.confirmed,
            }  # fmt: skip
            rows.append(same | {"error": t.error} | values | figures)
    return pa.Table.from_pylist(rows, pa.schema(list(columns.items())))


def markdown(study: Study) -> str:
    """The whole result for people."""
    states = [study.state(t) for t in study.trials]
    rungs = ", ".join(f"{100 * f:.3g} %" for f in study.rungs)
    counted = ", ".join(f"{states.count(s)} {said}" for s, said in STATES.items() if s in states)
    blocks = [
        f"# Study {study.name}: recipe {study.recipe} on {study.dataset}",
        f"{len(study.trials)} trials by {study.algorithm} (seed {study.seed}) for {study.goal}, judged after {rungs} "
        f"of the steps{': ' + counted if counted else ''}.",
        grid(["axis", "searched", "default"], [[a.name, searched(a), text(a.default)] for a in study.axes]),
        "## Trials",
        _trials(study),
        "## What mattered",
        _shares(study),
        *(
            ["## The best again, by new seeds", _again(study)]
            if any(t.confirmed for t in study.trials)
            else []
        ),
        "## The winner against the default setting",
        _winner(study),
    ]
    return "\n\n".join(blocks) + "\n"


def _trials(study: Study) -> str:
    names = [a.name for a in study.axes]
    rows = []
    for t in standing(study):
        figures = _figures(study, t.rungs[-1]) if t.rungs else [""] * len(_titles(study))
        state = study.state(t)
        said = f", {state}" if state in ("failed", "running") else ""
        reached = f"{len(t.rungs)} of {len(study.rungs)}{said}"
        seconds = f"{sum(r.seconds for r in t.rungs):.0f}"
        rows.append([str(t.number), *(text(t.values[n]) for n in names), *figures, reached, seconds])
    head = ["trial", *names, *_titles(study), "rungs", "seconds"]
    return grid(head, rows) if rows else "There is no trial yet."


def _again(study: Study) -> str:
    """Trials that were judged again, the best by the new seeds first."""
    again = sorted((t for t in study.trials if t.confirmed), key=lambda t: (-study.value(t.final), t.number))
    rows = [[str(t.number), *_figures(study, t.final), _percent(study.value(t.rungs[-1]))] for t in again]
    head = ["trial", *_titles(study), f"in the search, {study.goal} %"]
    return grid(head, rows) + (
        "\n\nBy seeds of recognisers that did not choose these trials: what is left of their lead is theirs. The best "
        "here is the winner."
    )


def _shares(study: Study) -> str:
    shares = importance(study)
    if not shares:
        return (
            f"Too few trials to say: it takes at least {FEWEST} finished ones that differ in {study.goal} and "
            "in their settings."
        )
    return (
        grid(["axis", "importance %"], [[k, f"{100 * v:.0f}"] for k, v in shares.items()])
        + "\n\nPED-ANOVA over the finished trials: what tells the best of them from the rest. The shares sum to 100 % "
        "even where no axis matters."
    )


def _winner(study: Study) -> str:
    done = [t for t in study.trials if study.finished(t)]
    if not done:
        return "No trial has reached the last rung yet."
    among = sum(t.confirmed is not None for t in study.trials) or len(done)
    caution = (
        f"These figures are of validation people, and the best of {among} trials is biased upwards (winner's "
        f"curse); the test half, read once with `python -m tuning.report --run {study.name} --test`, says what the "
        "winner is worth."
    )
    first, default = best(study), next((t for t in done if study.is_default(t)), None)
    if default is first:
        return f"No trial was better than the default setting (trial {DEFAULT}).\n\n{caution}"
    shown = [t for t in (default, first) if t is not None]
    head = [
        "",
        *(f"default (trial {t.number})" if t is default else f"winner (trial {t.number})" for t in shown),
    ]
    rows = [[a.name, *(text(t.values[a.name]) for t in shown)] for a in study.axes]
    figures = (_figures(study, t.final) for t in shown)
    rows += [list(row) for row in zip(_titles(study), *figures, strict=True)]
    if default is None:
        told = "No trial had the default setting at the last rung, so there is nothing to compare."
    else:
        told = _against(study, first.final, default.final)
    return f"{grid(head, rows)}\n\n{told}\n\n{caution}"


def _against(study: Study, first: Rung, default: Rung) -> str:
    """The paired difference in words."""
    one, two = _runs(study, first), _runs(study, default)
    d = [100 * (one[k] - two[k]) for k in one if k in two and math.isfinite(one[k] - two[k])]
    if not d:
        return "The two share no run, so there is no paired difference."
    return f"Winner - default: {_gain(paired_interval(d))} points of {study.goal}, paired over {len(d)} runs."


def _runs(study: Study, rung: Rung) -> dict[tuple[str, int, int], float]:
    """The metric by bed, seed and recogniser: of several, each has the same beds and seeds in one order."""
    out: dict[tuple[str, int, int], float] = {}
    for r in rung.runs:
        which = next(i for i in count() if (r["bed"], r["seed"], i) not in out)
        out[r["bed"], r["seed"], which] = number(r[study.metric])
    return out


def _titles(study: Study) -> list[str]:
    """Columns of what a trial came to: the metric first."""
    others = [said for m, said in METRICS.items() if m != study.metric]
    return [f"{study.goal} %", "gain over strong [95 %]", *(f"{said} %" for said in others)]


def _figures(study: Study, rung: Rung) -> list[str]:
    others = [_percent(getattr(rung, m)) for m in METRICS if m != study.metric]
    return [_percent(study.value(rung)), _gain(rung.gain), *others]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if math.isfinite(share) else ""


def _gain(i: Interval) -> str:
    return str(i) if math.isfinite(i.mean) else ""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
