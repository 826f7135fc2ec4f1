"""Every recipe is complete: it builds, its beds are distinct, and its parts exist."""

from __future__ import annotations

from dataclasses import replace

import pytest

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.generators import GENERATORS, build_generator, fit_context
from motionsynth.motion import MotionSet
from motionsynth.plans import ScorePlan
from motionsynth.recipes import RECIPES, get_recipe, with_clips_seen
from motionsynth.recognisers import RecogniserInfo, build_recogniser
from motionsynth.recognition_config import RecogniserTraining


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


def test_recipes_are_compared_on_the_beds_of_the_first() -> None:
    recipe = get_recipe("motion_gan_fast, kinetic_gan,kinetic_gan_published")
    recipe = replace(recipe, draws=1, bed=BedSpec(shots=5), synthetic_per_class=7)
    names = [r.generator for r in recipe.each]
    assert names == ["motion_gan", "kinetic_gan", "kinetic_gan_published"]
    for one in recipe.each:
        assert one.beds == recipe.beds and one.synthetic_per_class == 7 and not one.compared
    assert recipe.each[1].training == get_recipe("kinetic_gan").training
    with pytest.raises(
        InputError, match="generators motion_gan, motion_gan; give recipes of different generators"
    ):
        get_recipe("motion_gan,motion_gan_fast")
    with pytest.raises(InputError, match="Unknown recipe 'nope'"):
        get_recipe("motion_gan,nope")


def test_an_equal_budget_of_clips_seen() -> None:
    recipe = with_clips_seen(get_recipe("motion_gan,kinetic_gan,kinetic_gan_published"), 48_000)
    for one in recipe.each:
        t = one.training
        assert abs((t.steps + t.rare_steps) * t.batch - 48_000) < t.batch
    assert recipe.training.rare_steps == pytest.approx(recipe.training.steps / 5, abs=1)
    with pytest.raises(
        InputError, match="budget of clips seen is 20; motion_gan needs at least one batch of 48"
    ):
        with_clips_seen(recipe, 20)


def test_what_learns_nothing_has_no_use_for_a_budget() -> None:
    both = with_clips_seen(get_recipe("motion_gan,part_mix"), 4_800)
    assert [r.training.steps + r.training.rare_steps for r in both.each] == [100, 1]


def test_rivals_are_known_and_named_once() -> None:
    recipe = get_recipe("motion_gan")
    assert recipe.rivals == ("adjusted", "interpolation", "difference", "feature")
    assert get_recipe("demo").rivals == ("difference",)
    with pytest.raises(InputError, match="Unknown rival 'strong' in rivals. Known: adjusted, interpolation"):
        replace(recipe, rivals=("strong",))
    with pytest.raises(InputError, match="rivals is feature, feature; name each rival once"):
        replace(recipe, rivals=("feature", "feature"))


def test_recipes_see_equally_many_clips() -> None:
    seen = {n: (t.steps + t.rare_steps) * t.batch for n in RECIPES for t in (get_recipe(n).training,)}
    assert (
        len({seen[n] for n in ("motion_gan", "kinetic_gan", "kinetic_gan_published", "kinetic_gan_apart")})
        == 1
    )


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
