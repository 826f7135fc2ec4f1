"""The picture of a study: its metric over each axis that was searched, one panel each."""

from __future__ import annotations

import math
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motionsynth.errors import InputError
from motionsynth.view import FLOOR, INK, QUIET
from tuning.space import Axis
from tuning.study import ZERO_PLACE, Study, best, place, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, DOT = "#d1495b", "#2e6f9e"
FEWEST = 8
"""Dots below which no line is drawn through them."""


def running_median(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of y in a window of a third of the points that moves along x; nothing below `FEWEST` points.

    Args:
        x, y: Points in any order.

    Returns:
        Median x and median y of each window, by x.
    """
    if len(x) < FEWEST:
        return np.empty(0), np.empty(0)
    order = np.argsort(x, kind="stable")
    window = max(5, len(x) // 3)
    moving = [np.lib.stride_tricks.sliding_window_view(v[order], window) for v in (x, y)]
    return np.median(moving[0], -1), np.median(moving[1], -1)


def response_curves(study: Study, file: str | Path | BytesIO, dpi: float = 130) -> None:
    """Write a PNG: the metric over each axis, one panel each.

    Dots are finished trials, circles those that stopped early, at what they had reached; the dashed line is the default
    setting, the line through the dots a running median of finished trials.

    Args:
        study: With at least one trial that reached a rung.
        file: PNG file, or a buffer.
        dpi: Dots per inch; a panel is 2.7 inches wide.

    Raises:
        InputError: there is nothing to draw, or no matplotlib.
    """
    if not study.axes or not any(math.isfinite(study.value(r)) for t in study.trials for r in t.rungs[-1:]):
        raise InputError(
            f"There is nothing to draw: no trial of study '{study.name}' has reached a rung on an axis."
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError(
            "Pictures need matplotlib, which is not installed; pip install matplotlib."
        ) from None
    wide = min(4, len(study.axes))
    high = -(-len(study.axes) // wide)
    figure = Figure(
        figsize=(2.7 * wide + 0.4, 2.2 * high + 0.5), dpi=dpi, facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(high, wide, squeeze=False, sharey=True)
    for spare in grid.flat[len(study.axes) :]:
        spare.set_axis_off()
    for i, axis in enumerate(study.axes):
        _panel(grid.flat[i], study, axis)
        if i % wide == 0:
            grid.flat[i].set_ylabel(f"{study.goal} %", fontsize=8, color=INK)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7, frameon=False)
    figure.savefig(file, format="png", dpi=dpi)


def _panel(axes: Axes, study: Study, axis: Axis) -> None:
    """One axis: its dots, median, default and best."""
    values = [t.values[axis.name] for t in study.trials]
    if axis.kind == "choice":
        named = list(dict.fromkeys(text(v) for v in (*axis.choices, axis.default, *values)))
        at = lambda v: float(named.index(text(v)))  # noqa: E731
        ticks = {float(i): n for i, n in enumerate(named)}
    else:
        at = partial(place, axis)
        space = np.linspace if axis.kind == "linear" else np.geomspace
        ticks = {at(v): f"{v:.3g}" for v in space(axis.low, axis.high, 3).tolist()}
        off = ZERO_PLACE in (at(v) for v in (*values, axis.default))
        if axis.kind == "weight" or (axis.kind == "log" and off):
            ticks[ZERO_PLACE] = "0"
            axes.axvline(ZERO_PLACE / 2, color=FLOOR, linewidth=0.8)
    shown = [t for t in study.trials if t.rungs and math.isfinite(study.value(t.rungs[-1]))]
    done = [t for t in shown if study.finished(t)]
    points = lambda ts: (  # noqa: E731
        [at(t.values[axis.name]) for t in ts],
        [100 * study.value(t.rungs[-1]) for t in ts],
    )
    axes.axvline(at(axis.default), color=QUIET, linewidth=1, linestyle="--", label="default")
    if hollow := [t for t in shown if t not in done]:
        axes.scatter(*points(hollow), s=14, facecolors="none", edgecolors=QUIET, label="stopped early")
    if done:
        x, y = (np.array(v) for v in points(done))
        axes.scatter(x, y, s=14, color=DOT, alpha=0.7, linewidths=0, label="finished")
        apart = np.full(len(x), axis.kind == "choice") | ((x == ZERO_PLACE) & (axis.kind != "linear"))
        axes.plot(*running_median(x[~apart], y[~apart]), color=INK, linewidth=1.2, label="running median")
        for spot in np.unique(x[apart]):
            if (here := x == spot).sum() >= 3:
                axes.plot(spot + np.array([-0.05, 0.05]), [np.median(y[here])] * 2, color=INK, linewidth=1.2)
        axes.scatter(*points([best(study)]), s=60, marker="*", color=BEST, zorder=4, label="best")
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=7)
    axes.tick_params(labelsize=7, colors=INK)
    axes.set_title(axis.name, fontsize=8, color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
