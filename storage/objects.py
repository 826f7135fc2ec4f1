"""What every store offers, whatever lies beneath: objects under keys, whole or not there at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from motionsynth.errors import InputError

TEMPORARY = ".tmp-"
"""Names of files being written locally begin with this; no key may, and no listing shows them."""

PutResult = Literal["new", "same"]


class ConflictError(InputError):
    """An object that may be written only once exists with other bytes."""


class MissingError(InputError):
    """An object that was asked for does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """One object of a listing: its key, relative to the storage that listed it, and its size in bytes."""

    key: str
    size: int


class Store(Protocol):
    """The backend of a `Storage`; keys are checked and complete when they arrive here."""

    def read(self, key: str, limit: int) -> bytes: ...
    def write(self, key: str, data: bytes) -> None: ...
    def put_once(self, key: str, data: bytes) -> PutResult: ...
    def exists(self, key: str) -> bool: ...
    def digest(self, key: str) -> str: ...
    def scan(self, prefix: str) -> Iterator[ObjectInfo]: ...
    def delete(self, key: str) -> None: ...
    def check(self) -> None: ...
    def filesystem(self) -> tuple[Any, str]: ...
    def client(self) -> Any: ...
    def uri(self, prefix: str) -> str: ...
    def worker_env(self) -> dict[str, str]: ...
    def reduce(self) -> tuple[Any, ...]: ...


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def conflict(where: str) -> ConflictError:
    """The error for other bytes under the same key."""
    return ConflictError(
        f"{where} already exists with other content; it is written only once, so choose another run name or "
        "delete it first."
    )


def check_key(key: str) -> str:
    """Return the key if it is a plain relative path.

    Raises:
        InputError: empty, absolute, with '..' or '.' or empty parts, control characters, a backslash, a name
            reserved for temporary files, or too long for S3 (1024 bytes) or a file name (255 bytes).
    """

    def refuse(why: str) -> InputError:
        shown = key if len(repr(key)) < 120 else key[:100] + "..."
        return InputError(
            f"Object key {shown!r} {why}; use names joined by '/', such as 'shards/000001.parquet'."
        )

    if not isinstance(key, str) or not key:
        raise refuse("is empty or no text")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise refuse("is not valid Unicode") from None
    if size > 1024:
        raise refuse("is longer than 1024 bytes")
    if "\\" in key or any(ord(c) < 32 or ord(c) == 127 for c in key):
        raise refuse("has a backslash or a control character")
    parts = key.split("/")
    if any(p in ("", ".", "..") for p in parts):
        raise refuse("is absolute or has an empty, '.' or '..' part")
    if any(p.startswith(TEMPORARY) for p in parts):
        raise refuse(f"has a part that begins with '{TEMPORARY}', which is reserved")
    if any(len(p.encode()) > 255 for p in parts):
        raise refuse("has a part longer than 255 bytes")
    return key
