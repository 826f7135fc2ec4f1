"""Recipes: functions that return a complete configuration. A command picks one and overrides a few fields.

`motionsynth.recipe_files` reads and writes them as JSON.
A debug recipe is a real one with smaller numbers; tests use nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.generators import build_config
from motionsynth.plans import ScorePlan, score_plan
from motionsynth.protocol import RIVAL_ARMS
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.refine_config import RefineConfig
from motionsynth.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that a pipeline run is.

    Attributes:
        generator: Name in `GENERATORS`.
        generator_config: Its config.
        training: Of the generator.
        bed: Protocol, scarcity and shots; draw and split are set by the run.
        protocols: Protocols whose beds are pooled in one table, such as all folds; none: the bed's alone.
        draws: Draws of the rare classes; three rotate through all classes.
        synthetic_per_class: Clips generated for each rare class (for every class where nothing is scarce).
        scores: Recognisers; the first is the fast one.
        full: Also train the generator on all clips, for train-on-synthetic-test-on-real.
        rivals: What needs no generator and is judged beside those that are trained, of `RIVAL_ARMS`; with `adjusted`
            among them each generator's clips are tried with that loss, too.
        features: Recogniser whose features the generated sets are measured in, whoever judges the arms.
        refine: How synthetic clips are refined.
        compared: Recipes of other generators, trained on the same beds and judged in the same table; of these only
            generator, config and training count.
    """

    generator: str = "motion_gan"
    generator_config: Any = field(default_factory=lambda: build_config("motion_gan", {}))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bed: BedSpec = field(default_factory=BedSpec)
    draws: int = 3
    synthetic_per_class: int = 120
    scores: tuple[ScorePlan, ...] = (score_plan("tcn"),)
    full: bool = True
    rivals: tuple[str, ...] = RIVAL_ARMS
    protocols: tuple[str, ...] = ()
    features: RecogniserTraining = field(default_factory=lambda: score_plan("tcn").training)
    refine: RefineConfig = field(default_factory=RefineConfig)
    compared: tuple[Recipe, ...] = ()

    def __post_init__(self) -> None:
        names = [self.generator, *(r.generator for r in self.compared)]
        if len(set(names)) < len(names):
            raise InputError(
                f"The recipes have the generators {', '.join(names)}; give recipes of different generators."
            )
        if not self.scores:
            raise InputError("The recipe has no recogniser in scores; give at least one ScorePlan.")
        if unknown := [r for r in self.rivals if r not in RIVAL_ARMS]:
            raise InputError(f"Unknown rival '{unknown[0]}' in rivals. Known: {', '.join(RIVAL_ARMS)}.")
        if len(set(self.rivals)) < len(self.rivals):
            raise InputError(f"rivals is {', '.join(self.rivals)}; name each rival once.")
        if self.draws < 1 or self.synthetic_per_class < 1:
            raise InputError(
                f"draws is {self.draws} and synthetic_per_class is {self.synthetic_per_class}; each must be at least 1."
            )

    @property
    def each(self) -> tuple[Recipe, ...]:
        """One recipe for each generator, all on the beds of this one."""
        shared = ("bed", "draws", "full", "protocols", "synthetic_per_class", "refine")
        same = {n: getattr(self, n) for n in shared}
        return (replace(self, compared=()), *(replace(r, **same, compared=()) for r in self.compared))

    @property
    def learns(self) -> bool:
        """Whether the generator has loss terms; one without them keeps clips, in one step, and learns nothing."""
        return bool(self.generator_config.loss_weights)

    @property
    def beds(self) -> tuple[BedSpec, ...]:
        """Every bed that the generator is trained on: protocol by protocol, the scarce draws first.

        Where nothing is cut, the bed with all clips holds nothing more and is left out.
        """
        out: list[BedSpec] = []
        for protocol in self.protocols or (self.bed.protocol,):
            bed = replace(self.bed, protocol=protocol, draw=0)
            out += [replace(bed, draw=d) for d in range(self.scarce_draws or bed.scarcity == "full")]
            if bed.cuts and self.full:
                out.append(replace(bed, scarcity="full"))
        return tuple(out)

    @property
    def scarce_draws(self) -> int:
        """Draws with rare classes: none where none is rare, and one where all draws would be the same."""
        if self.bed.scarcity == "full":
            return 0
        return 1 if self.bed.scarcity == "natural" and self.bed.split == "test" else self.draws


def motion_gan() -> Recipe:
    """The rare-action GAN, judged by the fast recogniser (5 seeds) and by Ta-CNN (3 seeds)."""
    return Recipe(scores=(score_plan("tcn"), score_plan("tacnn")))


def motion_gan_fast() -> Recipe:
    """The same, judged by the fast recogniser alone: for sweeps."""
    recipe = motion_gan()
    return replace(recipe, scores=recipe.scores[:1])


def kinetic_gan() -> Recipe:
    """Kinetic-GAN with its faults mended, on the same budget of clips as `motion_gan`."""
    return replace(
        motion_gan(),
        generator="kinetic_gan",
        generator_config=build_config("kinetic_gan", {}),
        training=TrainingConfig(
            steps=2400, rare_steps=0, learning_rate=1e-3, critic_learning_rate=1e-3, precision="bfloat16"
        ),
    )


def _plain(**settings: Any) -> TrainingConfig:
    """How published systems train: one stage, clips as they are, the last weights."""
    return TrainingConfig(
        rare_steps=0, crop=1.0, scale=0.0, mirror=False, average=0.0, precision="bfloat16", **settings
    )


