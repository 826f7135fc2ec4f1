"""Hybrid datasets: real and synthetic clips in one dataset, at given counts (Islamgozhayev et al. 2024).

The paper adds 500 synthetic clips per class and splits them 80/10/10 like the real ones, so that synthetic clips, and
real people whom the generator has copied, also judge. Mended here: synthetic clips are trained on and nothing else, and
no clip is taken whose generator saw a clip that the split holds out. The published composition is a choice,
`as_published`, which the dataset carries and every score of it repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, present
from motionsynth.splits import Split

SPLITS = ("official", "80/10/10")
PEOPLE = "80_10_10"
"""Name of the split 80/10/10 by people."""
PUBLISHED = "as_published"
"""Name of the split of all clips at random."""
HELD_OUT = 0.1
"""Share of the clips in validation, and again in test."""
PUBLISHED_NOTE = (
    "As published (Islamgozhayev et al. 2024): real and synthetic clips are pooled and split 80/10/10 at random, so "
    "synthetic clips and people of the training side also judge; the scores say nothing about unseen people."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What a generator was trained on.

    Attributes:
        clips: `sample_id` of its real training clips.
        bed: Key of its bed; "" where it was trained elsewhere.
    """

    clips: frozenset[str]
    bed: str = ""

    @staticmethod
    def of(config: Mapping[str, Any]) -> Provenance:
        """Read a checkpoint's config.

        Raises:
            InputError: the checkpoint does not tell its clips.
        """
        clips = frozenset(str(i) for c in config.get("context", {}).get("clips", ()) for i in c)
        if not clips:
            raise InputError(
                "The generator's checkpoint does not tell which clips it was trained on, so nobody knows whom its "
                "clips show; train it again with this version."
            )
        return Provenance(clips=clips, bed=BedSpec(**config["bed"]).key if config.get("bed") else "")

    def people(self, real: MotionSet) -> frozenset[str]:
        """Subjects of the training clips.

        Raises:
            InputError: `real` lacks some of them, so it is another dataset.
        """
        subject = {m.sample_id: m.subject for m in real.motions}
        if lost := sorted(self.clips - set(subject)):
            raise InputError(
                f"The generator was trained on {len(lost)} clips that dataset '{real.dataset}' does not hold "
                f"({', '.join(lost[:3])}); compose with the dataset on which it was trained."
            )
        return frozenset(subject[i] for i in self.clips)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hybrid:
    """A composed dataset.

    Attributes:
        motions: Real clips, then synthetic ones.
        splits: Those that hold nothing out which the generator saw; the one asked for comes first.
        left_out: Names of the official splits for which that is not so.
    """

    motions: MotionSet
    splits: tuple[Split, ...]
    left_out: tuple[str, ...]


def compose(
    real: MotionSet, synthetic: MotionSet, splits: Sequence[Split], provenance: Provenance, *, name: str,
    per_class: int, protocol: str, kind: str = "official", as_published: bool = False, seed: int = 0,
) -> Hybrid:  # fmt: skip
    """Real and synthetic clips as one dataset.

    Args:
        real: All real clips.
        synthetic: A generated set.
        splits: Official splits of the real clips.
        provenance: What the generator was trained on.
        name: Of the new dataset.
        per_class: Synthetic clips of each class of which the generated set has any.
        protocol: The official split that is asked for.
        kind: "official" or "80/10/10" (by people, all synthetic clips on the training side).
        as_published: 80/10/10 over all clips at random instead, whoever is in them.
        seed: Of the groups.

    Raises:
        InputError: the sets do not fit each other, a class has too few clips, the generator saw what the split holds
            out, or its clips show one person where the real ones show two.
    """
    if kind not in SPLITS:
        raise InputError(f"Unknown splits '{kind}'. Known: {', '.join(SPLITS)}.")
    _refuse_misfits(real, synthetic)
    people = provenance.people(real)
    if not as_published:
        refuse_lone_persons(real, synthetic)
    chosen = pick(synthetic, per_class)
    motions = replace(real.extended(chosen), dataset=name)
    if as_published:
        return Hybrid(motions=motions, splits=(split_at_random(motions, seed),), left_out=())
    if kind == "80/10/10":
        return Hybrid(motions=motions, splits=(split_by_people(real, people, seed),), left_out=())
    wanted = [s for s in splits if s.name == protocol]
    if not wanted:
        known = ", ".join(s.name for s in splits) or "none"
        raise InputError(f"Dataset '{real.dataset}' has no protocol '{protocol}'. Known: {known}.")
    if reason := leak(real, wanted[0], provenance):
        raise InputError(reason)
    safe = [s for s in splits if s.name != protocol and not leak(real, s, provenance)]
    marked = [
        replace(s, seen=tuple(sorted(people)), bed=provenance.bed if s.name == protocol else "")
        for s in (*wanted, *safe)
    ]
    kept = {s.name for s in marked}
    return Hybrid(
        motions=motions, splits=tuple(marked), left_out=tuple(s.name for s in splits if s.name not in kept)
    )


def pick(synthetic: MotionSet, per_class: int) -> list[Motion]:
    """The first `per_class` accepted clips of each class that the set has, by class.

    Raises:
        InputError: a class of the set has fewer.
    """
    if per_class < 1:
        raise InputError(f"The number of synthetic clips per class is {per_class}; it must be at least 1.")
    out: list[Motion] = []
    for c in sorted(set(synthetic.labels.tolist())):
        clips = [m for m in synthetic.accepted().motions if m.label == c]
        if len(clips) < per_class:
            raise InputError(
                f"Class '{synthetic.class_names[c]}' has {len(clips)} accepted synthetic clips and {per_class} are "
                "asked for; take fewer with --per-class, or generate as many."
            )
        out += clips[:per_class]
    return out


