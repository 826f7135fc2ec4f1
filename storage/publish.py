"""A dataset or a checkpoint as a folder that others use without our code, ready to be uploaded as it is.

    README.md        the card, written first: two publications of one folder meet there
    data/*.parquet   the clips (dataset)
    skeleton.json    joints, parents, mirror pairs
    splits.json      the official splits, where there are any
    croissant.json   metadata for search engines
    manifest.json    for us: the folder is a finished dataset of this project, too
    SHA256SUMS       all of the above, written last: a folder without it is not complete

A dataset without splits is copied byte for byte. Where there are splits, clips that every protocol treats alike share
files, so that each protocol is a list of whole files and no clip is stored twice. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from motionsynth.terms import Grant
from storage.card_parts import About, Making, cite, licence_address
from storage.cards import Config, biases, dataset_card, model_card, summary
from storage.checkpoints import checkpoint_digest, checkpoint_files, read_config
from storage.croissant import CROISSANT, File, check_croissant, croissant
from storage.dataset import read_shards
from storage.decisions import content_digest, read_decisions
from storage.facts import Facts, Part, part_of
from storage.manifest import MANIFEST, Manifest, ShardRecord, below, damaged_shard, describe
from storage.objects import ConflictError, sha256
from storage.paths import Storage
from storage.schema import encode

CARD = "README.md"
SUMS = "SHA256SUMS"
ROWS_PER_FILE = 1024
ALL, REFUSED = "all", "refused"
"""Configurations beside those of the protocols."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where clips go.

    Attributes:
        names: Path before the number of the file, for each part; empty where shards are copied.
        configs: How the files can be loaded, the default first.
    """

    names: Mapping[Part, str]
    configs: tuple[Config, ...]


def plan_layout(facts: Facts, copy: bool = False) -> Layout:
    """Files and configurations of a dataset.

    Args:
        facts: Of the dataset.
        copy: Copy the shards even where there are splits; the protocols are then in `splits.json` alone.
    """
    every = "Every clip." if not facts.refused or copy else "Every clip that no filter refused."
    rows = facts.manifest.rows
    if copy or (not facts.splits and not facts.refused):
        whole = Config(name=ALL, note=every, splits={"train": ("data/*.parquet",)}, clips={"train": rows})
        return Layout(names={}, configs=(whole,))
    names = {part: f"data/part{i:02d}" for i, part in enumerate(facts.parts)}

    def config(name: str, note: str, sides: Mapping[str, Sequence[Part]]) -> Config:
        filled = {side: parts for side, parts in sides.items() if parts}
        return Config(
            name=name,
            note=note,
            splits={side: tuple(f"{names[p]}-*.parquet" for p in parts) for side, parts in filled.items()},
            clips={side: sum(facts.parts[p] for p in parts) for side, parts in filled.items()},
        )

    accepted = [p for p in facts.parts if p[0]]
    configs = [config(ALL, every, {"train": accepted})] if accepted else []
    for i, split in enumerate(facts.splits):
        sides = {side: [p for p in accepted if p[1][i] == side] for side in ("train", "validation", "test")}
        configs.append(config(_config_name(split.name), split.note or f"By {split.by}.", sides))
    if facts.refused:
        refused = [p for p in facts.parts if not p[0]]
        configs.append(
            config(REFUSED, "Clips that a filter refused: not to be trained on.", {"train": refused})
        )
    return Layout(names=names, configs=tuple(c for c in configs if c.splits))


def publish_dataset(
    storage: Storage, prefix: str, facts: Facts, grant: Grant, out: Storage, about: About, *,
    makings: Sequence[Making] = (), scores: Sequence[Mapping[str, Any]] = (), copy: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a finished dataset as a folder for others.

    Args:
        storage, prefix: Where it lies.
        facts: Its figures.
        grant: Under what it is published: made by `motionsynth.terms.grant`, which refuses what may not be.
        out: The folder; hidden entries, such as `.git`, are left alone.
        about: What the publisher says.
        makings: How its synthetic clips were made.
        scores: Score files that speak of it.
        copy: See `plan_layout`.
        overwrite: Put it in the place of what was published there before.

    Returns:
        Files, bytes and what was checked: JSON-serialisable.

    Raises:
        ConflictError: something else lies there.
        InputError: a shard is damaged, the metadata is not valid, or marked clips would be copied unmarked.
    """
    if copy and read_decisions(storage, prefix):
        raise InputError(
            f"Clips of '{below(storage, prefix).uri}' are marked as bad, and copies of its shards would not say so; "
            "publish it without copying, or take the marks back."
        )
    layout = plan_layout(facts, copy)
    folder = _Folder.open(out, overwrite)
    folder.put(CARD, dataset_card(facts, grant, layout.configs, makings, scores, about).encode())
    header = facts.header
    folder.put("skeleton.json", _json(header.skeleton.to_dict()))
    if header.splits:
        folder.put("splits.json", _json(list(header.splits)))
    records = []
    for record, data in _files(storage, prefix, facts, layout):
        folder.put(record.key, data)
        records.append(record)
        logger.info("%s: %d of %d clips.", record.key, sum(r.rows for r in records), facts.manifest.rows)
    metadata = croissant(
        header,
        [File(key=r.key, bytes=r.bytes, sha256=r.sha256) for r in records],
        name=about.title,
        description=summary(facts),
        licence=licence_address(grant),
        cite=cite(grant, about),
        version=about.version,
        url=about.url,
        date=about.date,
        biases=" ".join(biases(facts, grant, makings)),
    )
    checked = check_croissant(metadata)
    folder.put(CROISSANT, _json(metadata))
    published = Manifest(
        kind=facts.manifest.kind,
        header=header,
        shards=tuple(records),
        request=facts.manifest.request,
        extra={"published_from": content_digest(storage, prefix)},
    )
    folder.put(MANIFEST, published.to_bytes())
    return folder.close() | {
        "clips": facts.manifest.rows,
        "configs": {c.name: dict(c.clips) for c in layout.configs},
        "croissant_checked": checked,
    }


