"""What the documents tell people to do, read from their code blocks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")),
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
OURS = re.compile(r"^python -m ((?:rayjobs|tuning|benchmarks|motionsynth|storage|tests)[\w.]*)(.*)$")
FILE = re.compile(r"^# ([\w/]+\.(?:py|toml|txt))(?:,.*)?\n")


@dataclass(frozen=True, slots=True)
class Command:
    """One line of a shell block, continuation lines joined, comment and trailing redirection removed."""

    page: str
    text: str

    @property
    def ours(self) -> tuple[str, list[str]] | None:
        """Module and arguments of `python -m OURS ...`; None for anything else."""
        found = OURS.match(self.text)
        return (found[1], shlex.split(found[2])) if found else None

    @property
    def verbs(self) -> list[tuple[str, list[str]]]:
        """The same as a list; with the verb that `rayjobs.submit` sends, behind its `--`."""
        return split_submitted(*self.ours) if self.ours else []


def split_submitted(module: str, arguments: list[str]) -> list[tuple[str, list[str]]]:
    """A command and the one that it submits."""
    if module != "rayjobs.submit" or "--" not in arguments:
        return [(module, arguments)]
    at = arguments.index("--")
    verb = arguments[at + 1]
    sent = verb if verb.startswith("tuning.") else f"rayjobs.{verb}"
    return [(module, arguments[:at]), (sent, arguments[at + 2 :])]


def blocks(page: str, language: str) -> list[str]:
    """Contents of a page's blocks of a language."""
    return [body for kind, body in BLOCK.findall((ROOT / page).read_text("utf-8")) if kind == language]


def commands(page: str) -> list[Command]:
    """All shell lines of a page, in order."""
    out = []
    for body in blocks(page, "bash"):
        for line in body.replace("\\\n", " ").splitlines():
            text = re.sub(
                r"\s{2,}(#\s.*)?$|\s#\s.*$", "", re.sub(r"[ \t]+", " ", line.strip()) + "  "
            ).strip()
            if text and not text.startswith("#"):
                out.append(Command(page, text))
    return out


def files(page: str) -> dict[str, str]:
    """Files that a page shows: blocks whose first line is a comment with nothing but their name."""
    out = {}
    for body in (*blocks(page, "python"), *blocks(page, "toml")):
        if found := FILE.match(body):
            out[found[1]] = body
    return out
