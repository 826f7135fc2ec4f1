"""How fast it is: `python -m benchmarks.generate` and `python -m benchmarks.train`, from the repository's root."""
