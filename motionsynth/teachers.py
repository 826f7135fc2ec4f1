"""Cross-fitted teachers: recognisers of which each has never seen one fold of the real training clips.

What a recogniser says about a clip that it was trained on tells nothing. So the clips are cut into folds, one teacher
is trained on all but each fold, and whatever belongs to a fold, real clips and synthetic clips made from them, is
judged by the teacher of that fold.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motionsynth.errors import InputError
from motionsynth.metrics_diversity import nearest_distance, standardise
from motionsynth.motion import Motion, MotionSet
from motionsynth.recognisers import Recogniser, RecogniserInfo
from motionsynth.recognition import predict, to_tensors, train_recogniser
from motionsynth.recognition_config import RecogniserTraining


def take(motion: Motion) -> tuple[str, ...]:
    """What all copies of one performance share: subject and repetition, else the clip's own name."""
    return (motion.subject, motion.repetition) if motion.repetition else (motion.sample_id,)


def fold_clips(motions: MotionSet, folds: int, seed: int) -> np.ndarray:
    """Cut clips into folds so that what looks alike stays together and no fold holds all of a class.

    The clips of one subject stay together. Where a class shows a single subject, its takes (all cameras and mirrored
    copies of one performance) do; where it shows a single take, each clip is for itself. Classes are spread evenly over
    folds, the rarest counting as much as the commonest. Should a class of two clips still lie in one fold, every clip
    of the set is for itself.

    Args:
        motions: Clips.
        folds: How many; fewer where there are fewer groups.
        seed: Of the order among groups of equal weight.

    Returns:
        int64 [N], fold of each clip, counted from 0; every class of two clips or more is in at least two folds.

    Raises:
        InputError: fewer than two clips or folds.
    """
    if min(len(motions), folds) < 2:
        raise InputError(
            f"Cross-fitting was asked for {folds} folds of the {len(motions)} training clips of '{motions.dataset}'; "
            "it needs at least 2 of each."
        )
    labels = motions.labels
    alone = [m.sample_id for m in motions.motions]
    fold = _spread(_groups(motions), labels, folds, seed)
    if any((labels == c).sum() > 1 and len(set(fold[labels == c])) < 2 for c in np.unique(labels)):
        fold = _spread(alone, labels, folds, seed)
    return fold


def _groups(motions: MotionSet) -> list[Hashable]:
    """Name of the group of each clip; the widest kind that does not hold all of the clip's class."""
    kinds = [[("subject", m.subject), ("take", *take(m)), ("clip", m.sample_id)] for m in motions.motions]
    names: dict[int, list[set[Hashable]]] = {}
    for m, mine in zip(motions.motions, kinds, strict=True):
        for seen, name in zip(names.setdefault(m.label, [set(), set(), set()]), mine, strict=True):
            seen.add(name)
    kind = {c: next((k for k in (0, 1) if len(seen[k]) > 1), 2) for c, seen in names.items()}
    return [mine[kind[m.label]] for m, mine in zip(motions.motions, kinds, strict=True)]


