"""Status from storage alone: nothing yet, half done, done, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from motionsynth.generators import SampleRequest
from motionsynth.motion import Motion, MotionSet
from rayjobs.board import Board, common_folder, read_board
from rayjobs.generate import claim
from rayjobs.gpus import parse
from rayjobs.progress import Progress
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
        "jobs": [],
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
    half = {
        "shards": 3, "shards_done": 2, "shards_failed": {}, "shards_left": 1, "clips": 7, "clips_done": 6,
    }  # fmt: skip
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


def test_failures_rate_and_silence_come_from_what_the_job_wrote(tmp_path: Path, capsys) -> None:
    storage = Storage(tmp_path)
    request = GenerationRequest(checkpoint="c", checkpoint_digest="d", counts={0: 4, 1: 3}, shard_size=3)
    claim(storage, "runs/r/synthetic", request)
    gone, name = (f"runs/r/synthetic/{key_of(spec)}" for spec in plan(request)[:2])
    storage.write(gone, b"made since")
    board = Board(storage, common_folder(["runs/r/synthetic"]), "generate")
    with Progress("generate", 7, "clips", board=board) as progress:
        progress.advance(2)
        progress.fail(gone, f"{gone}: OSError: no room")
        progress.fail(name, f"{name}: OSError: no room")
    now = status(storage, "r")
    (job,) = now["jobs"]
    assert job["file"] == "runs/r/synthetic/progress-generate.json" and job["rate"] > 0
    assert (job["state"], job["done"], job["total"], job["failures"]) == ("failed", 2, 7, 2)
    (made,) = now["generated"]
    assert made["shards_failed"] == {name: f"{name}: OSError: no room"}  # the other one exists by now
    assert (made["shards_done"], made["shards_left"]) == (1, 2) and now["files"] == {"synthetic": 2}
    report(now)
    said = capsys.readouterr().out
    assert "1 of 3 shards, 1 failed" in said and f"{key_of(plan(request)[1])}: OSError: no room" in said

    written = json.loads(storage.read(job["file"])) | {"state": "running"}
    storage.write(job["file"], json.dumps(written).encode())
    assert read_board(storage, job["file"], written["written"] + 5)["state"] == "running"
    storage.write(
        job["file"], json.dumps(written | {"written": written["written"] - 3600, "rate": 0.04}).encode()
    )
    report(status(storage, "r"))
    said = capsys.readouterr().out
    assert "it seems dead: silent for 36" in said and "2.4 clips/min, moved" in said


def test_storage_that_fails_harms_no_job(tmp_path: Path, caplog) -> None:
    (tmp_path / "runs").write_text("a file where the folder is to be")
    with Progress("score", 1, "x", board=Board(Storage(tmp_path), "runs/r", "score")) as progress:
        progress.advance(1)
    assert "Progress cannot be written" in caplog.text


def test_gpus_as_nvidia_smi_prints_them() -> None:
    text = "0, NVIDIA H100 80GB HBM3, 97, 1024, 81559\n1, NVIDIA A100, [N/A], 3, 40960\n\nnot a gpu\n"
    first, second = parse(text)
    assert first == {
        "index": 0, "name": "NVIDIA H100 80GB HBM3", "utilisation_percent": 97, "memory_used_mib": 1024,
        "memory_mib": 81559,
    }  # fmt: skip
    assert second["utilisation_percent"] is None


def test_a_damaged_checkpoint_is_said_not_raised(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("runs/r/train/config.json", b"{}")
    (found,) = status(storage, "r")["checkpoints"]
    assert found["state"] == "damaged" and "config.json" in found["reason"]
