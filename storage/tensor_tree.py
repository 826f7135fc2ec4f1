"""Nested training state (optimiser, EMA, RNG) <-> named tensors and JSON, so that nothing needs pickle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from motionsynth.errors import InputError

if TYPE_CHECKING:
    import torch


def flatten(state: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Split a nested state.

    Args:
        state: Dicts (keys str or int), lists, tuples, tensors, numpy arrays and numbers, str, bool, int of
            any size, float, None: what `state_dict()` of optimisers and the random generators give.

    Returns:
        Tensors by path, and a JSON value that `unflatten` puts them back into.

    Raises:
        InputError: another type is in it.
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, torch.Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            # As bytes: torch has neither numpy's byte orders nor all its widths.
            tensors[path] = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
            return {"array": path, "dtype": value.dtype.str, "shape": list(value.shape)}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [walk(v, f"{path}.{i}") for i, v in enumerate(value)]}
        if isinstance(value, dict) and all(type(k) in (str, int) for k in value):
            # The position, not the key, makes the path: 1 and "1" are different keys.
            return {"dict": [[k, walk(v, f"{path}.{i}:{k}")] for i, (k, v) in enumerate(value.items())]}
        raise InputError(
            f"The training state holds a {type(value).__name__} at '{path}'; only dicts with str or int "
            "keys, lists, tuples, tensors, numpy arrays, numbers, text and None can be saved without pickle."
        )

    return tensors, walk(state, "state")


def unflatten(tensors: dict[str, torch.Tensor], tree: Any) -> Any:
    """The inverse of `flatten`."""
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "array" in tree:
        return (
            np.frombuffer(tensors[tree["array"]].numpy().tobytes(), tree["dtype"])
            .reshape(tree["shape"])
            .copy()
        )
    if "float" in tree:
        return float(tree["float"])
    if "dict" in tree:
        return {k: unflatten(tensors, v) for k, v in tree["dict"]}
    if "list" in tree:
        return [unflatten(tensors, v) for v in tree["list"]]
    return tuple(unflatten(tensors, v) for v in tree["tuple"])
