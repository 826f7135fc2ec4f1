"""The sections of a report on what was gained and how: figures from the records.

A section is a function of the run that returns HTML, "" where the run has nothing for it. `SECTIONS` in
`motionsynth.report.page` says which there are, and their order. Everything from data goes through `escape`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from motionsynth.protocol import ADJUSTED, REFINED, TSTR, adds_clips
from motionsynth.report import charts
from motionsynth.report.gains import (
    arms_of,
    bounds,
    class_changes,
    confusion_change,
    largest_changes,
    signed,
    verdicts,
)
from motionsynth.report.markup import legend, percent, table
from motionsynth.report.run import Run

MOST_HEAT = 40
"""Classes of which a whole confusion matrix can still be read."""

UNUSED = 0.01
"""Share by which attention must change a decoder's features to be of any use."""
ENDS = '<span class="ends"><span>start</span><span>end</span></span>'

ARMS = {
    "weak": "real clips as they are",
    "strong": "real clips, strongly augmented: the arm to beat",
    "ceiling": "all real clips, none held back",
    ADJUSTED: "strong with classes drawn as they occur, and a loss that makes up for it (logit adjustment)",
    "interpolation": "strong plus blends of two clips of a class",
    "difference": "strong plus differences of common classes lent to rare ones",
    "feature": "strong plus features made up around the rare classes",
    "hybrid": "strong plus the dataset's own synthetic clips",
}


def described(arm: str) -> str:
    """What an arm trains on, in a few words."""
    if arm.startswith(TSTR):
        return "synthetic clips alone"
    if arm.startswith(f"{ADJUSTED}:"):
        return "its synthetic clips, trained as adjusted is"
    if arm.startswith(REFINED):
        return "strong plus those synthetic clips that were accepted"
    return ARMS.get(arm, "strong plus its synthetic clips")


def _spread(i: Any) -> str:
    half = "" if i["lo"] is None else f' <span class="quiet">\u00b1\u00a0{(i["hi"] - i["lo"]) / 2:.1f}</span>'
    return f"{i['mean']:.1f}{half}" if i["mean"] is not None else "\u2013"


def _ranking(row: Any) -> str:
    """Average precision, and what it is over strong's."""
    if not row.get("rare_ap"):
        return "\u2013"
    d = row["ap_difference"]
    over = "" if not d else f'<br><span class="quiet">{signed(d["mean"])} {bounds(d)}</span>'
    return _spread(row["rare_ap"]) + over


def _recall(row: Any) -> str:
    """Rare recall, and how readily rare classes are named."""
    # Results of before it was kept lack it, and where no class is rare there is none.
    if (named := row.get("readiness")) is None:
        return _spread(row["rare_recall"])
    return f'{_spread(row["rare_recall"])}<br><span class="quiet">named {named:.2f}\u00a0\u00d7</span>'


def gain(run: Run) -> str:
    """The arms table of every recogniser."""
    out = ""
    several = len(run.recognisers) > 1
    for name in run.recognisers:
        for beds in dict.fromkeys((run.scarcity, "full")):
            rows = arms_of(run, name, beds)
            if not rows:
                continue
            what = "recall" if beds == "full" else "rare-class recall"
            title = "With all clips, recall of every class" if beds == "full" != run.scarcity else ""
            heading = f"Judged by {name}" if several else ""
            if said := ": ".join(t for t in (heading, title) if t):
                out += f"<h3>{escape(said)}</h3>"
            out += _arms(run, rows, what)
    for v in verdicts(run)[1:]:
        out += (
            f'<p class="verdict {v.tone}"><b>{escape(v.title)}</b> (judged by {escape(v.recogniser)}). '
            f"{escape(v.text)}</p>"
        )
    for t in run.result["tstr"]:
        if t["ratio"] is not None:
            out += (
                f"<p>Trained on the synthetic clips of {escape(t['arm'].removeprefix(TSTR))} alone, "
                f"{escape(t['recogniser'])} reaches a macro accuracy of {percent(t['tstr'])}\u00a0%, on real clips "
                f"{percent(t['trtr'])}\u00a0%: {t['ratio']:.3f} of it.</p>"
            )
    return out + (
        '<p class="note">Every arm trains the same recogniser for the same steps from the same seeds; only the clips '
        "differ and, in adjusted arms, how classes are drawn and weighed. Differences are paired by draw and seed, in "
        "points, with their 95\u00a0% interval. Filled marks: the interval excludes zero. Recall also rises where a "
        "recogniser merely names a class more readily (\u201cnamed\u201d: how often clips are named as one of the rare "
        "classes, by how often they show one); average precision (of the rare classes, where some are rare) does "
        "not.</p>"
    )


