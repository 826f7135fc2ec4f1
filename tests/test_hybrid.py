"""Hybrid datasets: synthetic clips judge nothing, nobody whom the generator saw is held out, the paper on request."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.arms import BedTensors, score_arm
from motionsynth.beds import Bed, BedSpec, make_bed
from motionsynth.errors import InputError
from motionsynth.generators import fit_context
from motionsynth.hybrid import PEOPLE, PUBLISHED, Hybrid, Provenance, compose, split_by_people
from motionsynth.motion import MotionSet
from motionsynth.protocol import HYBRID, arms_of, record_id
from motionsynth.recognition_config import RecogniserTraining
from motionsynth.rivals import interpolate_clips
from motionsynth.splits import Split
from tests.tiny_motion import make_tiny_set
from tests.tiny_pairs import make_pair_set

SPLITS = (
    Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),
    Split(name="cross_view", by="view", train=("01",), test=("02",)),
)
REAL = make_tiny_set(2)
FULL = BedSpec(scarcity="full")


def trained_in(spec: BedSpec, real: MotionSet = REAL, splits: tuple[Split, ...] = SPLITS) -> Bed:
    return make_bed(real, splits, spec)


def provenance_of(bed: Bed) -> Provenance:
    return Provenance.of(
        {
            "context": fit_context(bed.train).to_dict(),
            "bed": {k: getattr(bed.spec, k) for k in bed.spec.__slots__},
        }
    )


def made_from(bed: Bed, per_class: int = 6) -> MotionSet:
    """Clips as a generator trained on the bed would give."""
    wanted = dict.fromkeys(bed.rare or range(bed.train.num_classes), per_class)
    return replace(bed.train, motions=tuple(interpolate_clips(bed.train, wanted, seed=1)))


def composed(spec: BedSpec = FULL, **given) -> Hybrid:
    bed = trained_in(spec)
    options = {"name": "mix", "per_class": 5, "protocol": spec.protocol} | given
    return compose(REAL, made_from(bed), SPLITS, provenance_of(bed), **options)


def sources(motions: MotionSet) -> Counter[str]:
    return Counter(m.source for m in motions.motions)


def test_counts_are_those_asked_for_and_every_real_clip_stays() -> None:
    mix = composed(per_class=4).motions
    assert mix.dataset == "mix" and mix.motions[: len(REAL)] == REAL.motions
    added = mix.motions[len(REAL) :]
    assert Counter(m.label for m in added) == {0: 4, 1: 4, 2: 4}
    assert {m.source for m in added} == {"synthetic"}


def test_rejected_clips_are_not_taken() -> None:
    bed = trained_in(FULL)
    made = made_from(bed)
    first = replace(made, motions=(replace(made.motions[0], accepted=False), *(m for m in made.motions[1:])))
    mix = compose(
        REAL, first, SPLITS, provenance_of(bed), name="m", per_class=5, protocol="cross_subject"
    ).motions
    assert made.motions[0].sample_id not in {m.sample_id for m in mix.motions}
    with pytest.raises(
        InputError, match="Class 'walk around' has 5 accepted synthetic clips and 6 are asked"
    ):
        compose(REAL, first, SPLITS, provenance_of(bed), name="m", per_class=6, protocol="cross_subject")


@settings(max_examples=40)
@given(
    trained=st.sampled_from(["validation", "test"]),
    judged=st.sampled_from(["validation", "test"]),
    kind=st.sampled_from(["official", "80/10/10"]),
    protocol=st.sampled_from(["cross_subject", "cross_view"]),
    seed=st.integers(0, 5),
)
def test_synthetic_clips_never_judge_and_nobody_judges_whom_the_generator_saw(
    trained: str, judged: str, kind: str, protocol: str, seed: int
) -> None:
    spec = replace(FULL, split=trained, protocol=protocol)
    bed = trained_in(spec)
    try:
        mix = composed(spec, kind=kind, seed=seed)
    except InputError as e:
        # Everybody is seen by a cross-view generator, and only one person is not by the cross-subject test bed's.
        assert kind == "80/10/10" and "needs two others" in str(e)
        return
    asked = mix.splits[0]
    assert asked.name == (PEOPLE if kind == "80/10/10" else protocol)
    for split in mix.splits:
        try:
            here = make_bed(
                mix.motions, mix.splits, replace(FULL, protocol=split.name, split=judged, seed=seed)
            )
        except InputError as e:
            assert judged == "validation" and "saw everybody" in str(e)
            continue
        assert sources(here.evaluate) == {"real": len(here.evaluate)} and sources(here.train).keys() == {
            "real"
        }
        assert sources(here.synthetic) == {"synthetic": 15}
        seen = {m.sample_id for m in bed.train.motions}
        assert not seen & {m.sample_id for m in here.evaluate.motions}
        if split.by == "subject" or judged == "validation":
            people = {m.subject for m in bed.train.motions}
            assert not people & {m.subject for m in here.evaluate.motions}


def test_official_splits_of_which_the_generator_saw_the_test_half_are_left_out() -> None:
    mix = composed()
    assert [s.name for s in mix.splits] == ["cross_subject"] and mix.left_out == ("cross_view",)
    with pytest.raises(InputError, match="no protocol 'cross_view'. Known: cross_subject"):
        make_bed(mix.motions, mix.splits, replace(FULL, protocol="cross_view"))


def test_clips_of_a_generator_that_saw_the_held_out_are_refused() -> None:
    bed = trained_in(replace(FULL, split="test"))
    for protocol, sentence in (
        ("cross_view", r"trained on 18 of 36 clips that split 'cross_view' holds out .*\(view 02\)"),
        ("fold7", "no protocol 'fold7'. Known: cross_subject, cross_view"),
    ):
        with pytest.raises(InputError, match=sentence):
            compose(
                REAL, made_from(bed), SPLITS, provenance_of(bed), name="m", per_class=2, protocol=protocol
            )
    everybody = Provenance(clips=frozenset(m.sample_id for m in REAL.motions))
    with pytest.raises(InputError, match=r"12 of 48 clips that split 'cross_subject' .*\(subject 04\)"):
        compose(REAL, made_from(bed), SPLITS, everybody, name="m", per_class=2, protocol="cross_subject")
    with pytest.raises(InputError, match="trained on 4 of the 4 people of 'tiny', and 80/10/10 needs two"):
        compose(
            REAL, made_from(bed), SPLITS, everybody, name="m", per_class=2, protocol="cross_subject",
            kind="80/10/10",
        )  # fmt: skip
    stranger = Provenance(clips=frozenset({"unknown", "c0_s01_r0_v01"}))
    with pytest.raises(InputError, match=r"1 clips that dataset 'tiny' does not hold \(unknown\)"):
        compose(REAL, made_from(bed), SPLITS, stranger, name="m", per_class=2, protocol="cross_subject")


def crowd(sizes: list[int]) -> MotionSet:
    """Person i has sizes[i] clips."""
    base = REAL.motions[0]
    return replace(
        REAL,
        motions=tuple(
            replace(base, sample_id=f"p{p:02d}-{i}", subject=f"{p:02d}") for p, n in enumerate(sizes) for i in range(n)
        ),
    )  # fmt: skip


@given(
    sizes=st.lists(st.integers(5, 15), min_size=20, max_size=40),
    pinned=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_80_10_10_by_people(sizes: list[int], pinned: int, seed: int) -> None:
    people = crowd(sizes)
    seen = frozenset(f"{p:02d}" for p in range(pinned))
    split = split_by_people(people, seen, seed)
    groups = [set(split.train), set(split.validation), set(split.test)]
    assert set.union(*groups) == {f"{p:02d}" for p in range(len(sizes))}
    assert sum(map(len, groups)) == len(sizes) and all(groups)
    assert seen <= groups[0]
    shares = [sum(sizes[int(p)] for p in g) / sum(sizes) for g in groups]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.08)
    assert split_by_people(people, seen, seed) == split


def test_80_10_10_follows_the_seed_and_takes_the_smallest_where_all_are_large() -> None:
    assert len({split_by_people(crowd([9] * 12), frozenset(), s).test for s in range(8)}) > 3
    split = split_by_people(crowd([40, 50, 60]), frozenset(), 0)
    assert (split.test, split.validation, split.train) == (("00",), ("01",), ("02",))


def test_the_published_composition_lets_synthetic_clips_judge_and_says_so() -> None:
    mix = composed(as_published=True, seed=3)
    (split,) = mix.splits
    assert (
        split.name == PUBLISHED and "synthetic clips and people of the training side also judge" in split.note
    )
    n = len(mix.motions)
    assert [len(s) for s in (split.train, split.validation, split.test)] == [
        n - 2 * round(n / 10), round(n / 10), round(n / 10),
    ]  # fmt: skip
    judges: Counter[str] = Counter()
    for side in ("validation", "test"):
        bed = make_bed(mix.motions, mix.splits, replace(FULL, protocol=PUBLISHED, split=side))
        judges += sources(bed.evaluate)
        assert bed.as_published and {m.sample_id for m in bed.evaluate.motions} == set(getattr(split, side))
    assert judges["synthetic"] and judges["real"]
    record = score_arm(BedTensors.of(bed), "strong", RecogniserTraining(steps=2, batch=4), seed=0)
    assert record.as_published
    honest = make_bed(*_of(composed()), replace(FULL, split="test"))
    assert not score_arm(
        BedTensors.of(honest), "strong", RecogniserTraining(steps=2, batch=4), 0
    ).as_published


def _of(mix: Hybrid) -> tuple[MotionSet, tuple[Split, ...]]:
    return mix.motions, mix.splits


def test_scarcity_counts_real_clips_and_refuses_what_the_generator_saw_beyond_them() -> None:
    rare = BedSpec(shots=3, draw=1)
    mix = composed(rare)
    here = make_bed(mix.motions, mix.splits, rare)
    there = trained_in(rare)
    # The very clips on which the generator was trained, and only the rare classes have synthetic ones.
    assert [m.sample_id for m in here.train.motions] == [m.sample_id for m in there.train.motions]
    assert [m.sample_id for m in here.evaluate.motions] == [m.sample_id for m in there.evaluate.motions]
    assert set(here.synthetic.labels.tolist()) == set(here.rare) and len(here.synthetic) == 5
    for other in (replace(rare, draw=0), replace(rare, shots=2), replace(rare, scarcity="few")):
        with pytest.raises(
            InputError, match="generator that saw clips which the bed .* cuts away; use --scarcity full"
        ):
            make_bed(mix.motions, mix.splits, other)
    assert len(make_bed(mix.motions, mix.splits, FULL).train) > len(here.train)


def test_after_a_generator_of_the_whole_training_half_nobody_is_left_for_validation() -> None:
    mix = composed(replace(FULL, split="test"))
    with pytest.raises(InputError, match="saw everybody .* score with --split test, or compose"):
        make_bed(mix.motions, mix.splits, FULL)
    assert len(make_bed(mix.motions, mix.splits, replace(FULL, split="test")).evaluate) == 12


def test_the_hybrid_arm_adds_the_datasets_own_clips() -> None:
    mix = composed()
    bed = make_bed(mix.motions, mix.splits, replace(FULL, split="test"))
    assert arms_of((HYBRID,), "full") == ("weak", "strong", HYBRID, "tstr:hybrid")
    tensors, training = BedTensors.of(bed), RecogniserTraining(steps=2, batch=4)
    records = [
        score_arm(tensors, arm, training, seed=0, synthetic=bed.synthetic)
        for arm in arms_of((HYBRID,), "full")
    ]
    assert [(r.real_clips, r.synthetic_clips) for r in records] == [(36, 0), (36, 0), (36, 15), (0, 15)]
    assert all(np.sum(r.confusion) == 12 for r in records)
    assert len({record_id("b", r.arm, training, 0, "", 1) for r in records}) == 4


def test_splits_of_hybrid_datasets_survive_json_and_others_keep_their_form() -> None:
    for mix in (composed(), composed(as_published=True)):
        for split in mix.splits:
            assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split
    assert set(SPLITS[0].to_dict()) == {"name", "by", "train", "test", "pattern", "note"}


def test_a_synthetic_clip_without_provenance_is_on_no_side() -> None:
    """Also one that carries a real person's identity, such as a varied copy."""
    copy = replace(REAL.motions[0], source="synthetic", sample_id="copy", subject="04")
    assert [s.side(copy) for s in SPLITS] == ["", ""]
    assert replace(SPLITS[0], seen=("01",)).side(copy) == "train"


