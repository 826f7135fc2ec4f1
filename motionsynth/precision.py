"""Mixed precision where it pays: bfloat16 on a processor without such arithmetic is emulated, thirty times slower."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")
EMULATED = ("DEFAULT", "NO AVX", "AVX2")
"""CPU capabilities, as PyTorch names them, whose kernels have no bfloat16 products."""


def autocast(precision: str, device: str) -> torch.autocast:
    """The context in which layers compute.

    Args:
        precision: One of `PRECISIONS`; "bfloat16" is float32 all the same on a CPU that would emulate it.
        device: Type of the device: "cpu" or "cuda".
    """
    import torch

    mixed = precision == "bfloat16" and not (device == "cpu" and _emulated())
    return torch.autocast(device, torch.bfloat16, enabled=mixed)


@cache
def _emulated() -> bool:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in EMULATED:
        return False
    logger.warning(
        "This CPU (%s) has no bfloat16 arithmetic: what is to train in bfloat16 trains in float32.",
        capability,
    )
    return True
