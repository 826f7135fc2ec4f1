"""The learning curves of a training, read back from the TensorBoard events that `rayjobs.train` keeps in storage."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from motionsynth.errors import InputError
from storage import Storage


def read_curves(storage: Storage, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Every scalar by name, as (step, value) in order of the steps.

    A training that was interrupted has written several files; where they overlap, the later one counts.

    Args:
        storage: Where.
        prefix: Of a trained bed; its events lie under `tensorboard`.
    """
    points: dict[str, dict[int, float]] = {}
    keys = [o.key for o in storage.list(f"{prefix}/tensorboard")]
    for key in sorted(keys, key=_start):
        for name, step, value in _scalars(storage.read(key)):
            points.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in points.items()}


def _start(key: str) -> tuple[int, str]:
    """The step at which a file begins: `_Board` gives it as the suffix."""
    suffix = key.rpartition(".")[2]
    return (int(suffix) if suffix.isdigit() else 0), key


def _scalars(data: bytes) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of an event file: records of length, checksum, content, checksum."""
    try:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    except ModuleNotFoundError:
        raise InputError(
            "Learning curves need tensorboardX, which is not installed; pip install tensorboardX."
        ) from None
    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 12 + size > len(data):
            return  # cut off while it was written
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 16 + size
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value
