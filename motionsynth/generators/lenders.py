"""Who lends to a rare class: the setting that all generators share which move clips as those of other classes do."""

from __future__ import annotations

LENDERS = 2
"""Common classes that lend to a class by default, the most similar ones; Yang et al. (ICLR 2021) calibrate a class by
two, too. All of them harmed UI-PRMD's validation people more (docs/ablations.md)."""
