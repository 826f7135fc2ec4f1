"""Recipe files: nothing is lost on the way to JSON and back, what is left out stays, and mistakes cost a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from motionsynth.augment_config import NONE
from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.generators import build_config
from motionsynth.motion import MotionSet
from motionsynth.plans import SCORE_PLANS, ScorePlan, published_training, score_plan
from motionsynth.recipe_files import read_recipe, recipe_from_dict, recipe_to_dict
from motionsynth.recipes import RECIPES, Recipe, get_recipe
from motionsynth.splits import Split
from rayjobs import train
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header


def written(folder: Path, given: Any, name: str = "tuned.json") -> str:
    path = folder / name
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return str(path)


def same(recipe: Recipe, base: str) -> bool:
    """Whether a recipe survives JSON, down to the last type: `==` takes 1 for 1.0 and for True."""
    stored = json.loads(json.dumps(recipe_to_dict(recipe, base)))
    back = recipe_from_dict(stored, "x")
    return back == recipe and repr(back) == repr(recipe)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_comes_back(name: str) -> None:
    recipe = get_recipe(name)
    # A complete file decides everything by itself, so that its base does not matter.
    assert all(same(recipe, base) for base in ("motion_gan", "debug", "skel_diffusion", name))


def test_other_values_than_any_recipe_has_come_back() -> None:
    recipe = get_recipe("skel_diffusion")
    tuned = replace(
        recipe,
        generator_config=replace(
            recipe.generator_config,
            parts=("root", "positions"),
            sources={"code": 1.0, "label": 0.5},
            loss_weights=dict(recipe.generator_config.loss_weights) | {"velocity": 0.25},
        ),
        protocols=("fold1", "fold2"),
        bed=BedSpec(protocol="fold1", scarcity="fraction", fraction=0.5, shots=7, seed=3, split="test"),
        scores=(*SCORE_PLANS.values(), ScorePlan(training=published_training("stgcn"), seeds=1)),
        refine=replace(recipe.refine, novelty_percentiles=(1.0, 90.0), published_threshold=0.1),
    )
    back = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(tuned))), "x")
    assert back == tuned and back.scores[-1].training.augment == NONE
    # Named after the digest of its training, a record is shared only if 0 comes back as 0.0.
    assert repr(back.scores[-1].training.augment.yaw) == "0.0"


def test_a_file_overrides_single_fields(tmp_path: Path) -> None:
    base = get_recipe("demo")
    given = {
        "base": "demo",
        "draws": 2,
        "full": True,
        "protocols": ["cross_view"],
        "generator_config": {"truncation": 1, "loss_weights": {"flow": 2}},
        "training": {"learning_rate": 0.002},
        "bed": {"shots": 7},
        "features": {"augment": {"yaw": 0.1}},
        "refine": {"teacher": {"steps": 50}, "novelty_percentiles": [1, 90], "published_threshold": 0.2},
    }
    config = base.generator_config
    weights = dict(config.loss_weights) | {"flow": 2.0}
    expected = replace(
        base,
        draws=2,
        full=True,
        protocols=("cross_view",),
        generator_config=replace(config, truncation=1.0, loss_weights=weights),
        training=replace(base.training, learning_rate=0.002),
        bed=replace(base.bed, shots=7),
        features=replace(base.features, augment=replace(base.features.augment, yaw=0.1)),
        refine=replace(
            base.refine,
            teacher=replace(base.refine.teacher, steps=50),
            novelty_percentiles=(1.0, 90.0),
            published_threshold=0.2,
        ),
    )
    got = read_recipe(written(tmp_path, given))
    assert got == expected and repr(got) == repr(expected)
    assert base == get_recipe("demo") and read_recipe(written(tmp_path, {"base": "demo"})) == base


def test_other_mappings_and_lists_are_taken_whole() -> None:
    given = {"base": "skel_diffusion", "generator_config": {"sources": {"code": 1}, "parts": ["root"]}}
    config = recipe_from_dict(given, "x").generator_config
    assert config.sources == {"code": 1.0} and config.parts == ("root",)


def test_null_is_a_value_where_a_field_may_have_none() -> None:
    stored = recipe_to_dict(get_recipe("debug")) | {"refine": {"published_threshold": None}}
    assert recipe_from_dict(stored, "x").refine.published_threshold is None


def test_another_generator_starts_from_its_own_defaults() -> None:
    given = {"base": "motion_gan", "generator": "kinetic_gan"}
    assert recipe_from_dict(given, "x").generator_config == build_config("kinetic_gan", {})
    wider = recipe_from_dict(given | {"generator_config": {"latent": 96}}, "x")
    assert wider.generator_config == build_config("kinetic_gan", {"latent": 96})
    # The base's own keeps the base's settings.
    demo = get_recipe("demo")
    assert recipe_from_dict({"base": "demo", "generator": "motion_gan"}, "x") == demo


def test_scores_start_from_the_plan_of_their_recogniser() -> None:
    scores = [
        {"training": {"recogniser": "tcn"}, "seeds": 7},
        {"training": {"recogniser": "stgcn", "mixup": 1}},
    ]
    fast, slow = recipe_from_dict({"base": "demo", "scores": scores}, "x").scores
    assert fast == ScorePlan(training=get_recipe("demo").scores[0].training, seeds=7)
    plan = score_plan("stgcn")
    assert slow == replace(plan, training=replace(plan.training, mixup=1.0))


DEEP = {"base": "debug", "refine": {"teacher": {"augment": {"yawn": 1}}}}
KNOWN_AUGMENTS = "yaw, tilt, scale, crop, warp, jitter, mirror"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "the recipe is []; it must be an object of fields and values, in braces."),
        ({"draws": 2}, f"there is no base; name the recipe to start from: {', '.join(sorted(RECIPES))}."),
        ({"base": "nope"}, f"Unknown base 'nope'. Known: {', '.join(sorted(RECIPES))}."),
        ({"base": ["debug"]}, 'base is ["debug"]; it must be a text.'),
        ({"base": "debug", "drawz": 2}, "there is no field 'drawz'. Known: generator, generator_config, training,"),
        ({"base": "debug", "compared": []}, "there is no field 'compared'. Known: generator,"),
        (DEEP, f"there is no field 'refine.teacher.augment.yawn'. Known: {KNOWN_AUGMENTS}."),
        (
            {"base": "debug", "generator_config": {"loss_weights": {"flown": 1}}},
            "there is no field 'generator_config.loss_weights.flown'. Known: adversarial, flow, pose,",
        ),
        (
            {"base": "debug", "generator": "kinetic_gan", "generator_config": {"style": 8}},
            "there is no field 'generator_config.style'. Known: frames, latent,",
        ),
        ({"base": "debug", "generator": "gann"}, "Unknown generator 'gann'. Known: kinetic_gan,"),
        ({"base": "debug", "generator": None}, "generator is null; it must be a text."),
        ({"base": "debug", "draws": "two"}, 'draws is "two"; it must be a whole number.'),
        ({"base": "debug", "draws": 2.0}, "draws is 2.0; it must be a whole number."),
        ({"base": "debug", "draws": True}, "draws is true; it must be a whole number."),
        ({"base": "debug", "full": 1}, "full is 1; it must be true or false."),
        ({"base": "debug", "bed": "rare"}, 'bed is "rare"; it must be an object of fields and values, in braces.'),
        ({"base": "debug", "bed": {"fraction": False}}, "bed.fraction is false; it must be a finite number."),
        ({"base": "debug", "training": {"crop": None}}, "training.crop is null; it must be a finite number."),
        ({"base": "debug", "protocols": "fold1"}, 'protocols is "fold1"; it must be a list, in square brackets.'),
        ({"base": "debug", "protocols": ["fold1", 2]}, "protocols[1] is 2; it must be a text."),
        (
            {"base": "debug", "generator_config": {"loss_weights": {"flow": "much"}}},
            'generator_config.loss_weights.flow is "much"; it must be a finite number.',
        ),
        (
            {"base": "debug", "generator_config": {"loss_weights": 3}},
            "generator_config.loss_weights is 3; it must be an object",
        ),
        (
            {"base": "debug", "refine": {"novelty_percentiles": [1, 2, 3]}},
            "refine.novelty_percentiles is [1, 2, 3]; it must have 2 entries.",
        ),
        (
            {"base": "debug", "refine": {"published_threshold": "5 cm"}},
            'refine.published_threshold is "5 cm"; it must be a finite number.',
        ),
        ({"base": "debug", "scores": {}}, "scores is {}; it must be a list, in square brackets."),
        ({"base": "debug", "scores": [5]}, "scores[0] is 5; it must be an object"),
        ({"base": "debug", "scores": [{"seeds": 2}]}, "scores[0] has no training.recogniser; name the one whose"),
        (
            {"base": "debug", "scores": [{"training": {"recogniser": "tcn"}, "seeds": "1"}]},
            'scores[0].seeds is "1"; it must be a whole number.',
        ),
        (
            {"base": "debug", "scores": [{"training": {"recogniser": "tcn", "setps": 3}}]},
            "there is no field 'scores[0].training.setps'. Known: recogniser,",
        ),
        ({"base": "debug", "scores": [{"training": {"recogniser": "cnn"}}]}, "Unknown recogniser 'cnn'. Known:"),
        ({"base": "debug", "features": {"recogniser": "cnn"}}, "features.recogniser is 'cnn', which is unknown."),
        # What the configs themselves refuse.
        ({"base": "debug", "draws": 0}, "draws is 0 and synthetic_per_class is 4; each must be at least 1."),
        ({"base": "debug", "scores": []}, "The recipe has no recogniser in scores; give at least one ScorePlan."),
        ({"base": "debug", "bed": {"shots": 1}}, "bed: shots is 1; a rare class needs at least 2 clips."),
        (
            {"base": "debug", "refine": {"teacher": {"batch": 1}}},
            "refine.teacher: steps is 4 and batch is 1; give at least 1 step of 2 clips.",
        ),
        (
            {"base": "debug", "generator_config": {"loss_weights": {"flow": -1}}},
            "generator_config: loss_weights has {'flow': -1.0}; a weight must be a finite number of at least 0.",
        ),
    ],
)  # fmt: skip
def test_a_wrong_recipe_costs_one_sentence(tmp_path: Path, given: Any, sentence: str) -> None:
    path = written(tmp_path, given)
    with pytest.raises(InputError) as e:
        read_recipe(path)
    assert str(e.value).startswith(f"Recipe file '{path}': {sentence}")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_no_float_can_hold_are_refused(tmp_path: Path, number: str) -> None:
    path = written(tmp_path, f'{{"base": "debug", "features": {{"learning_rate": {number}}}}}')
    with pytest.raises(InputError, match=r"features.learning_rate is .{,70}; it must be a finite number"):
        read_recipe(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    with pytest.raises(
        InputError, match=f"There is no recipe file '{missing}'; give the path of a JSON file."
    ):
        read_recipe(missing)
    torn = written(tmp_path, '{"base": "debug",\n "draws": 2,,\n}')
    with pytest.raises(InputError, match=f"Recipe file '{torn}' is not JSON: .* in line 2, column 13"):
        read_recipe(torn)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for unreadable in (tmp_path, binary, written(tmp_path, "[" * 100_000)):
        with pytest.raises(InputError, match=f"Recipe file '{unreadable}' cannot be read"):
            read_recipe(unreadable)


def test_recipes_that_no_file_can_hold_are_refused() -> None:
    with pytest.raises(InputError, match="generators motion_gan, kinetic_gan and a recipe file holds one"):
        recipe_to_dict(get_recipe("motion_gan,kinetic_gan"))
    with pytest.raises(InputError, match="Unknown base 'nope'"):
        recipe_to_dict(get_recipe("debug"), base="nope")


def test_a_path_stands_wherever_a_name_does(tmp_path: Path) -> None:
    first = written(tmp_path, {"base": "debug", "draws": 1})
    other = written(tmp_path, {"base": "kinetic_gan", "training": {"steps": 5}}, "other.json")
    recipe = get_recipe(f"{first}, {other},skel_diffusion")
    assert recipe.draws == 1 and [r.generator for r in recipe.compared] == ["kinetic_gan", "skel_diffusion"]
    assert recipe.compared[0].training.steps == 5
    with pytest.raises(InputError, match="give recipes of different generators"):
        get_recipe(f"{first},motion_gan")
    with pytest.raises(
        InputError, match="Unknown recipe 'tuned.yaml'.*; or give the path of a recipe file, which"
    ):
        get_recipe("tuned.yaml")
    with pytest.raises(InputError, match="There is no recipe file 'missing.json'"):
        get_recipe("debug,missing.json")


def test_commands_take_a_file(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path / "out")
    folds = [
        Split(name=name, by="subject", train=("01", "02", "03"), test=("04",)) for name in ("fold1", "fold2")
    ]
    header = Header.of(tiny_set, splits=tuple(s.to_dict() for s in folds))
    write_dataset(storage, "data/tiny", tiny_set, header)
    tuned = {
        "base": "debug",
        "draws": 1,
        "bed": {"shots": 4, "seed": 5, "split": "test"},
        "protocols": ["fold1", "fold2"],
    }

    def chosen(**given) -> Recipe:
        path = written(tmp_path, tuned)
        return train.Options(storage=storage.uri, dataset="tiny", recipe=path, **given).chosen(storage)

    recipe = chosen()
    assert (recipe.draws, recipe.bed.shots, recipe.bed.seed) == (1, 4, 5)
    assert recipe.protocols == ("fold1", "fold2")
    # Reading the test half is an act of the command line alone.
    assert recipe.bed.split == "validation" and chosen(split="test").bed.split == "test"
    other = chosen(protocol="fold2", draws=2, shots=3, seed=1)
    assert (other.protocols, other.draws, other.bed.shots, other.bed.seed) == (("fold2",), 2, 3, 1)
    # Where a run lies in storage does not depend on what its recipe is called.
    assert recipe.beds[0].key == "fold1-validation-rare-k4-s5-d0"
