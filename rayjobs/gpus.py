"""How busy the GPUs of this machine are, where there are any."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

ANSWER_SECONDS = 5.0
FIELDS = ("index", "name", "utilization.gpu", "memory.used", "memory.total")


def use() -> list[dict[str, Any]]:
    """Of each GPU: index, name, utilisation in percent, memory in MiB; [] where none is to be seen."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse(done.stdout) if done.returncode == 0 else []


def parse(text: str) -> list[dict[str, Any]]:
    """The table that `nvidia-smi --query-gpu` prints; a figure that a GPU does not tell is None."""
    out = []
    for line in text.splitlines():
        parts = [p.strip() for p in line.split(",")]
        if len(parts) != len(FIELDS):
            continue
        number = [int(p) if p.isdecimal() else None for p in parts]
        out.append(
            {
                "index": number[0], "name": parts[1], "utilisation_percent": number[2],
                "memory_used_mib": number[3], "memory_mib": number[4],
            }
        )  # fmt: skip
    return out
