"""A trial under Ray Tune: the function that a worker runs, and the records that the driver keeps of all of them.

Records are plain JSON under `studies/NAME/trials`. Reports read these alone, and so does a search that goes on: Tune's
own pickled state is never read.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler

from motionsynth.errors import InputError
from rayjobs import cli
from rayjobs.progress import Progress
from rayjobs.units import unit
from storage import Storage
from tuning.objective import Job, Segment, confirm, evaluate
from tuning.space import Axis
from tuning.study import DEFAULT, METRICS, ROOT

STATE = "state.json"
VALUE = "value"
"""What Tune maximises: the study's metric."""


def values_of(axes: Sequence[Axis], positions: Mapping[str, float]) -> dict[str, Any]:
    """Settings at a searcher's positions."""
    return {a.name: a.value(positions[a.name]) for a in axes}


def is_default(axes: Sequence[Axis], positions: Mapping[str, float]) -> bool:
    """Whether these are the positions of the recipe's own settings."""
    return all(positions[a.name] == a.position(a.default) for a in axes)


class Halving(ASHAScheduler):
    """Successive halving (ASHA; Li et al., MLSys 2020) that never stops the recipe as it is: it is what a winner is
    compared with.

    Args:
        axes: Settings, which tell the recipe as it is.
        known: Trials that ended before: what they came to by `units`, of each trial.
        options: Of `ASHAScheduler`.
    """

    def __init__(self, axes: Sequence[Axis], known: Sequence[Mapping[int, float]], **options: Any) -> None:
        super().__init__(time_attr="units", metric=VALUE, mode="max", grace_period=1, **options)
        self.axes = tuple(axes)
        for i, values in enumerate(known):
            trial: Any = SimpleNamespace(trial_id=f"known-{i}")
            super().on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
            for units, value in values.items():
                super().on_trial_result(None, trial, {"units": units, VALUE: value})  # pyright: ignore[reportArgumentType]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Continue or stop."""
        decided = super().on_trial_result(tune_controller, trial, result)
        return self.CONTINUE if is_default(self.axes, trial.config) else decided


def make_trainable(job: Job, axes: Sequence[Axis]) -> Callable[[Mapping[str, float]], None]:
    """What Tune calls with a trial's positions, in a worker."""

    def trial(config: Mapping[str, float]) -> None:
        from ray import tune

        with unit("trial", tune.get_context().get_trial_id() or ""):
            run(config)

    def run(config: Mapping[str, float]) -> None:
        import torch
        from ray import tune

        torch.set_num_threads(1)  # the same sums everywhere; side by side are trials
        values = values_of(axes, config)
        past: list[Segment] = []
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                past = [Segment(**s) for s in json.loads((Path(folder) / STATE).read_text())]
        try:
            for judged in evaluate(job, values, past):
                past = [*past, Segment(values=values, until=judged.fraction)]
                metrics = {
                    "rung": len(past),
                    "units": round(judged.fraction / job.rungs[0]),
                    VALUE: getattr(judged, job.metric),
                    "gain": judged.gain["mean"],
                    **{m: getattr(judged, m) for m in METRICS},
                    "judged": json.dumps(judged.to_dict()),
                    "values": json.dumps(values),
                }
                with tempfile.TemporaryDirectory() as folder:
                    state = [{"values": dict(s.values), "until": s.until} for s in past]
                    (Path(folder) / STATE).write_text(json.dumps(state))
                    tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        except InputError as e:
            # Settings that cannot be trained are the worst there are, and no reason to try them three times.
            top = round(1 / job.rungs[0])
            tune.report({"rung": len(job.rungs), "units": top, VALUE: 0.0, "error": str(e)})

    return trial


