"""What counts as a gain: the arms, one trained recogniser's record, and the table over draws and seeds.

Training and judging one is in `motionsynth.arms`. Every arm of a draw trains the same recogniser for the same number
of steps from the same seed; only the clips differ, and in the adjusted arms how classes are drawn and weighed. A gain
is claimed over the *strong* real arm, and only when its paired interval excludes zero.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from motionsynth.beds import Bed
from motionsynth.generators.lenders import LENDERS
from motionsynth.metrics_gain import Interval, gap_closed, improvement, paired_interval
from motionsynth.people import Rows, difference_over_people
from motionsynth.recognition_config import OF_SYNTHETIC, RecogniserTraining

PROTOCOL_VERSION = 1
"""Raised whenever two scores of different versions must not be compared."""

REAL_ARMS = ("weak", "strong", "ceiling")
ADJUSTED = "adjusted"
"""The arm that has strong's clips, and draws and weighs classes otherwise (see `train_recogniser`). Before a colon and
a generator's name: that generator's arm, trained the same way."""
MADE_ARMS = ("interpolation", "difference", "feature")
"""Rivals that make clips, or features, from the training clips alone."""
RIVAL_ARMS = (ADJUSTED, *MADE_ARMS)
HYBRID = "hybrid"
"""The arm that adds a hybrid dataset's own synthetic clips; its `strong` arm has the real ones alone."""
TSTR = "tstr:"
"""Prefix of the arm that trains on a generator's synthetic clips alone (train on synthetic, test on real)."""
REFINED = "refined:"
"""Prefix of a generator's name for its clips as `motionsynth.refine` graded them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRecord:
    """One recogniser, trained once and judged on held-out clips. Accuracies and recalls are in [0, 1].

    Attributes:
        recalls: Recall of each class, NaN where no held-out clip shows it.
        average_precisions: The same (see `metrics_gain.average_precision`); none in records of before it was kept.
        confusion: Counts, [true class][predicted class].
        people: Who judges; none in records of before it was kept, nor where fewer than two people are named.
        recalls_without, average_precisions_without: `recalls` and `average_precisions` over the others' clips, for each
            of the people (see `motionsynth.people`).
        as_published: Judged by synthetic clips, too (see `motionsynth.hybrid`): says nothing about unseen people.
        device: What trained it: "cpu", or the name of a GPU, whose sums differ.
    """

    protocol: int
    dataset: str
    bed: str
    draw: int
    split: str
    arm: str
    recogniser: str
    seed: int
    top1: float
    macro: float
    rare_recall: float
    recalls: tuple[float, ...]
    rare: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    real_clips: int
    synthetic_clips: int
    steps: int
    seconds: float
    as_published: bool = False
    average_precisions: tuple[float, ...] = ()
    device: str = "cpu"
    people: tuple[str, ...] = ()
    recalls_without: Rows = ()
    average_precisions_without: Rows = ()

    def without(self, person: str, field: str) -> float:
        """`rare_recall` or `rare_ap` had a person not been asked; as it is where he judges nothing."""
        if person not in self.people:
            return getattr(self, field)
        rows = self.recalls_without if field == "rare_recall" else self.average_precisions_without
        known = np.array(rows[self.people.index(person)])
        return mean_of_shown(known[list(self.rare)] if self.rare else known)

    @property
    def rare_ap(self) -> float:
        """Mean average precision of the rare classes (all where none is), in [0, 1]; NaN where unknown."""
        known = np.array(self.average_precisions)
        return mean_of_shown(known[list(self.rare)] if self.rare and len(known) else known)

    @property
    def readiness(self) -> float:
        """How often clips are named as one of the rare classes, by how often they show one; NaN where none is rare."""
        confusion, rare = np.array(self.confusion), list(self.rare)
        shown = confusion[rare].sum() if rare else 0
        return float(confusion[:, rare].sum() / shown) if shown else float("nan")

    def to_dict(self) -> dict:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(d: Mapping) -> ScoreRecord:
        """Inverse of `to_dict`, also from JSON, where NaN is null."""
        number = lambda v: float("nan") if v is None else v  # noqa: E731
        read = {
            "recalls": tuple(number(r) for r in d["recalls"]),
            "average_precisions": tuple(number(p) for p in d.get("average_precisions", ())),
            "rare": tuple(d["rare"]),
            "confusion": tuple(tuple(int(n) for n in row) for row in d["confusion"]),
            "people": tuple(d.get("people") or ()),
            **{
                k: tuple(tuple(number(v) for v in row) for row in d.get(k) or ())
                for k in ("recalls_without", "average_precisions_without")
            },
        }
        return ScoreRecord(**{**d, **{k: number(d[k]) for k in ("top1", "macro", "rare_recall")}, **read})


def arms_of(generators: Sequence[str], scarcity: str, rivals: Sequence[str] = RIVAL_ARMS) -> tuple[str, ...]:
    """All arms of a bed: with nothing scarce, nothing to rival, and each generator's clips alone besides; with nothing
    cut, no ceiling.

    Where `adjusted` is among the rivals, each generator's clips are tried that way, too; its refined ones in balanced
    batches alone.
    """
    if scarcity == "full":
        return ("weak", "strong", *generators, *(TSTR + g for g in generators))
    twice = (f"{ADJUSTED}:{g}" for g in generators if ADJUSTED in rivals and not g.startswith(REFINED))
    ceiling = () if scarcity == "natural" else ("ceiling",)
    return ("weak", "strong", *rivals, *generators, *twice, *ceiling)


def adds_clips(arm: str) -> bool:
    """Whether it adds a generator's clips to the real ones."""
    return arm not in (*REAL_ARMS, *RIVAL_ARMS) and not arm.startswith(TSTR)


