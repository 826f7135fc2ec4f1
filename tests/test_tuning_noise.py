"""The noise study of a run: from its stored scores to the table, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.protocol import ScoreRecord
from motionsynth.recipes import get_recipe
from rayjobs import cli
from rayjobs.score_tables import write
from storage import Storage
from tuning.noise import Options, measure, read_scores, resembling, table, verb

RECIPE = get_recipe("demo")
WHO = "+".join(dict.fromkeys(p.training.recogniser for p in RECIPE.scores))


def record(
    arm: str, draw: int, seed: int, ap: float, recogniser: str = WHO, rare: tuple = (1,)
) -> ScoreRecord:
    """Its average precision is given; its recall is 10 points below."""
    return ScoreRecord(
        protocol=1, dataset="toy", bed=f"bed-d{draw}" if rare else "full", draw=draw, split="validation", arm=arm,
        recogniser=recogniser, seed=seed, top1=0.5, macro=0.5, rare_recall=ap - 0.1, recalls=(0.5, math.nan), rare=rare,
        confusion=((1, 0), (0, 1)), average_precisions=(ap, ap), real_clips=9, synthetic_clips=0, steps=5, seconds=1.0,
    )  # fmt: skip


def records(
    draws: int = 3, seeds: int = 3, arms: tuple = ("weak", "strong", "gan"), **more
) -> list[ScoreRecord]:
    """Each (draw, seed) has luck of its own, of sd 4 and 3 points, that all arms share; each run a point besides."""
    rng = np.random.default_rng(0)
    luck = 4 * rng.normal(size=(draws, 1)) + 3 * rng.normal(size=(draws, seeds))
    return [
        record(a, d, s, float(60 + 2 * (a == "gan") + luck[d, s] + rng.normal()) / 100, **more)
        for a in arms
        for d in range(draws)
        for s in range(seeds)
    ]


def said(given: list[ScoreRecord], difference: float = 2.0) -> str:
    return "\n\n".join(map(table, measure(given, ["strong", "gan"], difference)))


def test_common_runs_are_less_noisy_than_single_arms() -> None:
    (found,) = measure(records(20, 10), ["strong", "gan"])
    assert (found.draws, found.seeds, list(found.pairs)) == (20, 10, ["gan - strong"])
    pair = found.pairs["gan - strong"]
    assert pair.mean == pytest.approx(2, abs=0.4) and pair.within == pytest.approx(2, rel=0.25)
    assert found.arms["strong"].within == pytest.approx(10, rel=0.25)
    assert found.arms["strong"].between == pytest.approx(16, rel=0.6)
    assert found.arms["gan"].mean - found.arms["strong"].mean == pytest.approx(pair.mean)
    fixed = found.needed["fixed"]
    assert all(fixed["common"][d] < fixed["own"][d] for d in fixed["common"])


def test_the_typical_pair_is_the_mean_of_all() -> None:
    (found,) = measure(records(arms=("a", "b", "c")), ["a", "b", "c"])
    assert list(found.pairs) == ["b - a", "c - a", "c - b"]
    assert found.pair.within == pytest.approx(np.mean([p.within for p in found.pairs.values()]))
    assert found.one_arm.between == pytest.approx(np.mean([p.between for p in found.arms.values()]))


def test_any_metric_can_be_asked_for_that_records_have() -> None:
    (of_ap,), (of_recall,) = (
        measure(records(), ["strong", "gan"], metric=m) for m in ("rare_ap", "rare_recall")
    )
    assert of_recall.arms["gan"].mean == pytest.approx(of_ap.arms["gan"].mean - 10)
    assert of_recall.pair.within == pytest.approx(of_ap.pair.within)
    assert "points of rare AP." in table(of_ap) and "points of rare recall." in table(of_recall)
    older = [replace(r, average_precisions=()) for r in records()]
    with pytest.raises(
        InputError, match="have no rare AP: .* before records kept it .give --metric rare_recall"
    ):
        measure(older, ["strong", "gan"])
    assert measure(older, ["strong", "gan"], metric="rare_recall")


def test_a_single_draw_is_read_as_fixed_only() -> None:
    (found,) = measure(records(draws=1, seeds=4), ["strong", "gan"])
    assert list(found.needed) == ["fixed"]
    text = said(records(draws=1, seeds=4))
    assert "random draws," not in text and "with fixed draws." in text


def test_the_table_has_arms_pairs_and_seeds_needed() -> None:
    given = records()
    text = said(given, 3.0)
    (found,) = measure(given, ["strong", "gan"], 3.0)
    pair = found.pairs["gan - strong"]
    assert text.startswith(f"Noise of recogniser {WHO}: 3 draws, 3 seeds each")
    assert (
        f"| gan - strong | {pair.mean:+.1f} | {math.sqrt(pair.between):.1f} | {math.sqrt(pair.within):.1f} |"
        in text
    )
    assert "tell 3 points apart" in text
    cells = [found.needed[r][k][2] for r in ("fixed", "random") for k in ("common", "own")]
    assert f"| 2 | {' | '.join('never' if c is None else f'{c:,}' for c in cells)} |" in text


def test_each_recogniser_has_a_table_and_beds_without_rare_classes_are_left_out() -> None:
    other = records(recogniser="other")
    full = [record(a, 0, s, 0.99 - s / 3, rare=()) for a in ("strong", "gan") for s in range(3)]
    assert said([*records(), *full, *other]) == f"{said(records())}\n\n{said(other)}"


def test_arms_that_resemble_a_setting() -> None:
    adjusted, alone = ("adjusted", "adjusted:gan"), ("tstr:gan",)
    real = ("weak", "strong", "difference")
    found = resembling(records(1, 2, (*real, *adjusted, "gan", "refined:gan", *alone, "ceiling")))
    assert found == ["strong", "difference", "gan", "refined:gan"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="no arm 'gann'.*Known: weak, strong, gan"):
        measure(records(), ["strong", "gann"])
    with pytest.raises(InputError, match="two arms; got strong"):
        measure(records(), ["strong", "strong"])
    with pytest.raises(InputError, match="fewer than 2 seeds.*--seeds 2"):
        measure(records(seeds=1), ["strong", "gan"])
    with pytest.raises(InputError, match="Unknown metric 'ap'. Known: rare_ap, rare_recall, macro"):
        measure(records(), ["strong", "gan"], metric="ap")
    apart = [r for r in records() if r.arm == "strong" or r.seed > 1]
    with pytest.raises(InputError, match="fewer than 2 seeds"):
        measure(apart, ["strong", "gan"])


@pytest.fixture
def scored(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    write(storage, "toy", "first", RECIPE, {}, records(), part=False)
    return storage


def test_scores_are_read_as_the_scoring_wrote_them(scored: Storage) -> None:
    """NaN recalls compare as unequal, so the records are compared as text."""
    assert repr(read_scores(scored, "toy", "first", "validation", WHO)) == repr(records())
    write(scored, "toy", "first", RECIPE, {}, records(2, 2), part=True)
    assert len(read_scores(scored, "toy", "first", "validation", WHO)) == len(records())
    scored.delete(f"runs/first/toy/score-validation-{WHO}.parquet")
    assert len(read_scores(scored, "toy", "first", "validation", WHO)) == len(records(2, 2))


def test_missing_scores_are_refused_with_what_there_is(scored: Storage) -> None:
    with pytest.raises(InputError, match=f"no scores of {WHO} on test .*score-validation-{WHO}.parquet"):
        read_scores(scored, "toy", "first", "test", WHO)
    with pytest.raises(InputError, match="it has: none.*rayjobs.score"):
        read_scores(scored, "toy", "second", "validation", WHO)
    with pytest.raises(InputError, match="Unknown split 'tests'"):
        read_scores(scored, "toy", "first", "tests", WHO)


def test_the_command_prints_the_table_and_its_figures(scored: Storage, capsys: pytest.CaptureFixture) -> None:
    argv = ["--dataset", "toy", "--recipe", "demo", "--storage", scored.uri, "--run", "first", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main(Options, verb, argv)
    *table, last = capsys.readouterr().out.strip().splitlines()
    assert end.value.code == 0 and "\n".join(table) == said(records())
    (found,) = json.loads(last)["noise"]
    assert found["pairs"]["gan - strong"]["dof"] == 6
    assert (
        found["needed"]["fixed"]["common"]["3"]
        == measure(records(), ["strong", "gan"])[0].needed["fixed"]["common"][3]
    )


def test_the_command_refuses_in_one_sentence(scored: Storage, capsys: pytest.CaptureFixture) -> None:
    argv = ["--dataset", "toy", "--recipe", "demo", "--storage", scored.uri, "--run", "nope"]
    with pytest.raises(SystemExit) as end:
        cli.main(Options, verb, argv)
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == cli.BAD_INPUT and said[-1].startswith("Run 'nope' has no scores")
