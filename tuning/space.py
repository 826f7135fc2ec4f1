"""What a search varies: derived from the recipe, so that a new loss term is searched by itself.

An axis is named by where it lies in the recipe as `motionsynth.recipe_files` writes it (`training.learning_rate`,
`generator_config.guidance`), with two short forms: `loss_weights.NAME`, and the bare name of a field of
`RecogniserTraining` that concerns synthetic clips (`synthetic_share`), which sets it for every recogniser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from motionsynth.errors import InputError
from motionsynth.recipe_files import recipe_from_dict, recipe_to_dict
from motionsynth.recipes import Recipe
from motionsynth.recognition_config import OF_SYNTHETIC

KINDS = ("weight", "log", "linear", "choice")
DECADE = 10.0
"""A weight is searched from a tenth of its default to ten times it."""
UNUSED = (1e-3, 1.0)
"""Range of a weight whose default is 0."""
ZERO_SHARE = 0.15
"""Share of a weight's axis that means exactly 0: the term switched off. It lies below the smallest weight, where a
model of the axis expects it."""
MIXING: dict[str, tuple[str, float, float]] = {
    "synthetic_share": ("linear", 0.05, 0.5),
    "synthetic_weight": ("linear", 0.1, 1.0),
    "synthetic_decay": ("linear", 0.0, 1.0),
    "real_only_tail": ("linear", 0.0, 0.5),
    "mixup": ("linear", 0.0, 1.0),
}
"""Axes of how a recogniser mixes real and synthetic clips: kind, low, high."""
REFINING: dict[str, tuple[str, float, float]] = {
    "refine.confidence_percentile": ("linear", 0.0, 50.0),
    "refine.plausibility_percentile": ("linear", 80.0, 100.0),
}
"""Axes of how strictly clips are refined."""
PER_CLASS = "synthetic_per_class"
GROUPS = ("weights", "mixing", "refining")
SEARCHABLE = ("loss_weights", "generator_config", "training", "refine", PER_CLASS, *OF_SYNTHETIC)
"""First parts of an axis's name. Draws, shots and the recogniser are the yardstick, and not what is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One setting that the search varies.

    A searcher sees a position in [0, 1] (or the index of a choice); `value` says what stands there.

    Attributes:
        name: See the module.
        kind: `weight` (logarithmic, and exactly 0 on the first `ZERO_SHARE` of the axis), `log`, `linear`, or `choice`.
        default: The recipe's own value.
        low, high: Range; unused by `choice`.
        choices: Values of `choice`.
        whole: Whether values are whole numbers.
    """

    name: str
    kind: str
    default: Any
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()
    whole: bool = False

    def value(self, position: float) -> Any:
        """What stands at a position; the default itself, undamaged by rounding, at the default's."""
        if position == self.position(self.default):
            return self.default
        if self.kind == "choice":
            return self.choices[int(position)]
        u = min(max(float(position), 0.0), 1.0)
        if self.kind == "weight":
            if u < ZERO_SHARE:
                return 0.0
            u = (u - ZERO_SHARE) / (1 - ZERO_SHARE)
        if self.kind == "linear":
            found = self.low + u * (self.high - self.low)
        else:
            found = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return round(found) if self.whole else float(f"{found:.6g}")

    def position(self, value: Any) -> float:
        """Inverse of `value`; the nearest end for one outside of the range."""
        if self.kind == "choice":
            return float(self.choices.index(value) if value in self.choices else 0)
        if self.kind == "weight" and value <= 0:
            return 0.0
        if self.kind == "linear":
            u = (value - self.low) / (self.high - self.low)
        else:
            u = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        u = min(max(u, 0.0), 1.0)
        return ZERO_SHARE + u * (1 - ZERO_SHARE) if self.kind == "weight" else u

    def domain(self) -> Any:
        """For Ray Tune: a position."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(range(len(self.choices))))
        return tune.uniform(0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return json.loads(json.dumps(asdict(self)))


def derive(recipe: Recipe, groups: Sequence[str] = ("weights", "mixing")) -> tuple[Axis, ...]:
    """The axes of a recipe: every loss weight of its generator, and how its clips are mixed with real ones.

    Args:
        recipe: Its generator's config has `loss_weights`.
        groups: Of `GROUPS`.

    Raises:
        InputError: unknown group.
    """
    if unknown := [g for g in groups if g not in GROUPS]:
        raise InputError(f"There is no group of axes '{unknown[0]}'. Known: {', '.join(GROUPS)}.")
    axes: list[Axis] = []
    if "weights" in groups:
        for name, weight in recipe.generator_config.loss_weights.items():
            low, high = (weight / DECADE, weight * DECADE) if weight else UNUSED
            axes.append(
                Axis(name=f"loss_weights.{name}", kind="weight", default=float(weight), low=low, high=high)
            )
    own = recipe_to_dict(recipe)
    ranges: dict[str, tuple[str, float, float]] = {}
    if "mixing" in groups:
        count = recipe.synthetic_per_class
        ranges |= MIXING | {PER_CLASS: ("log", max(1, count // 4), max(2, 2 * count))}
    if "refining" in groups:
        ranges |= REFINING
    for name, (kind, low, high) in ranges.items():
        default = _get(own, name)
        low, high = min(low, default), max(high, default)
        axes.append(Axis(name=name, kind=kind, default=default, low=low, high=high, whole=name == PER_CLASS))
    return tuple(axes)


def varied(recipe: Recipe, axes: Sequence[Axis], given: Mapping[str, str]) -> tuple[tuple[Axis, ...], Recipe]:
    """Axes and recipe with the user's wishes.

    Args:
        recipe: What is searched.
        axes: Those derived.
        given: By name: `LOW:HIGH` searches a range, `A,B,C` (or a JSON list) chooses among values, one value fixes the
            setting and takes it out of the search.

    Raises:
        InputError: the recipe has no such number, or a value or range cannot be used.
    """
    own = recipe_to_dict(recipe)
    kept = {a.name: a for a in axes}
    for name, text in given.items():
        default = _get(own, name)
        before = kept.get(name)
        weight = name.startswith("loss_weights.")
        ends = [_number(name, end) for end in text.split(":")] if ":" in text and "[" not in text else []
        if len(ends) == 2:
            if not ends[0] < ends[1]:
                raise InputError(
                    f"--vary {name} has the range {text}; its first end must be the smaller one."
                )
            if isinstance(default, bool) or not isinstance(default, int | float):
                raise InputError(
                    f"--vary {name}={text}: {default!r} is no number; list its values, as in A,B,C."
                )
            logarithmic = (
                before.kind in ("log", "weight") if before else ends[0] > 0 and ends[1] / ends[0] >= 10
            )
            kind = "weight" if weight else "log" if logarithmic else "linear"
            if kind != "linear" and ends[0] <= 0:
                raise InputError(
                    f"--vary {name} has the range {text}; it is searched logarithmically, so both ends must be above 0"
                    + (" (0, the term switched off, is tried besides)." if weight else ".")
                )
            axis = Axis(
                name=name, kind=kind, default=default, low=ends[0], high=ends[1],
                whole=isinstance(default, int),
            )  # fmt: skip
        else:
            values = _values(name, text, default)
            if len(values) == 1:
                own = _set(own, name, values[0])
                kept.pop(name, None)
                continue
            axis = Axis(name=name, kind="choice", default=default, choices=values)
        kept[name] = axis
        inside = default in axis.choices if axis.choices else axis.low <= default <= axis.high
        if not inside and not (weight and default == 0):
            raise InputError(
                f"--vary {name}={text} leaves out {default!r}, the recipe's own value, which the first trial has and "
                "all others are compared with; include it, or change the recipe."
            )
        for end in axis.choices or (axis.low, axis.high):
            # Both ends must make a recipe: so that no trial fails over what can be known now.
            applied(recipe, {name: round(end) if axis.whole and not axis.choices else end})
    return tuple(kept.values()), recipe_from_dict(own, "--vary")


def applied(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings.

    Raises:
        InputError: there is no such setting, or it cannot take the value.
    """
    own = recipe_to_dict(recipe)
    for name, value in values.items():
        _get(own, name)
        own = _set(own, name, value)
    try:
        return recipe_from_dict(own, "The recipe")
    except InputError as e:
        said = ", ".join(f"{k}={v}" for k, v in values.items())
        raise InputError(f"With {said}: {e}") from None