def is_adjusted(arm: str) -> bool:
    """Whether it draws and weighs classes as `ADJUSTED` does, with a generator's clips or without."""
    return arm.split(":")[0] == ADJUSTED


def generator_of(arm: str) -> str:
    """The generator's name in that of an arm that uses its clips, and how: `REFINED` still before it."""
    return arm.removeprefix(TSTR).removeprefix(f"{ADJUSTED}:")


def mean_of_shown(recalls: np.ndarray) -> float:
    """Over the classes that held-out clips show; NaN if they show none."""
    shown = recalls[~np.isnan(recalls)]
    return float(shown.mean()) if len(shown) else float("nan")


def record_id(
    tensors_digest: str,
    arm: str,
    training: RecogniserTraining,
    seed: int,
    synthetic_digest: str,
    per_class: int,
) -> str:
    """Name of a record: a hash of everything that decides it, so that nothing is computed twice.

    Not of the device, which changes the last places of sums and is told by the record itself.

    Args:
        tensors_digest: `bed_digest` of the arm.
        arm: Arm.
        training: Recogniser training.
        seed: Seed.
        synthetic_digest: Digest of the synthetic set's manifest; "" where the arm uses none.
        per_class: See `score_arm`.
    """
    used: int | list[int] = per_class if arm in MADE_ARMS else 0
    if arm == "difference":
        used = [per_class, LENDERS]  # its clips are kept nowhere, so that no digest tells who lent
    if arm in (*REAL_ARMS, ADJUSTED, "feature") or arm.startswith(TSTR):
        # Nothing is mixed in: so that real arms are not trained anew for every ratio that is tried.
        training = replace(training, **{f: getattr(RecogniserTraining(), f) for f in OF_SYNTHETIC})
    parts = [PROTOCOL_VERSION, tensors_digest, arm, asdict(training), seed, synthetic_digest, used]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def bed_digest(bed: Bed, arm: str) -> str:
    """Hash of the clips that an arm trains on and is judged by (the ceiling is the same for every test draw)."""
    train = bed.full if arm == "ceiling" else bed.train
    ids = [[m.sample_id for m in s.motions] for s in (train, bed.evaluate)]
    rare = () if arm in (*REAL_ARMS, ADJUSTED) or arm.startswith(TSTR) else bed.rare
    return hashlib.sha256(json.dumps([train.dataset, ids, rare]).encode()).hexdigest()[:24]


