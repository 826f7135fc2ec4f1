"""What our small web applications share: one page, JSON calls, loopback by default, and no way in from other pages."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import Motion, present
from motionsynth.skeleton import Skeleton
from motionsynth.stick_figure import level, side_of

WEB = Path(__file__).parent / "web"
BODY_BYTES = 4096
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(title: str, page: str, host: str) -> Any:
    """A FastAPI application that serves a page of `web/` at its root.

    Args:
        title: Of the application.
        page: File name.
        host: That it will listen on; on loopback it answers to loopback's names only.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        from fastapi import FastAPI, Request, Response
        from fastapi.responses import FileResponse
        from fastapi.staticfiles import StaticFiles
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as e:
        raise InputError(f"{e.name} is not installed; run: pip install 'motionsynth[web]'.") from None
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    # A page elsewhere must not reach us on loopback through a name of its own.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_names(host))

    async def guard(request: Request, call_next: Callable[[Request], Any]) -> Response:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES or "transfer-encoding" in request.headers:
            return Response("too large", status_code=413)
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    app.middleware("http")(guard)
    app.mount("/static", StaticFiles(directory=WEB))
    app.add_api_route("/", lambda: FileResponse(WEB / page), include_in_schema=False)
    return app


def serve(app: Any, host: str, port: int, announce: Callable[[str], str]) -> None:
    """Serve until ctrl-C or SIGTERM; prints `announce(address)` once the port is open.

    Raises:
        InputError: the port is taken, or the address is none of this machine's.
    """
    import uvicorn

    listening = _listen(host, port)
    at, number = listening.getsockname()[:2]
    print(announce(f"http://{f'[{at}]' if ':' in at else at}:{number}/"), flush=True)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=5)
    )
    with suppress(KeyboardInterrupt):  # that is how it ends
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
        return found
    except (OSError, OverflowError) as e:
        raise InputError(f"Cannot listen on {host}:{port} ({e}); choose another --port or --host.") from None


def _names(host: str) -> list[str]:
    """Host names under which the application may be asked for."""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return ["127.0.0.1", "localhost", host] if loopback else ["*"]


def drawn(motion: Motion, skeleton: Skeleton) -> dict[str, Any]:
    """A clip for `web/stage.js`: levelled, in whole millimetres; `persons` is [M][T], null where nobody is there.

    `bones` holds pairs of joints and the side of the body on which they lie ("left", "right" or "trunk").
    """
    positions = np.rint(1000 * level(motion.positions, skeleton)).astype(int)
    there = present(motion.positions)
    return {
        "fps": motion.fps,
        "bones": [[p, j, side_of(skeleton.joints[j])] for j, p in enumerate(skeleton.parents) if p >= 0],
        "persons": [
            [frame.tolist() if is_there else None for frame, is_there in zip(person, shown, strict=True)]
            for person, shown in zip(positions, there, strict=True)
        ],
    }
