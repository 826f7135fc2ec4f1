"""Every metric under one name; each lives in the file of its idea.

| question | metrics | file |
|---|---|---|
| Is the set distributed like the real one? | Frechet, kernel and RBF distances | `metrics_distribution` |
| Does it miss real ones, or make unreal ones? | precision, recall, density, coverage | `metrics_coverage` |
| Do two persons act on each other? | closest approach, facing, bearing | `metrics_interaction` |
| Is it varied, and new? | MDI (eq. 9), diversity, memorisation | `metrics_diversity` |
| Is each clip a plausible motion? | TCS (eq. 8), energy, physics, bones, peak rates, foot skate | `metrics_motion` |
| What did a recogniser gain? | improvement (eq. 7), gap closed, average precision, intervals | `metrics_gain` |

Equation numbers are those of Galstyan 2025. No figure about generated clips is meaningful alone: each
function that returns a report puts the same figure for real clips beside it.
"""

from motionsynth.metrics_coverage import CoverageReport, coverage_beside_real, neighbourhood_shares
from motionsynth.metrics_distribution import (
    FrechetReport,
    PairedDistance,
    frechet_distance,
    frechet_motion_distance,
    gaussian_frechet,
    herd,
    kernel_distance,
    ledoit_wolf,
    principal_axes,
    rbf_mmd,
)
from motionsynth.metrics_diversity import (
    DiversityReport,
    MemorisationReport,
    diversity,
    diversity_beside_real,
    memorisation,
    movement_diversity_index,
    nearest_distance,
    standardise,
)
from motionsynth.metrics_gain import (
    Interval,
    average_precision,
    gap_closed,
    improvement,
    paired_interval,
    wilson_interval,
)
from motionsynth.metrics_interaction import (
    Approach,
    InteractionReport,
    closest_approach,
    interaction_beside_real,
    wasserstein,
)
from motionsynth.metrics_motion import (
    ConsistencyReport,
    ViolationReport,
    bone_length_medians,
    bone_length_variation,
    clip_vectors,
    consistency_beside_real,
    consistency_scale,
    foot_skate,
    frozen,
    mean_speed,
    motion_energy_ratio,
    peak_rates,
    physics_violations,
    temporal_consistency,
    time_shuffled,
    violations_beside_real,
)

__all__ = [
    "Approach",
    "ConsistencyReport",
    "CoverageReport",
    "DiversityReport",
    "FrechetReport",
    "InteractionReport",
    "Interval",
    "MemorisationReport",
    "PairedDistance",
    "ViolationReport",
    "average_precision",
    "bone_length_medians",
    "bone_length_variation",
    "clip_vectors",
    "closest_approach",
    "consistency_beside_real",
    "consistency_scale",
    "coverage_beside_real",
    "diversity",
    "diversity_beside_real",
    "foot_skate",
    "frechet_distance",
    "frechet_motion_distance",
    "frozen",
    "gap_closed",
    "gaussian_frechet",
    "herd",
    "improvement",
    "interaction_beside_real",
    "kernel_distance",
    "ledoit_wolf",
    "mean_speed",
    "memorisation",
    "motion_energy_ratio",
    "movement_diversity_index",
    "nearest_distance",
    "neighbourhood_shares",
    "paired_interval",
    "peak_rates",
    "physics_violations",
    "principal_axes",
    "rbf_mmd",
    "standardise",
    "temporal_consistency",
    "time_shuffled",
    "violations_beside_real",
    "wasserstein",
    "wilson_interval",
]
