"""Charts as inline SVG: no script, colours from the style sheet, so that they follow light, dark and print.

Rows of a table are drawn along percentages of their width, so that they fit any screen while text keeps its size.
Everything that comes from data is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from motionsynth.motion import Motion, present
from motionsynth.skeleton import Skeleton
from motionsynth.stick_figure import Camera, StickFigure, level, side_of

ROW = 22
"""Height of a row, pixels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values along the width of a row; a margin keeps marks inside."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Position of a value as a percentage; values beyond are held at the edge."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return f"{3 + 94 * min(max(share, 0.0), 1.0):.2f}%"

    @staticmethod
    def around(values: Sequence[float], step: float) -> Scale:
        """Reaches all finite values and zero, rounded outwards to multiples of a step."""
        finite = [v for v in values if v is not None and math.isfinite(v)] or [0.0]
        low, high = math.floor(min(0.0, *finite) / step) * step, math.ceil(max(0.0, *finite) / step) * step
        return Scale(low, high if high > low else low + step)


def _svg(body: str, label: str, height: int = ROW, kind: str = "row") -> str:
    return (
        f'<svg class="{kind}" width="100%" height="{height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{body}</svg>"
    )


def _line(x1: str, x2: str, style: str, y: int = ROW // 2) -> str:
    return f'<line class="{style}" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'


def _tick(x: str, style: str, y1: int = 0, y2: int = ROW) -> str:
    return f'<line class="{style}" x1="{x}" x2="{x}" y1="{y1}" y2="{y2}"/>'


def _dot(x: str, style: str, radius: float = 5) -> str:
    return f'<circle class="{style}" cx="{x}" cy="{ROW // 2}" r="{radius:g}"/>'


def interval(mean: float, lo: float | None, hi: float | None, scale: Scale, tone: str, label: str) -> str:
    """A mean and its interval beside zero; tone is a class of the style sheet."""
    body = _tick(scale.at(0), "zero")
    if lo is not None and hi is not None:
        body += _line(scale.at(lo), scale.at(hi), f"whisker {tone}")
    return _svg(body + _dot(scale.at(mean), f"dot {tone}"), label)


def dumbbell(before: float, after: float, mark: float, scale: Scale, label: str) -> str:
    """From a real figure to a synthetic one; a tick where `mark` (the ceiling, NaN for none) lies."""
    body = _line(scale.at(scale.low), scale.at(scale.high), "rail")
    body += _line(scale.at(before), scale.at(after), f"change {'up' if after >= before else 'down'}")
    if math.isfinite(mark):
        body += _tick(scale.at(mark), "ceiling", 3, ROW - 3)
    return _svg(
        body + _dot(scale.at(before), "dot real", 4.5) + _dot(scale.at(after), "dot synthetic"), label
    )


def axis(scale: Scale, ticks: Sequence[float], unit: str = "") -> str:
    """Numbers above rows of one scale."""
    marks = "".join(
        f'<text x="{scale.at(t)}" y="14" text-anchor="middle">{t:g}{escape(unit)}</text>' for t in ticks
    )
    return f'<svg class="axis" width="100%" height="20" aria-hidden="true">{marks}</svg>'


def strip(values: Sequence[float], floor: Sequence[float], scale: Scale, label: str) -> str:
    """Synthetic values as strokes above, real ones below, each with its median."""
    body = _line(scale.at(scale.low), scale.at(scale.high), "rail")
    for own, style, y1, y2 in ((values, "synthetic", 2, 10), (floor, "real", 12, 20)):
        body += "".join(_tick(scale.at(float(v)), f"stroke {style}", y1, y2) for v in own)
        if len(own):
            body += f'<circle class="dot {style}" cx="{scale.at(float(np.median(own)))}" cy="{(y1 + y2) // 2}" r="4"/>'
    return _svg(body, label)


def curves(lines: Mapping[str, Sequence[tuple[int, float]]], label: str) -> str:
    """Lines over steps in one frame, a title on each; the frame spans what there is."""
    points = [(s, v) for line in lines.values() for s, v in line if math.isfinite(v)]
    if not points:
        return ""
    first, last = min(s for s, _ in points), max(s for s, _ in points)
    low, high = min(v for _, v in points), max(v for _, v in points)
    width, room = (last - first) or 1, (high - low) or 1

    def at(step: int, value: float) -> str:
        return f"{100 * (step - first) / width:.2f},{56 - 52 * (value - low) / room:.2f}"

    drawn = "".join(
        f'<polyline class="curve c{i % 6}" points="{" ".join(at(s, v) for s, v in line if math.isfinite(v))}">'
        f"<title>{escape(name)}</title></polyline>"
        for i, (name, line) in enumerate(lines.items())
    )
    return (
        f'<svg class="curves" viewBox="0 0 100 60" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{drawn}</svg>"
    )


def scatter(groups: Mapping[str, np.ndarray], label: str) -> str:
    """Points [n, 2] by class of the style sheet, equal scales, drawn in order."""
    everything = np.concatenate([g for g in groups.values() if len(g)])
    middle = (everything.max(0) + everything.min(0)) / 2
    half = float(np.ptp(everything, axis=0).max()) / 2 or 1.0
    body = ""
    for style, points in groups.items():
        for x, y in 50 + 45 * (points - middle) / half:
            radius = 2.3 if style == "seen" else 1.7
            body += f'<circle class="point {style}" cx="{x:.1f}" cy="{100 - y:.1f}" r="{radius}"/>'
    return f'<svg class="scatter" viewBox="0 0 100 100" role="img" aria-label="{escape(label)}">{body}</svg>'


def heat(change: np.ndarray, rows: Sequence[int], names: Sequence[str], label: str) -> str:
    """Points gained (orange) or lost (blue) by true class (rows) and named class; the diagonal is framed."""
    shown = change[list(rows)]
    columns = [int(c) for c in range(len(names))]
    cell, left, top, right = 16, 224, 192, 104
    width, height = left + cell * len(columns) + right, top + cell * len(rows) + 4
    most = float(np.nanmax(np.abs(shown))) or 1.0
    body = ""
    for r, row in enumerate(rows):
        y = top + r * cell
        body += f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(_short(names[row]))}</text>'
        for c in columns:
            v = float(shown[r, c])
            if v and math.isfinite(v):
                said = f"{names[row]}, named {names[c]}: {v:+.1f} points"
                body += (
                    f'<rect class="cell {"more" if v > 0 else "less"}" x="{left + c * cell + 1}" y="{y + 1}" '
                    f'width="{cell - 2}" height="{cell - 2}" rx="2" fill-opacity="{0.12 + 0.88 * abs(v) / most:.2f}">'
                    f"<title>{escape(said)}</title></rect>"
                )
            if c == row:
                body += f'<rect class="diagonal" x="{left + c * cell}" y="{y}" width="{cell}" height="{cell}" rx="3"/>'
    for c in columns:
        x = left + c * cell + 12
        body += f'<text transform="translate({x} {top - 6}) rotate(-60)">{escape(_short(names[c]))}</text>'
    return (
        f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def _short(name: str, most: int = 38) -> str:
    """Without its middle where it is long: names of classes often differ in their last word."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1].rstrip()}\u2026{name[-half:].lstrip()}"


def lane(weights: Sequence[float], label: str) -> str:
    """Weights over time as cells, 1 being even: above it orange, below blue; twice or none is the full colour."""
    n = len(weights)
    body = "".join(
        f'<rect class="cell {"more" if w > 1 else "less"}" x="{100 * i / n:.2f}%" y="2" width="{100 / n - 0.4:.2f}%" '
        f'height="{ROW - 4}" rx="2" fill-opacity="{min(1.0, abs(w - 1)):.2f}"><title>{w:.2f} times even</title></rect>'
        for i, w in enumerate(weights)
    )
    return _svg(f'<rect class="ground" x="0" y="2" width="100%" height="{ROW - 4}" rx="2"/>{body}', label)


def figures(motion: Motion, skeleton: Skeleton, label: str, poses: int = 6) -> str:
    """A strip of stick figures over time, drawn as `motionsynth.view` draws them."""
    positions = level(motion.positions, skeleton)
    there = present(positions)
    figure, camera = StickFigure(skeleton, positions), Camera()
    shown = np.flatnonzero(there[0])
    shown = shown[np.linspace(0, len(shown) - 1, poses).round().astype(int)] if len(shown) else shown
    body, step = "", 1.15
    lowest, highest = 0.0, 1.0
    for k, t in enumerate(shown):
        origin = positions[0, t, skeleton.root] * [1, 0, 1]
        for m in np.flatnonzero(there[:, t]):
            p = camera.project(positions[m, t] - origin)
            lowest, highest = min(lowest, float(p[:, 1].min())), max(highest, float(p[:, 1].max()))
            chains = sorted(
                figure.chains.values(), key=lambda bones: float(p[[c for c, _ in bones], 2].mean())
            )
            for bones in chains:
                side = side_of(skeleton.joints[bones[0][0]])
                place = lambda j, k=k, p=p: f"{p[j, 0] + k * step:.3f} {-p[j, 1]:.3f}"  # noqa: E731
                way = "".join(f"M{place(parent)}L{place(child)}" for child, parent in bones)
                body += f'<path class="rim" d="{way}"/><path class="limb {side} p{int(m) % 2}" d="{way}"/>'
            if "head" in skeleton.joints:
                tip = "head_tip" if "head_tip" in skeleton.joints else "head"
                x, y = ((p[skeleton.index("head")] + p[skeleton.index(tip)]) / 2)[:2]
                body += (
                    f'<circle class="limb trunk p{int(m) % 2} head" cx="{x + k * step:.3f}" cy="{-y:.3f}" '
                    f'r="{figure.head_radius:.3f}"/>'
                )
    box = f"{-step / 2:.2f} {-highest - 0.2:.2f} {step * poses:.2f} {highest - lowest + 0.35:.2f}"
    return f'<svg class="figures" viewBox="{box}" role="img" aria-label="{escape(label)}">{body}</svg>'
