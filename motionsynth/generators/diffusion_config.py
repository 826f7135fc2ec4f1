"""Settings of `skel_diffusion`: ours, and the released code's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from motionsynth.errors import InputError, check_ranges
from motionsynth.generators.lenders import LENDERS
from motionsynth.losses import check_weights
from motionsynth.representation_parts import PARTS

TERMS = ("reconstruction", "position", "velocity", "acceleration", "classification")
SOLVERS = ("ddpm", "ddim", "dpm++")
"""See `diffusion.solve`."""
SOURCES = ("code", "interpolated", "transfer", "edit", "label")


def default_weights() -> dict[str, float]:
    """MDM weighs its geometric terms 1 (Tevet et al., ICLR 2023); the others are chosen by hand.

    Accelerations of captured motion are mostly noise that nothing can predict, which must not drown the rest.
    """
    return {
        "reconstruction": 1.0,
        "position": 1.0,
        "velocity": 0.5,
        "acceleration": 0.1,
        "classification": 0.1,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class SkelDiffusionConfig:
    """Sizes, sources and solver.

    Attributes:
        frames: T at which clips are generated; they are resampled to a real clip's length.
        parts: Of the representation (`PARTS`).
        width, layers, heads, encoder_layers, dropout: Of the Transformers.
        code: Numbers of a clip's code: the bottleneck.
        code_noise: Standard deviation of the noise on a code in training, to the code's own 1: the decoder then
            has to be content with codes between those of real clips.
        drop_all, drop_code: Shares of the training clips whose class and code, or whose code alone, is not told.
        times: Times of the noise schedule.
        steps: Network evaluations for a clip made from noise; "edit" takes its share of them. With guidance each is
            one of twice as many clips.
        solver: One of `SOLVERS`.
        guidance: Weight of what conditions change (classifier-free guidance, Ho & Salimans 2022); 1 turns it off.
        sources: What clips are made from, by weight; a clip of a class starts from
            "code": a real clip's code (Dong 2026);
            "interpolated": a code between those of two of its clips;
            "transfer": a real clip's code, changed as the codes of two clips of one common class differ;
            "edit": the same with whole clips: the changed clip is noised up to `edit_start` and cleaned;
            "label": its class alone.
        edit_start: Share of the noise schedule that "edit" walks down.
        lenders: So many common classes, the most similar ones, lend differences to a class; 0: all.
        sampling_dropout: Share of the token entries that are dropped at sampling, in the first
            `dropout_until` of the steps (Dong 2026; inactive in their released code).
        dropout_until: See `sampling_dropout`.
        as_published: The released Transformer: see `PublishedSkelDiffusionConfig`.
        loss_weights: One for each of `TERMS`.
    """

    frames: int = 32
    parts: tuple[str, ...] = ("root", "positions", "velocities")
    width: int = 256
    layers: int = 6
    heads: int = 4
    encoder_layers: int = 4
    dropout: float = 0.0
    code: int = 64
    code_noise: float = 0.3
    drop_all: float = 0.1
    drop_code: float = 0.25
    times: int = 1000
    steps: int = 10
    solver: str = "dpm++"
    guidance: float = 1.5
    sources: Mapping[str, float] = field(default_factory=lambda: {"edit": 1.0})
    edit_start: float = 0.5
    lenders: int = LENDERS
    sampling_dropout: float = 0.0
    dropout_until: float = 0.7
    as_published: bool = False
    loss_weights: Mapping[str, float] = field(default_factory=default_weights)

    def __post_init__(self) -> None:
        some = (1, math.inf)
        check_ranges(
            "skel_diffusion", self,
            frames=(8, math.inf), width=(8, math.inf), layers=some, heads=some, encoder_layers=some, code=some,
            times=(2, math.inf), steps=some, dropout=(0, 0.9), code_noise=(0, 10), drop_all=(0, 1), drop_code=(0, 1),
            guidance=(0, 20), sampling_dropout=(0, 0.9), dropout_until=(0, 1),
            lenders=(0, math.inf),
        )  # fmt: skip
        if self.width % (2 * self.heads):
            raise InputError(
                f"skel_diffusion width is {self.width} for {self.heads} heads; it must be a multiple of "
                f"{2 * self.heads}."
            )
        if self.as_published and self.code % (even := math.lcm(2, self.heads)):
            raise InputError(
                f"skel_diffusion_published code is {self.code} for {self.heads} heads; it must be a multiple of {even}."
            )
        if self.steps > self.times:
            raise InputError(
                f"skel_diffusion steps is {self.steps}; the schedule has {self.times} times: take fewer."
            )
        if self.drop_all + self.drop_code > 1:
            raise InputError(
                f"skel_diffusion drop_all and drop_code add up to {self.drop_all + self.drop_code:g}; at most 1."
            )
        if not 0 < self.edit_start <= 1:
            raise InputError(
                f"skel_diffusion edit_start is {self.edit_start}; it must lie above 0 and at most 1."
            )
        if self.solver not in SOLVERS:
            raise InputError(f"skel_diffusion solver is '{self.solver}'; allowed: {', '.join(SOLVERS)}.")
        # Lists come from JSON.
        object.__setattr__(self, "parts", tuple(self.parts))
        if unknown := [p for p in self.parts if p not in PARTS]:
            raise InputError(f"skel_diffusion parts name '{unknown[0]}'. Known: {', '.join(PARTS)}.")
        if unknown := [s for s in self.sources if s not in SOURCES]:
            raise InputError(f"skel_diffusion sources name '{unknown[0]}'. Known: {', '.join(SOURCES)}.")
        weights = list(self.sources.values())
        if (
            any(not isinstance(w, (int, float)) or not math.isfinite(w) or w < 0 for w in weights)
            or sum(weights) <= 0
        ):
            raise InputError(
                f"skel_diffusion sources are {dict(self.sources)}; give weights of at least 0, not all of them 0."
            )
        check_weights(self.loss_weights, TERMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSkelDiffusionConfig(SkelDiffusionConfig):
    """The released code of Dong 2026, but for its attention across the clips of a batch, which is a mistake.

    48 frames of all 263 numbers, 8 encoder layers of 220, 4 decoder layers of 256 with one token for all conditions, no
    dropout of conditions, no guidance, no geometric terms; its mean-squared error is summed over a batch of 128 and its
    classification is not, hence the weight. Each clip is made from the code of a real one. Ours all the same: DDIM
    with 50 steps where theirs is DDPM with 1,000 (twenty times as dear on a CPU: set `steps` and `solver`).
    """

    frames: int = 48
    parts: tuple[str, ...] = PARTS
    layers: int = 4
    encoder_layers: int = 8
    code: int = 220
    code_noise: float = 0.0
    drop_all: float = 0.0
    drop_code: float = 0.0
    steps: int = 50
    solver: str = "ddim"
    guidance: float = 1.0
    sources: Mapping[str, float] = field(default_factory=lambda: {"code": 1.0})
    as_published: bool = True
    loss_weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "reconstruction": 1.0,
            "position": 0.0,
            "velocity": 0.0,
            "acceleration": 0.0,
            "classification": 1 / 128,
        }
    )
