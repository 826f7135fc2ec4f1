"""Limits fitted to training clips, and the physics loss: closed-form values, exclusions, real data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionsynth.anatomy import anatomical_range, speed_ceiling
from motionsynth.datasets import get_dataset
from motionsynth.errors import InputError
from motionsynth.joint_angles import angle_names, joint_angles
from motionsynth.limits import MotionLimits, fit_limits, limit_excess, physics_loss
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import get_skeleton

KINECT = get_skeleton("kinect20")


@pytest.fixture(scope="module")
def limits(tiny_set) -> MotionLimits:
    return fit_limits(tiny_set)


def batch(motion: Motion) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.from_numpy(motion.positions)[None].clone()
    return x, torch.tensor([motion.fps]), torch.ones(1, x.shape[2], dtype=torch.bool)


def test_clips_they_were_fitted_to_stay_within_the_limits(tiny_set, limits):
    for motion in tiny_set.motions:
        assert physics_loss(*batch(motion), limits, KINECT).item() < 1e-3


def test_limits_never_exceed_anatomy_or_the_speed_ceilings(limits):
    for name, lo, hi in zip(limits.angles, limits.angle_lo, limits.angle_hi, strict=True):
        table_lo, table_hi = anatomical_range(name)
        assert table_lo - 1e-6 <= lo < hi <= table_hi + 1e-6
    assert all(v <= speed_ceiling(j) for v, j in zip(limits.max_speed, KINECT.joints, strict=True))


def test_left_and_right_share_their_limits(limits):
    bounds = dict(zip(limits.angles, zip(limits.angle_lo, limits.angle_hi, strict=True), strict=True))
    assert bounds["left_elbow_flexion"] == bounds["right_elbow_flexion"]
    assert limits.max_speed[KINECT.index("left_hand")] == limits.max_speed[KINECT.index("right_hand")]


def test_speed_limit_is_the_widened_percentile(tiny_set):
    """One joint of a still body moves at 1 m/s: its limit is 1.1 m/s."""
    still = np.repeat(tiny_set.motions[0].positions[:, :1], 31, axis=1)
    still[0, :, KINECT.index("head"), 2] += np.arange(31) / 30
    motion = replace(tiny_set.motions[0], positions=still)
    fitted = fit_limits(replace(tiny_set, motions=(motion,)))
    assert fitted.max_speed[KINECT.index("head")] == pytest.approx(1.1, rel=1e-3)
    assert fitted.max_speed[KINECT.index("pelvis")] == 0.1


def test_speed_term_has_its_closed_form(tiny_set, limits):
    """All joints translate at v: the mean excess over joints is mean(v - v_max)."""
    still = torch.from_numpy(tiny_set.motions[0].positions[:, :1]).repeat(1, 10, 1, 1)[None]
    v = 30.0
    still = still + torch.arange(10.0)[:, None, None] * torch.tensor([0.0, 0.0, v / 30])
    loss = physics_loss(still, torch.tensor([30.0]), torch.ones(1, 10), limits, KINECT)
    assert loss.item() == pytest.approx(v - float(np.mean(limits.max_speed)), rel=1e-3)


def test_acceleration_term_is_the_mean_excess(tiny_set, limits):
    capped = replace(limits, max_acceleration=(5.0,) * 20, max_speed=(1e3,) * 20)
    still = torch.from_numpy(tiny_set.motions[0].positions[:, :1]).repeat(1, 12, 1, 1)[None]
    t = torch.arange(12.0) / 30
    x = still + (0.5 * 8.0 * t**2)[:, None, None] * torch.tensor([1.0, 0.0, 0.0])
    args = (x, torch.tensor([30.0]), torch.ones(1, 12), capped, KINECT)
    assert physics_loss(*args).item() == pytest.approx(0, abs=1e-3)
    assert physics_loss(*args, acceleration=True).item() == pytest.approx(3.0, rel=0.01)
    with pytest.raises(InputError, match="no accelerations"):
        physics_loss(*args[:3], replace(capped, max_acceleration=None), KINECT, acceleration=True)


def test_angle_term_has_its_closed_form_in_both_modes(tiny_set, limits):
    """Above its bound an elbow costs the mean excess over A in either mode; hips extended backwards
    cost nothing in the published, symmetric mode."""
    count, at = len(limits.angles), limits.angles.index("left_elbow_flexion")
    x, fps, mask = batch(tiny_set.motions[8])
    elbow = joint_angles(x, KINECT)[..., at]
    bound = float(elbow.median())
    expected = (elbow - bound).relu().mean().item() / count
    assert expected > 1e-3
    tight = [9.0] * count
    tight[at] = bound
    ranged = replace(limits, angle_lo=tuple(-h for h in tight), angle_hi=tuple(tight))
    for mode in ("range", "published"):
        assert physics_loss(x, fps, mask, ranged, KINECT, mode=mode).item() == pytest.approx(
            expected, rel=1e-3
        )
    forwards_only = replace(limits, angle_lo=(0.3,) * count, angle_hi=(9.0,) * count)
    assert physics_loss(x, fps, mask, forwards_only, KINECT).item() > 0.01
    assert physics_loss(x, fps, mask, forwards_only, KINECT, mode="published").item() == pytest.approx(
        0, abs=1e-6
    )


def test_absent_persons_and_padding_do_not_count(tiny_set, limits):
    x, fps, mask = batch(tiny_set.motions[0])
    x = x * 1.0
    x[:, :, ::2, KINECT.index("left_hand")] += 1.0
    alone = physics_loss(x, fps, mask, limits, KINECT)
    assert alone.item() > 0.1
    two = torch.cat([x, torch.zeros_like(x)], dim=1)
    assert torch.allclose(physics_loss(two, fps, mask, limits, KINECT), alone)
    padded = torch.cat([x, 50 * torch.randn_like(x)], dim=2)
    longer = torch.cat([mask, torch.zeros_like(mask)], dim=1)
    assert torch.allclose(physics_loss(padded, fps, longer, limits, KINECT), alone)
    nobody = physics_loss(torch.zeros_like(x), fps, mask, limits, KINECT)
    assert nobody.item() == 0


def test_a_person_who_appears_does_not_count_as_a_jump(tiny_set, limits):
    x, fps, mask = batch(tiny_set.motions[0])
    x[:, :, : x.shape[2] // 2] = 0
    assert physics_loss(x, fps, mask, limits, KINECT).item() < 1e-3


def test_gradients_are_finite_and_descend(tiny_set, limits):
    x, fps, mask = batch(tiny_set.motions[0])
    x = torch.cat([x, torch.zeros_like(x)], dim=1)
    x[:, 0] += 0.2 * torch.randn(x[:, 0].shape, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    before = physics_loss(x, fps, mask, limits, KINECT, acceleration=True).sum()
    before.backward()
    grad = x.grad
    assert grad is not None and torch.isfinite(grad).all() and grad.abs().sum() > 0
    assert (grad[:, 1] == 0).all()
    step = x.detach() - 1e-4 * grad / grad.norm()
    assert physics_loss(step, fps, mask, limits, KINECT, acceleration=True).item() < before.item()


def test_limits_survive_json(limits):
    assert MotionLimits.from_dict(json.loads(json.dumps(limits.to_dict()))) == limits


def test_bad_input_is_one_sentence(tiny_set, limits):
    x, fps, mask = batch(tiny_set.motions[0])
    with pytest.raises(InputError, match="Unknown physics mode 'seed'"):
        physics_loss(x, fps, mask, limits, KINECT, mode="seed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fit them again"):
        physics_loss(torch.zeros(1, 1, 4, 25, 3), fps, mask[:, :4], limits, get_skeleton("kinect25"))
    with pytest.raises(InputError, match="no clips"):
        fit_limits(replace(tiny_set, motions=()))
    with pytest.raises(InputError, match="50 < percentile"):
        fit_limits(tiny_set, percentile=20)
    with pytest.raises(InputError, match=r"missing or unknown keys \['angle_lo'\]"):
        MotionLimits.from_dict({k: v for k, v in limits.to_dict().items() if k != "angle_lo"})
    with pytest.raises(InputError, match="the lower must be less"):
        replace(limits, angle_lo=limits.angle_hi)


def shares_within(motions: MotionSet, limits: MotionLimits) -> tuple[float, float]:
    """Share of (frame, angle) and of (frame step, joint) entries within limits."""
    angle, speed = [], []
    for m in motions.motions:
        e = limit_excess(*batch(m), limits, motions.skeleton)
        angle.append((e.angle[e.angle_valid] == 0).numpy())
        speed.append((e.speed[e.speed_valid] == 0).numpy())
    return float(np.concatenate(angle).mean()), float(np.concatenate(speed).mean())


def test_real_people_satisfy_limits_fitted_to_other_people(shared_data):
    """N-UCLA, odd subjects -> even subjects; the rest is tracking error, which anatomy rules out."""
    nucla = get_dataset("nucla")
    clips = [nucla.read(f) for f in nucla.find(shared_data / "nucla")[::6]]
    clips = [c for c in clips if c.num_frames >= 2]
    people = MotionSet(
        dataset="nucla",
        skeleton=get_skeleton(nucla.skeleton),
        class_names=nucla.class_names,
        motions=tuple(clips),
    )
    odd = [i for i, c in enumerate(clips) if int(c.subject) % 2]
    even = [i for i, c in enumerate(clips) if not int(c.subject) % 2]
    fitted = fit_limits(people.select(odd))
    assert fitted.angles == angle_names(people.skeleton)
    for side, wanted in ((odd, 0.98), (even, 0.975)):
        angles, speeds = shares_within(people.select(side), fitted)
        assert angles > wanted and speeds > 0.98
    shuffled = [
        replace(c, positions=c.positions[:, :, np.roll(np.arange(20), 3)])
        for c in people.select(even).motions
    ]
    assert shares_within(replace(people, motions=tuple(shuffled)), fitted)[0] < 0.9
