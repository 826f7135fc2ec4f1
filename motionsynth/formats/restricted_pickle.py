"""Reading a pickle that a stranger wrote: data only, no code.

A pickle may call any function of any module; this reader lets it make dicts, lists, tuples, texts, numbers,
bytes, booleans, None and numpy arrays of numbers or text, and refuses everything else by name. Even numpy's
own unpickling code never runs: arrays are rebuilt here from their bytes, with sizes checked.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from motionsynth.errors import InputError

ALLOWED = "dict, list, tuple, str, int, float, bytes, bool, None and numpy arrays"
KINDS = "biufSU"


class _Malformed(ValueError):
    """The pickle describes an array that cannot be."""


class _Allowed:
    """A function that a pickle may call, and cannot change: its BUILD instruction sets attributes of "
    "anything."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Malformed("it tries to change a function")


class _Dtype:
    """What `numpy.dtype(text)` and its state say; made a real dtype by `real`."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        self.text = text.decode("ascii") if isinstance(text, bytes) else text
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")):
            raise _Malformed("an array's type has no valid byte order")
        self.order = state[1]

    def real(self) -> np.dtype:
        if not isinstance(self.text, str) or self.text[:1] not in KINDS or not self.text[1:].isdecimal():
            raise _Malformed(f"it holds an array of type {self.text!r}, which is neither numbers nor text")
        try:
            return np.dtype(("" if self.order == "|" else self.order) + self.text)
        except TypeError:
            raise _Malformed(f"it holds an array of the unknown type {self.text!r}") from None


class _Array:
    """An array under construction; `_resolved` puts the real one in its place."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise _Malformed("an array's state is not complete")
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Malformed("an array is not made of bytes, a type and a shape")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Malformed("an array's shape is not a tuple of sizes")
    kind = dtype.real()
    size = kind.itemsize
    for n in shape:
        size *= n
    if size != len(data) or not kind.itemsize:
        raise _Malformed(f"an array of shape {shape} and type {kind} has {len(data)} bytes instead of {size}")
    return np.ndarray(shape, kind, bytes(data), order=order)


def _reconstruct(*args: Any) -> _Array:
    if not args or args[0] is not _NDARRAY:
        raise _Malformed("it rebuilds something else than a plain numpy array")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any) -> int | float | bool | str | bytes:
    return _array(data, dtype, (), "C").item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols up to 2 write bytes: as text to be encoded."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Malformed("it encodes something else than bytes")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """How protocols up to 2 write empty bytes."""
    if args:
        raise _Malformed("it builds bytes by a call with arguments")
    return b""


def _no_call(*_: Any) -> None:
    raise _Malformed("it builds an array by a call of numpy.ndarray")


_NDARRAY = _Allowed(_no_call)
"""Stands for the class `numpy.ndarray`, which an honest pickle only passes to `_reconstruct`."""
_GLOBALS: dict[tuple[str, str], _Allowed] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Allowed(_Dtype),
    ("_codecs", "encode"): _Allowed(_encode),
    ("builtins", "bytes"): _Allowed(_no_bytes),
    ("__builtin__", "bytes"): _Allowed(_no_bytes),
}
# numpy 1.x and 2.x name the same functions differently.
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _Allowed(_reconstruct)
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _Allowed(_scalar)
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _Allowed(_frombuffer)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        # latin1 is what numpy needs of pickles that Python 2 wrote.
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise InputError(
                f"Pickle '{self.path}' asks for '{module}.{name}', which is code and not data, so it was refused; only "
                f"{ALLOWED} are read: export the file again with nothing else in it."
            )
        return _GLOBALS[module, name]


def read_pickle(path: Path) -> Any:
    """The object in a pickle file that holds data only.

    Raises:
        InputError: the file cannot be read, is empty, truncated or no pickle, or asks for a function.
    """
    try:
        with open(path, "rb") as file:
            return _resolved(_Unpickler(file, path).load())
    except InputError:
        raise
    except OSError as e:
        raise InputError(f"Pickle '{path}' cannot be read ({e.strerror}).") from None
    except EOFError:
        raise InputError(f"Pickle '{path}' is empty or truncated; make or copy it again.") from None
    except _Malformed as e:
        raise InputError(f"Pickle '{path}' cannot be used: {e}; only {ALLOWED} are read.") from None
    # A damaged or hostile pickle can make the machine inside `load` fail in any way.
    except Exception as e:
        raise InputError(
            f"Pickle '{path}' is truncated, damaged or no pickle ({type(e).__name__}: {e}); make or copy it again."
        ) from None


def _resolved(root: Any) -> Any:
    """The object with every `_Array` replaced; iterative, since a pickle may be nested without end."""
    done: dict[int, Any] = {}

    def leaf(x: Any) -> bool:
        return not isinstance(x, (list, tuple, dict))

    def value(x: Any) -> Any:
        if not leaf(x):
            return done[id(x)]
        if isinstance(x, _Array):
            if x.value is None:
                raise _Malformed("it holds an array without content")
            return x.value
        if x is None or isinstance(x, (str, int, float, bytes)):
            return x
        raise _Malformed(f"it holds a {type(x).__name__.strip('_')}")

    if leaf(root):
        return value(root)
    stack, opened = [root], set()
    while stack:
        x = stack[-1]
        if id(x) in done:
            stack.pop()
            continue
        parts = [*x.keys(), *x.values()] if isinstance(x, dict) else x
        todo = [p for p in parts if not leaf(p) and id(p) not in done]
        if todo:
            if id(x) in opened:
                raise _Malformed("it holds a list that contains itself")
            opened.add(id(x))
            stack.extend(todo)
            continue
        if isinstance(x, dict):
            done[id(x)] = {value(k): value(v) for k, v in x.items()}
        else:
            done[id(x)] = type(x)(value(p) for p in x)
        stack.pop()
    return done[id(root)]
