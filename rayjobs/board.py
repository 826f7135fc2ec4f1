"""The small file in which a running job says how far it is: `progress-VERB.json`, beside what it makes.

`python -m rayjobs.status` reads it, so nobody needs Ray to see rates, failures and whether a job still lives. Of two
drivers at once the last writer wins; what is done is decided by the objects themselves, never by this file.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rayjobs import cli, gpus
from storage import Storage

logger = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
DEAD_SECONDS = 60.0
"""A job that has not written for so long (on the clocks of two machines) seems to be dead."""
LAST_SECONDS = 20.0
"""Time for the last words of a job; storage that does not answer must not hold up its end."""
NAME = "progress-"


def common_folder(prefixes: Iterable[str]) -> str:
    """The folder that holds all these."""
    return os.path.commonpath(list(prefixes))


class Board:
    """Writes one job's file from a thread of its own.

    Args:
        storage: Where.
        folder: In which folder.
        verb: Of the job.
    """

    def __init__(self, storage: Storage, folder: str, verb: str) -> None:
        self.storage, self.key = storage, "/".join(filter(None, (folder, f"{NAME}{verb}.json")))
        self.fixed = {
            "verb": verb, "started": time.time(), "host": socket.gethostname(), "pid": os.getpid(),
        }  # fmt: skip
        self._over = threading.Event()
        self._warned = False
        self._thread: threading.Thread | None = None

    def start(self, content: Callable[[], Mapping[str, Any]]) -> None:
        """Write now and again.

        Args:
            content: What there is to say at the moment.
        """

        def run() -> None:
            while True:
                over = self._over.is_set()
                self._write(content())
                if over:
                    return
                self._over.wait(EVERY_SECONDS)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write for the last time."""
        self._over.set()
        if self._thread:
            self._thread.join(LAST_SECONDS)

    def _write(self, content: Mapping[str, Any]) -> None:
        full = {**self.fixed, **content, "written": time.time(), "gpus": gpus.use()}
        try:
            self.storage.write(self.key, json.dumps(cli.plain(full), indent=1).encode())
        except Exception as e:
            # A job is not worth less for a progress that nobody can read.
            if not self._warned:
                logger.warning("Progress cannot be written to '%s': %s", self.key, cli.last_line(e))
            self._warned = True


def is_board(key: str) -> bool:
    """Whether this is the key of a job's file."""
    name = key.rpartition("/")[2]
    return name.startswith(NAME) and name.endswith(".json")


def read_board(storage: Storage, key: str, now: float | None = None) -> dict[str, Any]:
    """What a job said last, with `state` "dead" if it was running and has not been heard of since.

    Args:
        storage, key: Where.
        now: Unix time (default: this machine's clock).
    """
    said = json.loads(storage.read(key))
    now = time.time() if now is None else now
    silent = max(0.0, now - said["written"])
    dead = said["state"] == "running" and silent > DEAD_SECONDS
    return said | {
        "state": "dead" if dead else said["state"],
        "seconds_since_written": round(silent, 1),
        "seconds_since_moved": round(max(0.0, now - said["moved"]), 1),
    }
