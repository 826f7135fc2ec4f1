"""Which process holds a connection, which ones descend from another, and waiting for one to be gone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.proxy import Fault

WAIT_SECONDS = 240
LOOK_SECONDS = 10


def pid_of(ends: tuple[int, int]) -> int:
    """The process at the client's end of a loopback connection, by the client's port and the server's.

    The client's alone does not do: the kernel lends one port to connections with several servers. And its table, which
    is read piece by piece while others connect and part, may leave one out for once.
    """
    end = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < end:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if tuple(int(f.split(":")[1], 16) for f in fields[1:3]) == ends and (pid := _holder(fields[9])):
                return pid
        time.sleep(0.05)
    raise LookupError(f"nobody holds the connection of the ports {ends}")


def _holder(inode: str) -> int:
    """The process that has this socket open; 0 for none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(fd) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                return int(process.name)
    return 0


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
