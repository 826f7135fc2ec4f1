"""Recognisers: one file and one line here each. Their names are cheap: PyTorch is imported when one is built."""

from __future__ import annotations

from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from motionsynth.errors import InputError

if TYPE_CHECKING:
    from motionsynth.recognisers.base import Recogniser, RecogniserInfo

RECOGNISERS: dict[str, str] = {
    "tcn": "motionsynth.recognisers.tcn:TCN",
    "tacnn": "motionsynth.recognisers.tacnn:TaCNN",
    "skeleton_cnn": "motionsynth.recognisers.skeleton_cnn:SkeletonCNN",
    "cnn_lstm": "motionsynth.recognisers.cnn_lstm:CNNLSTM",
    "relational_lstm": "motionsynth.recognisers.relational_lstm:RelationalLSTM",
    "stgcn": "motionsynth.recognisers.stgcn:STGCN",
}
"""name -> where it is, as "module:class"."""

_OF_BASE = ("Recogniser", "RecogniserInfo")


def __getattr__(name: str) -> Any:
    """What `motionsynth.recognisers.base` has, imported when it is asked for (PEP 562)."""
    if name in _OF_BASE:
        return getattr(import_module("motionsynth.recognisers.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_recogniser(name: str, info: RecogniserInfo) -> Recogniser:
    """A recogniser with fresh weights (drawn from torch's global generator).

    Raises:
        InputError: unknown name.
    """
    if name not in RECOGNISERS:
        raise InputError(f"Unknown recogniser '{name}'. Known: {', '.join(sorted(RECOGNISERS))}.")
    return resolve_name(RECOGNISERS[name])(info)


__all__ = ["RECOGNISERS", "Recogniser", "RecogniserInfo", "build_recogniser"]
