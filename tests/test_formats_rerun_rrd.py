"""Rerun recordings, read back by Rerun's own reader."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.formats.rerun_rrd import rrd_bytes
from motionsynth.motion import MotionSet


def test_without_the_package_the_cure_is_named(tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"pip install 'motionsynth\[rerun\]'"):
        rrd_bytes(tiny_set.motions[0], tiny_set.skeleton)


def read(folder: Path, data: bytes) -> dict[str, list]:
    """Column contents by "entity column", over time where there is a time."""
    chunk = pytest.importorskip("rerun.chunk", reason="pip install 'motionsynth[rerun]'")
    (folder / "x.rrd").write_bytes(data)
    reader = chunk.RrdReader(folder / "x.rrd")
    assert [r.application_id for r in reader.recordings()] == ["motionsynth"]
    out: dict[str, list] = {}
    for c in reader.stream():
        batch = c.to_record_batch()
        for name in batch.schema.names:
            column = batch.column(name)
            where = f"{c.entity_path} {name}" + (" (static)" if name != "time" and c.is_static else "")
            out[where] = column.cast("int64").to_pylist() if name == "time" else column.to_pylist()
    return out


def test_joints_bones_and_times_are_those_of_the_clip(tiny_set: MotionSet, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="pip install 'motionsynth[rerun]'")
    m, skeleton = tiny_set.motions[3], tiny_set.skeleton
    got = read(tmp_path, rrd_bytes(m, skeleton))
    joints = np.array(got["/person_0/joints Points3D:positions"], np.float32)
    np.testing.assert_array_equal(joints, m.positions[0])
    bones = np.array(got["/person_0/bones LineStrips3D:strips"], np.float32)
    child, parent = np.array(skeleton.bones).T
    np.testing.assert_array_equal(
        bones, np.stack([m.positions[0, :, child], m.positions[0, :, parent]], 2).swapaxes(0, 1)
    )
    np.testing.assert_allclose(
        np.array(got["/person_0/joints time"]) / 1e9, np.arange(m.num_frames) / m.fps, atol=1e-8
    )
    assert got["/person_0/joints Points3D:labels (static)"] == [list(skeleton.joints)]
    assert m.label_name in got["/about TextDocument:text (static)"][0][0]


def test_an_absent_person_is_not_drawn(tiny_set: MotionSet, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="pip install 'motionsynth[rerun]'")
    m = tiny_set.motions[0]
    both = np.concatenate([m.positions, m.positions + 1]).astype(np.float32)
    both[1, [0, 5]] = 0
    got = read(tmp_path, rrd_bytes(replace(m, positions=both), tiny_set.skeleton))
    drawn = [len(p) for p in got["/person_1/joints Points3D:positions"]]
    assert drawn == [0 if t in (0, 5) else 20 for t in range(m.num_frames)]
    with pytest.raises(InputError, match="has 19 joints; skeleton 'kinect20' has 20"):
        rrd_bytes(replace(m, positions=both[:, :, :19]), tiny_set.skeleton)