def setting(recipe: Recipe, name: str) -> Any:
    """A recipe's value at a name. Raises InputError: it has no such setting."""
    return _get(recipe_to_dict(recipe), name)


def _paths(own: Mapping[str, Any], name: str) -> list[tuple[Any, ...]]:
    if name.startswith("loss_weights."):
        return [("generator_config", "loss_weights", name.removeprefix("loss_weights."))]
    if name in OF_SYNTHETIC:
        return [("scores", i, "training", name) for i in range(len(own["scores"]))]
    return [tuple(name.split("."))]


def _get(own: Mapping[str, Any], name: str) -> Any:
    """The value of a setting. Raises InputError: there is none of that name."""
    if name.split(".")[0] not in SEARCHABLE:
        listed = "loss_weights.TERM, generator_config.FIELD, training.FIELD, refine.FIELD, "
        raise InputError(
            f"There is no setting '{name}' to search. Known: {listed}{', '.join((PER_CLASS, *OF_SYNTHETIC))}."
        )
    at: Any = own
    for part in _paths(own, name)[0]:
        if isinstance(part, int) or (isinstance(at, Mapping) and part in at):
            at = at[part]
            continue
        known = ", ".join(str(k) for k in at) if isinstance(at, Mapping) else ""
        if name.startswith("loss_weights."):
            raise InputError(f"The generator '{own['generator']}' has no loss term '{part}'. Known: {known}.")
        raise InputError(f"There is no setting '{name}': no '{part}' among {known or 'single values'}.")
    if isinstance(at, Mapping | list):
        raise InputError(f"'{name}' is no single setting: it holds {', '.join(map(str, at)) or 'nothing'}.")
    return at


def _set(own: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    out = json.loads(json.dumps(own))
    for path in _paths(own, name):
        at = out
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
    return out


def _number(name: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"--vary {name} has the end '{text}'; a range is LOW:HIGH, both finite numbers.")
    return found


def _values(name: str, text: str, default: Any) -> tuple[Any, ...]:
    parts = json.loads(text) if text.startswith("[") else text.split(",")
    values: list[Any] = []
    for part in parts:
        try:
            value = json.loads(part) if isinstance(part, str) else part
        except ValueError:
            value = part
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        values.append(value)
    if not values or len({json.dumps(v) for v in values}) < len(values):
        raise InputError(f"--vary {name} has the values '{text}'; give each once, at least one.")
    return tuple(values)
