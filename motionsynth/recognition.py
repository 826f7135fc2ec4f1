"""Training and running a recogniser on real clips, alone or mixed with synthetic ones.

One function for every arm of the protocol: the same steps, batch size, optimiser and augmentation; only the
clips differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from motionsynth.augment import augment, whole
from motionsynth.errors import InputError
from motionsynth.motion import MotionSet, canonical, mirrored_labels, repair_jumps, resample
from motionsynth.precision import autocast
from motionsynth.recognisers import Recogniser, RecogniserInfo, build_recogniser
from motionsynth.recognition_config import RecogniserTraining

PLATEAU_STEPS = 50
"""Steps whose mean loss the schedule "plateau" watches."""
PLATEAU_PATIENCE = 5
"""So many such means in a row without a better one: then the rate falls to a tenth."""
STORED_FRAMES = 64
"""Frames at which whole clips are held in memory; crops and warps interpolate between them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipTensors:
    """Clips ready for a recogniser: canonical, resampled, persons padded with zeros.

    Attributes:
        x: float32 [N, M, STORED_FRAMES, V, 3].
        y: int64 [N].
    """

    x: Tensor
    y: Tensor

    def select(self, indices: np.ndarray) -> ClipTensors:
        """The clips at these positions."""
        at = torch.as_tensor(indices)
        return ClipTensors(x=self.x[at], y=self.y[at])


def to_tensors(motions: MotionSet, num_persons: int) -> ClipTensors:
    """Canonical clips at `STORED_FRAMES` frames, with exactly `num_persons` persons (zero-filled)."""
    v = motions.skeleton.num_joints
    x = np.zeros((len(motions), num_persons, STORED_FRAMES, v, 3), np.float32)
    for i, m in enumerate(motions.motions):
        p = canonical(repair_jumps(m.positions[:num_persons], m.fps), motions.skeleton)
        x[i, : p.shape[0]] = resample(p, STORED_FRAMES)
    return ClipTensors(x=torch.from_numpy(x), y=torch.from_numpy(motions.labels))


