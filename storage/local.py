"""A local (or network-mounted) folder as a store."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from motionsynth.errors import InputError
from storage.limits import too_large
from storage.objects import TEMPORARY, MissingError, ObjectInfo, PutResult, conflict

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalStore:
    """Files below a root folder; see `storage.objects.Store`."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def reduce(self) -> tuple[Any, ...]:
        return LocalStore, self.root

    def uri(self, prefix: str) -> str:
        return os.path.join(self.root, prefix) if prefix else self.root

    def read(self, key: str, limit: int) -> bytes:
        path = self._path(key)
        with _sentences("read", path), path.open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size > limit:
                raise too_large(f"'{path}'", size, limit)
            return f.read(size)

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _sentences("write", path), self._temporary(path, data) as temporary:
            os.replace(temporary, path)
            _sync_folder(path.parent)

    def put_once(self, key: str, data: bytes) -> PutResult:
        path = self._path(key)
        with _sentences("write", path):
            # Look first: a resumed job asks for what is there already, and need not write it to find out.
            if not path.exists():
                with self._temporary(path, data) as temporary:
                    if _publish(temporary, path):
                        _sync_folder(path.parent)
                        return "new"
            same = path.read_bytes() == data
        if not same:
            raise conflict(f"'{path}'")
        return "same"

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def digest(self, key: str) -> str:
        with _sentences("read", self._path(key)), self._path(key).open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def scan(self, prefix: str) -> Iterator[ObjectInfo]:
        folders = [prefix]
        while folders:
            folder = folders.pop()
            with _sentences("list", self._path(folder)):
                try:
                    entries = os.scandir(self._path(folder))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                with entries:
                    for entry in entries:
                        key = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir():
                            if not entry.is_symlink():
                                folders.append(key)
                        elif not entry.name.startswith(TEMPORARY):
                            # A file may vanish between the listing and here (another process deletes it).
                            with suppress(FileNotFoundError):
                                yield ObjectInfo(key=key, size=entry.stat().st_size)

    def delete(self, key: str) -> None:
        with _sentences("delete", self._path(key)):
            self._path(key).unlink(missing_ok=True)

    def check(self) -> None:
        with _sentences("write", Path(self.root)):
            # In the nearest folder that there is: a command that is refused after this leaves none behind.
            folder = Path(self.root).absolute()
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            with self._temporary(folder / "check", b""):
                pass

    def filesystem(self) -> tuple[Any, str]:
        return pafs.LocalFileSystem(), self.root

    def client(self) -> Any:
        raise InputError(
            f"'{self.root}' is a local folder and has no S3 client; give an s3://bucket/prefix address."
        )

    def worker_env(self) -> dict[str, str]:
        return {}

    def _path(self, key: str) -> Path:
        return Path(self.root, key)

    @contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[Path]:
        """A file with this content, on disk, beside the path; gone afterwards."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> bool:
    """Give a finished file its name unless the name is taken; whether it worked."""
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
    # No hard links here (exFAT, some network mounts): a lock, which the system drops if its holder dies.
    with (path.parent / f"{TEMPORARY}lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return False
        os.replace(temporary, path)
        return True


def _sync_folder(folder: Path) -> None:
    # Some network file systems refuse fsync on a folder; the file itself is safe by then.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _sentences(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingError(
            f"'{path}' does not exist; check the storage address and run name, or run the step that makes it."
        ) from None
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        raise InputError(
            f"Cannot {verb} '{path}': a folder and a file have the same name; rename one."
        ) from None
    except PermissionError:
        raise InputError(
            f"Cannot {verb} '{path}': permission denied; choose a folder that you may use."
        ) from None
    except OSError as e:
        cure = "free some space" if e.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
        raise InputError(f"Cannot {verb} '{path}': {e.strerror or e}; {cure} and run again.") from None
