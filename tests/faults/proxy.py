"""A slow, breaking or lying wire in front of the S3 server: what the fault tests put between a job and its storage.

Requests pass through unchanged, signature and all, except for those that a `Fault` waits for.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Literal
from urllib.parse import urlsplit

HOLD_SECONDS = 300

Kind = Literal["before", "during", "after", "pause", "answer", "delay", "lose"]


@dataclass(eq=False, kw_only=True)
class Fault:
    """What happens to the next requests of one sort.

    Attributes:
        kind: Hold the request before it, half of it, or all of it has reached the server, and then drop it ("before",
            "during", "after"); hold it and then go on ("pause"); answer `status` in the server's place ("answer");
            pass it on after `seconds` ("delay"); pass it on and lose the answer ("lose").
        method, path: Of the requests; the path is searched for this pattern.
        times: How many requests.
        caught: The client's port of each request that is held, and the proxy's.
        release: Ends the holding.
    """

    kind: Kind
    method: str
    path: str
    times: int = 1
    status: int = 503
    seconds: float = 0.0
    caught: Queue[tuple[int, int]] = field(default_factory=Queue)
    release: threading.Event = field(default_factory=threading.Event)

    def hold(self, wire: socket.socket) -> None:
        """Tell who is held, and wait."""
        self.caught.put((wire.getpeername()[1], wire.getsockname()[1]))
        self.release.wait(HOLD_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A request that arrived: when, what, and the server's answer (0: it never got one)."""

    at: float
    method: str
    path: str
    status: int


class Proxy:
    """Listens on a free port of the loopback; use as a context manager.

    Args:
        upstream: URL of the server.
    """

    def __init__(self, upstream: str) -> None:
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        parts = urlsplit(upstream)
        proxy = self

        class Handler(_Handler):
            owner = proxy
            host, port = parts.hostname or "127.0.0.1", parts.port or 80

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self.server.shutdown()
        self.server.server_close()

    def add(self, kind: Kind, method: str, path: str, **more: float) -> Fault:
        """A fault for the next requests that fit."""
        fault = Fault(kind=kind, method=method, path=path, **more)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; whatever is held goes."""
        with self._lock:
            gone, self.faults = self.faults, []
        for fault in gone:
            fault.release.set()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that waits for this request, if any."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def note(self, at: float, method: str, path: str, status: int) -> None:
        """Remember a request."""
        with self._lock:
            self.seen.append(Seen(at=at, method=method, path=path, status=status))

    def answers(self, method: str, path: str) -> list[int]:
        """Status of every such request, in the order of their arrival."""
        with self._lock:
            found = [s for s in self.seen if s.method == method and re.search(path, s.path)]
        return [s.status for s in sorted(found, key=lambda s: s.at)]

    def first(self, method: str, path: str, after: float) -> float:
        """When the first such request arrived that was answered well, of those after a time; infinite if none."""
        with self._lock:
            found = [s for s in self.seen if s.method == method and s.status in (200, 412) and s.at > after]
        return min((s.at for s in found if re.search(path, s.path)), default=float("inf"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which also answers `Expect: 100-continue`
    owner: Proxy
    host: str
    port: int

    def serve(self) -> None:
        at, status = time.monotonic(), 0
        try:
            body = self._body()
            fault = self.owner.take(self.command, self.path)
            if fault and fault.kind == "answer":
                self._answer(fault.status, [], b"")
                return
            if fault and fault.kind == "delay":
                time.sleep(fault.seconds)
            if fault and fault.kind in ("before", "pause"):
                fault.hold(self.connection)
            if fault and fault.kind == "before":
                self.close_connection = True
                return
            upstream = http.client.HTTPConnection(self.host, self.port, timeout=HOLD_SECONDS)
            try:
                self._send_head(upstream)
                if fault and fault.kind == "during":
                    upstream.send(body[: len(body) // 2])
                    fault.hold(self.connection)
                    self.close_connection = True
                    return
                if body:
                    upstream.send(body)
                response = upstream.getresponse()
                content, status = response.read(), response.status
            finally:
                upstream.close()
            if fault and fault.kind == "after":
                fault.hold(self.connection)
            if fault and fault.kind in ("after", "lose"):
                self.close_connection = True
                return
            self._answer(status, response.getheaders(), content)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as if the wire had broken
        finally:
            self.owner.note(at, self.command, self.path, status)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = b""
        while True:
            line = self.rfile.readline()
            raw += line
            size = int(line.split(b";")[0], 16)
            raw += self.rfile.read(size + 2) if size else b""
            if not size:
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    raw += line
                return raw + line

    def _send_head(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        empty = self.command == "HEAD" or status in (204, 304)
        for name, value in headers:
            lower = name.lower()
            if lower not in ("transfer-encoding", "connection") and (empty or lower != "content-length"):
                self.send_header(name, value)
        if not empty:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not empty:
            with suppress(BrokenPipeError):
                self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test keeps its own record."""
