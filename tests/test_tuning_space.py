"""The search space: derived from the recipe, every end of it a recipe, every wish checked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.recipe_files import recipe_to_dict
from motionsynth.recipes import RECIPES, Recipe, get_recipe
from tuning.space import (
    MIXING,
    PER_CLASS,
    REFINING,
    UNUSED,
    ZERO_SHARE,
    Axis,
    applied,
    derive,
    setting,
    varied,
)

WEIGHT = Axis(name="loss_weights.flow", kind="weight", default=0.5, low=0.05, high=5.0)
SHARE = Axis(name="synthetic_share", kind="linear", default=0.5, low=0.1, high=0.5)
COUNT = Axis(name=PER_CLASS, kind="log", default=4, low=1, high=8, whole=True)
CHOICE = Axis(name="generator_config.style_prior", kind="choice", default="b", choices=("a", "b"))


def debug() -> Recipe:
    return replace(get_recipe("debug"), full=False)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_loss_term_is_an_axis_and_both_of_its_ends_are_recipes(name: str) -> None:
    recipe = get_recipe(name)
    axes = derive(recipe, ("weights", "mixing", "refining"))
    weights = {a.name.removeprefix("loss_weights."): a for a in axes if a.kind == "weight"}
    assert weights.keys() == dict(recipe.generator_config.loss_weights).keys()
    assert {a.name for a in axes} - {f"loss_weights.{w}" for w in weights} == {*MIXING, *REFINING, PER_CLASS}
    for axis in axes:
        assert axis.default == setting(recipe, axis.name)
        assert axis.value(axis.position(axis.default)) == axis.default
        if axis.default == 0 and axis.kind == "weight":
            assert (axis.low, axis.high) == UNUSED
        for position in (0.0, ZERO_SHARE, 0.5, 1.0):
            value = axis.value(position)
            if axis.kind == "weight" and not value and len(weights) == 1:
                continue
            assert setting(applied(recipe, {axis.name: value}), axis.name) == value


def test_a_weight_is_logarithmic_and_exactly_zero_at_its_end() -> None:
    assert WEIGHT.value(0.0) == 0.0 == WEIGHT.value(ZERO_SHARE - 1e-9)
    assert WEIGHT.value(ZERO_SHARE) == pytest.approx(0.05) and WEIGHT.value(1.0) == pytest.approx(5.0)
    middle = (ZERO_SHARE + 1) / 2
    assert WEIGHT.value(middle) == pytest.approx(0.5) and WEIGHT.position(0.5) == pytest.approx(middle)
    assert WEIGHT.position(0.0) == 0.0 and WEIGHT.position(50.0) == 1.0


@given(st.floats(0, 1))
def test_positions_and_values_are_inverse(position: float) -> None:
    for axis in (WEIGHT, SHARE):
        value = axis.value(position)
        assert axis.value(axis.position(value)) == pytest.approx(value, rel=1e-4)
    assert COUNT.value(position) in range(1, 9)


def test_choices_have_an_index() -> None:
    assert [CHOICE.value(i) for i in (0, 1)] == ["a", "b"] and CHOICE.position("b") == 1


def test_a_setting_goes_where_its_name_says() -> None:
    recipe = get_recipe("motion_gan")
    assert len(recipe.scores) == 2
    made = applied(
        recipe,
        {"loss_weights.flow": 2.0, "synthetic_share": 0.25, PER_CLASS: 33, "training.learning_rate": 0.01},
    )
    assert made.generator_config.loss_weights["flow"] == 2.0
    assert {p.training.synthetic_share for p in made.scores} == {0.25}
    assert made.synthetic_per_class == 33 and made.training.learning_rate == 0.01
    # Nothing else has changed.
    back = applied(
        made,
        {
            n: setting(recipe, n)
            for n in ("loss_weights.flow", "synthetic_share", PER_CLASS, "training.learning_rate")
        },
    )
    assert recipe_to_dict(back) == recipe_to_dict(recipe)


def test_a_user_narrows_widens_lists_and_fixes() -> None:
    axes, recipe = varied(
        debug(), derive(debug(), ("weights",)),
        {
            "loss_weights.flow": "0.1:20", "loss_weights.pose": "0", "mixup": "0:0.4",
            "training.batch": "8,16", "generator_config.style_prior": '["transfer", "normal"]',
        },
    )  # fmt: skip
    by = {a.name: a for a in axes}
    assert (by["loss_weights.flow"].kind, by["loss_weights.flow"].high) == ("weight", 20.0)
    assert "loss_weights.pose" not in by and recipe.generator_config.loss_weights["pose"] == 0.0
    assert (by["mixup"].kind, by["mixup"].low, by["mixup"].high) == ("linear", 0.0, 0.4)
    assert by["training.batch"].choices == (8, 16)
    assert by["generator_config.style_prior"].kind == "choice"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("loss_weights.foo", "0.1:1", "'motion_gan' has no loss term 'foo'. Known: adversarial, flow"),
        ("loss_weights.flow", "-1:1", "both ends must be above 0"),
        ("loss_weights.flow", "-1", "a weight must be a finite number of at least 0"),
        ("loss_weights.flow", "2:1", "its first end must be the smaller one"),
        ("loss_weights.flow", "0.1:inf", "a range is LOW:HIGH, both finite numbers"),
        ("loss_weights.flow", "1:2", "leaves out 0.5, the recipe's own value"),
        ("loss_weights.flow", "0.5,0.5", "give each once"),
        ("mixup", "0.1:0.4", "leaves out 0.0, the recipe's own value"),
        ("training.batch", "16,32", "leaves out 8, the recipe's own value"),
        ("loss_weights", "0:1", "'loss_weights' "),
        ("synthetic_share", "0.1:0.7", "synthetic_share is 0.7; it must lie between 0 and 0.5"),
        ("synthetic_shar", "0.1:0.5", "no setting 'synthetic_shar' to search. Known: loss_weights.TERM"),
        ("generator_config.widht", "1:2", "no 'widht' among frames"),
        ("generator_config.style_prior", "1:2", "is no number; list its values"),
        ("draws", "1:5", "no setting 'draws' to search"),
        ("bed.shots", "10,20", "no setting 'bed.shots' to search"),
        ("scores.0.seeds", "1:5", "no setting 'scores.0.seeds' to search"),
    ],
)
def test_wrong_wishes_are_one_sentence(name: str, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        varied(debug(), derive(debug()), {name: text})
    assert sentence in str(caught.value)


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(InputError, match="no group of axes 'weight'. Known: weights, mixing, refining"):
        derive(debug(), ("weight",))
