"""Browse the clips of a storage in the browser: filter, watch, and mark bad ones.

    python -m rayjobs.explore --storage out                        every finished dataset and generated set
    python -m rayjobs.explore --storage s3://bucket/motion --data runs/tour --port 8080

Marks lie beside the shards (`decisions.parquet`), which stay as they are; `train`, `generate` and `score` honour them.
Needs the extra: pip install 'motionsynth[web]'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motionsynth.errors import InputError
from rayjobs import cli, web_app
from storage import Storage
from storage.decisions import read_decisions
from storage.manifest import MANIFEST


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Browse finished datasets of a storage.

    Attributes:
        data: Only those at or below this prefix, such as data/nucla or runs/tour (default: all).
        host: Address to listen on; anything but loopback lets everybody who reaches it look and mark.
        port: To listen on; 0 takes a free one.
    """

    data: str = ""
    host: str = "127.0.0.1"
    port: int = 8000


def verb(options: Options) -> dict[str, Any]:
    """Serve until interrupted; see the module."""
    storage = options.open_storage()
    found = datasets(storage, options.data.strip("/"))
    try:
        from rayjobs.explore_app import make_app
    except ImportError as e:
        raise InputError(f"{e.name} is not installed; run: pip install 'motionsynth[web]'.") from None
    app = make_app(storage, found, options.host)
    web_app.serve(
        app, options.host, options.port, lambda at: f"{len(found)} sets of clips at {at} ; end with ctrl-C."
    )
    return {"sets": found, "marked": {p: n for p in found if (n := len(read_decisions(storage, p)))}}


def datasets(storage: Storage, prefix: str = "") -> list[str]:
    """Prefixes of the finished datasets at or below a prefix, prepared ones first.

    Raises:
        InputError: there is none.
    """
    keys = [o.key for top in ([prefix] if prefix else ["data", "runs"]) for o in storage.list(top)]
    found = sorted({k.removesuffix(f"/{MANIFEST}") for k in keys if k.endswith(f"/{MANIFEST}")})
    if not found:
        where = f"at or below '{prefix}' of '{storage.uri}'" if prefix else f"in '{storage.uri}'"
        raise InputError(
            f"There is no finished dataset {where}; run `python -m rayjobs.prepare` or `python -m rayjobs.generate` "
            "first, or check --storage and --data."
        )
    return found


if __name__ == "__main__":
    cli.main(Options, verb)
