"""How much is read at most: what is damaged, or made to do harm, is refused instead of filling the memory.

Each limit is far above what motionsynth writes (the sizes beside them) and far below what a machine can bear.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError

MIB = 1 << 20
GIB = 1 << 30

MAX_OBJECT_BYTES = 16 * GIB
"""Any object, such as the weights in a checkpoint."""
MAX_JSON_BYTES = 256 * MIB
"""A manifest, request, header or checkpoint config (some MiB at 10^6 shards)."""
MAX_PART_BYTES = 64 * MIB
"""A part of a manifest (2 MiB)."""
MAX_SHARD_BYTES = 2 * GIB
"""A shard as it is stored (some MiB)."""
MAX_FOOTER_BYTES = 64 * MIB
"""The footer of a Parquet file, which holds the header (some 100 KiB)."""
MAX_DECODED_BYTES = 2 * GIB
"""A shard in memory (some 10 MiB)."""
MAX_ROWS = 1 << 20
"""Clips of a shard (some hundred)."""

UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)
"""What opening a file raises that is not the Parquet it should be; the last three come from types that others register
with Arrow (importing ray.data does) and that do not understand what a file says of them."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_TAIL = 8
_MAGIC = b"PAR1"


def too_large(what: str, size: int, limit: int) -> InputError:
    """The sentence for an object that is not read."""
    return InputError(
        f"{what} has {size:,} bytes, more than the {limit:,} that are read of one; it is damaged or none of ours, so "
        "delete it and run the command that makes it again."
    )


def parse_json(data: bytes | str) -> Any:
    """`json.loads`; nesting that would exhaust the stack is a ValueError like every other text that is no JSON."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_parquet(source: Any, size: int, name: str) -> None:
    """Refuse a Parquet file that would not fit into memory, by its last bytes and its footer alone.

    Columns are counted as they will be decoded: a dictionary makes a million long texts out of a few bytes. What the
    pages themselves hold is not looked at.

    Args:
        source: An open pyarrow file; left at its end.
        size: Its bytes.
        name: How error messages name it.

    Raises:
        InputError: footer, rows or decoded columns are above the limits.
        pyarrow.ArrowException, OSError: it is no Parquet file.
    """
    if size >= _TAIL:
        source.seek(size - _TAIL)
        tail = source.read(_TAIL)
        footer = int.from_bytes(tail[:4], "little")
        if tail[4:] == _MAGIC and MAX_FOOTER_BYTES < footer <= size - _TAIL:
            raise too_large(f"The footer of {name}", footer, MAX_FOOTER_BYTES)
    source.seek(0)
    meta = pq.read_metadata(source)
    if meta.num_rows > MAX_ROWS:
        raise InputError(
            f"{name[:1].upper() + name[1:]} has {meta.num_rows:,} rows, more than the {MAX_ROWS:,} of the largest "
            "shard; write it in smaller ones."
        )
    if (decoded := decoded_bytes(meta)) > MAX_DECODED_BYTES:
        raise InputError(
            f"{name[:1].upper() + name[1:]} has {size:,} bytes and would fill {decoded:,} in memory, more than the "
            f"{MAX_DECODED_BYTES:,} of the largest shard; it is none of ours, or write it in smaller shards."
        )


def decoded_bytes(meta: pq.FileMetaData) -> int:
    """What all columns may fill in memory at most, if the footer tells the truth."""
    total = 0
    for group in range(meta.num_row_groups):
        row_group = meta.row_group(group)
        for at in range(row_group.num_columns):
            column = row_group.column(at)
            plain = column.total_uncompressed_size
            if width := _WIDTHS.get(column.physical_type):
                total += max(plain, column.num_values * width)
            elif column.has_dictionary_page:
                # Each value could be the longest, and the longest could be all of the dictionary.
                total += max(plain, plain * column.num_values)
            else:
                total += plain
    return total