def _arms(run: Run, rows: Sequence[Any], what: str) -> str:
    differences = [r["difference"] for r in rows if r["difference"]]
    reach = [d[k] for d in differences for k in ("mean", "lo", "hi") if d[k] is not None]
    scale = charts.Scale.around(reach, 5)
    # Where the ceiling itself is not clearly above strong there is no gap to close a share of.
    gap = any(r["arm"] == "ceiling" and r["difference"] and (r["difference"]["lo"] or 0) > 0 for r in rows)
    ticks = sorted({scale.low, 0.0, scale.high})
    # Results of before it was kept lack it.
    ranked = any(r.get("rare_ap") for r in rows)
    head = [
        "arm", what + ",\u00a0%", "over strong, points", charts.axis(scale, ticks), "gap closed",
        "average precision,\u00a0%" if ranked else "top\u20111,\u00a0%", "macro,\u00a0%", "runs",
    ]  # fmt: skip
    body = []
    for r in rows:
        d, arm = r["difference"], r["arm"]
        made = adds_clips(arm) or arm.startswith(TSTR)
        name = f'<b class="{"made" if made else ""}">{escape(arm)}</b>'
        name += f'<span class="quiet">{escape(described(arm))}</span>'
        said, drawn = '<span class="quiet">\u2013</span>', ""
        if d:
            clear = d["lo"] is not None and (d["lo"] > 0 or d["hi"] < 0)
            said = f'<b class="figure">{signed(d["mean"])}</b> <span class="quiet">{bounds(d)}</span>'
            tone = f"{'synthetic' if made else 'real'} {'clear' if clear else 'open'}"
            drawn = charts.interval(
                d["mean"], d["lo"], d["hi"], scale, tone, f"{arm}: {signed(d['mean'])} {bounds(d)}"
            )
        closed = r["gap_closed"]
        share = (
            percent(closed, 0) + "\u00a0%"
            if gap and closed is not None and arm not in ("strong", "ceiling")
            else ""
        )
        body.append(
            (
                name, _recall(r), said, drawn, share, _ranking(r) if ranked else _spread(r["top1"]),
                _spread(r["macro"]), str(r["runs"]),
            )
        )  # fmt: skip
    return table(head, body, "arms")


def classes(run: Run) -> str:
    """Recall of each class before and after, by generator; the first recogniser."""
    if not run.generators:
        return ""
    name = run.recognisers[0]
    scale, out = charts.Scale(0, 100), ""
    ruler = charts.axis(scale, (0, 25, 50, 75, 100), "\u00a0%")
    for generator in run.generators:
        rows = []
        changes = class_changes(run, name, generator)
        for c in changes:
            label = run.class_names[c.label]
            said = f"{label}: {100 * c.before:.0f} % to {100 * c.after:.0f} %"
            drawn = charts.dumbbell(100 * c.before, 100 * c.after, 100 * c.ceiling, scale, said)
            link = f'<a href="#motions" data-class="{c.label}">{escape(label)}</a>'
            rows.append(
                (link, percent(c.before, 0), drawn, percent(c.after, 0), signed(c.gain, 0), f"{c.clips:.0f}")
            )
        better, worse = (sum(s * c.gain > 0.05 for c in changes) for s in (1, -1))
        out += (
            (f"<h3>{escape(generator)}</h3>" if len(run.generators) > 1 else "")
            + f"<p>{better} of {len(changes)} classes are recognised better with the clips of {escape(generator)}, "
            f"{worse} worse. A single class rests on few clips: read the pattern, not a row.</p>"
            + table(
                ["class", "strong", ruler, "with clips", "points", "judged by"],
                rows,
                "classes",
            )
        )  # fmt: skip
    marks = [("dot real", "strong real arm"), ("dot synthetic", "with synthetic clips")]
    if any(a["arm"] == "ceiling" for a in arms_of(run, name)):
        marks.append(("tick", "ceiling"))
    key = legend(*marks)
    return (
        out
        + key
        + f'<p class="note">Recall of each class {"" if run.scarcity == "full" else "while it is rare, "}'
        f"judged by {escape(name)}, mean over its draws and seeds. A class name leads to its clips; the last column "
        "counts held-out clips per recogniser.</p>"
    )


