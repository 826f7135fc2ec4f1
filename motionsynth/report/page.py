"""The page: head, headline, the sections in their order, and what makes it one file that loads nothing.

Its content security policy allows the scripts and the style that are inside, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from html import escape
from importlib.resources import files

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.hybrid import PUBLISHED_NOTE
from motionsynth.report import motion_sections, sections
from motionsynth.report.gains import verdicts
from motionsynth.report.run import Run

SECTIONS: tuple[tuple[str, str, str, Callable[[Run], str]], ...] = (
    ("gain", "Gain", "What was gained", sections.gain),
    ("motions", "Motions", "The motions", motion_sections.motions),
    ("classes", "Classes", "Class by class", sections.classes),
    ("confusions", "Confusions", "What is confused less, and more", sections.confusions),
    ("quality", "Quality", "The generated sets beside real clips", motion_sections.quality),
    ("projection", "Map", "Where the clips lie", motion_sections.projection),
    ("nearest", "Nearest clips", "Nearest training clips", motion_sections.nearest),
    ("physics", "Physics", "Beyond the limits of a body", motion_sections.physics),
    ("attention", "Attention", "Attention over time", sections.attention),
    ("training", "Training", "Learning curves", sections.training),
)
"""Anchor, name in the navigation, title and function of every section; one that returns "" is left out."""

SCRIPTS = ("three.min.js", "player.js")


def render(run: Run) -> str:
    """The whole report as HTML.

    Raises:
        InputError: no generated set, or no record of a scarce draw.
    """
    if not run.sets:
        raise InputError(
            "The report needs at least one generated set; run `python -m rayjobs.generate` first."
        )
    if not run.judged:
        raise InputError("The report needs scores of the scarce draws; run `python -m rayjobs.score` first.")
    style, scripts = _asset("style.css"), [_asset(name) for name in SCRIPTS if run.with_clips]
    parts = [(*names, body) for *names, make in SECTIONS if (body := make(run))]
    links = "".join(f'<a href="#{anchor}">{escape(short)}</a>' for anchor, short, _, _ in parts)
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{escape(title)}</h2>{body}'
        "</section>"
        for anchor, _, title, body in parts
    )
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    result = run.result
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(f"{result['dataset']}, run {result['run']}: motionsynth report")}</title>
<style>{style}</style>
</head>
<body>
<header>{_header(run)}</header>
<nav aria-label="Sections">{links}</nav>
<main>{body}</main>
<footer>{_footer(run)}</footer>
{"".join(f"<script>{s}</script>" for s in scripts)}
</body>
</html>
"""


def _asset(name: str) -> str:
    text = (files("motionsynth.report") / "assets" / name).read_text("utf-8")
    if "</script" in text or "</style" in text:
        raise InputError(f"The report's asset {name} would end its own element; it cannot be embedded.")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _header(run: Run) -> str:
    result, found = run.result, verdicts(run)
    title = found[0].title if found else "No generator was scored beside the strong real arm"
    lead = f'<p class="lead">{escape(found[0].text)}</p>' if found else ""
    if result["as_published"]:
        lead += f'<p class="verdict loss">{escape(PUBLISHED_NOTE)}</p>'
    return (
        f'<p class="eyebrow">motionsynth report <span>{escape(result["dataset"])}</span> '
        f"<span>run {escape(result['run'])}</span></p>"
        f'<h1 class="{found[0].tone if found else "open"}">{escape(title)}</h1>{lead}{_facts(run)}'
    )


def _facts(run: Run) -> str:
    result, judged = run.result, run.judged
    seeds = len({r.seed for r in judged})
    draws = result["draws"]
    facts = [
        ("Classes", str(len(run.class_names))),
        ("Protocol", ", ".join(result["protocols"])),
        ("Judged by", "held-out training people" if result["split"] == "validation" else "the test half"),
        ("Scarcity", f"{BedSpec(**result['bed']).size}"),
        ("Runs per arm", f"{draws} draw{'s' * (draws > 1)}, {seeds} seed{'s' * (seeds > 1)}"),
        ("Recogniser", ", ".join(run.recognisers)),
    ]
    if result["split"] == "test":
        facts.append(("Test half read", f"{result['test_readings']} times"))
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in facts) + "</dl>"


def _footer(run: Run) -> str:
    about, result = run.about, run.result
    terms = str(about.get("terms") or "not recorded").rstrip(".")
    source = f"{about.get('title') or result['dataset']}. Terms: {terms}. {_share(run)}"
    rows = [
        ("Real clips inside", f"from {source}") if run.with_clips else ("Measured on", source),
        ("Citation", str(about.get("citation") or "")),
        ("Revision", str(result["git_revision"] or "")),
        ("Made by", run.command),
    ]
    listed = "<dl>" + "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in rows if v) + "</dl>"
    if run.with_clips:
        listed += "<p>three.js is \u00a9 its authors, under the MIT License.</p>"
    return listed


def _share(run: Run) -> str:
    """Who may have the file: whoever gets a report gets the clips in it."""
    may = run.about.get("may_redistribute")
    if not run.with_clips:
        return "No clip is inside this file, only figures about them."
    if may is None:
        return "Pass this file on only to those who may have these clips."
    return f"Its terms {'allow' if may else 'forbid'} passing clips on{'' if may else ', and so this file'}."
