"""No loss term is ever ignored in silence, and no weight is ever without its term."""

from __future__ import annotations

import math

import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.losses import check_weights, weighted_sum


def test_the_sum_is_weighted_and_carries_gradients() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    total = weighted_sum({"a": x * x, "b": 3 * x}, {"a": 0.5, "b": 2.0})
    assert total.item() == pytest.approx(0.5 * 4 + 2 * 6)
    total.backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(0.5 * 4 + 2 * 3)


def test_a_term_of_weight_0_is_outside_the_sum() -> None:
    """Not merely multiplied by 0: a NaN or a gradient in it must not come through."""
    x = torch.tensor(1.0, requires_grad=True)
    terms = {"a": 2 * x, "off": x * math.nan}
    total = weighted_sum(terms, {"a": 1.0, "off": 0.0})
    total.backward()
    assert total.item() == 2.0 and x.grad is not None and x.grad.item() == 2.0
    assert set(terms) == {"a", "off"}  # still there for the log


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "B": 1.0}])
def test_names_must_match(weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="do not match the loss terms") as e:
        weighted_sum({"a": torch.ones(()), "b": torch.ones(())}, weights)
    assert all(name in str(e.value) for name in ("a", "b", *weights))


def test_all_weights_0_is_refused() -> None:
    with pytest.raises(InputError, match="All loss weights are 0"):
        weighted_sum({"a": torch.ones(())}, {"a": 0.0})


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "1"])
def test_a_weight_is_a_finite_number(wrong: float) -> None:
    check_weights({"a": 0, "b": 2.5}, ("a", "b"))
    with pytest.raises(InputError, match="finite number of at least 0"):
        check_weights({"a": 1.0, "b": wrong}, ("a", "b"))


def test_unknown_and_missing_weights_are_named() -> None:
    with pytest.raises(InputError, match=r"\['a', 'x'\]; this generator has \['a', 'b'\]"):
        check_weights({"a": 1.0, "x": 1.0}, ("a", "b"))
