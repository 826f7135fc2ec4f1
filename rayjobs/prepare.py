"""Raw motion files -> checked Parquet in storage, with Ray Data.

    python -m rayjobs.prepare --dataset nucla --raw RAW_FOLDER --storage out
    python -m rayjobs.prepare --dataset pyskl --raw clips.pkl --skeleton kinect25 --storage s3://bucket/motion
    python -m rayjobs.prepare --dataset parquet --raw folder_or_files --storage out
    python -m rayjobs.prepare --dataset sample --storage out

The result lies under data/<name>: shards named after their content, and a manifest, written last. Every file is
read and checked before the manifest is written; all problems are listed at once. On a cluster the raw path must
be the same shared folder on every node.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cluster.connect import plan_resources, ray_data
from motionsynth.axes import doubts, torso
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, invalid_reason
from motionsynth.splits import Split
from rayjobs import cli
from rayjobs.progress import Progress
from rayjobs.sources import Source, describe_source, fingerprint, open_source
from storage import MissingError, Storage
from storage.header import Header
from storage.manifest import Manifest, ShardRecord, read_manifest, write_manifest
from storage.revision import git_revision
from storage.shards import write_prepared_shard

logger = logging.getLogger(__name__)

SHOWN = 20
"""Problems and dropped clips that are printed one by one; the rest is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Turn raw motion files into checked Parquet under data/NAME.

    Attributes:
        dataset: A known dataset, or pyskl, parquet (own data) or sample (bundled).
        raw: Raw folder; for pyskl the pickle; for parquet a folder or files; for sample nothing.
        name: Name of the prepared dataset (default: the dataset's, or that of the file).
        skeleton: For pyskl: kinect25, kinect20, ... or a .toml or .json file of your own.
        class_names: For pyskl: a text file with one class name per line.
        fps: For pyskl: frames per second.
        subject_pattern: For pyskl: regular expression on the clip's name whose group 1 is the subject.
        view_pattern: For pyskl: the same for the view.
        up: For pyskl: the axis that points up, y, -y, z, -z, x or -x; ours is y.
        unit: For pyskl: m, cm or mm; ours is m.
        rows_per_shard: Clips per Parquet file.
        max_dropped: Largest share of clips that may be dropped; above it the input is taken for wrong.
        replace: Put the result in the place of another dataset of this name.
    """

    dataset: str
    raw: tuple[Path, ...] = ()
    name: str = ""
    skeleton: str = ""
    class_names: Path | None = None
    fps: float = 30.0
    subject_pattern: str = ""
    view_pattern: str = ""
    up: str = "y"
    unit: str = "m"
    rows_per_shard: int = 512
    max_dropped: float = 0.1
    replace: bool = False

    def source(self) -> Source:
        """The raw clips, looked at but not read."""
        return open_source(
            self.dataset,
            self.raw,
            name=self.name,
            skeleton=self.skeleton,
            class_names=self.class_names,
            fps=self.fps,
            subject_pattern=self.subject_pattern,
            view_pattern=self.view_pattern,
            up=self.up,
            unit=self.unit,
        )


def prefix_of(name: str) -> str:
    """Where the prepared dataset of this name lies in storage."""
    return f"data/{cli.check_name('dataset', name)}"


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `prepare`."""
    storage = options.open_storage()
    source = options.source()
    if (done := already_done(storage, source, options.rows_per_shard)) is not None:
        result = summary(done, prefix_of(source.name), "already done")
    else:
        connection = options.connect(storage)
        result = prepare(
            storage,
            source,
            cpus=connection.cpus,
            rows_per_shard=options.rows_per_shard,
            max_dropped=options.max_dropped,
            replace=options.replace,
        )
    report(result)
    return result


def already_done(storage: Storage, source: Source, rows_per_shard: int) -> Manifest | None:
    """The manifest, if this source is prepared already from files of the same names, sizes and times."""
    try:
        manifest = read_manifest(storage, prefix_of(source.name))
    except MissingError:
        return None
    return manifest if manifest.extra.get("input") == _input(source, rows_per_shard) else None


def _input(source: Source, rows_per_shard: int) -> dict[str, Any]:
    return {**describe_source(source), "fingerprint": fingerprint(source), "rows_per_shard": rows_per_shard}


def prepare(
    storage: Storage,
    source: Source,
    *,
    cpus: float,
    rows_per_shard: int = 512,
    max_dropped: float = 0.1,
    replace: bool = False,
) -> dict[str, Any]:
    """Read, check and write every clip of a source. Ray must be connected.

    Args:
        storage: Where.
        source: What.
        cpus: Logical CPUs of Ray.
        rows_per_shard: Clips per Parquet file.
        max_dropped: Largest share of clips that may fail `invalid_reason`.
        replace: Whether another dataset of this name may be replaced.

    Returns:
        The counts, what was dropped and why: JSON-serialisable.

    Raises:
        InputError: files that cannot be read (all of them are listed), too many dropped clips, or another
            dataset of this name.
    """
    if rows_per_shard < 1:
        raise InputError(f"The number of rows per shard is {rows_per_shard}; it must be at least 1.")
    if not 0 <= max_dropped <= 1:
        raise InputError(f"The largest share of dropped clips is {max_dropped:g}; it must be from 0 to 1.")
    prefix = prefix_of(source.name)
    plan_resources(actors=1, cpus_per_actor=1, tasks=0, cpus=cpus)
    header = source.header()
    jobs = plan_shards(source.items(), rows_per_shard)
    total = sum(n for job in jobs for _, n in job)
    logger.info("Preparing %d clips of '%s' as %d shards under %s.", total, source.name, len(jobs), prefix)
    rows = [{"index": i, "job": json.dumps([item for item, _ in job])} for i, job in enumerate(jobs)]
    env = storage.worker_env()
    task: Any = write_one
    done = (
        ray_data()
        .from_items(rows, override_num_blocks=len(rows))
        .map_batches(
            task,
            batch_size=1,
            batch_format="numpy",
            num_cpus=1,
            fn_args=(source, storage, prefix, header),
            runtime_env={"env_vars": env} if env else None,
        )
    )
    results: list[dict[str, Any]] = []
    with Progress("prepare", total, "clips") as progress:
        for row in done.iter_rows():
            results.append(json.loads(row["result"]))
            progress.advance(results[-1]["clips"])
    results.sort(key=lambda r: r["index"])
    _refuse_problems(results, source)
    _refuse_duplicates(results, source)
    dropped = [tuple(d) for r in results for d in r["dropped"]]
    odd = doubts([t for r in results for t in r["torsos"]])
    if len(dropped) > max_dropped * total:
        reasons = Counter(reason for _, reason in dropped).most_common(3)
        raise InputError(
            f"{len(dropped)} of {total} clips of '{source.name}' cannot be used "
            f"({'; '.join(f'{n} times: {reason}' for reason, n in reasons)}), more than the share of {max_dropped:g} "
            f"{' '.join(('that --max-dropped allows; check the files and the skeleton, or raise it.', *odd))}"
        )
    manifest = Manifest(
        kind="prepared",
        header=header,
        shards=tuple(ShardRecord.from_dict(r["record"]) for r in results if r["record"]),
        extra={
            "dropped": [list(d) for d in dropped],
            "input": _input(source, rows_per_shard),
            "statistics": _statistics(results, header),
            **({"doubts": odd} if odd else {}),
            "code_version": git_revision(),
        },
    )
    return summary(_commit(storage, prefix, manifest, replace), prefix, "done")


def plan_shards(items: Sequence[tuple[str, int]], rows_per_shard: int) -> list[list[tuple[str, int]]]:
    """Cut items (name, clips) into runs of about `rows_per_shard` clips; items stay whole and in order."""
    jobs: list[list[tuple[str, int]]] = []
    room = 0
    for item in items:
        if not jobs or item[1] > room:
            jobs.append([])
            room = rows_per_shard
        jobs[-1].append(item)
        room -= item[1]
    return jobs


def write_one(
    batch: Mapping[str, Any], source: Source, storage: Storage, prefix: str, header: Header
) -> dict[str, list[str]]:
    """One shard, in a Ray task: read, check, encode, write once. Returns a row of statistics, never motion."""
    index, items = int(batch["index"][0]), json.loads(str(batch["job"][0]))
    motions: list[Motion] = []
    problems: list[str] = []
    for item in items:
        try:
            motions += source.read(item)
        except InputError as e:
            problems.append(str(e))
    reasons = [(m.sample_id, invalid_reason(m, header.skeleton)) for m in motions]
    dropped = [(sample_id, reason) for sample_id, reason in reasons if reason]
    kept = tuple(m for m, (_, reason) in zip(motions, reasons, strict=True) if not reason)
    record = None
    # A shard with a problem is not written: its content will be another one once the file is mended.
    if kept and not problems:
        whole = MotionSet(
            dataset=header.dataset, skeleton=header.skeleton, class_names=header.class_names, motions=kept
        )
        try:
            record = write_prepared_shard(storage, prefix, index, whole, header).to_dict()
        except InputError as e:
            problems.append(str(e))
    splits = [Split.from_dict(s) for s in header.splits]
    result = {
        "index": index,
        "clips": len(motions) + len(problems),
        "record": record,
        "dropped": dropped,
        "problems": problems,
        "ids": [m.sample_id for m in kept],
        "sides": {s.name: Counter(s.side(m) for m in kept) for s in splits},
        "subjects": sorted({m.subject for m in kept}),
        "views": sorted({m.view for m in kept}),
        "frames": sum(m.num_frames for m in kept),
        "torsos": [
            torso(m.positions, header.skeleton).tolist()
            for m in motions
            if m.positions.shape[2] == header.skeleton.num_joints
        ],
    }
    return {"result": [json.dumps(result)]}


def _refuse_problems(results: Sequence[Mapping[str, Any]], source: Source) -> None:
    problems = [p for r in results for p in r["problems"]]
    if problems:
        listed = "\n".join(f"  {p}" for p in problems)
        raise InputError(
            f"{len(problems)} problems in the input of '{source.name}'; mend or remove the files and run the same "
            f"command again:\n{listed}"
        )


def _refuse_duplicates(results: Sequence[Mapping[str, Any]], source: Source) -> None:
    twice = [i for i, n in Counter(i for r in results for i in r["ids"]).items() if n > 1]
    if twice:
        raise InputError(
            f"{len(twice)} clips of '{source.name}' occur more than once ({', '.join(sorted(twice)[:3])}); give each "
            "raw file once."
        )


def _statistics(results: Sequence[Mapping[str, Any]], header: Header) -> dict[str, Any]:
    sides: dict[str, Counter[str]] = {s["name"]: Counter() for s in header.splits}
    for r in results:
        for name, counts in r["sides"].items():
            sides[name].update(counts)
    kept = sum(len(r["ids"]) for r in results)
    return {
        "subjects": len({s for r in results for s in r["subjects"]}),
        "views": len({v for r in results for v in r["views"]}),
        "mean_frames": round(sum(r["frames"] for r in results) / max(kept, 1), 2),
        "splits": {
            name: {"train": c["train"], "test": c["test"], "neither": c[""]}
            | ({"validation": c["validation"]} if c["validation"] else {})
            for name, c in sides.items()
        },
    }


def _commit(storage: Storage, prefix: str, manifest: Manifest, replace: bool) -> Manifest:
    """Write the manifest last; an equal dataset that is there keeps its own."""
    try:
        there = read_manifest(storage, prefix)
    except MissingError:
        there = None
    if there is not None and not replace:
        if there.shards == manifest.shards and there.header.to_dict() == manifest.header.to_dict():
            return there
        raise InputError(
            f"'{storage.sub(prefix).uri}' already holds another dataset of {there.rows} clips (this one has "
            f"{manifest.rows}); choose another --name, or --replace it."
        )
    write_manifest(storage, prefix, manifest, replace=replace)
    return manifest


def summary(manifest: Manifest, prefix: str, state: str) -> dict[str, Any]:
    """What the verb returns."""
    dropped = manifest.extra["dropped"]
    return {
        "dataset": manifest.extra["input"]["name"],
        "prefix": prefix,
        "state": state,
        "kept": manifest.rows,
        "found": manifest.rows + len(dropped),
        "dropped": [{"sample_id": i, "reason": reason} for i, reason in dropped],
        "shards": len(manifest.shards),
        "bytes": manifest.totals.bytes,
        "skeleton": manifest.header.skeleton.name,
        "counts": {manifest.header.class_names[k]: n for k, n in manifest.counts.items()},
        "manifest": manifest.digest,
        "terms": manifest.header.extra.get("terms", ""),
        "citation": manifest.header.extra.get("citation", ""),
        **manifest.extra["statistics"],
        "doubts": manifest.extra.get("doubts", []),
    }


def rare_by_nature(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Classes with less than half as many clips as the median one, the fewest first, with their clips."""
    half = median(counts.values()) / 2 if counts else 0
    return sorted(((name, n) for name, n in counts.items() if n < half), key=lambda c: c[1])


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    print(
        f"{result['dataset']}: {result['state']}; kept {result['kept']:,} of {result['found']:,} clips "
        f"({len(result['counts'])} classes, {result['subjects']} subjects, {result['views']} views, on average "
        f"{result['mean_frames']:.0f} frames) in {result['shards']} shards, {result['bytes'] / 1e6:.1f} MB, under "
        f"{result['prefix']}"
    )
    for name, sides in result["splits"].items():
        left = f", {sides['neither']} in neither" if sides["neither"] else ""
        left = (f", {sides['validation']} validation" if "validation" in sides else "") + left
        print(f"  split {name}: {sides['train']} train, {sides['test']} test{left}")
    for doubt in result["doubts"]:
        print(f"  CHECK: {doubt}")
    if few := rare_by_nature(result["counts"]):
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        print(
            f"  few clips of {', '.join(f'{name} ({n})' for name, n in few[:SHOWN])}{more}: with --scarcity natural, "
            "classes of at most --shots training clips get synthetic ones, and gains are told for them"
        )
    for what in ("terms", "citation"):
        if result[what]:
            print(f"  {what}: {result[what]}")
    for d in result["dropped"][:SHOWN]:
        print(f"  dropped {d['sample_id']}: {d['reason']}")
    if (more := len(result["dropped"]) - SHOWN) > 0:
        print(f"  dropped {more} more (all are listed in the manifest)")


if __name__ == "__main__":
    cli.main(Options, verb)
