"""Cross-fitting: nobody judges what he has seen, and no class is unknown to a teacher without need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.teachers import Teachers, fit_teachers, fold_clips, take
from tests.tiny_motion import make_tiny_set

QUICK = RecogniserTraining(steps=3, batch=6)
TRAIN = make_tiny_set(2)


@pytest.fixture(scope="module")
def teachers() -> Teachers:
    return fit_teachers(TRAIN, 3, QUICK, seed=0)


def child(parent: str | None, label: int = 0) -> Motion:
    like = next(m for m in TRAIN.motions if m.label == label)
    return replace(like, source="synthetic", sample_id="s", subject="", parent_id=parent)


def changed(**fields) -> MotionSet:
    return replace(TRAIN, motions=tuple(replace(m, **fields) for m in TRAIN.motions))


def parts(motions: MotionSet, folds: int = 3) -> list[tuple[MotionSet, MotionSet]]:
    """(held out, trained on) by fold."""
    fold = fold_clips(motions, folds, seed=0)
    return [
        (motions.select(np.flatnonzero(fold == f)), motions.select(np.flatnonzero(fold != f)))
        for f in range(fold.max() + 1)
    ]


def test_a_subject_is_in_one_fold_and_classes_are_spread() -> None:
    cut = parts(TRAIN)
    assert len(cut) == 3 and sum(len(out) for out, _ in cut) == len(TRAIN)
    for out, seen in cut:
        assert not {m.subject for m in out.motions} & {m.subject for m in seen.motions}
        assert set(out.labels.tolist()) == set(seen.labels.tolist()) == {0, 1, 2}
    assert len(parts(TRAIN, folds=9)) == 4  # as many as there are people


def test_where_one_subject_does_it_all_copies_of_a_take_stay_together() -> None:
    for out, seen in parts(changed(subject="01"), folds=2):
        assert {take(m) for m in out.motions}.isdisjoint(take(m) for m in seen.motions)
        assert {m.view for m in out.motions} == {"01", "02"}
    # Of the class that one person shows, clips leave that person's fold; the others do not.
    lone = replace(TRAIN, motions=tuple(m for m in TRAIN.motions if m.label != 1 or m.subject == "02"))
    for out, seen in parts(lone):
        assert set(seen.labels.tolist()) == {0, 1, 2}
        for label in (0, 2):
            people = [{m.subject for m in s.motions if m.label == label} for s in (out, seen)]
            assert not people[0] & people[1]


def test_without_subjects_and_takes_every_clip_is_for_itself() -> None:
    bare = changed(subject="", repetition="")
    for out, seen in parts(bare, folds=5):
        assert len(out) in (9, 10) and set(seen.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_two_clips_stays_known_to_every_teacher(seed: int) -> None:
    """Also where they are of two people whom the other classes would put into one fold."""
    rng = np.random.default_rng(seed)
    pair = rng.choice(np.flatnonzero(TRAIN.labels == 1), 2, replace=False)
    rest = rng.choice(np.flatnonzero(TRAIN.labels != 1), 20, replace=False)
    motions = TRAIN.select([*pair, *rest])
    fold = fold_clips(motions, 3, seed)
    for c in set(motions.labels.tolist()):
        if (motions.labels == c).sum() > 1:
            assert len(set(fold[motions.labels == c].tolist())) > 1
    assert sorted(set(fold.tolist())) == list(range(fold.max() + 1))


def test_too_few_clips_or_folds_are_one_sentence() -> None:
    for motions, folds in ((TRAIN.select([0]), 3), (TRAIN, 1)):
        with pytest.raises(InputError, match="needs at least 2 of each"):
            fold_clips(motions, folds, 0)


def test_a_clip_is_judged_by_those_who_never_saw_its_source(teachers: Teachers) -> None:
    ids = [m.sample_id for m in TRAIN.motions]
    for i in range(len(TRAIN)):
        (judge,) = teachers.judges([child(ids[i], TRAIN.motions[i].label)])[0]
        seen = TRAIN.select(np.flatnonzero(teachers.fold != judge))
        assert ids[i] not in {m.sample_id for m in seen.motions}
        assert TRAIN.motions[i].subject not in {m.subject for m in seen.motions}


def test_several_sources_or_none(teachers: Teachers) -> None:
    ids = np.array([m.sample_id for m in TRAIN.motions])
    first, second = (ids[(teachers.fold == f) & (TRAIN.labels == 0)] for f in (0, 1))
    pairs = [f"{first[0]}+{first[1]}", f"{first[0]}+{second[0]}", f"{first[0]}+{first[1]}+{second[0]}", None]
    assert teachers.judges([child(p) for p in pairs]) == [[0], [0, 1], [0], [0, 1, 2]]
    with pytest.raises(InputError, match="made from 'c9', which is not among the 48 training clips"):
        teachers.judges([child(f"{first[0]}+c9")])
    # A name with a plus sign is a name before it is two.
    odd = replace(TRAIN.motions[0], sample_id="a+b")
    renamed = replace(teachers, train=replace(TRAIN, motions=(odd, *TRAIN.motions[1:])))
    assert renamed.judges([child("a+b")]) == [[int(teachers.fold[0])]]


def test_a_class_of_one_clip_is_judged_by_those_who_know_it() -> None:
    only = next(i for i, m in enumerate(TRAIN.motions) if m.label == 1)
    motions = TRAIN.select([only, *np.flatnonzero(TRAIN.labels != 1)])
    teachers = fit_teachers(motions, 3, QUICK, seed=0)
    (judges,) = teachers.judges([child(TRAIN.motions[only].sample_id, 1)])
    assert len(judges) == 2 and int(teachers.fold[0]) not in judges
    real = teachers.held_out()
    assert [len(v[1]) for v in (real.confidence, real.named, real.take_away, real.fold_away)] == [0] * 4
    without = fit_teachers(TRAIN.select(np.flatnonzero(TRAIN.labels != 1)), 2, QUICK, seed=0)
    with pytest.raises(InputError, match="class 'wave left hand', which no training clip shows"):
        without.judges([child(None, 1)])


def test_real_clips_are_measured_by_their_own_teacher_and_not_against_copies(teachers: Teachers) -> None:
    real = teachers.held_out()
    first = [i for i in range(len(TRAIN)) if TRAIN.labels[i] == 0]
    own = [teachers.probabilities[teachers.fold[i]][i][0] for i in first]
    assert real.confidence[0].tolist() == [float(p) for p in own]
    # Another person is farther away than another take of one's own.
    for near, far in zip(real.take_away, real.fold_away, strict=True):
        assert len(near) == len(far) == len(first) and (near <= far).all() and near.mean() < far.mean()
    # Cameras that film one take have no distance to each other, whoever else is there.
    copies = replace(TRAIN, motions=tuple(replace(m, positions=n.positions) for m, n in zip(
        TRAIN.motions, [TRAIN.motions[i - i % 2] for i in range(len(TRAIN))], strict=True)))  # fmt: skip
    apart = fit_teachers(copies, 3, QUICK, seed=0).held_out().take_away
    assert min(d.min() for d in apart) > 1e-3
