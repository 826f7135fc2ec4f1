"""`Storage`: one address (a folder, `file:///...` or `s3://bucket/prefix`), the same operations on all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from motionsynth.errors import InputError
from storage.limits import MAX_OBJECT_BYTES
from storage.objects import ConflictError, MissingError, ObjectInfo, PutResult, Store, check_key

__all__ = ["ConflictError", "MissingError", "ObjectInfo", "Storage"]


class Storage:
    """Objects under keys, below one address.

    A write is atomic: a reader sees the whole object or none. S3 endpoint and region are read from the
    environment when the object is made (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
    `AWS_DEFAULT_REGION`) and travel with its pickle; credentials are looked up where it is used (environment
    variables, else the machine's role) and are never part of it, of an error or of a log line.
    """

    __slots__ = ("_prefix", "_store")

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Args:
        uri: A folder (made on first write), `file:///absolute/folder`, or `s3://bucket/prefix`.

        Raises:
            InputError: another scheme, no bucket, or credentials inside the address.
        """
        self._store, self._prefix = _open(os.fspath(uri))

    @classmethod
    def _make(cls, store: Store, prefix: str) -> Storage:
        new = object.__new__(cls)
        new._store, new._prefix = store, prefix
        return new

    @property
    def uri(self) -> str:
        """The address as absolute folder or `s3://bucket/prefix`."""
        return self._store.uri(self._prefix)

    def read(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        """The whole object.

        Args:
            key: Which.
            limit: Bytes that it may have.

        Raises:
            MissingError: there is none under this key.
            InputError: it is larger than the limit; nothing was read then.
        """
        return self._store.read(self._full(key), limit)

    def write(self, key: str, data: bytes) -> None:
        """Write or replace the object, atomically."""
        self._store.write(self._full(key), data)

    def put_once(self, key: str, data: bytes) -> PutResult:
        """Write the object if there is none: of several writers at once exactly one gets "new".

        Returns:
            "new", or "same" when an object with the same bytes is there already.

        Raises:
            ConflictError: an object with other bytes is there; it stays as it is.
        """
        return self._store.put_once(self._full(key), data)

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return self._store.exists(self._full(key))

    def digest(self, key: str) -> str:
        """Hexadecimal SHA-256 of the object's content; on S3 as recorded by the writer, without a download.

        To detect damage compare with a hash of what `read` returns.
        """
        return self._store.digest(self._full(key))

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects below a folder, sorted by key; none when the folder does not exist."""
        return sorted(self.scan(prefix), key=lambda o: o.key)

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """What `list` gives, one after the other in any order: for folders too full to hold in memory."""
        full = self._full(prefix.rstrip("/")) if prefix.rstrip("/") else self._prefix
        cut = len(self._prefix) + 1 if self._prefix else 0
        for o in self._store.scan(full):
            yield ObjectInfo(key=o.key[cut:], size=o.size)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""
        self._store.delete(self._full(key))

    def check(self) -> None:
        """Ask the store for a sign of life, so that a long job fails in its first second.

        Raises:
            InputError: no such bucket, wrong credentials, no answer, or a folder that cannot be written.
        """
        self._store.check()

    def sub(self, prefix: str) -> Storage:
        """The storage below a folder of this one."""
        return Storage._make(self._store, self._full(prefix.rstrip("/")))

    def filesystem(self) -> tuple[Any, str]:
        """A pyarrow filesystem and the path of this storage in it, for Ray and `pyarrow.dataset`."""
        fs, root = self._store.filesystem()
        return fs, f"{root}/{self._prefix}" if self._prefix else root

    def client(self) -> Any:
        """The boto3 S3 client.

        Raises:
            InputError: this is a local folder, or boto3 is not installed.
        """
        return self._store.client()

    def worker_env(self) -> dict[str, str]:
        """Environment variables (`AWS_*`) for the `runtime_env` of Ray workers: settings, never credentials.

        Ray writes a `runtime_env` into its logs and shows it to whoever may look at the job. Credentials reach a
        worker in the environment of the process that started Ray there, or by the machine's role.
        """
        return self._store.worker_env()

    def _full(self, key: str) -> str:
        full = f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)
        return check_key(full)

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.uri)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._store.reduce(), self._prefix)


def _restore(made: tuple[Any, ...], prefix: str) -> Storage:
    kind, *args = made
    return Storage._make(kind(*args), prefix)


def _open(uri: str) -> tuple[Store, str]:
    from storage.local import LocalStore

    if "://" not in uri:
        if not uri:
            raise InputError(
                "The storage address is empty; give a folder, file:///folder or s3://bucket/prefix."
            )
        return LocalStore(os.path.abspath(os.path.expanduser(uri))), ""
    scheme, rest = uri.split("://", 1)
    if "@" in rest.split("/", 1)[0]:
        # The address itself is not repeated: it may hold a secret.
        raise InputError(
            f"The {scheme}:// storage address has credentials in it; put them into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead."
        )
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InputError(
                f"Storage address '{uri}' is not absolute; write file:///folder or just the folder."
            )
        return LocalStore(os.path.abspath(unquote(parts.path))), ""
    if scheme == "s3":
        if "?" in rest or "#" in rest:
            raise InputError(
                "The s3:// storage address has options after '?' or '#'; give s3://bucket/prefix and set "
                "AWS_ENDPOINT_URL and AWS_REGION in the environment."
            )
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise InputError(f"Storage address '{uri}' names no bucket; write s3://bucket/prefix.")
        from storage.s3 import S3Store

        prefix = prefix.strip("/")
        return S3Store(bucket), check_key(prefix) if prefix else ""
    raise InputError(
        f"Unknown storage scheme '{scheme}'. Known: a folder, file:///folder, s3://bucket/prefix."
    )
