"""Studies with known answers, as a search writes them to storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage import Storage
from tuning.study import Study, read_study

RUNS = [(f"cross_subject-rare-k10-d{d}", s) for d in range(3) for s in range(2)]

WEIGHT = {
    "name": "loss_weights.flow",
    "kind": "weight",
    "default": 0.1,
    "low": 0.01,
    "high": 1.0,
    "choices": None,
}
SHARE = {
    "name": "synthetic_share",
    "kind": "linear",
    "default": 0.3,
    "low": 0.1,
    "high": 0.5,
    "choices": None,
}
RATE = {"name": "training.lr", "kind": "log", "default": 1e-3, "low": 1e-4, "high": 1e-2, "choices": None}
SOLVER = {
    "name": "generator_config.solver", "kind": "choice", "default": "ddim", "low": None, "high": None,
    "choices": ["ddim", "heun", True],
}  # fmt: skip
AXES = (WEIGHT, SHARE, RATE, SOLVER)
HEAD = {
    "dataset": "nucla", "recipe": "motion_gan", "axes": list(AXES), "rungs": [0.33, 1.0], "algorithm": "tpe",
    "seed": 0, "trials": 40,
}  # fmt: skip
"""Of a study from before the metric could be chosen."""


def rung(
    recall: float, fraction: float = 1.0, runs: Mapping[tuple[str, int], float] | None = None
) -> dict[str, Any]:
    """What a trial reached, without the average precision that came later; by default every run has the mean's
    recall."""
    runs = runs or dict.fromkeys(RUNS, recall)
    each = [{"bed": bed, "seed": seed, "rare_recall": r, "strong": 0.6} for (bed, seed), r in runs.items()]
    gain = {
        "mean": 100 * (recall - 0.6),
        "lo": 100 * (recall - 0.62),
        "hi": 100 * (recall - 0.58),
        "n": len(each),
    }
    return {
        "fraction": fraction, "steps": round(300 * fraction), "rare_recall": recall, "gain": gain,
        "macro": 0.75, "runs": each, "seconds": 30.0,
    }  # fmt: skip


def trial(
    number: int, rungs: Sequence[Mapping[str, Any]], values: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A trial's record; settings that are not given are the defaults."""
    values = {a["name"]: a["default"] for a in AXES} | dict(values or {})
    return {"id": f"t{number}", "number": number, "values": values, "rungs": list(rungs), "error": ""} | more


def draw_values(rng: np.random.Generator) -> dict[str, Any]:
    """One random setting of every axis."""
    return {
        "loss_weights.flow": 0.0 if rng.random() < 0.15 else float(10 ** rng.uniform(-2, 0)),
        "synthetic_share": float(rng.uniform(0.1, 0.5)),
        "training.lr": float(10 ** rng.uniform(-4, -2)),
        "generator_config.solver": ["ddim", "heun", True][rng.integers(3)],
    }


def random_trials(
    count: int, recall: Callable[[Mapping[str, Any]], float], seed: int = 0
) -> list[dict[str, Any]]:
    """Finished trials over all axes."""
    rng = np.random.default_rng(seed)
    settings = [draw_values(rng) for _ in range(count)]
    return [trial(i, [rung(recall(v), 0.33), rung(recall(v))], v) for i, v in enumerate(settings)]


def write(storage: Storage, trials: Sequence[Mapping[str, Any]], name: str = "first", **more: Any) -> None:
    """Store a study."""
    storage.write(f"studies/{name}/study.json", json.dumps(HEAD | more).encode())
    for t in trials:
        storage.write(f"studies/{name}/trials/{t['id']}.json", json.dumps(t).encode())


def stored(folder: Path, trials: Sequence[Mapping[str, Any]], **more: Any) -> Study:
    """Store a study in a folder and read it."""
    storage = Storage(folder)
    write(storage, trials, **more)
    return read_study(storage, "first")
