"""Whether a gain holds for other people: an interval over those who judge.

Draws and seeds are repeats with the same few people, so an interval over them says how sure a gain is *for these*. Here
one person after the other is left out of the judging, and what that changes tells how far the gain hangs on who was
asked (the jackknife; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from motionsynth.metrics_gain import Interval, average_precision, leave_one_out_interval

if TYPE_CHECKING:
    from motionsynth.protocol import ScoreRecord

Rows = tuple[tuple[float, ...], ...]


def without_each(
    probabilities: np.ndarray, truth: np.ndarray, subjects: Sequence[str]
) -> tuple[tuple[str, ...], Rows, Rows]:
    """What a recogniser would have scored had one of the people not been asked.

    Args:
        probabilities: [n, K].
        truth: Class of each clip, [n].
        subjects: Who shows it, [n]; clips without a subject are in every row.

    Returns:
        The people, and for each of them the recall and the average precision of every class over the others' clips
        ([P, K], NaN where they show none). Nothing where there are fewer than two.
    """
    who = np.array(subjects, str)
    people = tuple(sorted({s for s in subjects if s}))
    if len(people) < 2:
        return (), (), ()
    classes = range(probabilities.shape[1])
    named = probabilities.argmax(1)
    recalls, precisions = [], []
    for person in people:
        rest = who != person
        p, y, right = probabilities[rest], truth[rest], (named == truth)[rest]
        recalls.append(
            tuple(float(right[y == c].mean()) if (y == c).any() else float("nan") for c in classes)
        )
        precisions.append(tuple(average_precision(p[:, c], y == c) for c in classes))
    return people, tuple(recalls), tuple(precisions)


def difference_over_people(
    records: Sequence[ScoreRecord], arm: str, other: str, field: str = "rare_recall"
) -> Interval | None:
    """`arm` minus `other` in percentage points, with its interval over the people who judge.

    Args:
        records: Of one recogniser. A person judges in the draws that hold him out, one or all of them.
        arm, other: Compared over the (bed, seed) that both have.
        field: "rare_recall" or "rare_ap".

    Returns:
        The interval, its `n` the number of people; None where a record does not know who judged, or fewer than two did.
    """
    one, two = ({(r.bed, r.seed): r for r in records if r.arm == a} for a in (arm, other))
    pairs = [(one[k], two[k]) for k in sorted(set(one) & set(two))]
    if not pairs or not all(a.people and a.people == b.people for a, b in pairs):
        return None

    def difference(left_out: str) -> float:
        values = np.array([a.without(left_out, field) - b.without(left_out, field) for a, b in pairs])
        known = values[np.isfinite(values)]
        return 100 * float(known.mean()) if len(known) else float("nan")

    people = sorted({p for a, _ in pairs for p in a.people})
    return leave_one_out_interval(difference(""), [difference(p) for p in people])
