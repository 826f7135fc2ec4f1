"""The sections of a report on the clips themselves: the player, and the generated sets beside real ones."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import islice
from typing import Any

import numpy as np

from motionsynth.report import charts
from motionsynth.report.clips import player_data
from motionsynth.report.markup import legend, percent, subtitle, table
from motionsynth.report.motions import nearest_training_clips, projections, violations
from motionsynth.report.run import Run

MOST_PANELS = 24
"""Classes whose clips are drawn as points, by generator."""
MOST_PAIRS = 4


def embedded(name: str, value: Any) -> str:
    """JSON for a script to read; `<` is spelt so that no text can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def motions(run: Run) -> str:
    """The player; `assets/player.js` brings it to life."""
    if not run.with_clips or not any(run.shown(g) for g in run.makers):
        return ""
    data = player_data(run)
    options = "".join(
        f'<option value="{i}">{escape(c["name"])}</option>' for i, c in enumerate(data["classes"])
    )
    total = len({c for g in run.makers for c, _ in run.shown(g)})
    few = len(data["classes"])
    some = f" The first {few} of {total} classes are here, to keep this file small." if few < total else ""
    return f"""
<div id="player" class="player">
  <div class="stage" tabindex="0" role="group" aria-label="Skeleton player: space plays, arrow keys step, drag to turn">
    <canvas aria-hidden="true"></canvas>
    <p class="pane real"><b>real</b> <span></span></p>
    <p class="pane synthetic"><b>synthetic</b> <span></span></p>
    <p class="failed" hidden>This browser shows no WebGL, which the player needs; all else on this page works.</p>
  </div>
  <div class="transport">
    <button type="button" class="play" aria-label="Play" aria-pressed="false"><span></span></button>
    <input type="range" class="scrub" min="0" max="1" value="0" step="1" aria-label="Time">
    <output class="time">0.00 / 0.00 s</output>
  </div>
  <div class="choices">
    <label>Class <select class="class">{options}</select></label>
    <label>Real clip <select class="real"></select></label>
    <label>Synthetic clip <select class="synthetic"></select></label>
  </div>
  <div class="controls">
    <label>Speed <select class="speed"><option value="0.25">\u00bc\u00d7</option>
      <option value="0.5">\u00bd\u00d7</option><option value="1" selected>1\u00d7</option>
      <option value="2">2\u00d7</option></select></label>
    <label>View <select class="view"><option value="angle">three-quarter</option><option value="front">front</option>
      <option value="side">side</option><option value="top">above</option></select></label>
    <label class="check"><input type="checkbox" class="trails" checked> Trails</label>
    <button type="button" class="nearest">Show nearest real clip</button>
  </div>
  <p class="facts" aria-live="polite"></p>
</div>
{legend(("limb left", "left limbs"), ("limb right", "right limbs"))}
<p class="note">Clips were drawn at random, never chosen for their looks: real ones from the class's training clips,
synthetic ones from those made for it. Space plays, arrow keys step, drag turns both views.{escape(some)}</p>
<noscript><p class="note">The player needs JavaScript; all else on this page works without.</p></noscript>
{embedded("clips", data)}"""


_QUALITY = (
    # title, figure, its floor or real counterpart, format, what it tells
    ("Frechet distance", lambda q: q["frechet"]["distance"], lambda q: q["frechet"]["floor"], ".2f",
     "distance of the distributions; the floor is that of two halves of the real clips"),
    ("diversity (MDI)", lambda q: q["diversity"]["mdi"], lambda q: q["diversity"]["mdi_real"], ".2f",
     "spread within a class; far below real is collapse"),
    ("smoothness (TCS)", lambda q: q["consistency"]["tcs"], lambda q: q["consistency"]["tcs_real"], ".2f",
     "frames that go on as the last ones did"),
    ("energy", lambda q: q["consistency"]["energy_ratio"], lambda q: 1.0, ".2f",
     "mean speed by that of real clips; near 0 is frozen"),
    ("beyond limits, %", lambda q: 100 * q["physics"]["frames"], lambda q: 100 * q["physics"]["frames_real"], ".1f",
     "frames with an angle or a speed beyond those of training clips"),
    ("bones vary by, %", lambda q: 100 * q["physics"]["bone_variation"],
     lambda q: 100 * q["physics"]["bone_variation_real"], ".1f", "of their length over a clip"),
    ("copies, %", lambda q: 100 * q["memorisation"]["share"], lambda q: 100 * q["memorisation"]["expected"], ".1f",
     "clips nearer to a training clip than nearly all training clips are to each other"),
    ("named as meant, %", lambda q: 100 * q["agreement"], lambda q: 100.0, ".1f",
     "clips that a recogniser of the real training clips names as their class"),
)  # fmt: skip


