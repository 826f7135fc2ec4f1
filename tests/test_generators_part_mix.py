"""Parts of bodies: which of them tell a class, and that a clip takes only others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.generators import Generator, SampleRequest, build_config
from motionsynth.generators.body_parts import PARTS, free_parts, local_directions, part_bones, told_apart
from motionsynth.generators.part_mix import PartMix
from motionsynth.generators.transfer import Body
from motionsynth.motion import MotionSet, canonical, resample, rotate_y
from motionsynth.recipes import get_recipe
from motionsynth.recognition import to_tensors
from motionsynth.skeleton import get_skeleton, shipped
from motionsynth.training import Trainer, fit
from tests.tiny_generators import ready_generator, small_generator
from tests.tiny_motion import make_tiny_set
from tests.tiny_pairs import make_pair_set

WALK, WAVE_LEFT, WAVE_RIGHT = range(3)
KEEPING = {"told": 0.7, "others": 1}
"""With one other class as enough, legs and trunk of who waves are anybody's."""


def wanted(labels: list[int]) -> list[SampleRequest]:
    return [SampleRequest(sample_id=f"s{i}", label=c, seed=i) for i, c in enumerate(labels)]


def ready(motions: MotionSet, rare: tuple[int, ...] = (), **changes: object) -> PartMix:
    model: Generator = ready_generator("part_mix", motions, rare, frames=64, **changes)  # type: ignore[arg-type]
    assert isinstance(model, PartMix)
    return model


@pytest.fixture(scope="module")
def takes() -> MotionSet:
    """Every performance once: of two cameras' clips of one, each is the other's nearest neighbour."""
    both = make_tiny_set(repetitions=2)
    return both.select([i for i, m in enumerate(both.motions) if m.view == "01"])


@pytest.mark.parametrize("name", shipped())
def test_every_bone_is_in_one_part_and_parts_are_as_symmetric_as_the_body(name: str) -> None:
    skeleton = get_skeleton(name)
    bones = part_bones(skeleton)
    assert (bones.sum(0) == 1).all() and bones.any(1).all()
    child = [c for c, _ in skeleton.bones]
    twin = [child.index(int(skeleton.mirror_permutation[c])) for c in child]
    left, right, legs, trunk = bones
    assert (
        torch.equal(left[twin], right) and torch.equal(legs[twin], legs) and torch.equal(trunk[twin], trunk)
    )
    named = [{skeleton.joints[child[b]] for b in part.nonzero()[:, 0].tolist()} for part in bones]
    assert "left_elbow" in named[0] and {"left_knee", "right_knee"} <= named[2] and "head" in named[3]


def test_a_part_tells_apart_those_classes_that_move_it_differently(takes: MotionSet) -> None:
    told = told_apart(to_tensors(takes, 1).x, torch.from_numpy(takes.labels), takes.skeleton, 3)
    assert told.shape == (len(PARTS), 3, 3) and torch.equal(told, told.transpose(1, 2))
    left, right, legs, trunk = told
    assert left[WAVE_LEFT, WAVE_RIGHT] == right[WAVE_LEFT, WAVE_RIGHT] == 1
    # Who waves stands still, whichever hand it is; at the turning points of a step a walker does, too.
    assert legs[WAVE_LEFT, WAVE_RIGHT] < 0.7 < legs[WALK, WAVE_LEFT] and legs[WALK, WAVE_RIGHT] > 0.7
    assert trunk[WAVE_LEFT, WAVE_RIGHT] < 0.7


def test_how_a_body_is_turned_says_nothing_of_its_parts(takes: MotionSet) -> None:
    """Without `canonical`, which turns whole clips, every class here faces its own way."""
    x = np.stack([rotate_y(resample(m.positions, 64), 2.0 * m.label) for m in takes.motions])
    x = x + 0.002 * np.random.default_rng(0).standard_normal(x.shape, np.float32)  # a sensor's noise
    told = told_apart(torch.from_numpy(x), torch.from_numpy(takes.labels), takes.skeleton, 3)
    assert told[PARTS.index("left_arm"), WAVE_LEFT, WAVE_RIGHT] == 1
    assert told[PARTS.index("legs"), WAVE_LEFT, WAVE_RIGHT] < 0.7