class Recorder(Callback):
    """Keeps one JSON record a trial, and prints a line for each that ends.

    Args:
        storage, name: Where the study lies.
        axes: Its settings.
        planned: Positions of trials whose numbers are known; the others take the next free ones.
        trials: How many there are to be.
        metric: What is maximised.
        minutes: After so long Tune stops what runs; those trials are not ended. 0: never.
        progress: Hears of every trial that ends or is judged.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        axes: Sequence[Axis],
        planned: Mapping[int, Mapping[str, float]],
        trials: int,
        metric: str,
        minutes: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        self.progress = progress
        self.storage, self.name, self.axes, self.trials, self.metric = (
            storage,
            name,
            tuple(axes),
            trials,
            metric,
        )
        self.planned = dict(planned)
        self.records = {r["number"]: r for r in load_records(storage, name)}
        self.numbers: dict[str, int] = {}
        self.stop_at = time.time() + 60 * minutes if minutes else float("inf")

    def __getstate__(self) -> dict[str, Any]:
        # Tune stores its callbacks pickled, though nobody here reads that; a progress has a thread and locks.
        return self.__dict__ | {"progress": None}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Give a trial its number."""
        if trial.trial_id in self.numbers:
            return
        positions = {a.name: trial.config[a.name] for a in self.axes}
        used = set(self.numbers.values())
        same = [n for n, planned in self.planned.items() if planned == positions and n not in used]
        free = (n for n in count() if n not in {*used, *self.records, *self.planned})
        number = same[0] if same else next(free)
        self.numbers[trial.trial_id] = number
        self._write(
            {
                "id": f"{number:05d}", "number": number, "positions": positions,
                "values": values_of(self.axes, positions), "rungs": [], "ended": False, "error": "",
            }
        )  # fmt: skip

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Add a rung."""
        record = self._record(trial)
        if result.get("error"):
            self._heard(0)
            return self._write(record | {"error": result["error"]})
        judged = json.loads(result["judged"])
        # What was found by its content does not tell how long the next one may take.
        self._heard(0, "" if judged["trained"] else "found")
        kept = [r for r in record["rungs"] if r["fraction"] < judged["fraction"]]
        # Population-based training changes a trial's settings as it goes.
        self._write(record | {"rungs": [*kept, judged], "values": json.loads(result["values"])})

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a trial is done, and say so."""
        record = self._record(trial)
        rungs = record["rungs"]
        if not record["error"] and (not rungs or (rungs[-1]["fraction"] < 1 and time.time() > self.stop_at)):
            return
        self._write(record | {"ended": True})
        self._heard(1, timed=False)
        print(self._line(record), flush=True)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note what went wrong; the trial is not ended, so that the same command tries it again."""
        self._write(self._record(trial) | {"error": f"its process failed {trial.num_failures} times"})

    def _heard(self, ended: int, kind: str = "", *, timed: bool = True) -> None:
        if self.progress:
            self.progress.advance(ended, kind, timed=timed)

    def _line(self, record: Mapping[str, Any]) -> str:
        ended = [r for r in self.records.values() if r["ended"]]
        start = f"trial {record['number']} ({len(ended)} of {self.trials} done)"
        if record["error"]:
            return f"{start}: {record['error']}"
        last = record["rungs"][-1]
        whole = [(r["rungs"][-1][self.metric], -r["number"]) for r in ended if reached_end(r)]
        best = f"; best {100 * max(whole)[0]:.1f} % (trial {-max(whole)[1]})" if whole else ""
        reached = f"{METRICS[self.metric]} {100 * last[self.metric]:.1f} %"
        return (
            f"{start}: {reached}, {last['gain']['mean']:+.1f} over strong, after {last['fraction']:.0%} of its "
            f"training{best}"
        )

    def _record(self, trial: Any) -> dict[str, Any]:
        return self.records[self.numbers[trial.trial_id]]

    def _write(self, record: dict[str, Any]) -> None:
        self.records[record["number"]] = record
        write_record(self.storage, self.name, record)


def confirm_best(job: Job, name: str, count: int, seeds: int, connect: Callable[[], Any]) -> None:
    """Judge the best trials and the default again by new seeds (see `objective.confirm`), and keep it in their records.

    Args:
        job: What the trials share.
        name: Of the study.
        count: Of the best, besides the default.
        seeds: New ones, for each draw; a trial that has as many is left alone.
        connect: Called only if there is a recogniser to train.
    """
    finished = sorted(
        filter(reached_end, load_records(job.storage, name)),
        key=lambda r: (-r["rungs"][-1][job.metric], r["number"]),
    )
    chosen = [r for i, r in enumerate(finished) if i < count or r["number"] == DEFAULT]
    todo = [
        r
        for r in chosen
        if len({run["seed"] for run in (r.get("confirmed") or {"runs": []})["runs"]}) < seeds
    ]
    if not todo:
        return
    if any("clips" not in r["rungs"][-1] for r in todo):
        raise InputError(
            f"The trials of study '{name}' do not say where their clips lie, as they did not before trials were judged "
            "again; give --confirm 0, or another --run, which finds all that these trials made."
        )
    judged = confirm(job, [(r["values"], r["rungs"][-1]) for r in todo], seeds, connect)
    for record, now in zip(todo, judged, strict=True):
        write_record(job.storage, name, record | {"confirmed": now.to_dict()})
        reached, had = 100 * getattr(now, job.metric), 100 * record["rungs"][-1][job.metric]
        print(
            f"by {seeds} new seeds, trial {record['number']}: {METRICS[job.metric]} {reached:.1f} % ({had:.1f} % in "
            f"the search), {now.gain['mean']:+.1f} over strong",
            flush=True,
        )


def reached_end(record: Mapping[str, Any]) -> bool:
    """Whether a trial was judged after its whole training."""
    return bool(record["rungs"]) and record["rungs"][-1]["fraction"] == 1 and not record["error"]


def write_record(storage: Storage, name: str, record: Mapping[str, Any]) -> None:
    """Store a trial's record."""
    storage.write(f"{_folder(name)}/{record['id']}.json", json.dumps(cli.plain(record), indent=1).encode())


def load_records(storage: Storage, name: str) -> list[dict[str, Any]]:
    """All records of a study, by number."""
    return [json.loads(storage.read(o.key)) for o in sorted(storage.list(_folder(name)), key=lambda o: o.key)]


def _folder(name: str) -> str:
    return f"{ROOT}/{cli.check_name('study', name)}/trials"
