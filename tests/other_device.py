"""A second device on a machine without one: tensors that say they live elsewhere and refuse company from the CPU.

Their numbers are real and lie on the CPU, so training and sampling run as they are; but a sum of one tensor here and
one there fails, as it would on a GPU. PyTorch's own fake tensors have no numbers, which data-dependent code needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import optimizer as optimisers  # pyright: ignore[reportAttributeAccessIssue]
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""What they say: autograd runs this one without a backend of its own."""
aten = torch.ops.aten
BETWEEN_DEVICES = (aten.copy_.default,)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""A GPU takes indices from the CPU."""


class Elsewhere(torch.Tensor):
    """A tensor on `DEVICE`."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


class _Factories(TorchDispatchMode):
    """Also `torch.zeros(..., device=...)` and `.to(...)` have to be heard, which no tensor of ours takes part in."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


class _Literals(TorchFunctionMode):
    """What makes tensors of Python's numbers, or numbers of tensors, without anything above hearing of it."""

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.Tensor.new_tensor and isinstance(args[0], Elsewhere):
            given = {"dtype": args[0].dtype, "device": DEVICE} | given
            func, args = torch.tensor, args[1:]
        if func is torch.tensor and torch.device(given.get("device") or "cpu") == DEVICE:
            return torch.tensor(*args, **(given | {"device": "cpu"})).to(DEVICE)
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            args = (args[0].cpu(),)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            x, at, *value = list(args)
            lists = (list, np.ndarray)
            at = tuple(
                torch.as_tensor(i) if isinstance(i, lists) else i
                for i in (at if isinstance(at, tuple) else (at,))
            )
            args = (x, at, *value)
        return func(*args, **given)


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    asked = kwargs.get("device")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    away = any(isinstance(t, Elsewhere) for t in tensors)
    compared = tensors
    if func in INDEXING:
        compared = [t for t in (args[0], *args[2:]) if isinstance(t, torch.Tensor)]
    strangers = [t for t in compared if not isinstance(t, Elsewhere) and t.dim() > 0]
    if away and strangers and func not in BETWEEN_DEVICES:
        raise RuntimeError(
            f"{func}: a tensor of shape {tuple(strangers[0].shape)} is on the CPU, others are not"
        )
    to = away if asked is None else torch.device(asked) == DEVICE
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    unwrap = lambda t: t.here if isinstance(t, Elsewhere) else t  # noqa: E731
    own = {id(t.here): t for t in tensors if isinstance(t, Elsewhere)}
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if not to:
        return out

    def wrap(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        return own[id(t)] if id(t) in own else Elsewhere(t)

    return tree_map(wrap, out)


@contextlib.contextmanager
def other_device() -> Iterator[torch.device]:
    """While it lasts, `torch` knows a second device, which it returns. Mixed precision does nothing there."""
    kept: Callable[..., Any] = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return contextlib.nullcontext() if device_type == DEVICE.type else kept(device_type, *args, **kwargs)

    fused = optimisers._get_fused_kernels_supported_devices
    torch.autocast = autocast  # pyright: ignore[reportAttributeAccessIssue]
    optimisers._get_fused_kernels_supported_devices = lambda: [*fused(), DEVICE.type]
    try:
        with _Literals(), _Factories():
            yield DEVICE
    finally:
        torch.autocast = kept  # pyright: ignore[reportAttributeAccessIssue]
        optimisers._get_fused_kernels_supported_devices = fused
