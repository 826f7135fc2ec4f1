"""Clips <-> Parquet: one row per clip, real and synthetic alike.

`motion` is list<list<fixed_size_list<fixed_size_list<float32>[3]>[V]>> (persons, frames, joints, xyz): the
form that keeps its shape in Ray, pyarrow, pandas and Hugging Face datasets alike. The Parquet schema
metadata holds the header as JSON under the key `motionsynth`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet
from storage.header import SCHEMA_VERSION, Header, canonical_json
from storage.limits import UNREADABLE, check_parquet, parse_json

__all__ = [
    "METADATA_KEY",
    "SCHEMA_VERSION",
    "UNREADABLE",
    "Header",
    "arrow_schema",
    "decode",
    "encode",
    "from_table",
    "plain_rows",
    "to_table",
]

METADATA_KEY = b"motionsynth"
ROW_GROUP_ROWS = 256
"""A reader can fetch this many clips without the rest of the file."""

_TEXT = ("sample_id", "label_name", "skeleton", "dataset", "subject", "view", "repetition", "source")
# Missing in files from before a column was added, and None then: no new schema version is needed.
_NULLABLE: dict[str, pa.DataType] = {
    "parent_id": pa.string(),
    "generator": pa.string(),
    "checkpoint": pa.string(),
    "seed": pa.int64(),
    "class_confidence": pa.float64(),
    "physics_violation": pa.float64(),
    "novelty": pa.float64(),
    "accepted": pa.bool_(),
    "rejected_by": pa.string(),
}
_FLOATS = "motion" + ".list.element" * 4
_NUMBERS = ("label", "num_persons", "num_frames", "fps")


def motion_type(num_joints: int) -> pa.DataType:
    """Arrow type of `motion` for a skeleton of V joints; nothing inside a clip can be null."""
    xyz = pa.list_(pa.field("element", pa.float32(), nullable=False), 3)
    joints = pa.list_(pa.field("element", xyz, nullable=False), num_joints)
    frames = pa.list_(pa.field("element", joints, nullable=False))
    return pa.list_(pa.field("element", frames, nullable=False))


def arrow_schema(header: Header) -> pa.Schema:
    """Column names and types, with the header in the metadata."""
    required: list[tuple[str, pa.DataType]] = [
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("motion", motion_type(header.skeleton.num_joints)),
        ("num_persons", pa.int32()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
        ("skeleton", pa.string()),
        ("dataset", pa.string()),
        ("subject", pa.string()),
        ("view", pa.string()),
        ("repetition", pa.string()),
        ("source", pa.string()),
    ]
    fields = [pa.field(n, t, nullable=False) for n, t in required]
    fields += [pa.field(n, t) for n, t in _NULLABLE.items()]
    return pa.schema(fields, metadata={METADATA_KEY: canonical_json(header.to_dict()).encode()})


def to_table(motions: MotionSet, header: Header) -> pa.Table:
    """Clips as an Arrow table.

    Args:
        motions: Any number of clips, also none.
        header: Must describe the same skeleton and classes.

    Raises:
        InputError: the header does not fit the set, a clip does not fit the header, or an id occurs twice.
    """
    _check(motions, header)
    clips = motions.motions
    columns: dict[str, Any] = {n: pa.array([getattr(m, n) for m in clips], pa.string()) for n in _TEXT}
    columns["label"] = pa.array([int(m.label) for m in clips], pa.int32())
    columns["num_persons"] = pa.array([m.num_persons for m in clips], pa.int32())
    columns["num_frames"] = pa.array([m.num_frames for m in clips], pa.int32())
    columns["fps"] = pa.array([float(m.fps) for m in clips], pa.float64())
    columns["motion"] = _motion_array([m.positions for m in clips], header.skeleton.num_joints)
    for name, kind in _NULLABLE.items():
        columns[name] = pa.array([getattr(m, name) for m in clips], kind)
    schema = arrow_schema(header)
    return pa.Table.from_arrays([columns[n] for n in schema.names], schema=schema)


def encode(motions: MotionSet, header: Header) -> bytes:
    """Clips as the bytes of one Parquet file: equal input, equal bytes (for one pyarrow version).

    Raises:
        InputError: see `to_table`.
    """
    options: dict[str, Any] = {
        "version": "2.6",
        "row_group_size": ROW_GROUP_ROWS,
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [*_TEXT, "parent_id", "generator", "checkpoint", "rejected_by"],
        # Neighbouring floats are alike in their high bytes: zstd does better on them split by byte.
        "use_byte_stream_split": [_FLOATS],
        "write_statistics": [*_TEXT, *_NUMBERS, *_NULLABLE],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(to_table(motions, header), sink, **options)
    return sink.getvalue().to_pybytes()


def decode(data: bytes | pa.Buffer, name: str = "the Parquet file") -> tuple[MotionSet, Header]:
    """Clips and header from the bytes of one Parquet file.

    Args:
        data: The whole file.
        name: How error messages name it, e.g. "shard 'shards/000003-1f.parquet'".

    Raises:
        InputError: not Parquet, truncated, without our header, of a newer version, with wrong columns, or one that
            would not fit into memory (`storage.limits`).
    """
    try:
        check_parquet(pa.BufferReader(data), len(data), name)
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except InputError:
        raise
    except UNREADABLE as e:
        reason = str(e).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"{name[:1].upper() + name[1:]} ({len(data)} bytes) is not a readable Parquet file ({reason}); "
            "it is truncated or corrupt, so write it again."
        ) from None
    return from_table(table, name=name)


def plain_rows(data: bytes, name: str) -> list[dict[str, Any]]:
    """The rows of a Parquet table that is no set of clips, such as a score's records.

    Args:
        data: The whole file.
        name: How error messages name it.

    Raises:
        InputError: not Parquet, or a column has an extension type: such values may unpickle themselves when read.
    """

    def extended(kind: pa.DataType) -> bool:
        inner = [kind.value_type] if pa.types.is_dictionary(kind) else []
        inner += [kind.field(i).type for i in range(kind.num_fields)]
        return isinstance(kind, pa.BaseExtensionType) or any(map(extended, inner))

    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except UNREADABLE:
        raise InputError(f"{name} is not a readable Parquet file; make it again.") from None
    if odd := [f.name for f in table.schema if extended(f.type)]:
        raise InputError(
            f"Column '{odd[0]}' of {name} is of an extension type, which is not read; make it again."
        )
    return table.to_pylist()


def read_header(schema: pa.Schema, name: str = "the Parquet file") -> Header:
    """The header in a Parquet file's schema.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise InputError(
            f"{name[:1].upper() + name[1:]} has no 'motionsynth' header in its metadata; write it with "
            "storage.schema.encode or `python -m rayjobs.prepare`."
        )
    try:
        parsed = parse_json(raw)
    except ValueError as e:
        raise InputError(
            f"The 'motionsynth' header of {name} is not JSON ({e}); write the file again."
        ) from None
    return Header.from_dict(parsed, name)