def _spread(groups: Sequence[Hashable], labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Groups into folds, the weightiest first, each where its classes are scarcest."""
    names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    at = np.array([names[g] for g in groups])
    share = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(share, (at, labels), 1.0)
    share /= np.maximum(share.sum(0), 1)
    order = np.random.default_rng([seed, 0xF01D]).permutation(len(names))
    have = np.zeros((min(folds, len(names)), share.shape[1]))
    fold_of = np.zeros(len(names), np.int64)
    for g in sorted(order, key=lambda g: -share[g].sum()):
        # What placing the group adds to the sum of squared shares: least where its classes are scarcest.
        fold = int(np.lexsort((have.sum(1), (have * share[g]).sum(1).round(9)))[0])
        fold_of[g] = fold
        have[fold] += share[g]
    return np.unique(fold_of, return_inverse=True)[1][at]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What the teachers that may judge a clip say about it.

    Attributes:
        confidence: Mean probability of the clip's own class, in [0, 1].
        named: The class of the highest mean probability.
        distance: Mean distance to the nearest real clip of the clip's class; standardised features, so that two
            unrelated real clips are about sqrt(2) apart in every teacher's space.
    """

    confidence: float
    named: int
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """What the teachers say about the real clips that they never saw, an array for each class.

    Attributes:
        confidence: Probability of the class, of its clips whose teacher knows the class.
        named: bool, of the same clips: whether the class has the highest probability.
        take_away: Distance to the nearest clip of the class in another take, of its clips that have one. Other cameras
            and mirrored copies of a take are too near to tell anything.
        fold_away: The same to clips in other folds, so of other people where folds hold people.
    """

    confidence: list[np.ndarray]
    named: list[np.ndarray]
    take_away: list[np.ndarray]
    fold_away: list[np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Teachers:
    """F teachers, and the N real training clips as each of them sees them.

    Attributes:
        train: The clips.
        labels: int64 [N].
        fold: int64 [N]; teacher f never saw the clips of fold f.
        models: F recognisers.
        probabilities: [F][N, K].
        features: [F][N, d], raw.
    """

    train: MotionSet
    labels: np.ndarray
    fold: np.ndarray
    models: tuple[Recogniser, ...]
    probabilities: tuple[np.ndarray, ...]
    features: tuple[np.ndarray, ...]

    def knows(self, fold: int, label: int) -> bool:
        """Whether teacher `fold` was trained on a clip of the class."""
        return bool(((self.fold != fold) & (self.labels == label)).any())

    def judges(self, motions: Sequence[Motion]) -> list[list[int]]:
        """The teachers that may judge each synthetic clip.

        Of the teachers that know its class, those that saw fewest of the clips named in `parent_id`: for one source
        the teacher of its fold, without a source all of them. Of sources in different folds every teacher saw some;
        those that saw fewest judge. A class with a single clip is unknown to that clip's teacher; the others judge,
        though they saw it.

        Raises:
            InputError: a source is not among the training clips, or no training clip shows the class.
        """
        out = []
        for motion, parents in zip(motions, sources(motions, self.train), strict=True):
            known = [f for f in range(len(self.models)) if self.knows(f, motion.label)]
            if not known:
                raise InputError(
                    f"Clip '{motion.sample_id}' shows class '{motion.label_name}', which no training clip shows, so "
                    "nobody can judge it; refine clips of the classes that were trained on."
                )
            seen = [sum(self.fold[i] != f for i in parents) for f in known]
            out.append([f for f, n in zip(known, seen, strict=True) if n == min(seen)])
        return out

    def opinions(self, motions: Sequence[Motion]) -> list[Opinion]:
        """Of each synthetic clip; independent of the others, bit for bit.

        Raises:
            InputError: see `judges`.
        """
        clips = to_tensors(replace(self.train, motions=tuple(motions)), self.train.num_persons)
        judges = self.judges(motions)
        heard: list[list[tuple[np.ndarray, float]]] = [[] for _ in motions]
        for f, model in enumerate(self.models):
            mine = np.array([i for i, js in enumerate(judges) if f in js], int)
            if not len(mine):
                continue
            # One at a time: the last bits of a product depend on how many clips are multiplied at once.
            probabilities, features = predict(model, clips.select(mine), batch=1)
            space = standardise(self.features[f], self.features[f])
            made = standardise(features, self.features[f])
            for i, p, x in zip(mine, probabilities, made, strict=True):
                same = space[self.labels == motions[i].label]
                heard[i].append((p, float(nearest_distance(x[None], same)[0])))
        out = []
        for m, views in zip(motions, heard, strict=True):
            mean = np.mean([p for p, _ in views], axis=0)
            out.append(
                Opinion(
                    confidence=float(mean[m.label]),
                    named=int(mean.argmax()),
                    distance=float(np.mean([d for _, d in views])),
                )
            )
        return out

    def held_out(self) -> HeldOut:
        """What every real clip's own teacher, which never saw it, says; the yardstick of `opinions`."""
        labels, takes = self.labels, [take(m) for m in self.train.motions]
        spaces = [standardise(x, x) for x in self.features]
        confidence, named, take_away, fold_away = [], [], [], []
        for c in range(self.train.num_classes):
            mine = np.flatnonzero(labels == c)
            judged = [
                (i, self.probabilities[self.fold[i]][i]) for i in mine if self.knows(int(self.fold[i]), c)
            ]
            confidence.append(np.array([p[c] for _, p in judged], float))
            named.append(np.array([p.argmax() == c for _, p in judged], bool))
            own: tuple[list[float], list[float]] = ([], [])
            for i in mine:
                space = spaces[self.fold[i]]
                others = [j for j in mine if takes[j] != takes[i]]
                strangers = [j for j in others if self.fold[j] != self.fold[i]]
                for distances, reference in zip(own, (others, strangers), strict=True):
                    if reference:
                        distances.append(nearest_distance(space[i][None], space[reference])[0])
            take_away.append(np.array(own[0], float))
            fold_away.append(np.array(own[1], float))
        return HeldOut(confidence=confidence, named=named, take_away=take_away, fold_away=fold_away)

    def embed(self, motions: Sequence[Motion] | None = None) -> np.ndarray:
        """One space for all clips: the standardised features of all teachers side by side, [N, F * d].

        Args:
            motions: Clips; None: the real training clips.
        """
        if motions is None:
            return np.concatenate([standardise(x, x) for x in self.features], axis=1)
        clips = to_tensors(replace(self.train, motions=tuple(motions)), self.train.num_persons)
        return np.concatenate(
            [
                standardise(predict(m, clips, 1)[1], x)
                for m, x in zip(self.models, self.features, strict=True)
            ],
            axis=1,
        )


def sources(motions: Sequence[Motion], train: MotionSet) -> list[list[int]]:
    """Positions in `train` of the clips that each `parent_id` names, joined by "+"; none where it is None.

    Raises:
        InputError: one of them is not there.
    """
    at = {m.sample_id: i for i, m in enumerate(train.motions)}
    out = []
    for m in motions:
        names = [] if m.parent_id is None else [m.parent_id] if m.parent_id in at else m.parent_id.split("+")
        if lost := [n for n in names if n not in at]:
            raise InputError(
                f"Clip '{m.sample_id}' was made from '{lost[0]}', which is not among the {len(train)} training clips; "
                "refine it with the training clips of its own generator."
            )
        out.append([at[n] for n in names])
    return out


def fit_teachers(train: MotionSet, folds: int, training: RecogniserTraining, seed: int) -> Teachers:
    """Train one teacher per fold.

    Args:
        train: Real training clips, nobody else's.
        folds: See `fold_clips`.
        training: Of each teacher.
        seed: Of folds, weights and batches.

    Raises:
        InputError: fewer than two clips, or a fold without which fewer than two classes are left.
    """
    fold = fold_clips(train, folds, seed)
    info = RecogniserInfo(
        skeleton=train.skeleton, num_classes=train.num_classes, num_persons=train.num_persons
    )
    clips = to_tensors(train, train.num_persons)
    models = [
        train_recogniser(clips.select(np.flatnonzero(fold != f)), info, train.class_names, training, seed + f)
        for f in range(int(fold.max()) + 1)
    ]
    seen = [predict(model, clips) for model in models]
    return Teachers(
        train=train,
        labels=train.labels,
        fold=fold,
        models=tuple(models),
        probabilities=tuple(p for p, _ in seen),
        features=tuple(x for _, x in seen),
    )
