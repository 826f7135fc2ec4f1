"""The documents are true: every command in them is understood, and links lead somewhere.

That commands also run: `test_docs_pages.py`.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from rayjobs import cli
from tests.documents import PAGES, ROOT, Command, commands

OURS = [c for page in PAGES for c in commands(page) if c.ours is not None]


@pytest.mark.parametrize("command", OURS, ids=lambda c: f"{c.page}: {c.text[:70]}")
def test_every_command_is_understood(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module, arguments in command.verbs:
        there = ROOT / module.replace(".", "/")
        assert there.with_suffix(".py").is_file() or there.is_dir()
        found = import_module(module)
        # Abbreviated, or no verb: that it exists is all there is to see.
        if "..." not in arguments and hasattr(found, "Options"):
            cli.parse(found.Options, arguments)


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?://|mailto:)([^)#]+)", (ROOT / page).read_text("utf-8")):
            if not (ROOT / page).parent.joinpath(link).exists():
                wrong.append(f"{page}: {link}")
    assert not wrong, "\n".join(wrong)
