"""Recognisers: one file and one line here each."""

from __future__ import annotations

from motionsynth.errors import InputError
from motionsynth.recognisers.base import Recogniser, RecogniserInfo
from motionsynth.recognisers.cnn_lstm import CNNLSTM
from motionsynth.recognisers.relational_lstm import RelationalLSTM
from motionsynth.recognisers.skeleton_cnn import SkeletonCNN
from motionsynth.recognisers.stgcn import STGCN
from motionsynth.recognisers.tacnn import TaCNN
from motionsynth.recognisers.tcn import TCN

RECOGNISERS: dict[str, type[Recogniser]] = {
    "tcn": TCN,
    "tacnn": TaCNN,
    "skeleton_cnn": SkeletonCNN,
    "cnn_lstm": CNNLSTM,
    "relational_lstm": RelationalLSTM,
    "stgcn": STGCN,
}


def build_recogniser(name: str, info: RecogniserInfo) -> Recogniser:
    """A recogniser with fresh weights (drawn from torch's global generator).

    Raises:
        InputError: unknown name.
    """
    if name not in RECOGNISERS:
        raise InputError(f"Unknown recogniser '{name}'. Known: {', '.join(sorted(RECOGNISERS))}.")
    return RECOGNISERS[name](info)


__all__ = ["RECOGNISERS", "Recogniser", "RecogniserInfo", "build_recogniser"]
