"""Which process holds a connection, which ones descend from another, and waiting for one to be gone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.proxy import Fault

WAIT_SECONDS = 240


def pid_of(port: int) -> int:
    """The process at the client's end of a loopback connection, by the client's port."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            inode = fields[9]
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(entry) == f"socket:[{inode}]":
                return int(entry.parts[2])
    raise LookupError(f"nobody holds port {port}")


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def parent_of(pid: int) -> int:
    """Its parent's process id."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def wait_until_gone(pids: set[int]) -> None:
    """Wait for processes to end by themselves."""
    end = time.monotonic() + WAIT_SECONDS
    while left := [p for p in pids if not gone(p)]:
        assert time.monotonic() < end, f"the processes {left} outlive their driver"
        time.sleep(0.05)


def kill_held(fault: Fault) -> tuple[int, float]:
    """SIGKILL whoever's request a fault holds, then let the wire go: the process, and when it died."""
    pid = pid_of(fault.caught.get(timeout=WAIT_SECONDS))
    os.kill(pid, signal.SIGKILL)
    wait_until_gone({pid})
    at = time.monotonic()
    fault.release.set()
    return pid, at
