"""What somebody decided about clips of a finished dataset: a small Parquet file beside its shards, honoured by readers.

Shards and manifest stay as they are. A clip that was marked as bad reads as `accepted=False` with `marked` among its
`rejected_by`, so no recogniser and no generator is trained on it; taking the mark back restores it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from motionsynth.errors import InputError
from motionsynth.motion import Motion
from storage.limits import UNREADABLE, check_parquet
from storage.manifest import below, read_manifest
from storage.objects import MissingError, sha256
from storage.paths import Storage
from storage.schema import plain_rows

DECISIONS = "decisions.parquet"
MARKED = "marked"
"""The name of this rule in `Motion.rejected_by`."""
MAX_REASON = 200
MAX_BYTES = 64 << 20
"""Of the file: some million marks."""
SCHEMA = pa.schema([("sample_id", pa.string()), ("reason", pa.string()), ("decided", pa.float64())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A clip is bad. `decided`: seconds since 1970."""

    sample_id: str
    reason: str = ""
    decided: float = 0.0

    def __post_init__(self) -> None:
        if len(self.reason) > MAX_REASON:
            raise InputError(
                f"The reason for marking '{self.sample_id}' has {len(self.reason)} characters; at most {MAX_REASON}."
            )


def read_decisions(storage: Storage, prefix: str) -> dict[str, Decision]:
    """By `sample_id`; none where nothing was decided.

    Raises:
        InputError: the file is damaged, or larger than `MAX_BYTES`.
    """
    at = below(storage, prefix)
    try:
        data = at.read(DECISIONS, MAX_BYTES)
        check_parquet(io.BytesIO(data), len(data), f"'{at.uri}/{DECISIONS}'")
        return {r["sample_id"]: Decision(**r) for r in plain_rows(data, f"'{at.uri}/{DECISIONS}'")}
    except MissingError:
        return {}
    except (InputError, *UNREADABLE):
        raise InputError(
            f"'{at.uri}/{DECISIONS}' cannot be read; delete it to take all clips as they are."
        ) from None


def decide(
    storage: Storage, prefix: str, bad: Mapping[str, str], good: Iterable[str] = ()
) -> dict[str, Decision]:
    """Mark clips as bad, or take marks back, and write all marks of the dataset anew.

    Args:
        storage, prefix: The finished dataset.
        bad: Reasons (may be "") by `sample_id`; a clip keeps its first time, and takes the new reason.
        good: Clips whose mark is taken back.

    Returns:
        All marks.
    """
    had = read_decisions(storage, prefix)
    new = {
        i: Decision(sample_id=i, reason=reason, decided=had[i].decided if i in had else time.time())
        for i, reason in bad.items()
    }
    marks = {i: d for i, d in sorted((had | new).items()) if i not in set(good)}
    sink = io.BytesIO()
    rows = [{"sample_id": d.sample_id, "reason": d.reason, "decided": d.decided} for d in marks.values()]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd", use_dictionary=False)
    at = below(storage, prefix)
    if marks or had:
        at.write(DECISIONS, sink.getvalue())
    return marks


def decided(motions: Iterable[Motion], marks: Mapping[str, Decision]) -> tuple[Motion, ...]:
    """The clips, those that were marked refused."""
    if not marks:
        return tuple(motions)
    rules = lambda m: (m.rejected_by or "").split("+")  # noqa: E731
    return tuple(
        replace(m, accepted=False, rejected_by="+".join(dict.fromkeys([r for r in rules(m) if r] + [MARKED])))
        if m.sample_id in marks
        else m
        for m in motions
    )


def content_digest(storage: Storage, prefix: str) -> str:
    """What names a dataset's content as readers see it: the manifest's digest, and that of the marks if there are any.

    Raises:
        MissingError: the dataset is not finished.
    """
    digest = read_manifest(storage, prefix).digest
    marks = read_decisions(storage, prefix)
    return f"{digest}:{sha256(repr(sorted(marks)).encode())}" if marks else digest
