"""What of a run is done and what is left, read from storage alone: it needs no Ray and disturbs nothing.

python -m rayjobs.status --run demo --storage out
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from motionsynth.errors import InputError
from rayjobs import cli
from rayjobs.board import is_board, read_board
from rayjobs.experiment import REFINED_SET
from rayjobs.generate import REQUEST, read_request
from rayjobs.progress import speed
from storage import Storage
from storage.checkpoints import CONFIG, checkpoint_digest
from storage.manifest import MANIFEST, read_manifest
from storage.shards import key_of, plan, stored_sizes

FAILED_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Show the prepared datasets of a storage and what a run has done and has left."""


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `status`."""
    result = status(options.open_storage(), options.run)
    report(result)
    return result


def status(storage: Storage, run: str) -> dict[str, Any]:
    """Prepared datasets, and the run's checkpoints, generated sets and other objects.

    Args:
        storage: Where.
        run: Name of the run.

    Returns:
        `datasets`, `checkpoints`, `generated`, `refined`, `jobs` (lists), `files` (objects per folder of the run) and
        `bytes`; see `docs/operations.md`.
    """
    root = f"runs/{cli.check_name('run', run)}"
    # Of each folder only the names that say what it is: one with shards may have millions.
    folders: dict[str, set[str]] = {}
    files: Counter[str] = Counter()
    jobs: list[dict[str, Any]] = []
    size = 0
    for o in storage.scan(root):
        folder, _, name = o.key.rpartition("/")
        if is_board(o.key):
            jobs.append({"file": o.key, **read_board(storage, o.key)})
            continue
        known = folders.setdefault(folder, set())
        if name in (REQUEST, CONFIG):
            known.add(name)
        files[_stage(o.key, root)] += 1
        size += o.size
    failed = {name: said for job in jobs if job["verb"] == "generate" for name, said in job["failed"].items()}
    generated = [_generated(storage, f, failed) for f in sorted(folders) if REQUEST in folders[f]]
    return {
        "run": run,
        "datasets": _datasets(storage),
        "checkpoints": [_checkpoint(storage, f) for f in sorted(folders) if CONFIG in folders[f]],
        "generated": generated,
        "refined": [
            _refined(storage, f"{before}/{REFINED_SET}")
            for before in sorted({f.split(f"/{REFINED_SET}")[0] for f in folders if f"/{REFINED_SET}" in f})
        ],
        "jobs": jobs,
        "files": dict(sorted(files.items())),
        "bytes": size,
    }


def _stage(key: str, root: str) -> str:
    return key.removeprefix(f"{root}/").split("/")[0]


def _datasets(storage: Storage) -> list[dict[str, Any]]:
    names = sorted({o.key.split("/")[1] for o in storage.scan("data") if o.key.count("/") >= 2})
    out = []
    for name in names:
        if not storage.exists(f"data/{name}/{MANIFEST}"):
            out.append({"name": name, "state": "unfinished"})
            continue
        manifest = read_manifest(storage, f"data/{name}")
        out.append({"name": name, "state": "done", "clips": manifest.rows, "shards": len(manifest.shards)})
    return out


def _checkpoint(storage: Storage, prefix: str) -> dict[str, Any]:
    try:
        return {"prefix": prefix, "state": "done", "digest": checkpoint_digest(storage, prefix)}
    except InputError as e:
        return {"prefix": prefix, "state": "damaged", "reason": str(e)}


def _generated(storage: Storage, prefix: str, failed: Mapping[str, str]) -> dict[str, Any]:
    specs = plan(read_request(storage, prefix))
    sizes = stored_sizes(storage, prefix, specs)
    done = len(specs) - sizes.count(0)
    # A failed shard that was made since is done.
    at = {f"{prefix}/{key_of(specs[i])}": i for i in _indices(failed, prefix) if i < len(specs)}
    lost = {name: said for name, said in failed.items() if name in at and not sizes[at[name]]}
    committed = storage.exists(f"{prefix}/{MANIFEST}")
    whole = done == len(specs)
    return {
        "prefix": prefix,
        "state": "done" if committed and whole else "damaged" if committed else "unfinished",
        "shards": len(specs),
        "shards_done": done,
        "shards_failed": lost,
        "shards_left": len(specs) - done,
        "clips": specs.clips,
        "clips_done": sum(specs.rows(i) for i, size in enumerate(sizes) if size),
    }


def _indices(names: Iterable[str], prefix: str) -> list[int]:
    """Indices of the shards of a set that are named, such as PREFIX/shards/000012-1f3a.parquet."""
    start = f"{prefix}/shards/"
    numbers = [n.removeprefix(start).partition("-")[0] for n in names if n.startswith(start)]
    return [int(n) for n in numbers if n.isdecimal()]


def _refined(storage: Storage, prefix: str) -> dict[str, Any]:
    if not storage.exists(f"{prefix}/{MANIFEST}"):
        return {"prefix": prefix, "state": "unfinished"}
    manifest = read_manifest(storage, prefix)
    totals = manifest.totals
    return {"prefix": prefix, "state": "done", "clips": totals.rows, "accepted": totals.accepted}


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    print("prepared datasets:" if result["datasets"] else "prepared datasets: none")
    for d in result["datasets"]:
        whole = d["state"] == "done"
        size = f"{d['clips']:,} clips, {d['shards']} shards" if whole else "prepare it again to finish it"
        print(f"  {d['name']}: {d['state']} ({size})")
    if not result["files"]:
        print(f"run {result['run']}: nothing yet")
        return
    print(f"run {result['run']}: {sum(result['files'].values())} objects, {result['bytes'] / 1e6:.1f} MB")
    for c in result["checkpoints"]:
        print(f"  checkpoint {c['prefix']}: {c['state']} ({c.get('digest', c.get('reason', ''))[:16]})")
    for g in result["generated"]:
        print(
            f"  generated {g['prefix']}: {g['state']}, {g['clips_done']:,} of {g['clips']:,} clips, "
            f"{g['shards_done']} of {g['shards']} shards"
            + (f", {len(g['shards_failed'])} failed" if g["shards_failed"] else "")
        )
        for name, said in list(g["shards_failed"].items())[:FAILED_SHOWN]:
            print(f"    {name.removeprefix(g['prefix'] + '/')}: {said.removeprefix(name + ': ')}")
    for r in result["refined"]:
        found = f", {r['accepted']:,} of {r['clips']:,} clips accepted" if r["state"] == "done" else ""
        print(f"  refined {r['prefix']}: {r['state']}{found}")
    for job in result["jobs"]:
        print(f"  {_line(job)}")
    for stage, n in result["files"].items():
        print(f"  {stage}: {n} objects")


def _line(job: Mapping[str, Any]) -> str:
    """`generate: running, 512 of 2,048 clips, 83 clips/s, moved 2 s ago`."""
    text = f"{job['verb']}: {job['state']}, {job['done']:,} of {job['total']:,} {job['unit']}"
    if job["failures"]:
        text += f", {job['failures']} failed"
    if job["state"] in ("running", "dead"):
        text += f", {speed(job['rate'], job['unit'])}, moved {job['seconds_since_moved']:.0f} s ago"
    if job["state"] == "running":
        text += "".join(f", GPU {g['index']} {g['utilisation_percent']} %" for g in job["gpus"])
    if job["state"] == "dead":
        text += (
            f" (it seems dead: silent for {job['seconds_since_written']:.0f} s, process {job['pid']} on {job['host']}; "
            "the same command goes on)"
        )
    return f"{text}: {job['said']}" if job["said"] else text


if __name__ == "__main__":
    cli.main(Options, verb)
