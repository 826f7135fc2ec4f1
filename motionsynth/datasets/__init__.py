"""The datasets that `--dataset` knows: one file each, one line in `DATASETS` each."""

from pathlib import Path

from motionsynth.datasets.info import DatasetInfo
from motionsynth.datasets.ntu60 import NTU60
from motionsynth.datasets.ntu120 import NTU120
from motionsynth.datasets.ntu120_harmful import NTU120_HARMFUL
from motionsynth.datasets.nucla import NUCLA
from motionsynth.datasets.sbu import SBU
from motionsynth.datasets.ui_prmd import UI_PRMD
from motionsynth.datasets.utd_mhad import UTD_MHAD
from motionsynth.errors import InputError

DATASETS: dict[str, DatasetInfo] = {
    "nucla": NUCLA,
    "ui_prmd": UI_PRMD,
    "sbu": SBU,
    "utd_mhad": UTD_MHAD,
    "ntu60": NTU60,
    "ntu120": NTU120,
    "ntu120_harmful": NTU120_HARMFUL,
}

SAMPLE = Path(__file__).parent / "sample"
"""The bundled real sample (UI-PRMD, reduced; see `rayjobs/bundle_sample.py`): a prepared dataset folder."""


def get_dataset(name: str) -> DatasetInfo:
    """A dataset by name.

    Raises:
        InputError: no such dataset.
    """
    if name not in DATASETS:
        raise InputError(f"Unknown dataset '{name}'. Known: {', '.join(DATASETS)}.")
    return DATASETS[name]


__all__ = ["DATASETS", "SAMPLE", "DatasetInfo", "get_dataset"]
