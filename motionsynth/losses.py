"""The loss-weight contract: unweighted terms in, one weighted sum out, never a silently ignored name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from motionsynth.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of weight * term; a term of weight 0 is left out of the sum but still logged by the caller.

    Args:
        terms: Scalars, unweighted.
        weights: One weight for each term, and none besides.

    Raises:
        InputError: the two sets of names differ.
    """
    if set(terms) != set(weights):
        raise InputError(
            f"Loss weights {sorted(weights)} do not match the loss terms {sorted(terms)}; give exactly one weight "
            "for each term."
        )
    parts = [weights[name] * term for name, term in terms.items() if weights[name] != 0]
    if not parts:
        raise InputError(f"All loss weights are 0; set at least one of {sorted(weights)} above 0.")
    return sum(parts[1:], parts[0])


def check_weights(weights: Mapping[str, float], names: tuple[str, ...]) -> None:
    """Refuse unknown and missing weights, and values that are no finite number of at least 0.

    Raises:
        InputError: see above.
    """
    if set(weights) != set(names):
        raise InputError(f"loss_weights has the names {sorted(weights)}; this generator has {sorted(names)}.")
    if bad := {
        k: w for k, w in weights.items() if not (isinstance(w, int | float) and math.isfinite(w) and w >= 0)
    }:
        raise InputError(f"loss_weights has {bad}; a weight must be a finite number of at least 0.")