def leak(real: MotionSet, split: Split, provenance: Provenance) -> str:
    """Why a split cannot be used with a generator's clips, in one sentence; "" if it can."""
    outside = [m for m in real.motions if m.sample_id in provenance.clips and split.side(m) != "train"]
    if not outside:
        return ""
    shown = sorted({str(getattr(m, split.by)) for m in outside})
    return (
        f"The generator of the synthetic clips was trained on {len(outside)} of {len(provenance.clips)} clips that "
        f"split '{split.name}' holds out of training ({split.by} {', '.join(shown[:5])}{', ...' * (len(shown) > 5)}); "
        f"take the clips of a generator trained with --protocol {split.name}."
    )


def split_by_people(real: MotionSet, seen: frozenset[str], seed: int) -> Split:
    """About 80/10/10 of the real clips by three groups of people; synthetic clips are all trained on.

    Whom the generator saw is in training. Test, then validation, are filled greedily from the others in an order that
    follows from the seed, taking a person whenever that brings the group nearer to its share.

    Args:
        real: All real clips.
        seen: People whom the generator saw.
        seed: Of the order.

    Raises:
        InputError: fewer than two people whom the generator has not seen.
    """
    size = Counter(m.subject for m in real.motions)
    free = [p for p in sorted(size) if p not in seen]
    if len(free) < 2:
        raise InputError(
            f"The generator of the synthetic clips was trained on {len(size) - len(free)} of the {len(size)} people of "
            f"'{real.dataset}', and 80/10/10 needs two others, for validation and for test; use the official splits, "
            "or a generator trained on fewer people."
        )
    rng = np.random.default_rng([seed, 0x801010])
    free = [free[i] for i in rng.permutation(len(free))]
    target = HELD_OUT * len(real)
    groups = []
    for still_wanted in (1, 0):
        group: list[str] = []
        for p in free[: len(free) - still_wanted]:
            have = sum(size[q] for q in group)
            if abs(have + size[p] - target) < abs(have - target):
                group.append(p)
        group = group or [min(free, key=lambda p: size[p])]
        free = [p for p in free if p not in group]
        groups.append(tuple(sorted(group)))
    test, validation = groups
    return Split(
        name=PEOPLE,
        by="subject",
        train=tuple(sorted(set(size) - {*test, *validation})),
        validation=validation,
        test=test,
        note="About 80/10/10 of the real clips, by people; all synthetic clips are trained on.",
        seen=tuple(sorted(seen)),
    )


def split_at_random(motions: MotionSet, seed: int) -> Split:
    """80/10/10 of all clips at random, real and synthetic alike: the published composition, with its faults."""
    ids = [m.sample_id for m in motions.motions]
    if len(ids) < 3:
        raise InputError(f"Dataset '{motions.dataset}' has {len(ids)} clips; 80/10/10 needs at least 3.")
    order = np.random.default_rng([seed, 0x801011]).permutation(len(ids))
    n = max(1, round(HELD_OUT * len(ids)))
    test, validation, train = (tuple(ids[i] for i in np.sort(a)) for a in np.split(order, [n, 2 * n]))
    return Split(
        name=PUBLISHED, by="sample_id", train=train, validation=validation, test=test, note=PUBLISHED_NOTE,
        as_published=True,
    )  # fmt: skip


def refuse_lone_persons(real: MotionSet, synthetic: MotionSet) -> None:
    """Raise InputError where most real clips of a class show two persons and no synthetic one does.

    A recogniser would then tell the class's real clips from its synthetic ones by the number of people.
    """
    for c in sorted(set(synthetic.labels.tolist())):
        ours, theirs = ([_persons(m) for m in s.motions if m.label == c] for s in (real, synthetic))
        if ours and 2 * sum(n > 1 for n in ours) > len(ours) and max(theirs) < 2:
            raise InputError(
                f"The real clips of class '{real.class_names[c]}' show two persons and the synthetic ones one; use a "
                "generator that makes both (kinetic_gan, motion_gan)."
            )


def _persons(motion: Motion) -> int:
    """Persons who are ever there: padding with zeros is nobody."""
    return int(present(motion.positions).any(1).sum())


def _refuse_misfits(real: MotionSet, synthetic: MotionSet) -> None:
    if any(m.source != "real" for m in real.motions):
        raise InputError(f"Dataset '{real.dataset}' holds synthetic clips already; compose from real clips.")
    if any(m.source != "synthetic" for m in synthetic.motions):
        raise InputError("The set to be added holds real clips; give one that `rayjobs.generate` wrote.")
    if real.skeleton.to_dict() != synthetic.skeleton.to_dict() or real.class_names != synthetic.class_names:
        raise InputError(
            f"The synthetic clips have skeleton '{synthetic.skeleton.name}' and {synthetic.num_classes} classes, "
            f"dataset '{real.dataset}' has '{real.skeleton.name}' and {real.num_classes}; take the clips of a "
            "generator trained on it."
        )
    if both := {m.sample_id for m in real.motions} & {m.sample_id for m in synthetic.motions}:
        raise InputError(f"{len(both)} synthetic clips have the sample_id of a real one ({min(both)}).")