def test_single_persons_beside_pairs_are_refused() -> None:
    pairs = make_pair_set()
    splits = (Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),)
    bed = make_bed(pairs, splits, replace(FULL, split="test"))
    made = made_from(bed)
    options = {"name": "m", "per_class": 4, "protocol": "cross_subject"}
    assert len(compose(pairs, made, splits, provenance_of(bed), **options).motions) == len(pairs) + 12
    alone = replace(made, motions=tuple(replace(m, positions=m.positions[:1]) for m in made.motions))
    with pytest.raises(InputError, match="class 'walk together' show two persons and the synthetic ones one"):
        compose(pairs, alone, splits, provenance_of(bed), **options)
    # The paper did it; and nobody stands beside the third class, which is fine.
    assert compose(pairs, alone, splits, provenance_of(bed), **options, as_published=True)
    third = replace(alone, motions=tuple(m for m in alone.motions if m.label == 2))
    assert compose(pairs, third, splits, provenance_of(bed), **options)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "70/30"}, "Unknown splits '70/30'. Known: official, 80/10/10"),
        ({"per_class": 0}, "per class is 0; it must be at least 1"),
    ],
)
def test_wrong_options_are_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        composed(**change)


def test_sets_that_do_not_fit_are_refused() -> None:
    bed = trained_in(FULL)
    made, known = made_from(bed), provenance_of(bed)
    options = {"name": "m", "per_class": 2, "protocol": "cross_subject"}
    mix = compose(REAL, made, SPLITS, known, **options)
    for real, fake, sentence in (
        (mix.motions, made, "'m' holds synthetic clips already"),
        (REAL, bed.train, "set to be added holds real clips"),
        (REAL, replace(made, class_names=("a", "b", "c")), "take the clips of a generator trained on it"),
        (REAL, replace(made, motions=(replace(made.motions[0], sample_id="c0_s01_r0_v01"),)), "sample_id of a real"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            compose(real, fake, SPLITS, known, **options)
    with pytest.raises(InputError, match="does not tell which clips it was trained on"):
        Provenance.of({"context": {}})
