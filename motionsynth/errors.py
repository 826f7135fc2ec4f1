"""The one exception that means "the input is at fault"; every command turns it into one sentence and exit code 2."""


class InputError(ValueError):
    """Bad input: the message says what, what was got, what is allowed and how to cure it, in one sentence."""


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