def from_table(
    table: pa.Table, header: Header | None = None, name: str = "the table"
) -> tuple[MotionSet, Header]:
    """Clips from an Arrow table in our schema; columns that are not ours are ignored.

    Args:
        table: Rows in any chunking.
        header: Only when the table's own metadata was lost on the way.
        name: How error messages name it.

    Raises:
        InputError: a column is missing, has another type, or holds what the header does not allow.
    """
    header = header or read_header(table.schema, name)
    schema = arrow_schema(header)
    if missing := [f.name for f in schema if not f.nullable and f.name not in table.column_names]:
        raise InputError(
            f"{name[:1].upper() + name[1:]} lacks the columns {missing}; it needs {schema.names}."
        )
    columns: dict[str, list] = {}
    for f in schema:
        if f.name == "motion":
            continue
        if f.name not in table.column_names:
            columns[f.name] = [None] * table.num_rows
            continue
        column = table.column(f.name)
        try:
            columns[f.name] = column.cast(f.type).to_pylist()
        except pa.ArrowException:
            raise InputError(
                f"Column '{f.name}' of {name} is {column.type}; it must be {f.type} (see storage.schema)."
            ) from None
        if not f.nullable and column.null_count:
            raise InputError(f"Column '{f.name}' of {name} has {column.null_count} empty cells; fill them.")
    positions = _positions(table.column("motion"), header.skeleton.num_joints, name)
    del columns["num_persons"], columns["num_frames"]
    clips = tuple(
        Motion(positions=p, **dict(zip(columns, row, strict=True)))
        for p, row in zip(positions, zip(*columns.values(), strict=True), strict=True)
    )
    motions = MotionSet(
        dataset=header.dataset, skeleton=header.skeleton, class_names=header.class_names, motions=clips
    )
    _check(motions, header, f" in {name}")
    return motions, header