def confusions(run: Run) -> str:
    """What is named otherwise than by the strong arm; the first recogniser."""
    out = ""
    for generator in run.generators:
        change = confusion_change(run, run.recognisers[0], generator)
        largest = largest_changes(change)
        if not largest:
            continue
        out += f"<h3>{escape(generator)}</h3>" if len(run.generators) > 1 else ""
        rows = [
            (escape(run.class_names[i]), escape(run.class_names[j]), f"{signed(v)}") for i, j, v in largest
        ]
        listed = table(["true class", "named", "points"], rows, "changes", "The largest changes")
        judged = [int(i) for i in np.flatnonzero(np.isfinite(change).all(1))]
        if len(run.class_names) <= MOST_HEAT:
            drawn = charts.heat(
                change, judged, run.class_names, f"Changes of the confusion matrix by {generator}"
            )
            listed = (
                f'<div class="pair"><div class="scroll" tabindex="0" role="group">{drawn}</div>{listed}</div>'
            )
        out += listed
    if not out:
        return ""
    key = legend(
        ("swatch more", "named more often"),
        ("swatch less", "less often"),
        ("swatch diagonal", "named rightly"),
    )
    return (
        out
        + key
        + '<p class="note">Rows are true classes, columns what they are named; points of a class\'s held-out '
        "clips, generator arm minus strong arm. On the framed diagonal orange is better, elsewhere blue is.</p>"
    )


def training(run: Run) -> str:
    """Learning curves of every generator, one frame for each term, one line for each bed."""
    out = ""
    for generator in run.makers:
        mine = [s for s in run.sets if s.generator == generator and s.curves]
        if not mine:
            continue
        out += f"<h3>{escape(generator)}</h3>"
        frames = ""
        for term in dict.fromkeys(t for s in mine for t in s.curves):
            lines = {s.bed.spec.key: s.curves[term] for s in mine if term in s.curves}
            values = [v for line in lines.values() for _, v in line if math.isfinite(v)]
            if not values:
                continue
            group, _, name = term.rpartition("/")
            whose = "" if group == "diagnostic" else group
            last = [line[-1][1] for line in lines.values()]
            frames += (
                f'<figure><figcaption><b>{escape(name.replace("_", " "))}</b><span class="quiet">{escape(whose)}</span>'
                f"<output>{float(np.mean(last)):.3g}</output></figcaption>"
                f"{charts.curves(lines, f'{term} over the steps of training')}"
                f'<p class="range"><span>{min(values):.3g}</span><span>{max(values):.3g}</span></p></figure>'
            )
        count = f"{len(mine)} trainings, one line each," if len(mine) > 1 else "One training"
        steps = max(s for made in mine for line in made.curves.values() for s, _ in line)
        out += (
            f'<div class="frames">{frames}</div><p class="note">{count} of {steps:,} steps; '
            "every point is the mean of the unweighted term since the last report. At the right of a title the mean "
            "at the end; below a frame its lowest and highest value.</p>"
        )
    return out


def attention(run: Run) -> str:
    """Where in time a generator looks, for generators that have attention."""
    out = ""
    for generator in run.makers:
        rows, most, gains = [], 1.0, []
        for label, made in run.shown(generator):
            if label in made.attention:
                even = np.array(made.attention[label]) * len(made.attention[label])
                most = max(most, float(even.max()))
                name = run.class_names[label]
                rows.append(
                    (
                        escape(name),
                        charts.lane(even.tolist(), f"Attention over time for {name}"),
                        f"{even.max():.2f}",
                    )
                )
                gains += [v[-1][1] for k, v in made.curves.items() if k.endswith("attention_gain") and v]
        if not rows:
            continue
        effect = ""
        if gains:
            g = float(np.mean(gains))
            effect = (
                f" The decoder has learned to use it with a gain of {signed(g, 3)}: where it attends most, its "
                f"features change by {100 * abs(g) * (most - 1):.1f}\u00a0%."
            )
            if abs(g) * (most - 1) < UNUSED:
                effect += " So far it is as good as unused."
        out += (
            f"<h3>{escape(generator)}</h3><p>Mean over the training clips of a class, from the first to the last "
            f"moment; no shade is even attention.{escape(effect)}</p>"
            + table(["class", ENDS, "most, times even"], rows, "lanes")
        )  # fmt: skip
    key = legend(("swatch more", "more than even"), ("swatch less", "less than even"))
    return out + key if out else ""
