"""The web application that browses datasets: filter, watch, mark as bad; marks are written at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from threading import Lock
from typing import Annotated, Any, TypeVar

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from motionsynth.errors import InputError
from rayjobs import cli, web_app
from rayjobs.catalogue import ORDERS, QUALITY, STATES, Catalogue, Wish
from storage import Storage
from storage.decisions import MAX_REASON, decide

PAGE_CLIPS = 100
_T = TypeVar("_T")

End = Annotated[float | None, Field(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OfSet(_Body):
    """A dataset, by its place among those that are served."""

    set: Annotated[int, Field(ge=0)]


class Query(OfSet):
    """See `rayjobs.catalogue.Wish`."""

    label: int | None = None
    source: str = ""
    state: str = "all"
    ranges: dict[str, tuple[End, End]] = {}
    order: str = "stored"
    descending: bool = False
    start: Annotated[int, Field(ge=0)] = 0


class OfClip(OfSet):
    """A clip."""

    sample_id: Annotated[str, Field(max_length=1000)]


class Mark(OfClip):
    """A clip is bad, or no longer."""

    bad: bool
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""


def make_app(storage: Storage, prefixes: Sequence[str], host: str) -> Any:
    """The application over these finished datasets."""
    app = web_app.make_app("motionsynth explore", "explore.html", host)
    lock = Lock()

    @lru_cache(maxsize=4)
    def opened(number: int) -> Catalogue:
        return Catalogue(storage, prefixes[number])

    def catalogue(number: int) -> Catalogue:
        if number >= len(prefixes):
            raise HTTPException(404, f"There is no set {number}; there are {len(prefixes)}.")
        with lock:  # so that a set which two requests ask for is read once
            return opened(number)

    def told(call: Callable[[], _T]) -> _T:
        try:
            return call()
        except InputError as e:
            raise HTTPException(422, str(e)) from None

    @app.get("/api/sets")
    def sets() -> dict[str, Any]:
        return {"storage": storage.uri, "sets": list(prefixes), "page": PAGE_CLIPS}

    @app.post("/api/about")
    def about(body: OfSet) -> dict[str, Any]:
        found = told(lambda: catalogue(body.set))
        return {
            "kind": found.manifest.kind, "clips": len(found.table), "marked": len(found.marks),
            "classes": list(found.class_names), "orders": ORDERS, "states": STATES, "quality": _present(found),
        }  # fmt: skip

    @app.post("/api/clips")
    def clips(body: Query) -> dict[str, Any]:
        found = told(lambda: catalogue(body.set))
        asked = {k: v for k, v in body.model_dump().items() if k not in ("set", "start")}
        total, rows = told(lambda: found.select(Wish(**asked), body.start, PAGE_CLIPS))
        return {"total": total, "start": body.start, "clips": cli.plain(rows)}

    @app.post("/api/clip")
    def clip(body: OfClip) -> dict[str, Any]:
        found = told(lambda: catalogue(body.set))
        motion = told(lambda: found.motion(_known(found, body.sample_id)))
        return web_app.drawn(motion, found.manifest.header.skeleton)

    @app.post("/api/mark")
    def mark(body: Mark) -> dict[str, Any]:
        found = told(lambda: catalogue(body.set))
        name = _known(found, body.sample_id)
        with lock:
            bad, good = ({name: body.reason}, ()) if body.bad else ({}, (name,))
            found.marks = told(lambda: decide(storage, found.prefix, bad, good))
        decision = found.marks.get(name)
        return {"marked": len(found.marks), "decision": decision and asdict(decision)}

    return app


def _known(found: Catalogue, sample_id: str) -> str:
    if sample_id not in found:
        raise HTTPException(404, f"'{found.prefix}' has no clip '{sample_id}'.")
    return sample_id


def _present(found: Catalogue) -> list[str]:
    """Quality columns in which some clip has a value."""
    return [c for c in QUALITY if found.table[c].null_count < len(found.table)]