def publish_checkpoint(
    storage: Storage, prefix: str, grant: Grant, out: Storage, about: About, *,
    scores: Sequence[Mapping[str, Any]] = (), overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a checkpoint, without the state of its training, as a folder for others. See `publish_dataset`."""
    files = checkpoint_files(storage, prefix)
    making = Making(
        checkpoint=prefix, digest=checkpoint_digest(storage, prefix), config=read_config(storage, prefix)
    )
    held = carried_clips(making, files)
    folder = _Folder.open(out, overwrite)
    folder.put(CARD, model_card(making, grant, held, scores, about).encode())
    for name, data in files.items():
        folder.put(name, data)
    return folder.close() | {"digest": making.digest, "carried_clips": held}


def carried_clips(making: Making, files: Mapping[str, bytes]) -> int:
    """Real clips that a checkpoint's tensors hold: the anchors of `motionsynth.generators.transfer`."""
    from motionsynth.generators.transfer import PER_CLASS

    held = 0
    for name, data in files.items():
        if name.endswith(".safetensors"):
            size = int.from_bytes(data[:8], "little")
            tensors = json.loads(data[8 : 8 + size])
            if any(t.startswith("anchors.") for t in tensors):
                held = sum(min(len(c), PER_CLASS) for c in (making.config or {})["context"]["clips"])
    return held


def makings_of(storage: Storage, facts: Facts, prefixes: Sequence[tuple[str, str]]) -> list[Making]:
    """How a dataset's synthetic clips were made.

    Args:
        storage: Where the checkpoints lie, if they still do.
        facts: Of the dataset.
        prefixes: (prefix, digest) of each checkpoint.
    """
    out = []
    for prefix, digest in prefixes:
        config = None
        try:
            if checkpoint_digest(storage, prefix) == digest:
                config = read_config(storage, prefix)
        except InputError:
            logger.warning("Checkpoint '%s' is not there; the card will say so.", prefix)
        out.append(Making(checkpoint=prefix, digest=digest, config=config, request=facts.manifest.request))
    return out


def _files(
    storage: Storage, prefix: str, facts: Facts, layout: Layout
) -> Iterator[tuple[ShardRecord, bytes]]:
    """The Parquet files of a publication, one at a time."""
    if not layout.names:
        at = below(storage, prefix)
        for record in facts.manifest.shards:
            data = at.read(record.key)
            if sha256(data) != record.sha256:
                raise InputError(
                    damaged_shard(at, record.key, "differs from its recorded digest", facts.manifest.kind)
                )
            yield replace(record, key=f"data/{record.key.rpartition('/')[2]}"), data
        return
    waiting: dict[Part, list[Motion]] = {part: [] for part in layout.names}
    written = dict.fromkeys(layout.names, 0)
    header = facts.header
    whole = MotionSet(
        dataset=header.dataset, skeleton=header.skeleton, class_names=header.class_names, motions=()
    )

    def flush(part: Part) -> tuple[ShardRecord, bytes]:
        clips, waiting[part] = tuple(waiting[part]), []
        key = f"{layout.names[part]}-{written[part]:05d}.parquet"
        written[part] += 1
        data = encode(replace(whole, motions=clips), header)
        return describe(key, data), data

    for shard in read_shards(storage, prefix):
        for motion in shard.motions:
            part = part_of(motion, facts.splits)
            waiting[part].append(motion)
            if len(waiting[part]) == ROWS_PER_FILE:
                yield flush(part)
    for part, clips in waiting.items():
        if clips:
            yield flush(part)


class _Folder:
    """The folder that is being written: `put` files, then `close`."""

    def __init__(self, out: Storage, overwrite: bool, old: Sequence[str]) -> None:
        self.out, self.overwrite, self.old = out, overwrite, old
        self.sums: dict[str, str] = {}
        self.bytes = 0

    @classmethod
    def open(cls, out: Storage, overwrite: bool) -> _Folder:
        """Look what is there.

        Raises:
            ConflictError: files that no publication wrote.
        """
        there = [o.key for o in out.list() if not o.key.startswith(".")]
        if foreign := [k for k in there if not _ours(k)]:
            raise ConflictError(
                f"'{out.uri}' holds other files ({', '.join(foreign[:3])}); give an empty or new folder as --out."
            )
        if overwrite:
            out.delete(SUMS)
        return cls(out, overwrite, there)

    def put(self, key: str, data: bytes) -> None:
        """Write one file; the same bytes may be there already."""
        if self.overwrite:
            self.out.write(key, data)
        else:
            try:
                self.out.put_once(key, data)
            except ConflictError:
                raise ConflictError(
                    f"'{self.out.uri}' holds another publication ({key} differs); give another --out, or --replace it."
                ) from None
        self.sums[key] = sha256(data)
        self.bytes += len(data)

    def close(self) -> dict[str, Any]:
        """Write the sums: from now on the folder is complete."""
        stale = [k for k in self.old if k not in self.sums and k != SUMS]
        if stale and not self.overwrite:
            raise ConflictError(
                f"'{self.out.uri}' holds files of another publication ({', '.join(stale[:3])}); --replace it."
            )
        for key in stale:
            self.out.delete(key)
        lines = "".join(f"{digest}  {key}\n" for key, digest in sorted(self.sums.items()))
        if self.overwrite:
            self.out.write(SUMS, lines.encode())
        else:
            self.out.put_once(SUMS, lines.encode())
        return {"out": self.out.uri, "files": len(self.sums) + 1, "bytes": self.bytes}


def _ours(key: str) -> bool:
    """Whether a publication writes files of this name."""
    own = (CARD, SUMS, CROISSANT, MANIFEST, "skeleton.json", "splits.json", "config.json")
    return key in own or bool(
        re.fullmatch(r"data/[^/]+\.parquet|model-[0-9a-f]{16}\.(safetensors|json)", key)
    )


def _config_name(split: str) -> str:
    """A split's name as the hub allows it for a configuration, apart from our own."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", split)
    return f"split_{name}" if name in (ALL, REFUSED) else name


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