def kinetic_gan_published() -> Recipe:
    """Kinetic-GAN as its code has it (Degardin et al. 2022): Adam 2e-4, five critic steps, no weight average.

    Ours all the same: whole clips resampled to 64 frames instead of their first 64, the rate's cosine decay, Adam's
    second beta of 0.99 instead of 0.999, bfloat16, and as many clips seen as `kinetic_gan` sees.
    """
    return replace(
        kinetic_gan(),
        generator="kinetic_gan_published",
        generator_config=build_config("kinetic_gan_published", {}),
        training=_plain(
            steps=3600, batch=32, learning_rate=2e-4, critic_learning_rate=2e-4, report_every=100
        ),
    )


def kinetic_gan_apart() -> Recipe:
    """The ablation of `kinetic_gan` on data of two persons: one person at a time."""
    return replace(
        kinetic_gan(),
        generator="kinetic_gan_apart",
        generator_config=build_config("kinetic_gan_apart", {}),
    )


def part_mix() -> Recipe:
    """Parts of other people's bodies, without a network: one step, in which nothing is learned."""
    return replace(
        motion_gan(),
        generator="part_mix",
        generator_config=build_config("part_mix", {}),
        training=TrainingConfig(steps=1, rare_steps=0),
    )


def skel_diffusion() -> Recipe:
    """Diffusion on features of 32 frames; what a step costs: `python -m benchmarks.train --bf16`."""
    return replace(
        motion_gan(),
        generator="skel_diffusion",
        generator_config=build_config("skel_diffusion", {}),
        training=TrainingConfig(steps=2400, rare_steps=0, learning_rate=5e-4, precision="bfloat16"),
    )


def skel_diffusion_published() -> Recipe:
    """The released training of Dong 2026: batches of 128 at 1e-4, neither mirrored, scaled nor averaged.

    Ours all the same: Adam without weight decay, the rate's cosine decay in place of steps, bfloat16, whole clips
    resampled to 48 frames instead of crops of 48, and far fewer steps than its thousand passes.
    """
    return replace(
        skel_diffusion(),
        generator="skel_diffusion_published",
        generator_config=build_config("skel_diffusion_published", {}),
        training=_plain(steps=900, batch=128, learning_rate=1e-4, report_every=50),
    )


def demo() -> Recipe:
    """The bundled sample in minutes: small networks, 5 shots, two draws and seeds."""
    return replace(
        motion_gan_fast(),
        generator_config=build_config("motion_gan", {"width": 128, "critic_width": 48}),
        training=TrainingConfig(steps=110, rare_steps=40, report_every=50),
        bed=BedSpec(shots=5),
        draws=2,
        synthetic_per_class=40,
        scores=(ScorePlan(training=RecogniserTraining(steps=80), seeds=2),),
        features=RecogniserTraining(steps=80),
        refine=RefineConfig(folds=3, teacher=RecogniserTraining(steps=80)),
        full=False,
        rivals=("difference",),
    )


def debug() -> Recipe:
    """Seconds: proves that every part runs."""
    return replace(
        demo(),
        generator_config=build_config(
            "motion_gan", {"width": 64, "critic_width": 16, "style": 8, "noise": 4, "action": 8, "frames": 16}
        ),
        training=TrainingConfig(steps=6, rare_steps=2, batch=8, report_every=2),
        bed=BedSpec(shots=3),
        draws=2,
        rivals=RIVAL_ARMS,
        synthetic_per_class=4,
        scores=(ScorePlan(training=RecogniserTraining(steps=4, batch=8), seeds=1),),
        features=RecogniserTraining(steps=4, batch=8),
        refine=RefineConfig(folds=2, teacher=RecogniserTraining(steps=4, batch=8)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "motion_gan": motion_gan,
    "motion_gan_fast": motion_gan_fast,
    "kinetic_gan": kinetic_gan,
    "kinetic_gan_published": kinetic_gan_published,
    "kinetic_gan_apart": kinetic_gan_apart,
    "part_mix": part_mix,
    "skel_diffusion": skel_diffusion,
    "skel_diffusion_published": skel_diffusion_published,
    "demo": demo,
    "debug": debug,
}


def get_recipe(name: str) -> Recipe:
    """A recipe by name or from a file, or several joined by commas: the first with the others as `compared`.

    Args:
        name: In `RECIPES`, or the path of a JSON file (see `motionsynth.recipe_files`), which ends in .json.

    Raises:
        InputError: unknown name, a file that is no recipe, or two recipes of one generator.
    """
    from motionsynth.recipe_files import read_recipe  # it imports this module

    names = [n.strip() for n in name.split(",")]
    if unknown := [n for n in names if n not in RECIPES and not n.endswith(".json")]:
        raise InputError(
            f"Unknown recipe '{unknown[0]}'. Known: {', '.join(sorted(RECIPES))}; or give the path of a recipe file, "
            "which ends in .json."
        )
    first, *others = (RECIPES[n]() if n in RECIPES else read_recipe(n) for n in names)
    return replace(first, compared=tuple(others)) if others else first


def with_clips_seen(recipe: Recipe, clips: int) -> Recipe:
    """The recipe, and all that it is compared with, on a budget of training clips seen; the stages keep their shares.

    A generator that learns nothing keeps its one step.

    Raises:
        InputError: not even one batch.
    """

    def limited(one: Recipe) -> Recipe:
        plan = one.training
        if not one.learns:
            return one
        if clips < plan.batch:
            raise InputError(
                f"The budget of clips seen is {clips}; {one.generator} needs at least one batch of {plan.batch}."
            )
        steps = round(clips / plan.batch)
        rare = round(steps * plan.rare_steps / (plan.steps + plan.rare_steps))
        return replace(one, training=replace(plan, steps=max(1, steps - rare), rare_steps=rare))

    return replace(limited(recipe), compared=tuple(limited(r) for r in recipe.compared))
