"""Every recipe is complete: it builds, its beds are distinct, and its parts exist."""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.generators import GENERATORS, build_generator, fit_context
from motionsynth.motion import MotionSet
from motionsynth.plans import ScorePlan
from motionsynth.recipes import RECIPES, get_recipe
from motionsynth.recognisers import RecogniserInfo, build_recogniser
from motionsynth.recognition import RecogniserTraining


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_builds(name: str, tiny_set: MotionSet) -> None:
    recipe = get_recipe(name)
    generator = build_generator(recipe.generator, recipe.generator_config, fit_context(tiny_set))
    weights = set().union(*generator.terms.values())
    assert weights == set(recipe.generator_config.loss_weights)
    info = RecogniserInfo(skeleton=tiny_set.skeleton, num_classes=3, num_persons=1)
    for plan in recipe.scores:
        assert build_recogniser(plan.training.recogniser, info).info is info
    keys = [b.key for b in recipe.beds]
    assert len(set(keys)) == len(keys) == recipe.draws + recipe.full


def test_recipes_reach_every_generator() -> None:
    """A generator without a recipe cannot be trained by any job."""
    assert {get_recipe(name).generator for name in RECIPES} == set(GENERATORS)


def test_beds_of_a_recipe() -> None:
    recipe = replace(get_recipe("motion_gan"), draws=2)
    assert [(b.scarcity, b.draw) for b in recipe.beds] == [("rare", 0), ("rare", 1), ("full", 0)]
    assert [(b.scarcity, b.draw) for b in replace(recipe, full=False).beds] == [("rare", 0), ("rare", 1)]
    # With nothing scarce the draws are all alike: one training, not three.
    assert [b.draw for b in replace(recipe, bed=BedSpec(scarcity="full", draw=0)).beds] == [0]


def test_pooled_protocols_have_every_bed_each() -> None:
    recipe = replace(get_recipe("motion_gan"), draws=2)
    both = replace(recipe, protocols=("fold1", "fold2"))
    alone = [replace(recipe, bed=replace(recipe.bed, protocol=p)).beds for p in both.protocols]
    assert both.beds == alone[0] + alone[1] and len({b.key for b in both.beds}) == 6


def test_unknown_recipe() -> None:
    with pytest.raises(InputError, match=f"Unknown recipe 'nope'. Known: {', '.join(sorted(RECIPES))}"):
        get_recipe("nope")


@pytest.mark.parametrize("change", [{"draws": 0}, {"synthetic_per_class": 0}, {"draws": -1}])
def test_wrong_numbers_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        replace(get_recipe("debug"), **change)
    with pytest.raises(InputError, match="seeds is 0"):
        ScorePlan(training=RecogniserTraining(), seeds=0)


def test_a_recipe_without_recognisers_says_so() -> None:
    with pytest.raises(InputError, match="recogniser"):
        replace(get_recipe("debug"), scores=())
