"""One file per verb: each runs as `python -m rayjobs.<verb>` and as the entry point of `ray job submit`."""
