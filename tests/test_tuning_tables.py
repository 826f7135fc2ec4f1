"""Importances, the report and the Parquet table of studies whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motionsynth.errors import InputError
from tests.tiny_studies import AXES, RUNS, random_trials, rung, stored, trial
from tuning.study import best
from tuning.tables import importance, markdown, table

DECIDES = {
    "loss_weights.flow": lambda v: 0.5 + (0.2 if v["loss_weights.flow"] == 0 else 0.0),
    "synthetic_share": lambda v: 0.7 - abs(v["synthetic_share"] - 0.45),
    "training.lr": lambda v: 0.7 - 0.1 * abs(math.log10(v["training.lr"]) + 3.6),
    "generator_config.solver": lambda v: 0.6 if v["generator_config.solver"] == "heun" else 0.5,
}


@pytest.mark.parametrize("name", list(DECIDES))
@pytest.mark.parametrize("seed", [0, 1])
def test_the_axis_that_decides_has_nearly_all_the_importance(name: str, seed: int, tmp_path: Path) -> None:
    shares = importance(stored(tmp_path, random_trials(80, DECIDES[name], seed)))
    assert set(shares) == {a["name"] for a in AXES}
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == name and shares[name] > 0.7


def test_importance_is_of_the_best_trials_not_of_the_worst(tmp_path: Path) -> None:
    """A share above 0.4 makes the best quarter; a high rate the worst quarter of all trials."""

    def recall(v: dict) -> float:
        return 0.6 + 0.2 * max(0.0, v["synthetic_share"] - 0.4) - 0.3 * (v["training.lr"] > 3e-3)

    shares = importance(stored(tmp_path, random_trials(80, recall)))
    assert next(iter(shares)) == "synthetic_share" and shares["synthetic_share"] > 0.6


def test_importance_needs_enough_trials_that_differ(tmp_path: Path) -> None:
    decides = DECIDES["synthetic_share"]
    assert importance(stored(tmp_path / "7", random_trials(7, decides))) == {}
    assert importance(stored(tmp_path / "8", random_trials(8, decides)))
    assert importance(stored(tmp_path / "same", random_trials(20, lambda v: 0.6))) == {}
    fixed = [trial(i, [rung(0.5 + i / 100)]) for i in range(20)]
    assert importance(stored(tmp_path / "fixed", fixed)) == {}


def test_an_axis_of_one_value_has_no_importance(tmp_path: Path) -> None:
    trials = random_trials(30, DECIDES["synthetic_share"])
    for t in trials:
        t["values"] |= {"training.lr": 1e-3, "generator_config.solver": "ddim"}
    shares = importance(stored(tmp_path, trials))
    assert shares["training.lr"] == shares["generator_config.solver"] == 0
    assert shares["synthetic_share"] > 0.8 and sum(shares.values()) == pytest.approx(1)


def test_many_equal_values_still_tell_the_best_apart(tmp_path: Path) -> None:
    """The worst value alone fills more than half of the trials: they must not be counted among the best."""
    shares = importance(
        stored(tmp_path, random_trials(12, lambda v: 0.6 if v["synthetic_share"] > 0.38 else 0.5, seed=3))
    )
    assert max(shares, key=lambda k: shares[k]) == "synthetic_share"
    assert len({round(s, 6) for s in shares.values()}) > 1


def test_importance_leaves_optuna_as_talkative_as_it_was(tmp_path: Path) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        importance(stored(tmp_path, random_trials(10, DECIDES["synthetic_share"])))
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


def runs(*recalls: float) -> dict:
    return dict(zip(RUNS, recalls, strict=True))


def test_the_report_compares_the_winner_with_the_default_run_by_run(tmp_path: Path) -> None:
    """Differences 1, 3, 1, 3, 1, 3 points: mean 2, s = 1.0954, t(5) = 2.5706, half width 1.1496."""
    default = rung(0.60, runs=runs(0.50, 0.52, 0.60, 0.62, 0.70, 0.66))
    winner = rung(0.62, runs=runs(0.51, 0.55, 0.61, 0.65, 0.71, 0.69))
    text = markdown(
        stored(
            tmp_path,
            [
                trial(0, [rung(0.6, 0.33), default]),
                trial(1, [rung(0.6, 0.33), winner], {"loss_weights.flow": 0.0}),
                trial(2, [rung(0.55, 0.33)], {"synthetic_share": 0.4321}),
                trial(3, [], error="killed"),
            ],
        )
    )
    assert text.startswith("# Study first: recipe motion_gan on nucla\n")
    assert "2 finished, 1 stopped early, 1 failed" in text and "after 33 %, 100 % of the steps" in text
    assert "| loss_weights.flow | 0.01 to 1, logarithmic, or 0 | 0.1 |" in text
    assert "| generator_config.solver | ddim or heun or true | ddim |" in text
    rows = [
        line.split(" | ") for line in text.splitlines() if line.startswith(("| 0 ", "| 1 ", "| 2 ", "| 3 "))
    ]
    assert [r[0] for r in rows] == ["| 1", "| 0", "| 2", "| 3"]
    assert (
        rows[0][1] == "0"
        and rows[0][5:7] == ["62.0", "+2.0 [+0.0, +4.0]"]
        and rows[0][7:] == ["", "75.0", "2 of 2", "60 |"]
    )
    assert rows[2][2] == "0.4321" and rows[2][9] == "1 of 2" and rows[3][9] == "0 of 2, failed"
    assert "Too few trials" in text
    assert "|  | default (trial 0) | winner (trial 1) |" in text
    assert "Winner - default: +2.0 [+0.9, +3.1] points of rare recall, paired over 6 runs." in text
    assert "validation people" in text and "best of 2 trials is biased upwards" in text
    assert "`python -m tuning.report --run first --test`" in text


def test_the_report_is_in_the_words_of_its_metric(tmp_path: Path) -> None:
    ap = lambda value: {"rare_ap": value, "runs": [r | {"rare_ap": value} for r in rung(0.5)["runs"]]}  # noqa: E731
    trials = [trial(0, [rung(0.7) | ap(0.6)], confirmed=rung(0.7) | ap(0.6)),
        trial(1, [rung(0.5) | ap(0.8)], confirmed=rung(0.5) | ap(0.7))]  # fmt: skip
    text = markdown(stored(tmp_path, trials, metric="rare_ap"))
    assert "(seed 0) for rare AP, judged" in text
    assert "| rare AP % | gain over strong [95 %] | rare recall % | macro accuracy % |" in text
    assert "in the search, rare AP %" in text and "differ in rare AP" in text
    assert "| rare AP % | 60.0 | 70.0 |" in text and "| rare recall % | 70.0 | 50.0 |" in text
    assert "Winner - default: +10.0 [+10.0, +10.0] points of rare AP, paired over 6 runs." in text


def test_what_new_seeds_say_of_the_best_is_told_apart(tmp_path: Path) -> None:
    study = stored(
        tmp_path,
        [
            trial(0, [rung(0.60)], confirmed=rung(0.59)),
            trial(1, [rung(0.66)], confirmed=rung(0.61)),
            trial(2, [rung(0.65)]),
        ],
    )
    text = markdown(study)
    section = text.split("## The best again, by new seeds")[1].split("##")[0]
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith(("| 0 ", "| 1 ", "| 2 "))]
    assert [(li[0], li[1], li[-1]) for li in lines] == [("| 1", "61.0", "66.0 |"), ("| 0", "59.0", "60.0 |")]
    assert "Winner - default: +2.0 [" in text and "best of 2 trials" in text
    rows = table(study).to_pylist()
    assert [(r["number"], r["confirmed"], r["rare_recall"]) for r in rows] == [
        (0, False, 0.60), (0, True, 0.59), (1, False, 0.66), (1, True, 0.61), (2, False, 0.65),
    ]  # fmt: skip
    assert "new seeds" not in markdown(stored(tmp_path / "none", [trial(0, [rung(0.6)])]))


def test_several_recognisers_are_paired_each_with_its_own(tmp_path: Path) -> None:
    """Two recognisers give two runs for each bed and seed; none may take another's place."""
    default, winner = rung(0.60), rung(0.62)
    default["runs"] = [*rung(0.50)["runs"], *rung(0.70)["runs"]]
    winner["runs"] = [*rung(0.54)["runs"], *rung(0.70)["runs"]]
    text = markdown(stored(tmp_path, [trial(0, [default]), trial(1, [winner])]))
    assert "Winner - default: +2.0 [" in text and "paired over 12 runs" in text


