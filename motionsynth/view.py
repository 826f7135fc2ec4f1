"""Pictures of motion: strips of stick figures over time, and animations; real beside synthetic.

    preview(real, synthetic, "preview.png")
    animate(real, synthetic, "preview.gif")

Clips are drawn at random by seed, never chosen for their looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, present
from motionsynth.stick_figure import COLOURS, Camera, StickFigure, level, side_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, FLOOR = "#39424e", "#8b95a1", "#d3d8de"
PAPER = {"real": "#f4f6f8", "synthetic": "#fcf6ef"}
STRIP_INCHES = 5.4
PANEL_INCHES = 1.7
LARGEST_GIF = 1_500_000
"""Bytes; an animation is made smaller until it fits."""


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip ready to draw: levelled, with its figure."""

    motion: Motion
    positions: np.ndarray
    there: np.ndarray
    figure: StickFigure


def _prepare(sets: dict[str, MotionSet], labels: Sequence[int], seed: int) -> dict[tuple[str, int], _Clip]:
    """One random clip per set and class, where the class has one in which somebody is there."""
    clips = {}
    for title, motions in sets.items():
        for label in labels:
            at = [i for i in np.flatnonzero(motions.labels == label) if motions.motions[i].positions[0].any()]
            if at:
                motion = motions.motions[int(np.random.default_rng([seed, label]).choice(at))]
                positions = level(motion.positions, motions.skeleton)
                clips[title, label] = _Clip(
                    motion, positions, present(motion.positions), StickFigure(motions.skeleton, positions)
                )
    if not clips:
        raise InputError(
            f"There is nothing to draw: no clip of the classes {list(labels)} has a person in it."
        )
    return clips


def _labels(sets: dict[str, MotionSet], classes: Sequence[str | int] | None, most: int) -> list[int]:
    """Class indices to draw: those asked for, or the first ones that every set has clips of."""
    names = sets["real"].class_names
    if classes is None:
        common = sorted(set.intersection(*(set(s.labels.tolist()) for s in sets.values())))
        if not common:
            raise InputError("The real and the synthetic set share no class; give clips of the same classes.")
        return common[:most]
    out = []
    for c in classes:
        if c not in names and not (isinstance(c, int) and 0 <= c < len(names)):
            raise InputError(f"Unknown class '{c}'. Known: {', '.join(names)}.")
        out.append(c if isinstance(c, int) else names.index(c))
    return out


def _titled(real: MotionSet, synthetic: MotionSet | None) -> dict[str, MotionSet]:
    if synthetic is None:
        return {"real": real}
    if synthetic.skeleton.joints != real.skeleton.joints:
        raise InputError(
            f"Cannot draw skeleton '{synthetic.skeleton.name}' beside '{real.skeleton.name}'; "
            "give both sets one skeleton."
        )
    return {"real": real, "synthetic": synthetic}


