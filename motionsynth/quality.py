"""The report on a generated set: every figure beside that of real clips, so that none has to be taken alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from motionsynth.arms import BedTensors
from motionsynth.beds import Bed
from motionsynth.errors import InputError
from motionsynth.limits import fit_limits
from motionsynth.metrics_coverage import coverage_beside_real
from motionsynth.metrics_distribution import frechet_motion_distance
from motionsynth.metrics_diversity import diversity_beside_real, memorisation
from motionsynth.metrics_interaction import FIGURES, interaction_beside_real
from motionsynth.metrics_motion import consistency_beside_real, violations_beside_real
from motionsynth.motion import MotionSet
from motionsynth.recognition import predict, to_tensors, train_recogniser
from motionsynth.recognition_config import RecogniserTraining


def quality_report(
    tensors: BedTensors, synthetic: MotionSet, training: RecogniserTraining, seed: int = 0
) -> dict[str, Any]:
    """Measure a bed's generated set.

    Features are those of a recogniser trained on the bed's training clips alone. Distribution figures compare with
    all clips of the training people (`Bed.full`) of the generated classes: people whom the generator was allowed to
    learn from, in clips most of which it has not seen; no held-out clip is read.

    Args:
        tensors: The bed.
        synthetic: The generated set; clips that a filter refused are left out.
        training: Of the recogniser that gives the features.
        seed: Of everything random.

    Returns:
        JSON-serialisable: `frechet` (pooled and per class, each with its floor), `diversity` (MDI, eq. 9),
        `coverage` (precision, recall, density, coverage; None for fewer than 2 clips to a side), `consistency` (TCS,
        eq. 8), `physics`, `interaction` (of two persons; None where no class shows any), `memorisation`, `agreement`
        (share of synthetic clips that the recogniser names as their class), `features` (what gave the features).
        Where a distribution has too few clips to be one (a single rare class that has one real clip): `bed`,
        `synthetic_clips` and the sentence `not_measured` alone.
    """
    synthetic = synthetic.accepted()
    try:
        if not len(synthetic):
            raise InputError("no clip is accepted")
        return _measure(tensors, synthetic, training, seed)
    except InputError as e:
        return {
            "bed": tensors.bed.spec.key, "synthetic_clips": len(synthetic), "not_measured": str(e),
        }  # fmt: skip


def _measure(
    tensors: BedTensors, synthetic: MotionSet, training: RecogniserTraining, seed: int
) -> dict[str, Any]:
    bed: Bed = tensors.bed
    model = train_recogniser(tensors.train, tensors.info, bed.train.class_names, training, seed)
    classes = np.unique(synthetic.labels)
    own = np.flatnonzero(np.isin(bed.full.labels, classes))
    real = bed.full.select(own)
    _, real_features = predict(model, tensors.full.select(own))
    made = to_tensors(synthetic, tensors.info.num_persons)
    probabilities, features = predict(model, made)
    seen = np.flatnonzero(np.isin(bed.train.labels, classes))
    _, train_features = predict(model, tensors.train.select(seen))
    frechet = frechet_motion_distance(real_features, features, real.labels, synthetic.labels, seed=seed)
    return {
        "bed": bed.spec.key,
        "synthetic_clips": len(synthetic),
        "features": {"recogniser": training.recogniser, "dims": frechet.dims, "real_clips": frechet.n_real},
        "frechet": {
            **asdict(frechet.pooled),
            "ratio": frechet.pooled.ratio,
            "per_class": {
                bed.train.class_names[c]: asdict(d) | {"ratio": d.ratio} for c, d in frechet.per_class.items()
            },
        },
        "diversity": asdict(
            diversity_beside_real(real_features, features, real.labels, synthetic.labels, seed=seed)
        ),
        "coverage": _coverage(real_features, features, seed),
        "consistency": asdict(consistency_beside_real(real, synthetic)),
        "physics": asdict(violations_beside_real(real, synthetic, fit_limits(bed.train))),
        "interaction": _interaction(real, synthetic, seed),
        "memorisation": asdict(memorisation(features, train_features)),
        "agreement": float((probabilities.argmax(1) == synthetic.labels).mean()),
    }


def _coverage(real: np.ndarray, made: np.ndarray, seed: int) -> dict[str, Any] | None:
    neighbours = min(5, min(len(real) // 2, len(made)) - 1)
    if neighbours < 1:
        return None
    return asdict(coverage_beside_real(real, made, neighbours, seed=seed))


def _interaction(real: MotionSet, made: MotionSet, seed: int) -> dict[str, Any] | None:
    if real.num_persons < 2:
        return None
    try:
        return asdict(interaction_beside_real(real, made, seed=seed))
    except InputError:
        return None  # two persons are stored, but no class shows them together


def format_quality(reports: list[dict[str, Any]]) -> str:
    """One line per generated set, synthetic beside real; `generator` is whose it is."""
    width = max((len(_whose(r)) for r in reports), default=0) + 2
    head = (
        f"{'generated set':<{width}}{'Frechet':>9}{'floor':>8}{'MDI':>8}{'real':>7}{'TCS':>7}{'real':>7}{'energy':>8}"
        f"{'phys %':>8}{'real':>7}{'bones %':>9}{'real':>7}{'copies %':>10}{'named %':>9}"
    )
    lines = [head, "-" * len(head)]
    for r in reports:
        if "not_measured" in r:
            lines.append(f"{_whose(r):<{width}}not measured: {r['not_measured']}")
            continue
        f, d, c, p, m = r["frechet"], r["diversity"], r["consistency"], r["physics"], r["memorisation"]
        lines.append(
            f"{_whose(r):<{width}}{f['distance']:>9.2f}{f['floor']:>8.2f}{d['mdi']:>8.2f}{d['mdi_real']:>7.2f}{c['tcs']:>7.2f}"
            f"{c['tcs_real']:>7.2f}{c['energy_ratio']:>8.2f}{100 * p['frames']:>8.1f}{100 * p['frames_real']:>7.1f}"
            f"{100 * p['bone_variation']:>9.1f}{100 * p['bone_variation_real']:>7.1f}{100 * m['share']:>10.1f}"
            f"{100 * r['agreement']:>9.1f}"
        )
    pairs = [r for r in reports if r.get("interaction")]
    if pairs:
        head = "".join(f"{f:>14}{'floor':>7}" for f in ("gap m", "distance m", "facing rad", "bearing rad"))
        lines += ["", f"{'two persons at their closest, from real':<{max(width, 41)}}{head}"]
    for r in pairs:
        i = r["interaction"]
        cells = "".join(f"{i[f]:>14.3f}{i[f'{f}_floor']:>7.3f}" for f in FIGURES)
        lines.append(f"{_whose(r):<{max(width, 41)}}{cells}")
    return "\n".join(lines)


def _whose(report: dict[str, Any]) -> str:
    return f"{report['generator']}, {report['bed']}" if "generator" in report else report["bed"]
