"""A study is read as it was written, finished or not; its trials stand in the right order."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from storage import Storage
from tests.tiny_studies import AXES, HEAD, RATE, SHARE, WEIGHT, rung, stored, trial, write
from tuning.space import Axis
from tuning.study import ZERO_PLACE, best, place, read_study, standing


def axis(d: dict) -> Axis:
    return Axis(**d | {"choices": ()})


def test_a_study_is_read_on_every_storage(storage_uri: str) -> None:
    storage = Storage(storage_uri)
    write(storage, [trial(1, [rung(0.5, 0.33)]), trial(0, [rung(0.61, 0.33), rung(0.62)])])
    storage.write("studies/first/ray/state.json", b"not ours")
    study = read_study(storage, "first")
    assert (study.dataset, study.recipe, study.algorithm, study.rungs) == (
        "nucla",
        "motion_gan",
        "tpe",
        (0.33, 1),
    )
    assert [a.name for a in study.axes] == [a["name"] for a in AXES]
    assert [t.number for t in study.trials] == [0, 1]
    last = study.trials[0].rungs[-1]
    assert (last.fraction, last.steps, last.rare_recall, last.gain.n) == (1.0, 300, 0.62, 6)
    assert last.gain.mean == pytest.approx(2.0) and last.runs[0]["strong"] == 0.6


def test_an_unknown_study_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Known: none"):
        read_study(Storage(tmp_path), "nope")
    write(Storage(tmp_path), [], "second")
    write(Storage(tmp_path), [], "first")
    with pytest.raises(InputError, match="no study 'nope' .* Known: first, second"):
        read_study(Storage(tmp_path), "nope")
    with pytest.raises(InputError, match="cannot be used"):
        read_study(Storage(tmp_path), "../first")


@pytest.mark.parametrize(
    ("key", "content", "said"),
    [
        ("trials/t0.json", b"{", "t0.json"),
        ("trials/t0.json", b"[]", "t0.json"),
        ("trials/t0.json", json.dumps(trial(0, []) | {"values": {}}).encode(), "loss_weights.flow"),
        ("study.json", b'{"dataset": "nucla"}', "study.json"),
        ("study.json", json.dumps({"axes": [WEIGHT | {"low": 0.0}]}).encode(), "logarithmic"),
        ("study.json", json.dumps({"axes": [WEIGHT | {"kind": "odd"}]}).encode(), "odd"),
        ("study.json", json.dumps(HEAD | {"metric": "top1"}).encode(), "unknown metric 'top1'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, key: str, content: bytes, said: str) -> None:
    storage = Storage(tmp_path)
    write(storage, [trial(0, [rung(0.5)])])
    read_study(storage, "first")
    storage.write(f"studies/first/{key}", content)
    with pytest.raises(InputError, match=said):
        read_study(storage, "first")


def test_the_metric_decides_and_of_older_studies_it_is_recall(tmp_path: Path) -> None:
    trials = [
        trial(n, [rung(r) | {"rare_ap": ap}]) for n, r, ap in ((0, 0.6, 0.5), (1, 0.5, 0.6), (2, 0.7, None))
    ]
    older, newer = stored(tmp_path / "a", trials), stored(tmp_path / "b", trials, metric="rare_ap")
    assert (older.metric, best(older).number) == ("rare_recall", 2)
    assert (newer.metric, best(newer).number) == ("rare_ap", 1)
    assert [t.number for t in standing(newer)] == [1, 0, 2] and newer.state(newer.trials[2]) == "stopped"


def test_null_is_no_number(tmp_path: Path) -> None:
    lost = rung(0.5) | {"rare_recall": None, "gain": None}
    study = stored(tmp_path, [trial(0, [lost])])
    assert math.isnan(study.trials[0].rungs[0].rare_recall) and study.state(study.trials[0]) == "stopped"
    with pytest.raises(InputError, match="last rung"):
        best(study)


def test_standing_has_the_finished_first_and_the_rest_by_how_far_they_came(tmp_path: Path) -> None:
    study = stored(
        tmp_path,
        [
            trial(0, [rung(0.60, 0.33), rung(0.60)]),
            trial(1, [rung(0.90, 0.33)]),
            trial(2, [rung(0.70, 0.33), rung(0.66)]),
            trial(3, [], error="killed"),
            trial(4, [rung(0.70, 0.33), rung(0.66)]),
            trial(5, [rung(0.95, 0.1)], ended=False),
            trial(6, [rung(0.91, 0.33)], error="killed"),
        ],
    )
    assert [t.number for t in standing(study)] == [2, 4, 0, 6, 1, 5, 3]
    assert best(study).number == 2
    states = [study.state(t) for t in study.trials]
    assert states == ["finished", "stopped", "finished", "failed", "finished", "running", "failed"]


def test_without_a_finished_trial_there_is_no_best(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No trial of study 'first'"):
        best(stored(tmp_path, [trial(0, [rung(0.9, 0.33)]), trial(1, [])]))


def test_places_are_even_in_the_logarithm_and_zero_stands_apart() -> None:
    weight, share, rate = axis(WEIGHT), axis(SHARE), axis(RATE)
    assert [place(weight, v) for v in (0.01, 0.1, 1.0)] == pytest.approx([0, 0.5, 1])
    assert place(weight, 0.0) == ZERO_PLACE < place(weight, 0.01)
    assert [place(share, v) for v in (0.1, 0.3, 0.5)] == pytest.approx([0, 0.5, 1])
    assert place(rate, 0.1) == pytest.approx(1.5)


def test_an_axis_of_one_value_has_a_place() -> None:
    assert place(axis(WEIGHT | {"low": 0.5, "high": 0.5}), 0.5) == 0
    assert place(axis(SHARE | {"low": 0.5, "high": 0.5}), 0.5) == 0


def test_new_seeds_decide_where_there_are_such(tmp_path: Path) -> None:
    """Trial 2 was the best of the search; of those that were judged again the default is."""
    study = stored(
        tmp_path,
        [
            trial(0, [rung(0.60)], confirmed=rung(0.63)),
            trial(1, [rung(0.64)], confirmed=rung(0.63)),
            trial(2, [rung(0.66)], confirmed=rung(0.58)),
            trial(3, [rung(0.65)]),
        ],
    )
    assert [t.number for t in standing(study)] == [2, 3, 1, 0]
    assert best(study).number == 0 and best(study).final.rare_recall == 0.63
    assert study.trials[3].final.rare_recall == 0.65