def _figure(width: float, height: float, dpi: float) -> Figure:
    """Outside pyplot's global state, so that it works in threads and Ray actors."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError(
            "Pictures need matplotlib, which is not installed; pip install matplotlib."
        ) from None
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _panel(figure: Figure, box: tuple[float, float, float, float], title: str) -> Axes:
    """Axes at (left, bottom, width, height) inches, without ticks or frame."""
    w, h = figure.get_size_inches()
    axes = figure.add_axes((box[0] / w, box[1] / h, box[2] / w, box[3] / h), facecolor=PAPER[title])
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _write(
    figure: Figure, x: float, y: float, text: str, size: float, colour: str = INK, **style: Any
) -> None:
    """Text at (x, y) inches, centred vertically."""
    w, h = figure.get_size_inches()
    figure.text(x / w, y / h, text, fontsize=size, color=colour, va="center", **style)


def _legend(figure: Figure, right: float, y: float) -> None:
    _write(figure, right, y, "right limbs", 9, COLOURS[0]["right"], ha="right", weight="bold")
    _write(figure, right - 0.95, y, "left limbs", 9, COLOURS[0]["left"], ha="right", weight="bold")


@dataclass(frozen=True, slots=True)
class _Pose:
    """Bodies at one moment and their way there, projected: [M, V, 3] and [M, n, V, 3]."""

    bodies: np.ndarray
    there: np.ndarray
    trail: np.ndarray
    trail_there: np.ndarray


def _poses(clip: _Clip, camera: Camera, count: int) -> tuple[list[_Pose], float]:
    """Evenly spaced poses, each with its people around the origin; and the seconds they span."""
    seen = np.flatnonzero(clip.there[0])
    shown = seen[np.linspace(0, len(seen) - 1, count).round().astype(int)]
    step = -(-len(seen) // count)
    out = []
    for t in shown:
        origin = clip.positions[0, t, clip.figure.skeleton.root] * [1, 0, 1]
        past = slice(max(0, t - step), t + 1)
        bodies, trail = (
            camera.project(clip.positions[:, t] - origin),
            camera.project(clip.positions[:, past] - origin),
        )
        across = bodies[clip.there[:, t], :, 0]
        middle = np.array([(across.min() + across.max()) / 2, 0.0, 0.0])
        out.append(_Pose(bodies - middle, clip.there[:, t], trail - middle, clip.there[:, past]))
    return out, float(shown[-1] - shown[0]) / clip.motion.fps


def preview(
    real: MotionSet,
    synthetic: MotionSet | None,
    path: str | Path | BytesIO,
    classes: Sequence[str | int] | None = None,
    frames: int = 8,
    seed: int = 0,
    camera: Camera | None = None,
    dpi: int = 150,
) -> None:
    """Write a PNG: per class a strip of a real clip beside one of a synthetic clip, time running to the
    right.

    Poses stand in place side by side; thin lines show how hands and feet got there.

    Args:
        real, synthetic: Clips on one skeleton; with None only the real strips are drawn.
        path: PNG file, or a buffer.
        classes: Names or indices; None: the first six classes that both sets have.
        frames: Poses in a strip.
        seed: Of the choice of clips, one at random per class and set.
        camera: Point of view.
        dpi: Dots per inch; a strip is 5.4 inches wide.

    Raises:
        InputError: an unknown class, no class in common, different skeletons, or no matplotlib.
    """
    if frames < 1:
        raise InputError(f"The preview got frames={frames}; a strip needs at least 1 pose.")
    camera = camera or Camera()
    sets = _titled(real, synthetic)
    labels = _labels(sets, classes, most=6)
    strips = {k: (clip, *_poses(clip, camera, frames)) for k, clip in _prepare(sets, labels, seed).items()}
    shown = [pose for _, poses, _ in strips.values() for pose in poses]
    points = np.concatenate([pose.bodies[pose.there].reshape(-1, 3) for pose in shown])
    reach = [float(np.abs(pose.bodies[pose.there, :, 0]).max()) for pose in shown]
    half = max(0.40, 1.08 * float(np.percentile(reach, 92)))
    low, high = np.percentile(points[:, 1], [0.3, 99.5]).tolist()
    bottom, top = low - 0.10, min(float(points[:, 1].max()), high + 0.25) + 0.14
    metre = STRIP_INCHES / (2 * half * frames)
    row, gap, edge, head = metre * (top - bottom), 0.30, 0.18, 0.40
    width, height = len(sets) * (STRIP_INCHES + edge) + edge, head + len(labels) * (row + gap) + edge / 2
    figure = _figure(width, height, dpi)
    _legend(figure, width - edge, height - 0.20)
    for c, (title, motions) in enumerate(sets.items()):
        left = edge + c * (STRIP_INCHES + edge)
        _write(figure, left, height - 0.20, title, 13, weight="bold")
        for r, label in enumerate(labels):
            y = height - head - (r + 1) * (row + gap)
            axes = _panel(figure, (left, y, STRIP_INCHES, row), title)
            axes.set(xlim=(0, 2 * half * frames), ylim=(bottom, top))
            _write(figure, left, y + row + 0.11, motions.class_names[label], 9)
            if (title, label) not in strips:
                axes.text(half * frames, (bottom + top) / 2, "no clip", color=QUIET, ha="center", va="center")
                continue
            clip, poses, seconds = strips[title, label]
            _write(figure, left + STRIP_INCHES, y + row + 0.11, f"{seconds:.1f} s", 8, QUIET, ha="right")
            axes.axhline(0, color=FLOOR, linewidth=0.8, zorder=1)
            for i, pose in enumerate(poses):
                _draw_pose(axes, clip.figure, pose, (2 * i + 1) * half, width=max(1.6, 3.2 * metre))
    figure.savefig(path, format="png", dpi=dpi)


def _draw_pose(axes: Axes, figure: StickFigure, pose: _Pose, x: float, width: float) -> None:
    shift = np.array([x, 0.0, 0.0])
    people = np.flatnonzero(pose.there)
    for m in people:
        palette = COLOURS[m % len(COLOURS)]
        for j in figure.limb_ends:
            way = pose.trail[m, pose.trail_there[m], j] + shift
            colour = palette[side_of(figure.skeleton.joints[j])]
            axes.plot(way[:, 0], way[:, 1], color=colour, linewidth=0.4 * width, alpha=0.35, zorder=2)
    for m in sorted(people, key=lambda m: float(pose.bodies[m, :, 2].mean())):
        figure.draw(axes, pose.bodies[m] + shift, int(m), width)


def animate(
    real: MotionSet,
    synthetic: MotionSet | None,
    path: str | Path | BytesIO,
    classes: Sequence[str | int] | None = None,
    fps: float = 12.0,
    seconds: float = 3.0,
    seed: int = 0,
    camera: Camera | None = None,
    dpi: float = 96,
) -> int:
    """Write a looping GIF of at most 1.5 MB: real clips in the upper row, synthetic below, one column per
    class.

    Clips run in real time over their whole path; one that ends early waits in its last pose.

    Args:
        real, synthetic: Clips on one skeleton; with None only the real row is drawn.
        path: GIF file, or a buffer.
        classes: Names or indices; None: the first five classes that both sets have.
        fps: Of the animation.
        seconds: Longest duration.
        seed, camera: As for `preview`.
        dpi: Dots per inch, lowered as far as needed to keep the file small; a panel is 1.7 inches wide.

    Returns:
        Number of frames.

    Raises:
        InputError: as for `preview`, or a duration or rate that gives no frame.
    """
    if fps <= 0 or seconds <= 0:
        raise InputError(f"The animation got fps={fps:g}, seconds={seconds:g}; both must be above 0.")
    camera = camera or Camera()
    sets = _titled(real, synthetic)
    labels = _labels(sets, classes, most=5)
    clips = _prepare(sets, labels, seed)
    longest = max(c.motion.num_frames / c.motion.fps for c in clips.values())
    count = max(2, round(min(seconds, longest) * fps))
    while True:
        images = _frames(sets, labels, clips, camera, count, fps, dpi)
        buffer = BytesIO()
        # One palette for all frames: smaller, and no flicker of colours.
        first = images[0].quantize(48)
        indexed = [first, *(image.quantize(palette=first, dither=0) for image in images[1:])]
        indexed[0].save(
            buffer,
            "GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=round(1000 / fps),
            loop=0,
            optimize=True,
        )
        if buffer.tell() <= LARGEST_GIF or dpi < 30:
            break
        dpi *= 0.8
    if isinstance(path, BytesIO):
        path.write(buffer.getvalue())
    else:
        Path(path).write_bytes(buffer.getvalue())
    return count


def _frames(
    sets: dict[str, MotionSet],
    labels: Sequence[int],
    clips: dict[tuple[str, int], _Clip],
    camera: Camera,
    count: int,
    fps: float,
    dpi: float,
) -> list:
    """RGB images of the animation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    gap, head, left = 0.08, 0.26, 0.26
    height = head + len(sets) * (PANEL_INCHES + gap)
    figure = _figure(left + len(labels) * (PANEL_INCHES + gap), height, dpi)
    stages = []
    for r, title in enumerate(sets):
        y = height - head - (r + 1) * PANEL_INCHES - r * gap
        w, h = figure.get_size_inches()
        figure.text(0.13 / w, (y + PANEL_INCHES / 2) / h, title, rotation=90, ha="center", va="center",
                    fontsize=9, color=INK, weight="bold")  # fmt: skip
        for c, label in enumerate(labels):
            x = left + c * (PANEL_INCHES + gap)
            axes = _panel(figure, (x, y, PANEL_INCHES, PANEL_INCHES), title)
            if r == 0:
                _write(
                    figure,
                    x + PANEL_INCHES / 2,
                    height - 0.13,
                    sets["real"].class_names[label],
                    8,
                    ha="center",
                )
            if (title, label) in clips:
                clip = clips[title, label]
                points = camera.project(clip.positions)
                everything = points[clip.there].reshape(-1, 3)
                low, high = np.percentile(everything[:, :2], [0.5, 99.5], axis=0)
                middle, half = (low + high) / 2, 0.56 * max(*(high - low), 1.2)
                axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
                stages.append((axes, clip, points, 3.2 * PANEL_INCHES / (2 * half)))
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    empty = canvas.copy_from_bbox(figure.bbox)
    images = []
    for k in range(count):
        canvas.restore_region(empty)
        for axes, clip, points, width in stages:
            t = min(round(k / fps * clip.motion.fps), clip.motion.num_frames - 1)
            people = np.flatnonzero(clip.there[:, t])
            for m in sorted(people, key=lambda m: float(points[m, t, :, 2].mean())):
                for artist in clip.figure.draw(axes, points[m, t], int(m), width):
                    axes.draw_artist(artist)
                    artist.remove()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return images