def quality(run: Run) -> str:
    """Figures of the generated sets, each above what real clips reach."""
    rows, missing = [], ""
    for q in run.result["quality"]:
        name = f"<b>{escape(q['generator'])}</b><span class='quiet'>{escape(q['bed'])}</span>"
        if "not_measured" in q:
            missing += f"<p>{escape(q['generator'])}, {escape(q['bed'])}: not measured: {escape(q['not_measured'])}</p>"
            continue
        cells = []
        for _, own, floor, form, _ in _QUALITY:
            cells.append(f"{_number(own, q, form)}<span class='floor'>{_number(floor, q, form)}</span>")
        rows.append((name, *cells))
    if not rows:
        return missing
    head = [
        "generated set",
        *(f'<abbr title="{escape(tells)}">{escape(t)}</abbr>' for t, *_, tells in _QUALITY),
    ]
    told = "".join(f"<dt>{escape(t)}</dt><dd>{escape(tells)}</dd>" for t, *_, tells in _QUALITY)
    return (
        "<p>Large: the synthetic clips. Small, below: what real clips reach, or what is expected.</p>"
        + table(head, rows, "quality")
        + missing
        + f"<details><summary>What the figures tell</summary><dl>{told}</dl></details>"
    )


def _number(get: Any, report: Any, form: str) -> str:
    try:
        value = get(report)
    except (KeyError, TypeError):  # None where a figure could not be had
        return "\u2013"
    return "\u2013" if value is None or not math.isfinite(value) else f"{value:{form}}"


def projection(run: Run) -> str:
    """Real and synthetic clips of each class as points."""
    out = ""
    for generator in run.makers:
        panels = ""
        for p in islice(projections(run, generator), MOST_PANELS):
            name = run.class_names[p.label]
            groups = {"unseen": p.unseen, "synthetic": p.synthetic, "seen": p.seen}
            share = f"{100 * p.share:.0f}\u00a0%" if math.isfinite(p.share) else ""
            counts = f"{len(p.seen)} trained on, {len(p.unseen)} other real, {len(p.synthetic)} synthetic"
            said = f"Clips of {name}: {counts}"
            panels += (
                f'<figure><figcaption><b>{escape(name)}</b> <span class="quiet">{share}</span></figcaption>'
                f"{charts.scatter(groups, said)}</figure>"
            )
        if panels:
            out += subtitle(run, generator) + f'<div class="panels">{panels}</div>'
    if not out:
        return ""
    how = (
        "the two directions in which the real clips of a class vary most (PCA of canonical poses; beside a title, the "
        "share of their variance)"
        if run.projection == "pca"
        else "a map that keeps neighbours together (t-SNE of canonical poses; distances far apart mean nothing)"
    )
    key = legend(
        ("dot ring", "real, trained on"),
        ("dot faint", "real, same people, held back"),
        ("dot synthetic", "synthetic"),
    )
    return (
        f"<p>Every point is a clip, placed in {how}. Good clips lie where the held-back ones lie, also away from those "
        f"that were trained on.</p>{out}{key}"
    )


