"""What every generator shares: what it is asked for, what it learns from, and its interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motionsynth.limits import MotionLimits, fit_limits
from motionsynth.motion import (
    Motion,
    MotionSet,
    bone_lengths,
    canonical,
    present,
    repair_jumps,
    resample,
    right_axis,
    rotate_y,
)
from motionsynth.skeleton import Skeleton


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """One wanted clip; its randomness comes from `seed` alone, whatever else is in the batch."""

    sample_id: str
    label: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a generator must know of its training clips; travels in the checkpoint as JSON.

    Attributes:
        dataset, skeleton, class_names, num_persons: As in the `MotionSet`.
        rare: Classes that are short of clips.
        nearest: For each class, the most similar common class (itself if it is common); a rare class's
            embedding starts there.
        similar: For each class, the common classes, the most similar one first (itself, if it is common); () for a
            class without clips, and in checkpoints from before it was kept.
        shapes: For each class, the (num_frames at `fps`, persons ever present) of its real clips; lengths are
            sampled from it.
        clips: For each class, the `sample_id` of its real clips, in the order of `shapes`.
        fps: Frames per second of the dataset.
        bone_mean, bone_std: Log bone lengths over training clips, [V - 1].
        rest: Mean bone direction of person 0 over training clips, [V - 1] of unit xyz.
        turned: For each person, the mean heading over training clips (radians about y; person 0's is near 0): people
            who act on each other face each other, and a body that starts out facing away never learns to turn round.
        scale: Root-mean-square joint distance from the root (metres): the unit the networks work in.
        span: Smallest and largest coordinate of the training clips (metres), as min-max scaling needs it.
        limits: Joint-angle and speed limits fitted to the training clips.
    """

    dataset: str
    skeleton: Skeleton
    class_names: tuple[str, ...]
    num_persons: int
    rare: tuple[int, ...]
    nearest: tuple[int, ...]
    similar: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[tuple[int, int], ...], ...]
    clips: tuple[tuple[str, ...], ...]
    fps: float
    bone_mean: tuple[float, ...]
    bone_std: tuple[float, ...]
    rest: tuple[tuple[float, float, float], ...]
    turned: tuple[float, ...]
    scale: float
    span: tuple[float, float]
    limits: MotionLimits

    @property
    def rests(self) -> np.ndarray:
        """Bone directions of each person standing as they do on average, float32 [M, V - 1, 3]."""
        rest = np.array(self.rest, np.float32)
        return np.stack([rotate_y(rest, angle - self.turned[0]) for angle in self.turned])

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("skeleton", "limits")}
        return plain | {"skeleton": self.skeleton.to_dict(), "limits": self.limits.to_dict()}

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Context:
        """Inverse of `to_dict`."""
        return Context(
            **{
                **d,
                "skeleton": Skeleton.from_dict(d["skeleton"]),
                "limits": MotionLimits.from_dict(d["limits"]),
                "class_names": tuple(d["class_names"]),
                "rare": tuple(d["rare"]),
                "nearest": tuple(d["nearest"]),
                "similar": tuple(tuple(c) for c in d.get("similar", [()] * len(d["nearest"]))),
                "shapes": tuple(tuple((int(t), int(m)) for t, m in c) for c in d["shapes"]),
                "clips": tuple(tuple(c) for c in d["clips"]),
                "span": tuple(d["span"]),
                "turned": tuple(float(a) for a in d["turned"]),
                "bone_mean": tuple(d["bone_mean"]),
                "bone_std": tuple(d["bone_std"]),
                "rest": tuple((float(a), float(b), float(c)) for a, b, c in d["rest"]),
            }
        )


