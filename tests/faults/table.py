"""The table of `docs/reliability.md` from what the fault suite noted.

MOTIONSYNTH_FAULTS=faults.jsonl python -m pytest tests/faults
python -m tests.faults.table faults.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT = "MOTIONSYNTH_FAULTS"
"""Environment variable: the file to which the suite adds a line per fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One fault.

    Attributes:
        fault: What was done.
        seconds: What it cost.
        how: What these seconds are.
        found: What was there afterwards, out of what was expected.
        says: What the user is told.
    """

    fault: str
    seconds: float
    found: str
    says: str = ""
    how: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def table(costs: Sequence[Cost]) -> str:
    """As Markdown; of a fault that was noted more than once (a suite run again), lowest and highest seconds."""
    runs: dict[str, list[Cost]] = {}
    for c in costs:
        runs.setdefault(c.fault, []).append(c)
    lines = ["| fault | afterwards | cost | the user is told |", "| --- | --- | --- | --- |"]
    for fault, of in runs.items():
        seconds = sorted(c.seconds for c in of)
        span = f"{seconds[0]:g}" if seconds[0] == seconds[-1] else f"{seconds[0]:g} to {seconds[-1]:g}"
        last = of[-1]
        lines.append(
            f"| {fault} | {last.found} | {span} s{last.how and ' ' + last.how} | {last.says or '-'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Cost(**json.loads(line)) for line in Path(sys.argv[1]).read_text().splitlines()]))
