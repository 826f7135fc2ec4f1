"""Whether a generated set is what it would have been undisturbed."""

from __future__ import annotations

from storage import Storage
from storage.dataset import read_dataset, verify
from storage.manifest import read_manifest
from tests.tiny_jobs import digests


def whole(storage: Storage, prefix: str, calm: dict[str, str]) -> str:
    """All is as if nothing had happened; says what was found."""
    shards = {k: v for k, v in calm.items() if k != "manifest"}
    assert digests(storage, prefix) == shards
    assert read_manifest(storage, prefix).digest == calm["manifest"]
    assert verify(storage, prefix) == []
    ids = [m.sample_id for m in read_dataset(storage, prefix)[0].motions]
    assert len(set(ids)) == len(ids) == 48
    return f"{len(ids)} of 48 clips, none twice, bytes equal"
