"""Who holds a connection: what the fault tests kill must be the process whose request they hold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.faults import processes
from tests.faults.processes import pid_of

CHILD = """
import socket, sys
wire = socket.socket()
wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
wire.bind(("127.0.0.1", int(sys.argv[1])))
wire.connect(("127.0.0.1", int(sys.argv[2])))
sys.stdin.read()
"""


def test_a_port_that_two_connections_share_tells_them_apart() -> None:
    first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    mine.bind(("127.0.0.1", 0))
    port = mine.getsockname()[1]
    words = [sys.executable, "-c", CHILD, str(port), str(second.getsockname()[1])]
    with first, second, mine, subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        second.settimeout(30)
        theirs, _ = second.accept()
        mine.connect(first.getsockname())
        with theirs:
            assert pid_of((port, first.getsockname()[1])) == os.getpid()
            assert pid_of((port, second.getsockname()[1])) == child.pid


def test_a_connection_of_nobody_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOOK_SECONDS", 0.1)
    with pytest.raises(LookupError, match="nobody holds the connection of the ports"):
        pid_of((1, 2))