def fit_context(train: MotionSet, rare: Sequence[int] = ()) -> Context:
    """Everything that is fitted to data before training, from training clips only.

    Args:
        train: The training clips of one draw.
        rare: Classes short of clips.
    """
    skeleton = train.skeleton
    clips = [canonical(repair_jumps(m.positions, m.fps), skeleton) for m in train.motions]
    there = [present(c) for c in clips]
    lengths = np.stack(
        [
            np.log(np.median(bone_lengths(c[0][s[0]], skeleton), 0).clip(1e-3))
            for c, s in zip(clips, there, strict=True)
        ]
    )
    spread = [
        np.square(c[0] - c[0][:, skeleton.root, None])[s[0]].sum(-1).mean()
        for c, s in zip(clips, there, strict=True)
    ]
    child, parent = np.array(skeleton.bones).T
    bones = np.mean(
        [(c[0][s[0]][:, child] - c[0][s[0]][:, parent]).mean(0) for c, s in zip(clips, there, strict=True)], 0
    )
    rest = bones / np.linalg.norm(bones, axis=-1, keepdims=True).clip(1e-6)
    poses = np.stack([resample(c[:1], 16).ravel() for c in clips])
    labels = train.labels
    centres = np.stack(
        [
            poses[labels == c].mean(0) if (labels == c).any() else np.full(poses.shape[1], np.inf)
            for c in range(train.num_classes)
        ]
    )
    common = [c for c in range(train.num_classes) if c not in rare and (labels == c).any()]
    similar = tuple(
        _most_similar(c, common, centres) if (labels == c).any() else () for c in range(train.num_classes)
    )
    fps = float(np.median([m.fps for m in train.motions]))
    # Persons who are zeros from end to end are padding (CTR-GCN and NTU files pad to two), not people.
    shapes = tuple(
        tuple(
            (max(2, round(m.num_frames / m.fps * fps)), int(s.any(1).sum()))
            for m, s in zip(train.motions, there, strict=True)
            if m.label == c
        )
        for c in range(train.num_classes)
    )
    return Context(
        dataset=train.dataset,
        skeleton=skeleton,
        class_names=train.class_names,
        num_persons=train.num_persons,
        rare=tuple(int(c) for c in rare),
        nearest=tuple(order[0] if order else c for c, order in enumerate(similar)),
        similar=similar,
        shapes=shapes,
        clips=tuple(
            tuple(m.sample_id for m in train.motions if m.label == c) for c in range(train.num_classes)
        ),
        fps=fps,
        bone_mean=tuple(lengths.mean(0).tolist()),
        bone_std=tuple((lengths.std(0) + 0.01).tolist()),
        rest=tuple((float(a), float(b), float(c)) for a, b, c in rest),
        turned=tuple(_mean_heading(clips, skeleton, m) for m in range(train.num_persons)),
        scale=float(np.sqrt(np.mean(spread))),
        span=(float(min(c.min() for c in clips)), float(max(c.max() for c in clips))),
        limits=fit_limits(train),
    )


def _most_similar(label: int, classes: Sequence[int], centres: np.ndarray) -> tuple[int, ...]:
    """Classes by the distance of their centres, [K, D], from that of one; itself first, if it is among them."""
    apart = np.square(centres[list(classes)] - centres[label]).sum(1)
    return tuple(
        c for _, c in sorted(zip(apart.tolist(), classes, strict=True), key=lambda x: (x[1] != label, x[0]))
    )