def for_bed(record: ScoreRecord, bed: Bed) -> ScoreRecord:
    """A record that two beds share (the ceiling on test), as seen by one of them."""
    recalls = np.array(record.recalls)
    rare = bed.rare or tuple(range(len(recalls)))
    return replace(
        record,
        bed=bed.spec.key,
        draw=bed.spec.draw,
        rare=bed.rare,
        rare_recall=mean_of_shown(recalls[list(rare)]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSummary:
    """One line of the table; percentages. Differences and gap closed are of the rare classes' recall.

    Attributes:
        difference: Paired with the strong arm by (bed, seed); None for the strong arm itself.
        macro_difference: The same for macro accuracy: common classes must not pay.
        rare_ap, ap_difference: As `rare_recall` and `difference`, of `ScoreRecord.rare_ap`, which does not rise where
            a recogniser merely names rare classes more readily; None where a record does not know it.
        people_difference, people_ap_difference: The same two differences with intervals over the people who judge
            (`people.difference_over_people`); None where records do not know them.
        readiness: Mean of `ScoreRecord.readiness`: whether a higher recall goes with naming rare classes more readily.
        improvement: Galstyan 2025, eq. 7, over the strong arm.
        gap_closed: Of the means; NaN where strong is not below the ceiling.
    """

    arm: str
    recogniser: str
    runs: int
    rare_recall: Interval
    macro: Interval
    top1: Interval
    difference: Interval | None
    macro_difference: Interval | None
    rare_ap: Interval | None
    ap_difference: Interval | None
    people_difference: Interval | None
    people_ap_difference: Interval | None
    readiness: float
    improvement: float
    gap_closed: float


def paired_difference(
    records: Sequence[ScoreRecord], arm: str, other: str, field: str = "rare_recall"
) -> Interval:
    """`arm` minus `other`, percentage points, over the (bed, seed) that both have; `field` of `ScoreRecord`.

    The bed names protocol and draw: folds that are pooled have equal draws.
    """
    one, two = ({(r.bed, r.seed): getattr(r, field) for r in records if r.arm == a} for a in (arm, other))
    return paired_interval(100 * np.array([one[p] - two[p] for p in sorted(set(one) & set(two))]))


def summarise(records: Sequence[ScoreRecord]) -> list[ArmSummary]:
    """The arms table of one dataset and recogniser over all beds, in the order in which arms first appear."""
    by_arm: dict[str, dict[tuple[str, int], ScoreRecord]] = {}
    for r in records:
        by_arm.setdefault(r.arm, {})[r.bed, r.seed] = r
    strong, ceiling = by_arm.get("strong", {}), by_arm.get("ceiling", {})
    percent = lambda rs, field: 100 * np.array([getattr(r, field) for r in rs])  # noqa: E731
    mean = lambda rs: float(percent(rs.values(), "rare_recall").mean()) if rs else float("nan")  # noqa: E731
    known = lambda *arms: all(np.isfinite(r.rare_ap) for rs in arms for r in rs.values())  # noqa: E731
    over_people = lambda arm, f: (  # noqa: E731
        difference_over_people(records, arm, "strong", f) if arm != "strong" else None
    )
    out = []
    for arm, rs in by_arm.items():
        # One recogniser that several beds share (`for_bed`) has a rare recall in each, but one accuracy.
        trained = {(r.seed, r.seconds, r.confusion): r for r in rs.values()}.values()
        differences = {
            f: paired_difference(records, arm, "strong", f)
            for f in ("rare_recall", "macro", "rare_ap")
            if arm != "strong" and set(rs) & set(strong)
            if f != "rare_ap" or known(rs, strong)
        }
        out.append(
            ArmSummary(
                arm=arm,
                recogniser=next(iter(rs.values())).recogniser,
                runs=len(rs),
                rare_recall=paired_interval(percent(rs.values(), "rare_recall")),
                macro=paired_interval(percent(trained, "macro")),
                top1=paired_interval(percent(trained, "top1")),
                difference=differences.get("rare_recall"),
                macro_difference=differences.get("macro"),
                rare_ap=paired_interval(percent(rs.values(), "rare_ap")) if known(rs) else None,
                ap_difference=differences.get("rare_ap"),
                people_difference=over_people(arm, "rare_recall"),
                people_ap_difference=over_people(arm, "rare_ap") if "rare_ap" in differences else None,
                readiness=mean_of_shown(np.array([r.readiness for r in rs.values()])),
                improvement=improvement(mean(rs), mean(strong)) if strong else float("nan"),
                gap_closed=gap_closed(mean(rs), mean(strong), mean(ceiling))
                if strong and ceiling
                else float("nan"),
            )
        )
    return out


def _spread(i: Interval) -> str:
    return f"{i.mean:5.1f} ± {(i.hi - i.lo) / 2:.1f}" if i.n > 1 else f"{i.mean:5.1f}"


def _clear(i: Interval | None) -> str:
    return "" if i is None else f"{i}{' *' if i.excludes_zero else '  '}"


def _width(summaries: Sequence[ArmSummary]) -> int:
    return max((22, *(len(s.arm) for s in summaries)))


def format_table(summaries: Sequence[ArmSummary]) -> str:
    """The arms table as text."""
    width = _width(summaries)

    def line(arm: str, runs: object, rare: str, against: str, closed: str, macro: str, top1: str) -> str:
        return f"{arm:<{width}}{runs:>5}  {rare:>15}  {against:>24}  {closed:>10}  {macro:>13}  {top1:>13}"

    head = line("arm", "runs", "rare recall %", "vs strong (95 %)", "gap closed", "macro %", "top-1 %")
    lines = [head, "-" * len(head)]
    # Where the ceiling itself is not clearly above strong there is no gap to close a share of.
    gap = any(s.arm == "ceiling" and s.difference and s.difference.lo > 0 for s in summaries)
    for s in summaries:
        closed = (
            ""
            if not gap or np.isnan(s.gap_closed) or s.arm in ("strong", "ceiling")
            else f"{100 * s.gap_closed:.0f} %"
        )
        lines.append(
            line(
                s.arm,
                s.runs,
                _spread(s.rare_recall),
                _clear(s.difference),
                closed,
                _spread(s.macro),
                _spread(s.top1),
            )
        )
    lines.append("* the paired 95 % interval over draws x seeds (x pooled protocols) excludes zero")
    return "\n".join(lines)


def format_ranking(summaries: Sequence[ArmSummary]) -> str:
    """Average precisions as text, beside the arms table, and readiness; "" where no arm's are known."""
    ready = lambda s: "" if np.isnan(s.readiness) else f"{s.readiness:.2f}"  # noqa: E731
    rows = [(s.arm, _spread(s.rare_ap), _clear(s.ap_difference), ready(s)) for s in summaries if s.rare_ap]
    width, named = _width(summaries), "named / shown" if any(row[-1] for row in rows) else ""
    line = lambda arm, ap, against, share: f"{arm:<{width}}{ap:>13}  {against:>24}  {share:>13}".rstrip()  # noqa: E731
    head = line("average precision", "rare AP %", "vs strong (95 %)", named)
    return "\n".join((head, "-" * len(head), *(line(*row) for row in rows))) if rows else ""


def format_people(summaries: Sequence[ArmSummary]) -> str:
    """The gains once more with intervals over the people who judge; "" where nobody knows who they are."""
    rows = [s for s in summaries if s.people_difference]
    if not rows:
        return ""
    width, most = _width(summaries), max(s.people_difference.n for s in rows if s.people_difference)
    line = lambda arm, recall, ap: f"{arm:<{width}}{recall:>24}  {ap:>24}".rstrip()  # noqa: E731
    head = line(f"over {most} people", "rare recall, vs strong", "rare AP, vs strong")
    lines = [line(s.arm, _clear(s.people_difference), _clear(s.people_ap_difference)) for s in rows]
    told = "* as above, but over people: these draws and seeds, other people. A gain needs both."
    return "\n".join((head, "-" * len(head), *lines, told))