def test_the_report_of_a_default_that_nothing_beat(tmp_path: Path) -> None:
    text = markdown(stored(tmp_path, [trial(0, [rung(0.6)]), trial(1, [rung(0.6)])]))
    assert "No trial was better than the default setting (trial 0)." in text and "winner's curse" in text


def test_the_report_of_a_study_that_has_just_begun(tmp_path: Path) -> None:
    assert "No trial has reached the last rung yet." in markdown(stored(tmp_path / "none", []))
    text = markdown(
        stored(tmp_path / "one", [trial(0, [rung(0.5, 0.33)], ended=False), trial(1, [rung(0.6)])])
    )
    assert (
        "1 of 2, running" in text
        and "had the default setting at the last rung, so there is nothing to compare" in text
    )


def test_the_report_lists_the_importances(tmp_path: Path) -> None:
    study = stored(tmp_path, random_trials(40, DECIDES["synthetic_share"]))
    share = importance(study)["synthetic_share"]
    assert f"| synthetic_share | {100 * share:.0f} |" in markdown(study)


def test_a_bar_in_a_value_does_not_break_the_table(tmp_path: Path) -> None:
    text = markdown(stored(tmp_path, [trial(0, [rung(0.6)], {"generator_config.solver": "a|b"})]))
    assert "a\\|b" in text


