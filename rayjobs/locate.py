"""What a user means by `--data` and `--checkpoint`: a prefix in storage, a dataset's name, or a folder above one."""

from __future__ import annotations

from motionsynth.errors import InputError
from storage import Storage
from storage.checkpoints import CONFIG
from storage.manifest import MANIFEST

SHOWN = 8
"""Choices that a message lists."""


def locate_data(storage: Storage, given: str) -> str:
    """The prefix of the one finished set of clips that is meant: real, generated, refined or composed.

    Args:
        storage: Where.
        given: `nucla` (for data/nucla), `data/nucla`, `runs/tour/.../synthetic`, or a folder that holds one.

    Raises:
        InputError: there is none, or there are several.
    """
    found = _below(storage, given, MANIFEST)
    if not found:
        raise InputError(
            f"'{given}' names no finished dataset in '{storage.uri}'; `python -m rayjobs.status` lists what there is: "
            "give a prepared dataset's name, or the prefix of generated clips."
        )
    return _one(given, found, "sets of clips")


def locate_checkpoint(storage: Storage, given: str) -> str:
    """The prefix of the one checkpoint that is meant; of several steps of a training, the last.

    Raises:
        InputError: there is none, or there are several.
    """
    found = _below(storage, given, CONFIG)
    if not found:
        raise InputError(
            f"'{given}' names no finished checkpoint in '{storage.uri}'; `python -m rayjobs.status` lists a run's."
        )
    last = {f.rpartition("/")[0]: f for f in sorted(found)}
    return _one(given, sorted(last.values()), "checkpoints")


def _below(storage: Storage, given: str, marker: str) -> list[str]:
    given = given.strip("/")
    for prefix in [given] if "/" in given else [f"data/{given}", given]:
        if storage.exists(f"{prefix}/{marker}"):
            return [prefix]
        folders = (o.key.rpartition("/") for o in storage.list(prefix))
        if found := sorted(folder for folder, _, name in folders if name == marker):
            return found
    return []


def _one(given: str, found: list[str], what: str) -> str:
    if len(found) > 1:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InputError(
            f"'{given}' holds {len(found)} {what}; name one of them: {', '.join(found[:SHOWN])}{more}."
        )
    return found[0]
