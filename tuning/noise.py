"""How many draws and seeds it takes to tell two settings apart, from the recognisers that a run has scored.

    python -m rayjobs.score --dataset nucla --recipe motion_gan --seeds 5 --storage out --run first
    python -m tuning.noise --dataset nucla --recipe motion_gan --storage out --run first

What the figures mean is said in `tuning.variance`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from motionsynth.beds import SIDES
from motionsynth.errors import InputError
from motionsynth.protocol import TSTR, ScoreRecord, is_adjusted
from motionsynth.recipes import get_recipe
from rayjobs import cli, experiment, score
from storage import Storage
from storage.schema import plain_rows
from tuning.study import METRICS, lacking
from tuning.tables import grid
from tuning.variance import MOST_DRAWS, READINGS, Components, components, detectable, needed, paired

UNLIKE_TUNING = ("weak", "ceiling")
"""Arms that no setting of a generator resembles: other real clips, or other augmentation (adjusted: another loss)."""
NEVER = "never"


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The noise of one recogniser's scores, and what it asks for.

    Attributes:
        metric: Of `METRICS`.
        draws, seeds: That were scored; of draws with different numbers of seeds the fewest.
        difference: Points to be told apart.
        arms: Components of each arm's metric.
        pairs: Components of each paired difference, by "B - A".
        one_arm, pair: Their means: what to expect of settings that resemble these arms.
        needed: Seeds by number of draws, by reading and by "common" or "own" seeds (see `needed`).
    """

    recogniser: str
    metric: str
    draws: int
    seeds: int
    difference: float
    arms: Mapping[str, Components]
    pairs: Mapping[str, Components]
    one_arm: Components
    pair: Components
    needed: Mapping[str, Mapping[str, Mapping[int, int | None]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Say how many draws and seeds tell two settings apart, from what a run has scored.

    Attributes:
        dataset: That was scored.
        recipe: With which it was scored.
        split: Whose judgement: "validation" or "test".
        recogniser: The one that `rayjobs.score --recogniser` was given.
        arms: Compare these with each other, joined by commas (default: all that resemble a setting).
        difference: Points to be told apart.
        metric: Of what: rare_ap, rare_recall or macro, as for `tuning.search`.
    """

    dataset: str
    recipe: str = "motion_gan"
    split: str = "validation"
    recogniser: str = ""
    arms: str = ""
    difference: float = 2.0
    metric: str = "rare_ap"


def verb(options: Options) -> dict[str, Any]:
    """Read a run's scores and print the table; see the module."""
    recipe = score.with_scores(get_recipe(options.recipe), options.recogniser, 0)
    who = "+".join(dict.fromkeys(p.training.recogniser for p in recipe.scores))
    records = read_scores(options.open_storage(), options.dataset, options.run, options.split, who)
    arms = [a.strip() for a in options.arms.split(",")] if options.arms else resembling(records)
    found = measure(records, arms, options.difference, options.metric)
    print("\n\n".join(map(table, found)))
    return {"dataset": options.dataset, "split": options.split, "noise": [asdict(n) for n in found]}


def read_scores(storage: Storage, dataset: str, run: str, split: str, who: str) -> list[ScoreRecord]:
    """The records of a scored run: of the whole table, or where there is none, of the last look at single arms.

    Args:
        storage, dataset, run: Where.
        split: "validation" or "test".
        who: The recognisers, as in the file's name (see `rayjobs.score_tables`).

    Raises:
        InputError: unknown split, or it was not scored.
    """
    if split not in SIDES:
        raise InputError(f"Unknown split '{split}'. Known: {', '.join(SIDES)}.")
    prefix = experiment.run_prefix(run, dataset)
    base = f"{prefix}/score-{split}-{who}"
    key = next((k for k in (f"{base}.parquet", f"{base}-part.parquet") if storage.exists(k)), None)
    if key is None:
        names = [o.key.removeprefix(f"{prefix}/") for o in storage.list(prefix)]
        found = ", ".join(n for n in names if n.startswith("score-") and n.endswith(".parquet"))
        raise InputError(
            f"Run '{run}' has no scores of {who} on {split} of '{dataset}' (it has: {found or 'none'}); run "
            "`python -m rayjobs.score --seeds 5` with the same options first."
        )
    return [ScoreRecord.from_dict(r) for r in plain_rows(storage.read(key), f"'{storage.uri}/{key}'")]


def resembling(records: Sequence[ScoreRecord]) -> list[str]:
    """The arms whose noise is like that of a setting's: not other real clips, another loss or synthetic clips alone."""
    arms = dict.fromkeys(r.arm for r in records)
    return [a for a in arms if a not in UNLIKE_TUNING and not a.startswith(TSTR) and not is_adjusted(a)]


def measure(
    records: Sequence[ScoreRecord], arms: Sequence[str], difference: float = 2.0, metric: str = "rare_ap"
) -> list[Noise]:
    """The noise of each recogniser.

    Args:
        records: Of one dataset and split.
        arms: At least two of them.
        difference: Points to be told apart.
        metric: Of `METRICS`.

    Raises:
        InputError: fewer than two arms, an unknown one, fewer than two seeds, or a metric that is unknown or that
            older records lack.
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric '{metric}'. Known: {', '.join(METRICS)}.")
    known = dict.fromkeys(r.arm for r in records)
    if unknown := [a for a in arms if a not in known]:
        raise InputError(f"There is no arm '{unknown[0]}' in these scores. Known: {', '.join(known)}.")
    if len(set(arms)) < 2:
        raise InputError(
            f"Noise is seen in the difference of two arms; got {', '.join(arms) or 'none'} of {', '.join(known)}."
        )
    # With rare classes at hand, the bed with all clips answers another question.
    scarce = [r for r in records if r.rare] or list(records)
    if said := lacking([r for r in scarce if r.arm in arms], metric):
        raise InputError(said)
    return [
        _measure(
            name, [r for r in scarce if r.recogniser == name], list(dict.fromkeys(arms)), difference, metric
        )
        for name in dict.fromkeys(r.recogniser for r in scarce)
    ]


def _measure(
    recogniser: str, records: Sequence[ScoreRecord], arms: Sequence[str], difference: float, metric: str
) -> Noise:
    runs = {a: {(r.bed, r.seed): 100 * getattr(r, metric) for r in records if r.arm == a} for a in arms}
    shared = [k for k in runs[arms[0]] if all(k in runs[a] for a in arms)]
    seeds = Counter(bed for bed, _ in shared)
    if min(seeds.values(), default=0) < 2:
        raise InputError(
            f"The scores of '{recogniser}' have fewer than 2 seeds of a draw that all of {', '.join(arms)} share, so "
            "the noise between seeds cannot be seen; score with --seeds 2 or more."
        )
    alone = {a: components(r) for a, r in runs.items()}
    pairs = {f"{b} - {a}": paired(runs[b], runs[a]) for a, b in combinations(arms, 2)}
    one_arm, pair = _typical(alone.values()), _typical(pairs.values())
    wanted = {
        reading: {
            "common": needed(pair, difference, reading),
            "own": needed(one_arm, difference, reading, common=False),
        }
        for reading in READINGS[: 1 + (pair.draws > 1)]
    }
    return Noise(
        recogniser=recogniser, metric=metric, draws=len(seeds), seeds=min(seeds.values()), difference=difference,
        arms=alone, pairs=pairs, one_arm=one_arm, pair=pair, needed=wanted,
    )  # fmt: skip


def _typical(parts: Collection[Components]) -> Components:
    """Means of the variances."""
    return Components(
        mean=float(np.mean([p.mean for p in parts])),
        between=float(np.mean([p.between for p in parts])),
        within=float(np.mean([p.within for p in parts])),
        draws=min(p.draws for p in parts),
        dof=min(p.dof for p in parts),
    )


def table(n: Noise) -> str:
    """What `measure` found, as Markdown for people."""
    one = [[a, f"{p.mean:.1f}", *_spread(p)] for a, p in n.arms.items()]
    two = [[a, f"{p.mean:+.1f}", *_spread(p)] for a, p in n.pairs.items()]
    columns = [(r, kind) for r in n.needed for kind in n.needed[r]]
    seeds = [
        [str(d), *(_seeds(n.needed[r][kind][d]) for r, kind in columns)] for d in range(1, MOST_DRAWS + 1)
    ]
    now = {r: detectable(n.pair, n.draws, n.seeds, r).difference for r in READINGS if r in n.needed}
    said = " and ".join(f"{v:.1f} points with {r} draws" for r, v in now.items())
    spread = ["sd between draws", "sd between seeds"]
    head = [
        f"{r} draws, {'common seeds' if kind == 'common' else 'seeds of their own'}" for r, kind in columns
    ]
    return "\n\n".join(
        [
            f"Noise of recogniser {n.recogniser}: {n.draws} draws, {n.seeds} seeds each; points of "
            f"{METRICS[n.metric]}.",
            grid(["arm", "mean", *spread], [*one, ["all (mean variance)", "", *_spread(n.one_arm)]]),
            grid(
                ["difference, run by run", "mean", *spread],
                [*two, ["all (mean variance)", "", *_spread(n.pair)]],
            ),
            f"Seeds of each draw that tell {n.difference:g} points apart (power 80 %, two-sided 5 %):",
            grid(["draws", *head], seeds),
            f"These {n.draws} draws and {n.seeds} seeds, shared, tell apart {said}. Fixed: the average over the very "
            "draws that are scored, by a t test with the variance within draws. Random: draws as a sample of those "
            f"that there could be; '{NEVER}' of one alone, and where no seeds make up for their own variance.",
        ]
    )


def _spread(p: Components) -> list[str]:
    return ["" if math.isnan(v) else f"{math.sqrt(v):.1f}" for v in (p.between, p.within)]


def _seeds(count: int | None) -> str:
    return NEVER if count is None else f"{count:,}"


if __name__ == "__main__":
    cli.main(Options, verb)
