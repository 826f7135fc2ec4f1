"""Recipes as JSON files: the name of a recipe to start from, and the fields that differ.

    {"base": "motion_gan", "draws": 2, "generator_config": {"width": 128, "loss_weights": {"flow": 2.0}}}

Of nested objects and of `loss_weights`, too, only what differs need be given. Lists and other mappings, such as the
`sources` of `skel_diffusion`, are taken whole. An entry of `scores` names its `training.recogniser` and starts from the
base's plan for it, or from `score_plan` where the base has none. With another `generator` than the base's,
`generator_config` starts from that generator's defaults.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from motionsynth.errors import InputError
from motionsynth.generators import build_config
from motionsynth.plans import ScorePlan, score_plan
from motionsynth.recipes import RECIPES, Recipe
from motionsynth.recognisers import RECOGNISERS
from motionsynth.recognition_config import RecogniserTraining

_ALLOWED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


def recipe_to_dict(recipe: Recipe, base: str = "motion_gan") -> dict[str, Any]:
    """All of a recipe as plain values for JSON, so that no later change of a default changes it.

    Args:
        recipe: Of one generator.
        base: Written with it; decides only what fields are that the code does not have yet.

    Raises:
        InputError: the recipe is compared with others, or the base is unknown.
    """
    if recipe.compared:
        names = ", ".join(r.generator for r in recipe.each)
        raise InputError(
            f"The recipe has the generators {names} and a recipe file holds one; write one file for each and join "
            "their paths by commas."
        )
    _recipe_named(base)
    return {"base": base} | {n: _plain(getattr(recipe, n)) for n in _names(recipe)}


def recipe_from_dict(given: Any, where: str) -> Recipe:
    """The inverse of `recipe_to_dict`, also of a dict that has only some of the fields.

    Args:
        given: As JSON was read.
        where: Said first in every message, such as the file's path.

    Raises:
        InputError: not an object, an unknown base, field or recogniser, a value of another type, or one that the
            configs refuse.
    """
    try:
        return _recipe(given)
    except InputError as e:
        raise InputError(f"{where}: {e}") from None


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a JSON file.

    Raises:
        InputError: the file cannot be read, is not JSON, or as in `recipe_from_dict`.
    """
    where = f"Recipe file '{path}'"
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe file '{path}'; give the path of a JSON file.") from None
    except json.JSONDecodeError as e:
        raise InputError(f"{where} is not JSON: {e.msg} in line {e.lineno}, column {e.colno}.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{where} cannot be read ({e}); give a JSON file in UTF-8.") from None
    return recipe_from_dict(given, where)


def _recipe(given: Any) -> Recipe:
    values = dict(_object(given, "the recipe"))
    if "base" not in values:
        raise InputError(f"there is no base; name the recipe to start from: {', '.join(sorted(RECIPES))}.")
    base = _recipe_named(_read(values.pop("base"), str, None, "base"))
    generator = _read(values.get("generator", base.generator), str, None, "generator")
    if generator != base.generator:
        base = replace(base, generator=generator, generator_config=build_config(generator, {}))
    if "scores" in values:
        plans = enumerate(_list(values.pop("scores"), "scores"))
        base = replace(base, scores=tuple(_plan(p, base, f"scores[{i}]") for i, p in plans))
    return _changed(base, values, "")


def _recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise InputError(f"Unknown base '{name}'. Known: {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]()


def _plan(given: Any, base: Recipe, at: str) -> ScorePlan:
    """An entry of `scores`."""
    training = _object(_object(given, at).get("training", {}), f"{at}.training")
    if "recogniser" not in training:
        raise InputError(
            f"{at} has no training.recogniser; name the one whose plan it starts from: "
            f"{', '.join(sorted(RECOGNISERS))}."
        )
    name = _read(training["recogniser"], str, None, f"{at}.training.recogniser")
    mine = [p for p in base.scores if p.training.recogniser == name]
    return _changed(mine[0] if mine else score_plan(name), given, at)


def _changed(config: Any, given: Any, at: str) -> Any:
    """A dataclass with the given fields changed.

    Args:
        config: The dataclass; its own checks see the new values.
        given: By field, as JSON was read.
        at: Dotted path of the dataclass in the recipe; "" for the recipe itself.
    """
    _refuse_unknown(_object(given, at), _names(config), at)
    hints = get_type_hints(type(config))
    values = {n: _read(v, hints[n], getattr(config, n), _under(at, n)) for n, v in given.items()}
    try:
        out = replace(config, **values)
    except InputError as e:
        raise InputError(f"{at}: {e}" if at else str(e)) from None
    if isinstance(out, RecogniserTraining) and out.recogniser not in RECOGNISERS:
        raise InputError(
            f"{at}.recogniser is '{out.recogniser}', which is unknown. Known: {', '.join(sorted(RECOGNISERS))}."
        )
    return out


def _read(given: Any, hint: Any, now: Any, at: str) -> Any:
    """A field's value.

    Args:
        given: As JSON was read.
        hint: Type of the field.
        now: Its value in the base; counts for dataclasses and loss weights alone.
        at: Its dotted path.
    """
    if is_dataclass(now):
        return _changed(now, given, at)
    parts = get_args(hint)
    if NoneType in parts:
        return None if given is None else _read(given, next(p for p in parts if p is not NoneType), now, at)
    if get_origin(hint) is Mapping:
        values = {k: _read(v, parts[1], None, _under(at, k)) for k, v in _object(given, at).items()}
        if not at.endswith("loss_weights"):
            return values
        _refuse_unknown(values, now, at)
        return {**now, **values}
    if get_origin(hint) is tuple:
        values = _list(given, at)
        kinds = parts[:1] * len(values) if parts[-1] is Ellipsis else parts
        if len(values) != len(kinds):
            raise InputError(f"{at} is {_shown(given)}; it must have {len(kinds)} entries.")
        return tuple(
            _read(v, k, None, f"{at}[{i}]") for i, (v, k) in enumerate(zip(values, kinds, strict=True))
        )
    kinds = (int, float) if hint is float else (hint,)
    fits = isinstance(given, kinds) and isinstance(given, bool) is (hint is bool)
    # Also refuses NaN, and whole numbers that no float can hold.
    if not fits or (hint is float and not abs(given) <= sys.float_info.max):
        raise InputError(f"{at} is {_shown(given)}; it must be {_ALLOWED[hint]}.")
    return hint(given)


def _refuse_unknown(given: Iterable[str], known: Iterable[str], at: str) -> None:
    known = list(known)
    if unknown := [n for n in given if n not in known]:
        raise InputError(f"there is no field '{_under(at, unknown[0])}'. Known: {', '.join(known)}.")


def _object(given: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{at} is {_shown(given)}; it must be an object of fields and values, in braces.")
    return given


def _list(given: Any, at: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise InputError(f"{at} is {_shown(given)}; it must be a list, in square brackets.")
    return given


def _names(config: Any) -> list[str]:
    """The fields that a file may have."""
    return [f.name for f in fields(config) if f.name != "compared"]


def _under(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _shown(given: Any) -> str:
    """A wrong value as its file has it."""
    text = json.dumps(given)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