def _draw(by_class: list[np.ndarray], classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One clip position for each wanted class, uniform within the class."""
    u = rng.random(len(classes))
    return np.array([by_class[c][int(r * len(by_class[c]))] for c, r in zip(classes, u, strict=True)])


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Clips of a batch with others mixed into them: x [B, M, T, V, 3]; the others' labels and shares, [B]."""

    x: Tensor
    y: Tensor
    share: Tensor


def blended(x: Tensor, y: Tensor, fakes: int, alpha: float, rng: np.random.Generator) -> Blend | None:
    """Mixup of every synthetic clip of a batch, its last `fakes`, with a real one; None where there is none to do.

    A person whom either clip lacks stays as they are: halfway to zero lies a body that nobody ever had.
    """
    real = len(y) - fakes
    if not alpha or not real or not fakes:
        return None
    share = torch.zeros(len(y))
    share[real:] = torch.from_numpy(rng.beta(alpha, alpha, fakes)).float()
    other = torch.arange(len(y))
    other[real:] = torch.from_numpy(rng.integers(real, size=fakes))
    there = ((x != 0) & (x[other] != 0)).flatten(3).any(-1)[..., None, None]
    return Blend(torch.where(there, x.lerp(x[other], share.view(-1, 1, 1, 1, 1)), x), y[other], share)


def clip_weights(config: RecogniserTraining, step: int, fakes: int) -> Tensor:
    """Weights of the clips of a batch, [batch]; its last `fakes` are synthetic."""
    weights = torch.ones(config.batch)
    decayed = 1 - config.synthetic_decay * step / max(1, config.steps - 1)
    weights[config.batch - fakes :] = config.synthetic_weight * decayed
    return weights


def _by_class(y: Tensor, num_classes: int) -> list[np.ndarray]:
    labels = y.numpy()
    return [np.flatnonzero(labels == c) for c in range(num_classes)]


def make_optimiser(parameters: Iterable[Tensor], config: RecogniserTraining) -> torch.optim.Optimizer:
    """The optimiser that `config` names."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=decay)


def make_schedule(optimiser: torch.optim.Optimizer, config: RecogniserTraining) -> Callable[[Tensor], None]:
    """What sets the learning rate: to be called after every step with its loss (a scalar)."""
    schedulers = torch.optim.lr_scheduler
    if config.schedule == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimiser, factor=0.1, patience=PLATEAU_PATIENCE)
        losses: list[float] = []

        def watch(loss: Tensor) -> None:
            losses.append(loss.item())
            if len(losses) == PLATEAU_STEPS:
                plateau.step(fmean(losses))
                losses.clear()

        return watch
    if config.schedule == "constant":
        return lambda loss: None
    if config.schedule == "cosine":
        schedule = schedulers.CosineAnnealingLR(optimiser, T_max=config.steps)
    else:
        schedule = schedulers.OneCycleLR(
            optimiser, config.learning_rate, total_steps=config.steps + 1, pct_start=0.15
        )
    return lambda loss: schedule.step()


def train_recogniser(
    real: ClipTensors,
    info: RecogniserInfo,
    class_names: tuple[str, ...],
    config: RecogniserTraining,
    seed: int,
    synthetic: ClipTensors | None = None,
    adjusted: bool = False,
    device: str = "cpu",
) -> Recogniser:
    """Train on class-balanced batches for `config.steps` steps, whatever the number of clips.

    Args:
        real: Real training clips.
        info: Skeleton, number of classes and persons.
        class_names: For the left/right classes that mirroring swaps.
        config: See `RecogniserTraining`.
        seed: Decides initial weights, batches and augmentation.
        synthetic: Synthetic clips to mix in, or None.
        adjusted: In place of balanced batches, draw each class as often as it has real clips, and train by the
            logit-adjusted loss (Menon et al., ICLR 2021, eq. 10, tau = 1).
        device: Where the network computes. Its first weights, batches and augmentation are the same on every one, as
            they are made on the CPU.

    Returns:
        The trained network on its device, in evaluation mode (the weight average if `config.average` is above 0).

    Raises:
        InputError: fewer than two classes have a clip.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    draw = np.random.default_rng(seed)
    model = build_recogniser(config.recogniser, info).to(device)
    frames = model.frames
    k = info.num_classes
    real_at = _by_class(real.y, k)
    fake_at = _by_class(synthetic.y, k) if synthetic is not None else [np.zeros(0, int)] * k
    usable = np.array([c for c in range(k) if len(real_at[c]) or len(fake_at[c])])
    if len(usable) < 2:
        raise InputError(
            f"Only {len(usable)} of {k} classes has a training clip; a recogniser needs at least 2."
        )
    permutation = torch.from_numpy(info.skeleton.mirror_permutation)
    twin = torch.from_numpy(mirrored_labels(class_names))
    optimiser = make_optimiser(model.parameters(), config)
    after_step = make_schedule(optimiser, config)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=True
    )
    have_fake = np.array([len(f) > 0 for f in fake_at])
    have_real = np.array([len(r) > 0 for r in real_at])
    shares, log_prior = _priors(real_at, fake_at, usable) if adjusted else (None, torch.zeros(k))
    log_prior, kind = log_prior.to(device), torch.device(device).type
    model.train()
    for step in range(config.steps):
        classes = draw.choice(usable, config.batch, p=shares)
        mixing = step < config.steps * (1 - config.real_only_tail)
        want_fake = have_fake[classes] & (draw.random(config.batch) < config.synthetic_share) & mixing
        want_fake |= ~have_real[classes]
        parts = []
        if (~want_fake).any():
            parts.append(real.select(_draw(real_at, classes[~want_fake], draw)))
        if synthetic is not None and want_fake.any():
            parts.append(synthetic.select(_draw(fake_at, classes[want_fake], draw)))
        x = torch.cat([p.x for p in parts])
        x, y = augment(x, torch.cat([p.y for p in parts]), frames, config.augment, rng, permutation, twin)
        fakes = int(want_fake.sum())
        blend = blended(x, y, fakes, config.mixup, draw)
        weights = clip_weights(config, step, fakes).to(device)
        with autocast(config.precision, kind):
            features = model.features((x if blend is None else blend.x).to(device))
            losses = model.losses(features, y.to(device), config.label_smoothing, log_prior)
            if blend is not None:
                others = model.losses(features, blend.y.to(device), config.label_smoothing, log_prior)
                losses = losses.lerp(others, blend.share.to(device))
        loss = (losses * weights).sum() / weights.sum().clamp_min(1e-6)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        after_step(loss)
        if step >= config.steps // 2:
            # Before that the weights still travel far, and a short training's average would hold its random start.
            average.update_parameters(model)
    if config.average > 0:
        model.load_state_dict(average.module.state_dict())
    return model.eval()


def _priors(
    real_at: list[np.ndarray], fake_at: list[np.ndarray], usable: np.ndarray
) -> tuple[np.ndarray, Tensor]:
    """The share of the clips of each usable class, and its log for all K, the smallest for those without a clip."""
    sizes = np.array([len(real_at[c]) or len(fake_at[c]) for c in usable])
    shares = sizes / sizes.sum()
    log_prior = torch.full((len(real_at),), float(np.log(shares.min())))
    log_prior[usable] = torch.from_numpy(np.log(shares)).float()
    return shares, log_prior


@torch.no_grad()
def predict(model: Recogniser, clips: ClipTensors, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [N, K] and penultimate features [N, F] of whole clips, computed where the network lies."""
    probabilities, features = [], []
    device = model.head.weight.device
    for at in range(0, len(clips.y), batch):
        f = model.features(whole(clips.x[at : at + batch], model.frames).to(device))
        probabilities.append(model.classify(f).softmax(-1).cpu())
        features.append(f.cpu())
    return torch.cat(probabilities).numpy(), torch.cat(features).numpy()
