"""The one exception that means "the input is at fault"; every command turns it into one sentence and exit code 2."""


class InputError(ValueError):
    """Bad input: the message says what, what was got, what is allowed and how to cure it, in one sentence."""
