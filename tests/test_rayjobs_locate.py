"""What `--data` and `--checkpoint` may name."""

from __future__ import annotations

import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from rayjobs.locate import locate_checkpoint, locate_data
from storage import Storage
from storage.checkpoints import save_checkpoint
from storage.dataset import write_dataset
from storage.header import Header


def test_names_prefixes_and_folders(storage_uri: str, tiny_set: MotionSet) -> None:
    storage = Storage(storage_uri)
    for prefix in (
        "data/tiny",
        "runs/a/tiny/bed/g/synthetic",
        "runs/b/tiny/one/synthetic",
        "runs/b/tiny/two/synthetic",
    ):
        write_dataset(storage, prefix, tiny_set, Header.of(tiny_set))
    assert locate_data(storage, "tiny") == locate_data(storage, "data/tiny/") == "data/tiny"
    assert locate_data(storage, "runs/a") == "runs/a/tiny/bed/g/synthetic"
    with pytest.raises(
        InputError, match="'runs/b' holds 2 sets of clips; name one of them: runs/b/tiny/one/synthetic, "
    ):
        locate_data(storage, "runs/b")
    for wrong in ("none", "runs/c", "runs/a/tiny/bed/g/synth"):
        with pytest.raises(InputError, match=f"'{wrong}' names no finished dataset"):
            locate_data(storage, wrong)
    for step in (10, 9):
        save_checkpoint(
            storage, f"runs/a/t/checkpoints/step-{step:09d}", {"w": torch.ones(1)}, {"generator": "g"}
        )
    assert locate_checkpoint(storage, "runs/a/t") == "runs/a/t/checkpoints/step-000000010"
    assert locate_checkpoint(storage, "runs/a/t/checkpoints/step-000000009").endswith("9")
    with pytest.raises(InputError, match="names no finished checkpoint"):
        locate_checkpoint(storage, "runs/b")