def test_with_too_few_clips_every_part_passes_for_telling(takes: MotionSet) -> None:
    few = takes.select([i for i, m in enumerate(takes.motions) if m.label or i < 2])
    told = told_apart(to_tensors(few, 1).x, torch.from_numpy(few.labels), few.skeleton, 4)
    assert (told[:, WALK] == 1).all() and (told[:, 3] == 1).all() and (told[:, 1, 2] < 1).any()


def test_a_part_is_free_where_enough_others_have_it() -> None:
    told = torch.ones(len(PARTS), 4, 4)
    told[2, 0, 1:] = told[2, 1:, 0] = 0.5  # class 0 has everybody's legs
    told[0, 2, 3] = told[0, 3, 2] = 0.65  # two classes have a left arm in common
    assert free_parts(told, 0.65, 2) == [[2], [], [], []]
    assert free_parts(told, 0.65, 1) == [[2], [2], [0, 2], [0, 2]]
    assert free_parts(told, 0.5, 1) == [[2], [2], [2], [2]]
    assert free_parts(told, 1.0, 0) == free_parts(told, 1.0, 3) == [[0, 1, 2, 3]] * 4
    assert free_parts(told, 1.0, 4) == [[]] * 4  # nobody is their own other


def test_a_clip_keeps_the_parts_that_tell_it_and_takes_others_from_common_classes(takes: MotionSet) -> None:
    """Who waves may have a walker's legs."""
    model = ready(takes, rare=(WAVE_RIGHT,), **KEEPING)
    free = [PARTS[p] for p in model.free()[WAVE_RIGHT]]
    assert "legs" in free and not {"left_arm", "right_arm"} & set(free)
    real = {m.sample_id: m for m in takes.motions}
    walked, labels = 0, {i: m.label for i, m in real.items()}
    kept = ~torch.stack([model.bones[PARTS.index(name)] for name in free]).any(0)
    for clip in model.sample(wanted([WAVE_RIGHT] * 30)):
        assert clip.parent_id is not None and labels[clip.parent_id] == WAVE_RIGHT
        parent = real[clip.parent_id]
        assert clip.num_frames == parent.num_frames
        x, y = (
            torch.from_numpy(np.stack([p]))
            for p in (clip.positions, canonical(parent.positions, takes.skeleton))
        )
        one, other = (Body.split(c, takes.skeleton).direction for c in (x, y))
        # Kept at half precision, and resampled twice.
        assert (one - other)[..., kept, :].abs().max() < 0.08
        legs = model.bones[PARTS.index("legs")]
        walked += bool((one - other)[..., legs, :].abs().max() > 0.3)
        torch.testing.assert_close(Body.split(x, takes.skeleton).length, Body.split(y, takes.skeleton).length,
                                   atol=2e-3, rtol=0)  # fmt: skip
    assert walked > 5


def test_what_is_lent_is_turned_with_the_body(takes: MotionSet) -> None:
    """As seen from either body, the part does the same, however the two are turned."""
    model = ready(takes)
    x = to_tensors(takes, 1).x
    at, lender = torch.tensor([20, 20]), torch.tensor([0, 1])
    legs = model.bones[PARTS.index("legs")]
    made = model.anchors.mixed(at, lender, legs.expand(2, -1))
    seen, lent = (
        local_directions(made, takes.skeleton),
        local_directions(x[model.anchors.among(torch.from_numpy(takes.labels))][lender], takes.skeleton),
    )
    assert (seen - lent)[..., legs, :].abs().max() < 0.05
    arms = model.bones[:2].any(0)
    assert (seen[0] - seen[1])[..., arms, :].abs().max() < 1e-5


