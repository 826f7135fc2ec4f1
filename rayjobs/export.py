"""Clips as files for other tools: animation (BVH, glTF), action recognition (pyskl, CTR-GCN), AMASS-like npz, Rerun.

    python -m rayjobs.export --storage out --data sample --format glb --out exported --limit 20
    python -m rayjobs.export --storage out --data runs/tour/sample/BED/motion_gan/synthetic --format bvh --out exported
    python -m rayjobs.export --storage out --data sample --format pyskl --classes "deep squat correct" --out exported

`index.csv`, written last, says which file holds which clip, person and class. Exporting is no publishing: see the terms
that it prints, and `rayjobs.publish`. It needs no Ray.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from motionsynth.datasets.pyskl import pyskl_file
from motionsynth.errors import InputError
from motionsynth.file_names import file_name
from motionsynth.formats.amass_npz import amass_npz_bytes
from motionsynth.formats.bvh import bvh_text
from motionsynth.formats.ctrgcn_npz import NpzClip, ctrgcn_npz_bytes
from motionsynth.formats.gltf import glb_bytes
from motionsynth.formats.pyskl_pickle import pyskl_pickle_bytes
from motionsynth.formats.rerun_rrd import rrd_bytes
from motionsynth.motion import Motion, MotionSet, present
from motionsynth.skeleton import Skeleton
from motionsynth.splits import Split
from motionsynth.terms import known_source
from rayjobs import cli
from rayjobs.locate import locate_data
from storage import Storage
from storage.dataset import read_shards
from storage.header import Header
from storage.manifest import read_manifest

logger = logging.getLogger(__name__)

INDEX = "index.csv"
FIELDS = ("sample_id", "label", "label_name", "source", "dataset", "subject", "view", "fps", "num_frames")


def _about(m: Motion) -> dict[str, Any]:
    return {k: getattr(m, k) for k in ("sample_id", "label", "label_name", "source")}


def _bvh(m: Motion, skeleton: Skeleton, person: int) -> bytes:
    return bvh_text(m.positions, skeleton, m.fps, person=person).encode()


def _amass(m: Motion, skeleton: Skeleton, person: int) -> bytes:
    return amass_npz_bytes(m.positions, skeleton, m.fps, person, _about(m))


def _glb(m: Motion, skeleton: Skeleton) -> bytes:
    return glb_bytes(m.positions, skeleton, m.fps, m.sample_id, _about(m))


PER_PERSON: dict[str, Callable[[Motion, Skeleton, int], bytes]] = {"bvh": _bvh, "amass": _amass}
"""Formats with a file for every person of every clip."""
PER_CLIP: dict[str, Callable[[Motion, Skeleton], bytes]] = {"glb": _glb, "rrd": rrd_bytes}
"""Formats with a file for every clip."""
ENDINGS = {"bvh": ".bvh", "amass": ".npz", "glb": ".glb", "rrd": ".rrd"}
Format = Literal["bvh", "pyskl", "amass", "glb", "ctrgcn", "rrd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Write clips in a format of other tools.

    Attributes:
        data: A prepared or composed dataset's name, or the prefix of generated or refined clips.
        format: bvh, glb (glTF), amass (npz), rrd (Rerun): a file for every clip or person; pyskl, ctrgcn: one for all.
        out: A new or empty folder, or s3://bucket/prefix.
        limit: Write no more than this many clips (default: all).
        classes: Only these, by name or number (default: all).
        protocol: For pyskl and ctrgcn: the split that makes their lists (default: pyskl all, ctrgcn the first).
        refused: Also clips that a filter refused.
        replace: Write over an earlier export in the folder.
    """

    data: str
    format: Format
    out: str
    limit: int = 0
    classes: tuple[str, ...] = ()
    protocol: str = ""
    refused: bool = False
    replace: bool = False


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `export`."""
    result = export(options.open_storage(), Storage(options.out), options)
    report(result)
    return result


def export(storage: Storage, out: Storage, options: Options) -> dict[str, Any]:
    """Write the clips, then the index.

    Raises:
        InputError: no such set or class, clips that do not fit the format, or a folder that is not empty.
    """
    prefix = locate_data(storage, options.data)
    header = read_manifest(storage, prefix).header
    wanted = chosen_classes(header.class_names, options.classes)
    splits = _splits(header, options.protocol)
    if options.limit < 0:
        raise InputError(f"--limit is {options.limit}; it must be at least 1, or 0 for all clips.")
    there = out.list()
    if there and not options.replace:
        raise InputError(
            f"'{out.uri}' is not empty ({there[0].key}); give a new folder as --out, or --replace."
        )
    clips = _chosen(storage, prefix, wanted, options)
    if options.format in ("pyskl", "ctrgcn"):
        motions = MotionSet(
            dataset=header.dataset,
            skeleton=header.skeleton,
            class_names=header.class_names,
            motions=tuple(clips),
        )
        files = _whole(motions, splits, options)
    else:
        files = _single(clips, header.skeleton, options.format)
    rows, names, size = [], set(), 0
    for name, data, about in files:
        out.write(name, data)
        rows += about
        names.add(name)
        size += len(data)
        logger.info("%s: %d bytes.", name, len(data))
    if not rows:
        raise InputError(
            f"'{prefix}' has no clip to export that --classes asks for and no filter refused; ask for others."
        )
    out.write(INDEX, _csv(rows))
    info = known_source(header.dataset)
    return {
        "prefix": prefix,
        "format": options.format,
        "out": out.uri,
        "clips": len({r["sample_id"] for r in rows}),
        "files": len(names),
        "bytes": size,
        "terms": info.terms if info else str(header.extra.get("terms", "")),
    }


def chosen_classes(names: Sequence[str], given: Sequence[str]) -> frozenset[int]:
    """Labels of the classes that are asked for, by name or number; all for none.

    Raises:
        InputError: there is no such class.
    """
    out = set()
    for one in given:
        if one in names:
            out.add(names.index(one))
        elif one.isdecimal() and int(one) < len(names):
            out.add(int(one))
        else:
            raise InputError(
                f"There is no class '{one}'. Known: 0 to {len(names) - 1}, or {', '.join(names)}."
            )
    return frozenset(out or range(len(names)))


def _splits(header: Header, protocol: str) -> list[Split]:
    splits = [Split.from_dict(s) for s in header.splits]
    if not protocol:
        return splits
    chosen = [s for s in splits if s.name == protocol]
    if not chosen:
        known = ", ".join(s.name for s in splits) or "none"
        raise InputError(f"The dataset has no protocol '{protocol}'. Known: {known}.")
    return chosen


def _chosen(storage: Storage, prefix: str, wanted: frozenset[int], options: Options) -> Iterator[Motion]:
    left = options.limit or -1
    for shard in read_shards(storage, prefix):
        for m in shard.motions:
            if left == 0:
                return
            if m.label in wanted and (options.refused or m.accepted is not False):
                left -= 1
                yield m


def _single(
    clips: Iterator[Motion], skeleton: Skeleton, kind: str
) -> Iterator[tuple[str, bytes, list[dict[str, Any]]]]:
    """Files of one clip or person each, with the rows that the index gets for them."""
    taken: set[str] = set()
    for m in clips:
        stem = file_name(m.sample_id, taken)
        taken.add(stem.lower())
        people = [int(p) for p in np.flatnonzero(present(m.positions).any(1))]
        if kind in PER_CLIP:
            name = stem + ENDINGS[kind]
            yield name, PER_CLIP[kind](m, skeleton), [_row(name, m, p) for p in people]
            continue
        for p in people:
            # '+' is in no stem, so that no clip's name can be another one's person.
            name = f"{stem}+{p}{ENDINGS[kind]}" if m.num_persons > 1 else stem + ENDINGS[kind]
            yield name, PER_PERSON[kind](m, skeleton, p), [_row(name, m, p)]


def _whole(
    motions: MotionSet, splits: Sequence[Split], options: Options
) -> Iterator[tuple[str, bytes, list[dict[str, Any]]]]:
    """One file with all clips."""
    if not motions.motions:
        return
    if options.format == "pyskl":
        name = "clips.pkl"
        # A class or a few clips may leave a side of a split empty; it is then left out, unless it was asked for.
        usable = [
            s for s in splits if options.protocol or {"train", "test"} <= set(map(s.side, motions.motions))
        ]
        data = pyskl_pickle_bytes(pyskl_file(motions, usable))
    else:
        name = "clips.npz"
        sides = [splits[0].side(m) if splits else "train" for m in motions.motions]
        kept = [m for m, side in zip(motions.motions, sides, strict=True) if side in ("train", "test")]
        motions = replace(motions, motions=tuple(kept))
        clips = [
            NpzClip(side=side, index=i, label=m.label, positions=m.positions)
            for i, (m, side) in enumerate(
                zip(kept, [s for s in sides if s in ("train", "test")], strict=True)
            )
        ]
        data = ctrgcn_npz_bytes(clips, motions.num_classes)
    yield name, data, [_row(name, m, p) for m in motions.motions for p in range(m.num_persons)]


def _row(file: str, m: Motion, person: int) -> dict[str, Any]:
    return {"file": file, "person": person, **{f: getattr(m, f) for f in FIELDS}}


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("file", "person", *FIELDS)
    writer.writerow(columns)
    writer.writerows([row[c] for c in columns] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    print(
        f"{result['prefix']}: {result['clips']:,} clips as {result['format']} in {result['files']:,} files, "
        f"{result['bytes'] / 1e6:.1f} MB, under {result['out']}"
    )
    if result["terms"]:
        print(f"  terms of the source: {result['terms']}")


if __name__ == "__main__":
    cli.main(Options, verb)
