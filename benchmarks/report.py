"""What every benchmark prints: the machine it ran on, a table, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.connect import cores
from motionsynth.errors import InputError


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def median(values: Sequence[float]) -> float:
    """The median as a plain float."""
    return float(np.median(values))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of like keys as aligned text; numbers to four significant digits, None as a dash."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [[_cell(row[h]) for h in heads] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(heads, *cells, strict=True)]
    numeric = [any(isinstance(row[h], int | float) for row in rows) for h in heads]
    return "\n".join(
        "  ".join(
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [heads, *cells]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def measured(path: Path | None, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What every command line here does: measure, store, show the machine; bad input is one sentence, exit code 2."""
    try:
        result = measure()
    except InputError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    write_json(path, result)
    print("\n" + table([result["machine"]]))
    return result


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Store a result for scripts; nothing when no file was asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n")