def test_a_class_that_every_part_tells_takes_parts_of_its_own(takes: MotionSet) -> None:
    model = ready(takes, rare=(WAVE_RIGHT,), told=0.7, others=3)
    assert model.free()[WAVE_RIGHT] == []  # there are not that many other classes
    label = np.concatenate([np.full(len(m), c) for c, m in enumerate(model.anchors.members)])
    for request in wanted([WAVE_RIGHT] * 20):
        at, lender, parts = model._draw(request, [])
        assert label[at] == label[lender] == WAVE_RIGHT and 1 <= len(parts) <= 2
    lonely = takes.select([0, *np.flatnonzero(takes.labels == WAVE_LEFT)[:1]])
    (clip,) = ready(lonely).sample(wanted([WALK]))
    there = canonical(lonely.motions[0].positions, takes.skeleton)
    assert np.abs(clip.positions - there).max() < 0.02


def test_with_one_lender_parts_come_from_the_class_most_like_it(takes: MotionSet) -> None:
    for lenders, lend in ((1, {WAVE_LEFT}), (0, {WALK, WAVE_LEFT})):
        model = ready(takes, rare=(WAVE_RIGHT,), lenders=lenders)
        label = np.concatenate([np.full(len(m), c) for c, m in enumerate(model.anchors.members)])
        draws = [model._draw(r, model.free()[WAVE_RIGHT]) for r in wanted([WAVE_RIGHT] * 40)]
        assert {int(label[lender]) for _, lender, _ in draws} == lend


def test_rare_classes_lend_nothing_and_by_default_every_part_is_free(takes: MotionSet) -> None:
    model = ready(takes, rare=(WAVE_LEFT, WAVE_RIGHT))
    assert model.free()[WAVE_LEFT] == [0, 1, 2, 3]
    label = np.concatenate([np.full(len(m), c) for c, m in enumerate(model.anchors.members)])
    draws = [model._draw(r, model.free()[WAVE_LEFT]) for r in wanted([WAVE_LEFT] * 40)]
    assert {int(label[lender]) for _, lender, _ in draws} == {WALK}
    assert {p for *_, parts in draws for p in parts} == {0, 1, 2, 3}
    assert {len(parts) for *_, parts in draws} == {1, 2}


def test_a_person_whom_the_lender_lacks_stays_whole() -> None:
    pairs = make_pair_set()
    model = ready(pairs)
    members = model.anchors.members
    at, alone = torch.tensor(members[0][:1]), torch.tensor(members[2][:1])
    every = torch.ones(1, len(pairs.skeleton.bones), dtype=torch.bool)
    none = model.anchors.mixed(at, alone, ~every)
    made = model.anchors.mixed(at, alone, every)
    assert (made[:, 0] - none[:, 0]).abs().max() > 0.1
    torch.testing.assert_close(made[:, 1], none[:, 1])


def test_a_class_without_clips_is_refused(tiny_set: MotionSet) -> None:
    gone = tiny_set.select(np.flatnonzero(tiny_set.labels != 1))
    with pytest.raises(InputError, match="'wave left hand' has no training clip"):
        ready(gone).sample(wanted([0, 1]))


def test_settings_out_of_range_are_refused() -> None:
    for setting in ({"most": 0}, {"most": 5}, {"told": 1.5}, {"others": -1}, {"frames": 1}):
        with pytest.raises(InputError, match=f"part_mix {next(iter(setting))}"):
            build_config("part_mix", setting)


def test_a_generator_without_weights_is_trained_in_a_step_and_goes_on_like_any(takes: MotionSet) -> None:
    plan = get_recipe("part_mix").training
    assert plan.steps + plan.rare_steps == 1
    trainer = Trainer(small_generator("part_mix", takes, (WAVE_LEFT,)), takes, plan, seed=0)
    (report,) = fit(trainer)
    assert (report.step, report.end, report.metrics) == (1, 1, {})
    again = Trainer(small_generator("part_mix", takes, (WAVE_LEFT,)), takes, plan, seed=0)
    again.load_state(report.state())
    assert again.step == 1 and not list(fit(again))
    made = [t.averaged_generator().sample(wanted([0, 1, 2])) for t in (trainer, again)]
    for one, other in zip(*made, strict=True):
        assert np.array_equal(one.positions, other.positions)