def nearest(run: Run) -> str:
    """How near the synthetic clips come to real training clips, and the nearest pairs."""
    out = ""
    for generator in run.makers:
        found = [(made, nearest_training_clips(made, label)) for label, made in run.shown(generator)]
        found = [(made, n) for made, n in found if len(n.distances)]
        if not found:
            continue
        everything = np.concatenate([np.concatenate([n.distances, n.floor]) for _, n in found]) * 100
        scale = charts.Scale(0, float(math.ceil(np.percentile(everything, 99) / 5) * 5))
        rows = []
        for _, n in found:
            name = run.class_names[n.label]
            own, floor = 100 * n.distances, 100 * n.floor
            said = f"{name}: median {np.median(own):.1f} cm" + (
                f", among real {np.median(floor):.1f} cm" if len(floor) else ""
            )
            rows.append(
                (
                    escape(name), f"{own.min():.1f}", f"{np.median(own):.1f}",
                    charts.strip(own.tolist(), floor.tolist(), scale, said),
                    f"{np.median(floor):.1f}" if len(floor) else "\u2013",
                )
            )  # fmt: skip
        out += subtitle(run, generator) + table(
            [
                "class",
                "least, cm",
                "median, cm",
                charts.axis(scale, (0, scale.high / 2, scale.high), "\u00a0cm"),
                "real, cm",
            ],
            rows,
            "near",
        )
        if run.with_clips:
            out += _pairs(run, sorted(found, key=lambda pair: float(pair[1].distances.min()))[:MOST_PAIRS])
    if not out:
        return ""
    key = legend(
        ("stroke synthetic", "synthetic clip to its nearest training clip"),
        ("stroke real", "training clip to the nearest one of another take"),
    )
    return (
        "<p>Distance of a clip from the nearest training clip of its class: root mean square over joints and frames "
        "of canonical poses. Synthetic clips far nearer than real clips are to each other are copies.</p>"
        + out
        + key
    )


def _pairs(run: Run, found: list[Any]) -> str:
    """The nearest pair of each class, the nearest of all first."""
    out = ""
    for made, n in found:
        at = int(n.distances.argmin())
        skeleton = made.bed.train.skeleton
        synthetic, real = made.motions.motions[n.clips[at]], made.bed.train.motions[n.parents[at]]
        name = run.class_names[n.label]
        floor = f"; real clips: {100 * np.median(n.floor):.1f}\u00a0cm" if len(n.floor) else ""
        out += (
            f"<figure><figcaption><b>{escape(name)}</b> {100 * n.distances[at]:.1f}\u00a0cm apart"
            f"<span class='quiet'>{floor}</span></figcaption>"
            f'<div class="paper real">{charts.figures(real, skeleton, f"Real clip of {name}")}</div>'
            f'<div class="paper synthetic">{charts.figures(synthetic, skeleton, f"Synthetic clip of {name}")}</div>'
            "</figure>"
        )
    return (
        '<h3>Nearest pairs</h3><p class="quiet">Above the real training clip, below the synthetic clip nearest to it.'
        f'</p><div class="pairs">{out}</div>'
    )


def physics(run: Run) -> str:
    """Frames beyond the limits of the training clips, by class."""
    out = ""
    for generator in run.makers:
        found = violations(run, generator)
        if not found:
            continue
        scale = charts.Scale.around([100 * max(v.real, v.synthetic) for v in found], 10)
        rows = []
        for v in found:
            name = run.class_names[v.label]
            said = f"{name}: real {100 * v.real:.1f} %, synthetic {100 * v.synthetic:.1f} %"
            drawn = charts.dumbbell(100 * v.real, 100 * v.synthetic, math.nan, scale, said)
            rows.append((escape(name), percent(v.real), drawn, percent(v.synthetic)))
        out += subtitle(run, generator) + table(
            [
                "class",
                "real, %",
                charts.axis(scale, (0, scale.high / 2, scale.high), "\u00a0%"),
                "synthetic, %",
            ],
            rows,
            "physics",
        )
    if not out:
        return ""
    key = legend(("dot real", "real clips of the training people"), ("dot synthetic", "synthetic clips"))
    return (
        "<p>Share of frames in which a joint's angle or speed is beyond what training clips show (99.9th percentile "
        "and a tenth).</p>" + out + key
    )