def _check(motions: MotionSet, header: Header, where: str = "") -> None:
    if motions.skeleton.to_dict() != header.skeleton.to_dict() or motions.class_names != header.class_names:
        raise InputError(
            f"The clips have skeleton '{motions.skeleton.name}' and {motions.num_classes} classes but the "
            f"header has '{header.skeleton.name}' and {len(header.class_names)}; make it with "
            "Header.of(motions)."
        )
    v, k = header.skeleton.num_joints, len(header.class_names)
    seen: set[str] = set()
    for m in motions.motions:
        clip = f"Clip '{m.sample_id}'{where}"
        if m.sample_id in seen:
            raise InputError(f"{clip} occurs twice; sample_id must be unique.")
        seen.add(m.sample_id)
        if m.skeleton != header.skeleton.name or m.positions.shape[2] != v:
            raise InputError(
                f"{clip} has {m.positions.shape[2]} joints of skeleton '{m.skeleton}'; the header says {v} "
                f"joints of '{header.skeleton.name}'."
            )
        if not 0 <= m.label < k or m.label_name != header.class_names[m.label]:
            expected = f"'{header.class_names[m.label]}'" if 0 <= m.label < k else f"0 to {k - 1}"
            raise InputError(
                f"{clip} has label {m.label} '{m.label_name}'; the header's class list allows {expected}."
            )
        if m.seed is not None and not -(2**63) <= m.seed < 2**63:
            raise InputError(f"{clip} has seed {m.seed}; a seed must fit into a signed 64-bit integer.")
        if not (np.isfinite(m.fps) and m.fps > 0):
            raise InputError(f"{clip} has {m.fps} frames per second; it must be above 0.")


def _motion_array(positions: Sequence[np.ndarray], v: int) -> pa.Array:
    """N arrays float32 [M, T, V, 3] -> the `motion` column: one copy, no loop over coordinates."""
    flat = np.concatenate([p.ravel() for p in positions]) if positions else np.zeros(0, np.float32)
    persons = np.array([p.shape[0] for p in positions], np.int32)
    frames = np.array([p.shape[1] for p in positions], np.int32)
    row_offsets = np.concatenate([[0], np.cumsum(persons)]).astype(np.int32)
    person_offsets = np.concatenate([[0], np.cumsum(np.repeat(frames, persons))]).astype(np.int32)
    kind: Any = motion_type(v)
    per_person = kind.value_type
    joints = per_person.value_type
    xyz = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=joints.value_type)
    body = pa.FixedSizeListArray.from_arrays(xyz, type=joints)
    clip = pa.ListArray.from_arrays(pa.array(person_offsets), body, type=per_person)
    return pa.ListArray.from_arrays(pa.array(row_offsets), clip, type=kind)


def _positions(column: pa.ChunkedArray, v: int, name: str) -> list[np.ndarray]:
    """The `motion` column -> N arrays float32 [M, T, V, 3], writable views of one buffer."""
    # Equal apart from field names and nullability, which other writers and Ray choose differently.
    if _shape_of(column.type) != (None, None, v, 3):
        raise InputError(
            f"Column 'motion' of {name} is {column.type}; it must be "
            f"list<list<fixed_size_list<fixed_size_list<float32>[3]>[{v}]>> (persons, frames, joints, xyz)."
        )
    out: list[np.ndarray] = []
    for chunk in column.chunks:
        if not len(chunk):
            continue
        per_person: Any = chunk.flatten()
        body = per_person.flatten()
        xyz = body.flatten()
        floats = xyz.flatten()
        if any(a.null_count for a in (chunk, per_person, body, xyz, floats)):
            raise InputError(f"Column 'motion' of {name} has empty cells; every clip needs all its joints.")
        # flatten() applies the slice's offset; the offsets themselves must be rebased to match.
        row_at, person_at = _rebased(chunk), _rebased(per_person)
        # A copy, because Arrow's memory is read-only and torch shares what it is given.
        flat = floats.to_numpy(zero_copy_only=True).reshape(-1, v, 3).copy()
        for first, last in zip(row_at[:-1], row_at[1:], strict=True):
            frames = np.unique(np.diff(person_at[first : last + 1]))
            if len(frames) != 1:
                raise InputError(
                    f"Row {len(out)} of column 'motion' of {name} has persons with {frames.tolist()} frames; "
                    "all persons of a clip need the same number, at least one person."
                )
            out.append(flat[person_at[first] : person_at[last]].reshape(last - first, frames[0], v, 3))
    return out


def _rebased(array: Any) -> np.ndarray:
    offsets = array.offsets.to_numpy()
    return offsets - offsets[0]


def _shape_of(kind: Any) -> tuple[int | None, ...]:
    """Sizes of nested lists down to float32, None for a free size; () when it is anything else."""
    shape: list[int | None] = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        shape.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    return tuple(shape) if pa.types.is_float32(kind) else ()
