"""Where jobs are submitted and with which token: checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from motionsynth.errors import InputError


def check_address(address: str) -> str:
    """Return http(s)://host:port.

    Raises:
        InputError: it is something else.
    """
    scheme, sign, rest = address.partition("://")
    if scheme == "ray":
        host = rest.rpartition(":")[0] or rest
        raise InputError(
            f"The address '{address}' is a Ray Client address; jobs are submitted to the dashboard: http://{host}:8265."
        )
    if not sign:
        raise InputError(
            f"The address '{address}' has no scheme; write http://HOST:8265, the address of the head's dashboard."
        )
    parts = urlsplit(address)
    try:
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if "@" in parts.netloc:
        raise InputError(
            "The address has credentials in it; leave them out and set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH instead."
        )
    if scheme not in ("http", "https") or not whole or parts.query or parts.fragment:
        raise InputError(f"The address '{address}' is none of a dashboard; write http://HOST:8265.")
    return address.rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether this address is on this machine (or forwarded from it)."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_header() -> dict[str, str] | None:
    """The token that the environment names, also where RAY_AUTH_MODE is not set; else Ray looks for one itself."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token and (path := os.environ.get("RAY_AUTH_TOKEN_PATH")):
        try:
            token = Path(path).expanduser().read_text().strip()
        except OSError as e:
            raise InputError(
                f"RAY_AUTH_TOKEN_PATH is '{path}', which cannot be read ({e.strerror})."
            ) from None
    return {"Authorization": f"Bearer {token}"} if token else None
