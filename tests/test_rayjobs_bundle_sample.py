"""The bundled sample as it lies in the repository, and the script that makes it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from motionsynth.datasets import SAMPLE, get_dataset
from motionsynth.errors import InputError
from motionsynth.motion import invalid_reason
from motionsynth.splits import Split, partition
from rayjobs.bundle_sample import GRID, bundle
from storage.dataset import read_dataset, verify
from storage.paths import Storage


def test_sample_is_small_and_licensed() -> None:
    files = [f for f in SAMPLE.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 8_000_000
    assert "Public Domain Dedication" in (SAMPLE / "LICENSE").read_text()


def test_sample_is_whole_and_has_all_classes_and_subjects() -> None:
    motions, header = read_dataset(Storage(SAMPLE), "")
    info = get_dataset("ui_prmd")
    assert Counter(motions.labels.tolist()) == dict.fromkeys(range(20), 100)
    assert Counter(m.subject for m in motions.motions) == {f"{i:02d}": 200 for i in range(1, 11)}
    assert header.class_names == info.class_names and header.skeleton.name == info.skeleton
    assert header.extra["citation"] == info.citation and header.extra["terms"] == info.terms
    assert [Split.from_dict(s) for s in header.splits] == list(info.splits)
    assert not [m.sample_id for m in motions.motions if invalid_reason(m, motions.skeleton)]
    train, test = partition(motions, Split.from_dict(header.splits[0]))
    assert len(train) == len(test) == 1000
    assert verify(Storage(SAMPLE), "") == []


def test_sample_is_the_raw_data_to_within_half_a_millimetre(shared_data: Path) -> None:
    info = get_dataset("ui_prmd")
    sample = {m.sample_id: m for m in read_dataset(Storage(SAMPLE), "")[0].motions}
    for path in info.find(shared_data / "ui_prmd")[::97]:
        raw = info.read(path)
        kept = sample[raw.sample_id]
        assert kept.fps == raw.fps / 2 and kept.label == raw.label and kept.subject == raw.subject
        np.testing.assert_allclose(kept.positions, raw.positions[:, ::2], atol=0.5 / GRID + 1e-6)


def test_bundle_writes_the_same_bytes_again(shared_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for half in ("correct_kinect", "incorrect_kinect"):
        for kind in ("Positions", "Angles"):
            (raw / half / kind).mkdir(parents=True)
            for f in sorted((shared_data / "ui_prmd" / half / kind).glob("m0[1-3]_s01_e0[12]*")):
                shutil.copy(f, raw / half / kind / f.name)
    out = tmp_path / "sample"
    contents = []
    for _ in range(2):
        size = bundle(raw, out)
        contents.append({f.relative_to(out): f.read_bytes() for f in out.rglob("*") if f.is_file()})
    assert contents[0] == contents[1] and size == sum(map(len, contents[0].values()))
    assert len(read_dataset(Storage(out), "")[0]) == 12


def test_bundle_without_raw_files_says_which_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Positions/mMM_sSS_eEE_positions.txt"):
        bundle(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
