"""The one exception that means "the input is at fault"; every command turns it into one sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any


class InputError(ValueError):
    """Bad input: the message says what, what was got, what is allowed and how to cure it, in one sentence."""


def with_fields(what: str, config: Any, values: Mapping[str, Any], allowed: Collection[str]) -> Any:
    """A config dataclass with other values, as somebody wrote them on a command line.

    Args:
        what: Said before the field's name, such as "Training".
        config: The dataclass; its own checks see the new values.
        values: By field; each of the type of the value that is there.
        allowed: Fields that may be changed.

    Raises:
        InputError: a field may not be changed, or its value has another type or fails the config's checks.
    """
    for name, value in values.items():
        if name not in allowed:
            raise InputError(
                f"{what} has no setting '{name}' that could be set here. Known: {', '.join(allowed) or 'none'}."
            )
        now = getattr(config, name)
        kinds = (int, float) if isinstance(now, float) else (type(now),)
        if isinstance(value, bool) is not isinstance(now, bool) or not isinstance(value, kinds):
            raise InputError(
                f"{what} {name} is {value!r}; it must be of type {kinds[-1].__name__}, as {now!r} is."
            )
    return replace(config, **values)


def check_ranges(what: str, config: object, **ranges: tuple[float, float]) -> None:
    """Refuse a config with a number out of its range.

    Args:
        what: Said before the field's name, such as "Training".
        config: Has the fields.
        ranges: Lowest and highest value by field, both allowed; the highest may be infinite.

    Raises:
        InputError: one is out of it, or is no number.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not low <= value <= high:
            allowed = f"be at least {low:g}" if high == float("inf") else f"lie between {low:g} and {high:g}"
            raise InputError(f"{f'{what} {name}'.strip()} is {value}; it must {allowed}.")