def test_the_table_has_a_row_for_every_trial_and_rung(tmp_path: Path) -> None:
    study = stored(
        tmp_path,
        [
            trial(0, [rung(0.6, 0.33), rung(0.62)], {"generator_config.solver": True}),
            trial(1, [rung(0.5, 0.33)], {"synthetic_share": 0.2}),
            trial(2, [], error="killed"),
        ],
    )
    pq.write_table(table(study), tmp_path / "t.parquet")
    got = pq.read_table(tmp_path / "t.parquet")
    assert got["number"].to_pylist() == [0, 0, 1, 2]
    assert got["fraction"].to_pylist() == [0.33, 1.0, 0.33, None]
    assert got["state"].to_pylist() == ["finished", "finished", "stopped", "failed"]
    assert got["synthetic_share"].to_pylist() == [0.3, 0.3, 0.2, 0.3]
    assert got.schema.field("loss_weights.flow").type == pa.float64()
    assert got["generator_config.solver"].to_pylist() == ["true", "true", "ddim", "ddim"]
    assert got["runs"][1].as_py()[5] == {
        "bed": RUNS[5][0], "recogniser": None, "seed": RUNS[5][1], "rare_recall": 0.62, "strong": 0.6,
        "rare_ap": None, "macro": None,
    }  # fmt: skip
    assert got["error"].to_pylist()[-1] == "killed"


def test_an_axis_named_like_a_column_is_refused(tmp_path: Path) -> None:
    study = stored(tmp_path, [trial(0, [rung(0.6)])])
    clash = replace(study, axes=(replace(study.axes[0], name="steps"),))
    with pytest.raises(InputError, match="'steps'"):
        table(clash)


def test_best_is_the_highest_at_the_last_rung(tmp_path: Path) -> None:
    study = stored(tmp_path, random_trials(30, DECIDES["training.lr"]))
    recalls = {t.number: t.rungs[-1].rare_recall for t in study.trials}
    assert best(study).number == max(recalls, key=lambda n: recalls[n])
