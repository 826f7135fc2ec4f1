"""Pieces of HTML that several sections are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from motionsynth.report.run import Run


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "", caption: str = "") -> str:
    """Cells are HTML already; the first one of a row is its header. Scrolls sideways where it is too wide."""
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>'
        for first, *rest in rows
    )
    said = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="group"><table class="{kind}">{said}<thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage; a dash for none."""
    return "\u2013" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def legend(*entries: tuple[str, str]) -> str:
    return (
        '<p class="legend">'
        + "".join(f'<span><i class="{style}"></i>{escape(said)}</span>' for style, said in entries)
        + "</p>"
    )


def subtitle(run: Run, generator: str) -> str:
    """Whose figures follow, where there are several generators."""
    return f"<h3>{escape(generator)}</h3>" if len(run.makers) > 1 else ""
