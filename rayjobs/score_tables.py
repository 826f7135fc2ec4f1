"""What a scoring comes to: the tables, for people and as files.

    runs/RUN/DATASET/score-SPLIT-RECOGNISERS.json          the whole result
    runs/RUN/DATASET/score-SPLIT-RECOGNISERS.parquet       a row for every recogniser that was trained
    runs/RUN/DATASET/score-SPLIT-RECOGNISERS-tensorboard   the same for TensorBoard

With `--arms` the names end in `-part`, so that a look at single arms leaves the whole table alone.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from motionsynth.beds import BedSpec
from motionsynth.hybrid import PUBLISHED_NOTE
from motionsynth.protocol import (
    ADJUSTED,
    REFINED,
    RIVAL_ARMS,
    ScoreRecord,
    adds_clips,
    format_people,
    format_ranking,
    format_table,
    is_adjusted,
    paired_difference,
    summarise,
)
from motionsynth.recipes import Recipe
from rayjobs import cli, experiment
from storage import Storage


def tables(records: Sequence[ScoreRecord], recipe: Recipe) -> dict[str, Any]:
    """The arms table of each recogniser, per-class recalls, and train-on-synthetic ratios."""
    text, arms, recalls, tstr, against = [], [], [], [], []
    for name in dict.fromkeys(r.recogniser for r in records):
        mine = [r for r in records if r.recogniser == name]
        whole = [r for r in mine if not r.rare]
        # With nothing scarce the two are one table.
        tables = {recipe.bed.scarcity: [r for r in mine if r.rare], "full": whole}
        scarce = tables[recipe.bed.scarcity]
        for beds, own in tables.items():
            if own:
                summaries = summarise(own)
                arms += [{"beds": beds} | asdict(s) for s in summaries]
                title = "all clips: recall of every class" if beds == "full" else "rare classes"
                text.append(f"recogniser {name}, {title}\n{format_table(summaries)}")
                if ranking := format_ranking(summaries):
                    text.append(
                        f"{ranking}\nNaming a class more readily raises its recall, and not its average precision."
                    )
                if others := format_people(summaries):
                    text.append(others)
        shown = dict.fromkeys(r.arm for r in scarce)
        for arm in filter(adds_clips, shown):
            for rival in (a for a in _rivals(arm) if a in shown):
                d = paired_difference(scarce, arm, rival)
                against.append({"recogniser": name, "arm": arm, "rival": rival, **asdict(d)})
                text.append(f"{arm} - {rival}: {d} points of rare recall, paired{_of_ap(scarce, arm, rival)}")
        recalls += [
            {
                "recogniser": name,
                "arm": arm,
                "rare_recalls": _rare_recalls([r for r in scarce if r.arm == arm]),
            }
            for arm in dict.fromkeys(r.arm for r in scarce)
        ]
        real = [r.macro for r in whole if r.arm == "strong"]
        for arm in dict.fromkeys(r.arm for r in whole if r.arm.startswith("tstr:")):
            fake = [r.macro for r in whole if r.arm == arm]
            on_fake, on_real = sum(fake) / len(fake), sum(real) / len(real)
            ratio = on_fake / on_real if on_real else math.nan
            tstr.append({"recogniser": name, "arm": arm, "tstr": on_fake, "trtr": on_real, "ratio": ratio})
            text.append(
                f"{arm}: macro {100 * on_fake:.1f} % trained on synthetic clips alone, "
                f"{100 * on_real:.1f} % on real ones: {ratio:.3f}"
            )
    return {
        "arms": arms,
        "against_rivals": against,
        "rare_recalls": recalls,
        "tstr": tstr,
        "text": "\n\n".join(text),
    }


def _rivals(arm: str) -> Sequence[str]:
    """What an arm that adds clips must beat: what comes without a generator, or without what the arm does besides."""
    if is_adjusted(arm):
        return (ADJUSTED,)
    return (*RIVAL_ARMS, arm.removeprefix(REFINED)) if arm.startswith(REFINED) else RIVAL_ARMS


def _of_ap(records: Sequence[ScoreRecord], arm: str, rival: str) -> str:
    if any(math.isnan(r.rare_ap) for r in records if r.arm in (arm, rival)):
        return ""
    return f"; {paired_difference(records, arm, rival, 'rare_ap')} of average precision"


def _rare_recalls(records: Sequence[ScoreRecord]) -> dict[int, float]:
    """Mean recall of each class over the draws in which it is rare."""
    seen: dict[int, list[float]] = {}
    for r in records:
        for c in r.rare:
            if not math.isnan(r.recalls[c]):
                seen.setdefault(c, []).append(r.recalls[c])
    return {c: sum(v) / len(v) for c, v in sorted(seen.items())}


def base_of(run: str, dataset: str, recipe: Recipe, part: bool) -> str:
    """What the names of the files of a scoring begin with; `part` if only some arms were scored."""
    who = "+".join(dict.fromkeys(p.training.recogniser for p in recipe.scores))
    return f"{experiment.run_prefix(run, dataset)}/score-{recipe.bed.split}-{who}{'-part' * part}"


def write(
    storage: Storage,
    dataset: str,
    run: str,
    recipe: Recipe,
    result: Mapping[str, Any],
    records: Sequence[ScoreRecord],
    part: bool,
) -> None:
    """Write the files; `part` if only some arms were scored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = base_of(run, dataset, recipe, part)
    storage.write(f"{base}.json", json.dumps(cli.plain(result), indent=1).encode())
    rows = [{k: v for k, v in r.to_dict().items() if k != "confusion"} for r in records]
    for row, r in zip(rows, records, strict=True):
        row["confusion"] = [list(c) for c in r.confusion]
        row |= {k: list(row[k]) for k in ("recalls", "rare", "average_precisions", "people")}
        row |= {k: [list(v) for v in row[k]] for k in ("recalls_without", "average_precisions_without")}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    storage.write(f"{base}.parquet", sink.getvalue())
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            at = {bed: 100 * i for i, bed in enumerate(dict.fromkeys(r.bed for r in records))}
            for r in records:
                step = at[r.bed] + r.seed
                writer.add_scalar(f"{r.recogniser}/{r.arm}/rare_recall", r.rare_recall, step)
                writer.add_scalar(f"{r.recogniser}/{r.arm}/macro", r.macro, step)
                if math.isfinite(r.rare_ap):
                    writer.add_scalar(f"{r.recogniser}/{r.arm}/rare_ap", r.rare_ap, step)
        for path in Path(folder).iterdir():
            storage.write(f"{base}-tensorboard/events.out.tfevents.scores", path.read_bytes())


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    where = "held-out training people" if result["split"] == "validation" else "test half"
    bed, protocols = result["bed"], result["protocols"]
    pooled = f"{len(protocols)} protocols pooled ({', '.join(protocols)})"
    print(
        f"\n{result['dataset']}, {pooled if len(protocols) > 1 else protocols[0]}, {BedSpec(**bed).size}, "
        f"{result['draws']} draw{'s' * (result['draws'] > 1)}; judged by the {where}"
    )
    if result["as_published"]:
        print(PUBLISHED_NOTE)
    print(f"\n{result['text']}")
    names = result["class_names"]
    wanted = {"strong", "ceiling"} | {a["arm"] for a in result["arms"] if adds_clips(a["arm"])}
    for name in dict.fromkeys(r["recogniser"] for r in result["rare_recalls"]):
        rows = [r for r in result["rare_recalls"] if r["recogniser"] == name and r["arm"] in wanted]
        if rows and rows[0]["rare_recalls"]:
            print(
                f"\nrecall (%) of each class while it is rare, {name}: " + ", ".join(r["arm"] for r in rows)
            )
        listed = rows[0]["rare_recalls"] if rows else {}
        width = max((len(names[c]) for c in listed), default=0) + 2
        for c in listed:
            print(
                f"  {names[c]:<{width}}"
                + "  ".join(f"{100 * r['rare_recalls'].get(c, math.nan):5.1f}" for r in rows)
            )
    if result["quality"]:
        from motionsynth.quality import format_quality

        print("\n" + format_quality(result["quality"]))
    if result["split"] == "test":
        n = result["test_readings"]
        print(f"\nThe test half of '{result['dataset']}' was read {n} time{'s' * (n > 1)} in this storage.")
    print(f"trained {result['trained']} recognisers in {result['seconds']:.0f} s")
