"""Status from storage alone: nothing yet, half done, done, damaged."""

from __future__ import annotations

from pathlib import Path

import torch

from motionsynth.generators import SampleRequest
from motionsynth.motion import Motion, MotionSet
from rayjobs.generate import claim
from rayjobs.status import report, status
from storage import Storage
from storage.checkpoints import save_checkpoint
from storage.dataset import write_dataset, write_shard
from storage.header import Header
from storage.manifest import Manifest, write_manifest
from storage.shards import GenerationRequest, key_of, plan


def motion(request: SampleRequest, like: MotionSet) -> Motion:
    return Motion(
        positions=like.motions[0].positions,
        fps=30.0,
        skeleton=like.skeleton.name,
        label=request.label,
        label_name=like.class_names[request.label],
        sample_id=request.sample_id,
        source="synthetic",
    )


def test_status_follows_a_run(storage_uri: str, tiny_set: MotionSet, capsys) -> None:
    storage = Storage(storage_uri)
    assert status(storage, "r") == {
        "run": "r",
        "datasets": [],
        "checkpoints": [],
        "generated": [],
        "refined": [],
        "files": {},
        "bytes": 0,
    }

    header = Header.of(tiny_set)
    write_dataset(storage, "data/tiny", tiny_set, header, rows_per_shard=10)
    storage.write("data/half/shards/000000.parquet", b"x")
    digest = save_checkpoint(storage, "runs/r/train/step-000000010", {"w": torch.ones(2)}, {"generator": "g"})
    request = GenerationRequest(checkpoint="c", checkpoint_digest="d", counts={0: 4, 1: 3}, shard_size=3)
    specs = plan(request)
    claim(storage, "runs/r/synthetic", request)
    records = []
    for spec in specs[:2]:
        clips = tuple(motion(r, tiny_set) for r in spec.samples())
        whole = MotionSet(
            dataset="tiny", skeleton=tiny_set.skeleton, class_names=tiny_set.class_names, motions=clips
        )
        records.append(write_shard(storage, "runs/r/synthetic", key_of(spec), whole, header))

    now = status(storage, "r")
    assert now["datasets"] == [
        {"name": "half", "state": "unfinished"},
        {"name": "tiny", "state": "done", "clips": 24, "shards": 3},
    ]
    assert now["checkpoints"] == [
        {"prefix": "runs/r/train/step-000000010", "state": "done", "digest": digest}
    ]
    half = {"shards": 3, "shards_done": 2, "clips": 7, "clips_done": 6}
    assert now["generated"] == [{"prefix": "runs/r/synthetic", "state": "unfinished", **half}]
    assert now["files"] == {"synthetic": 3, "train": 2}
    report(now)
    assert "unfinished, 6 of 7 clips, 2 of 3 shards" in capsys.readouterr().out

    write_manifest(
        storage, "runs/r/synthetic", Manifest(kind="generated", header=header, shards=tuple(records))
    )
    # A manifest over a request that is not whole can only come from a shard lost afterwards.
    assert status(storage, "r")["generated"][0]["state"] == "damaged"
    assert status(storage, "other")["generated"] == []


def test_a_damaged_checkpoint_is_said_not_raised(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("runs/r/train/config.json", b"{}")
    (found,) = status(storage, "r")["checkpoints"]
    assert found["state"] == "damaged" and "config.json" in found["reason"]