def _mean_heading(clips: Sequence[np.ndarray], skeleton: Skeleton, person: int) -> float:
    """Circular mean (radians) of a person's heading over the frames of canonical clips; 0 for who is never there."""
    seen = [c[person][present(c)[person]] for c in clips if len(c) > person]
    right = np.concatenate([right_axis(x, skeleton) for x in seen] + [np.array([[-1e-9, 0, 0]])]).mean(0)
    return float(np.arctan2(right[2], -right[0]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Training clips as a generator sees them: canonical, whole, at a fixed number of frames.

    Attributes:
        x: [B, M, T, V, 3], metres; absent persons zero.
        y: [B], classes.
        seconds: [B], duration of the clip.
    """

    x: Tensor
    y: Tensor
    seconds: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same clips on a device."""
        return Batch(x=self.x.to(device), y=self.y.to(device), seconds=self.seconds.to(device))


class Generator(nn.Module, ABC):
    """A conditional generator of clips.

    A subclass gives `terms` (the names of its loss terms, by optimiser group), `config` with `loss_weights`
    under the same names, `losses` and `sample`.
    """

    terms: Mapping[str, tuple[str, ...]]
    name: str
    fitted: tuple[str, ...] = ()
    """Beginnings of the names in `state_dict` that `finish` fills: what is sampled with, but not trained."""
    sampling: tuple[str, ...] = ()
    """Fields of the config that `sample` alone reads, so that whoever samples a checkpoint may change them."""
    betas: tuple[float, float] = (0.5, 0.99)
    """Of Adam; a first one of a half is the custom of adversarial training."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__()
        self.config = config
        self.context = context
        durations = torch.tensor([t / context.fps for pool in context.shapes for t, _ in pool]).log()
        self.log_seconds = (float(durations.mean()), float(durations.std() + 0.1))

    @property
    def frames(self) -> int:
        """T of the training batches."""
        return self.config.frames

    @abstractmethod
    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        """Unweighted scalar terms of one optimiser group."""

    @abstractmethod
    def parameter_groups(self, stage: int) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by optimiser group, at training stage 1 (all classes) or 2 (rare classes)."""

    def averaged(self) -> list[nn.Parameter]:
        """Parameters of which training keeps an exponential moving average, used for sampling: all but `critic`'s."""
        return [p for name, p in self.named_parameters() if not name.startswith("critic.")]

    def duration(self, seconds_B: Tensor) -> Tensor:
        """Durations as an input of about unit spread over the training clips, [B] -> [B, 1]."""
        centre, spread = self.log_seconds
        return ((seconds_B.log() - centre) / spread)[:, None]

    def every(self, group: str) -> int:
        """Steps from one update of an optimiser group to the next."""
        return 1

    def diagnostics(self) -> dict[str, float]:
        """Figures of the last `losses` call that are worth logging but are no loss terms."""
        return {}

    def attention(self, clips: Batch) -> Tensor | None:
        """Where in time the generator looks while it rebuilds these clips, [B, S] with rows that sum to 1.

        None, the default, for a generator without such attention.
        """
        return None

    def prepare(self, clips: Batch) -> None:
        """Fit what training needs to the training clips, before the first step. Nothing by default.

        Args:
            clips: As for `finish`.
        """

    def finish(self, clips: Batch) -> None:
        """Fit what sampling needs to the training clips, once the weights are final. Nothing by default.

        Args:
            clips: All of them, in the order in which `fit_context` saw them.
        """

    @abstractmethod
    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """One clip for each request, in order."""

    def to_motion(
        self, request: SampleRequest, positions: np.ndarray, parent_id: str | None = None
    ) -> Motion:
        """Wrap positions [M, T, V, 3] (metres) as the synthetic clip that was asked for."""
        c = self.context
        return Motion(
            positions=np.ascontiguousarray(positions, np.float32),
            fps=c.fps,
            skeleton=c.skeleton.name,
            label=request.label,
            label_name=c.class_names[request.label],
            sample_id=request.sample_id,
            dataset=c.dataset,
            source="synthetic",
            parent_id=parent_id,
            generator=self.name,
            seed=request.seed,
        )

    def draw_shape(self, request: SampleRequest, rng: np.random.Generator) -> tuple[int, int]:
        """(num_frames, num_persons) of a random real training clip of the class (any class if it has none)."""
        pool = self.context.shapes[request.label] or sum(self.context.shapes, ())
        return pool[rng.integers(len(pool))]


def request_rng(request: SampleRequest) -> np.random.Generator:
    """The random stream of one request."""
    return np.random.Generator(np.random.Philox(key=int(request.seed) & (2**64 - 1)))


def rigid_resample(positions: np.ndarray, frames: int, skeleton: Skeleton) -> np.ndarray:
    """`motion.resample` for clips whose bones are rigid: between two frames a bone turns instead of shrinking.

    The root's path and the bones' directions are interpolated, each bone keeps its length of the first frame.

    Args:
        positions: float32 [M, T, V, 3], every person present in every frame.
        frames: Frames wanted.
        skeleton: Of the clip.

    Returns:
        float32 [M, frames, V, 3].
    """
    child, parent = np.array(skeleton.bones).T
    length = np.linalg.norm(positions[:, :1, child] - positions[:, :1, parent], axis=-1, keepdims=True)
    line = resample(positions, frames)
    bones = line[:, :, child] - line[:, :, parent]
    bones *= length / np.linalg.norm(bones, axis=-1, keepdims=True).clip(1e-8)
    return (line[:, :, skeleton.root, None] + skeleton.ancestors @ bones).astype(np.float32)


def normal(rngs: Sequence[np.random.Generator], size: int) -> Tensor:
    """Standard normal numbers [B, size], one row from each stream."""
    return torch.from_numpy(np.stack([r.standard_normal(size, np.float32) for r in rngs]))


__all__ = [
    "Batch", "Context", "Generator", "SampleRequest", "fit_context", "normal", "request_rng", "rigid_resample",
]  # fmt: skip
