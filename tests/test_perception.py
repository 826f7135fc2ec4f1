"""Who sees which clip, and what answers come to."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.perception import Answer, Plan, StudyDesign, format_scores, indistinguishable, scores
from tests.tiny_motion import make_tiny_set


def both(repetitions: int = 2, classes: tuple[int, ...] = (0, 1, 2)) -> tuple[MotionSet, MotionSet]:
    """Real clips, and the same under other names as synthetic ones of some classes."""
    real = make_tiny_set(repetitions)
    made = tuple(
        replace(m, sample_id=f"syn-{m.sample_id}", source="synthetic")
        for m in real.motions
        if m.label in classes
    )
    return real, replace(real, motions=made)


@given(st.integers(0, 1000), st.integers(1, 8).map(lambda n: 2 * n), st.integers(0, 2**40))
def test_a_participant_sees_every_clip_once_and_half_of_them_are_real(
    who: int, per_task: int, seed: int
) -> None:
    plan = Plan(*both(3), StudyDesign(per_task=per_task, options=3, seed=seed))
    trials = plan.trials(who)
    assert [t.number for t in trials] == list(range(2 * per_task))
    assert len({t.sample_id for t in trials}) == 2 * per_task
    assert Counter((t.task, t.source) for t in trials) == {
        (task, source): per_task // 2 for task in ("action", "origin") for source in ("real", "synthetic")
    }
    assert plan.trials(who) == trials


def test_clips_are_shown_equally_often() -> None:
    real, made = both(2)
    plan = Plan(real, made, StudyDesign(per_task=6, options=3))
    shown = Counter((t.task, t.sample_id) for who in range(32) for t in plan.trials(who))
    # 96 showings of 48 clips of each source, for each question.
    assert len(shown) == 2 * (len(real) + len(made)) and set(shown.values()) == {2}


def test_the_questions_come_in_both_orders_and_neither_source_comes_first() -> None:
    plan = Plan(*both(), StudyDesign(per_task=8, options=3))
    assert [plan.trials(n)[0].task for n in range(4)] == ["action", "origin", "action", "origin"]
    firsts = Counter(plan.trials(n)[0].source for n in range(60))
    assert min(firsts.values()) > 15
    orders = {
        tuple(t.sample_id for t in Plan(*both(), StudyDesign(per_task=8, seed=s)).trials(0)) for s in range(5)
    }
    assert len(orders) == 5


def test_the_true_class_is_always_offered_and_its_place_tells_nothing() -> None:
    plan = Plan(*both(), StudyDesign(per_task=8, options=2))
    places = Counter()
    for who in range(40):
        for t in plan.trials(who):
            if t.task == "action":
                assert t.label in t.options and len(t.options) == 2 and list(t.options) == sorted(t.options)
                assert t.truth in t.answers
                places[t.options.index(t.label)] += 1
            else:
                assert t.options == () and t.answers == ("real", "synthetic") and t.truth == t.source
    assert min(places.values()) > 100


def test_classes_that_one_side_lacks_and_refused_clips_are_left_out() -> None:
    real, made = both(3, classes=(1, 2))
    refused = {m.sample_id for m in made.motions[::2]}
    made = replace(made, motions=tuple(replace(m, accepted=m.sample_id not in refused) for m in made.motions))
    plan = Plan(real, made, StudyDesign(per_task=6, options=3))
    trials = [t for n in range(20) for t in plan.trials(n)]
    assert {t.label for t in trials} == {1, 2} and not refused & {t.sample_id for t in trials}


def test_bad_input_is_one_sentence() -> None:
    real, made = both(1)
    with pytest.raises(InputError, match="shares? no class"):
        Plan(real, replace(made, motions=()), StudyDesign())
    with pytest.raises(InputError, match="has 8 real clips; with 60 clips for each question 20 are needed"):
        Plan(real, made, StudyDesign(per_task=60))
    with pytest.raises(InputError, match="must be even"):
        StudyDesign(per_task=7)


def answered(task: str, source: str, label: int, correct: bool) -> Answer:
    return Answer(participant="0", task=task, source=source, label=label, answer="x", correct=correct)


def test_scores_are_shares_of_correct_answers_with_wilson_intervals() -> None:
    answers = [answered("action", "synthetic", 0, True)] * 8 + [answered("action", "synthetic", 1, False)] * 2
    answers += [answered("action", "real", 0, True)] * 5
    found = {(s.task, s.source, s.label): s.share for s in scores(answers)}
    assert (found["action", "synthetic", None].mean, found["action", "synthetic", None].n) == (0.8, 10)
    # Wilson 1927 for 8 of 10: 0.490 to 0.943.
    assert found["action", "synthetic", None].lo == pytest.approx(0.490, abs=1e-3)
    assert found["action", "synthetic", None].hi == pytest.approx(0.943, abs=1e-3)
    assert found["action", "synthetic", 1].mean == 0 and found["action", "real", None].mean == 1
    table = format_scores(scores(answers), ("walk", "wave"), {"participants": 1, "answers": 15})
    assert "1 participants, 15 answers" in table and "80.0" in table and "[49.0, 94.3]" in table
    assert format_scores(scores(answers), ("walk", "wave"), None).startswith("MACHINE score")


def test_clips_that_nobody_can_tell_apart_score_one() -> None:
    told = lambda right, wrong: indistinguishable(  # noqa: E731
        [answered("origin", "real", 0, True)] * right + [answered("origin", "synthetic", 0, False)] * wrong
    )
    assert (told(5, 5), told(10, 0), told(0, 10)) == (1.0, 0.0, 0.0)
    assert math.isnan(indistinguishable([answered("action", "real", 0, True)]))
