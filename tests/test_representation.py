"""The HumanML3D-style codec: its published layout, what it must not depend on, and its way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from motionsynth.datasets import DATASETS, get_dataset
from motionsynth.errors import InputError
from motionsynth.generators.base import fit_context
from motionsynth.generators.transfer import fill_absent
from motionsynth.motion import MotionSet, align_heading, invalid_reason, repair_jumps, rotate_y
from motionsynth.recognition import to_tensors
from motionsynth.representation import Representation, headings, shortest_arc
from motionsynth.representation_parts import PARTS
from motionsynth.skeleton import Skeleton, get_skeleton, shipped
from tests.tiny_pairs import make_pair_set


def built(motions: MotionSet, parts: tuple[str, ...] = PARTS) -> Representation:
    context = fit_context(motions)
    return Representation(context.skeleton, context.num_persons, context.rest, parts)


def upright(skeleton: Skeleton) -> np.ndarray:
    return np.tile([0.0, 1.0, 0.0], (len(skeleton.bones), 1))


def clips(motions: MotionSet) -> Tensor:
    return fill_absent(to_tensors(motions, motions.num_persons).x)


def test_22_joints_give_the_263_numbers_of_humanml3d() -> None:
    body = get_skeleton("ui_prmd22")
    r = Representation(body, 1, upright(body).tolist())
    assert r.dims == 263
    assert [(name, s.start, s.stop) for (_, name), s in r.groups.items()] == [
        ("turn", 0, 1), ("step", 1, 3), ("height", 3, 4), ("positions", 4, 67), ("rotations", 67, 193),
        ("velocities", 193, 259), ("contacts", 259, 263),
    ]  # fmt: skip


@pytest.mark.parametrize("name", shipped())
def test_every_skeleton_and_any_number_of_persons_survive_the_round_trip(name: str) -> None:
    body = get_skeleton(name)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 9, body.num_joints, 3, generator=rng).cumsum(2)
    r = Representation(body, 3, upright(body).tolist())
    features, start = r.encode(x)
    assert features.shape == (2, 9, r.dims)
    assert (r.decode(features, start) - x).abs().max() < 1e-4
    fewer = Representation(body, 3, upright(body).tolist(), ("root", "positions"))
    assert (fewer.decode(*fewer.encode(x)) - x).abs().max() < 1e-4


@pytest.mark.parametrize("name", sorted(set(DATASETS) & {"nucla", "ui_prmd", "sbu", "utd_mhad"}))
def test_real_clips_survive_the_round_trip_within_a_tenth_of_a_millimetre(
    name: str, shared_data: Path
) -> None:
    info = get_dataset(name)
    paths = info.find(shared_data / name)
    motions = [info.read(path) for path in paths[:: max(1, len(paths) // 25)]]
    skeleton = get_skeleton(info.skeleton)
    motions = [m for m in motions if invalid_reason(m, skeleton) is None]
    assert len(motions) > 20
    for m in motions:
        x = fill_absent(torch.from_numpy(repair_jumps(m.positions, m.fps))[None])
        r = Representation(skeleton, m.num_persons, upright(skeleton).tolist())
        assert (r.decode(*r.encode(x)) - x).abs().max() < 1e-4, m.sample_id


@given(angle=st.floats(-3.1, 3.1), east=st.floats(-5, 5), north=st.floats(-5, 5))
@settings(max_examples=20)
def test_features_do_not_know_where_a_clip_is_nor_how_it_is_turned(
    angle: float, east: float, north: float
) -> None:
    pairs = make_pair_set()
    r = built(pairs)
    x = clips(pairs)[:4]
    moved = torch.from_numpy(rotate_y(x.numpy(), angle)) + torch.tensor([east, 0, north])
    one, two = r.encode(x)[0], r.encode(moved)[0]
    assert (one - two).abs().max() < 1e-3  # contacts are 0 or 1, so none of them has flipped


def test_root_of_a_walk_along_its_heading(tiny_set: MotionSet) -> None:
    r = built(tiny_set)
    still = torch.from_numpy(align_heading(tiny_set.motions[0].positions, tiny_set.skeleton))[None, :, :1]
    walk = still.repeat(1, 1, 20, 1, 1)
    walk = walk + torch.arange(20.0).view(1, 1, 20, 1, 1) * torch.tensor([0.0, 0, 0.1])
    walk = torch.from_numpy(rotate_y(walk.numpy(), 1.0)) + torch.tensor([2.0, 0, 3.0])
    features, start = r.encode(walk)
    root = features[0, :, :4]
    assert torch.allclose(root[:, 0], torch.zeros(20), atol=1e-4)
    assert torch.allclose(root[:, 1:3], torch.tensor([0.0, 0.1]).expand(20, 2), atol=5e-3)
    assert torch.allclose(start[0, :2], walk[0, 0, 0, tiny_set.skeleton.root, ::2])
    assert torch.allclose(r.decode(features)[0, 0, 0, tiny_set.skeleton.root, ::2], torch.zeros(2), atol=1e-6)


def test_rotations_chained_from_the_root_turn_the_rest_pose_into_the_pose(tiny_set: MotionSet) -> None:
    r = built(tiny_set)
    x = clips(tiny_set)[:3].double()
    r = r.double()
    features, _ = r.encode(x)
    six = features[..., r.groups[0, "rotations"]].unflatten(-1, (-1, 2, 3))
    a, b = six.unbind(-2)
    local = torch.stack([a, b, torch.linalg.cross(a, b)], -1)
    yaw = headings(x, tiny_set.skeleton)[:, 0]
    c, s, o = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    turn = torch.stack([c, o, s, o, o + 1, o, -s, o, c], -1).unflatten(-1, (3, 3))
    placed = {tiny_set.skeleton.root: turn}
    order = [v for v in tiny_set.skeleton.topological_order if v != tiny_set.skeleton.root]
    bones = [child for child, _ in tiny_set.skeleton.bones]
    for v in order:
        p = tiny_set.skeleton.parents[v]
        placed[v] = placed[p] @ local[:, :, bones.index(v)]
        bone = torch.nn.functional.normalize(x[:, 0, :, v] - x[:, 0, :, p], dim=-1)
        assert torch.allclose(placed[v] @ r.rest[bones.index(v)].double(), bone, atol=1e-5)


def test_shortest_arc_even_where_it_is_a_half_turn() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(50, 3, generator=rng, dtype=torch.float64), dim=-1)
    b = torch.nn.functional.normalize(torch.randn(50, 3, generator=rng, dtype=torch.float64), dim=-1)
    b[:10], b[10:20] = -a[:10], a[10:20]
    r = shortest_arc(a, b)
    assert torch.allclose((r @ a[..., None])[..., 0], b, atol=1e-6)
    assert torch.allclose(r @ r.transpose(1, 2), torch.eye(3, dtype=a.dtype).expand_as(r), atol=1e-6)
    assert torch.allclose(torch.linalg.det(r), torch.ones(50, dtype=a.dtype), atol=1e-6)
    assert torch.allclose(r[10:20], torch.eye(3, dtype=a.dtype).expand(10, 3, 3), atol=1e-6)


def test_feet_that_rest_touch_the_ground(tiny_set: MotionSet) -> None:
    r = built(tiny_set)
    x = clips(tiny_set)[:1, :, :1].repeat(1, 1, 10, 1, 1)
    x[:, :, 5:, tiny_set.skeleton.index("left_foot"), 2] += torch.arange(5) * 0.1
    touching = r.encode(x)[0][0, :, r.groups[0, "contacts"]]
    assert touching[:, [0, 2, 3]].all()
    assert touching[:, 1].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_normalised_features_have_no_mean_and_one_spread_to_a_group() -> None:
    pairs = make_pair_set()
    r = built(pairs)
    x = clips(pairs)
    r.fit(x)
    features, _ = r.encode(x)
    z = r.normalise(features)
    assert torch.allclose(r.restore(z), features, atol=1e-5)
    there = (x != 0).flatten(2).any(-1)
    assert not there.all()  # "stand alone" has no second person, who must not count
    for (m, name), place in r.groups.items():
        seen = z[there[:, m]][..., place].flatten(0, 1)
        assert seen.mean(0).abs().max() < 1e-3, name
        assert len(r.std[place].unique()) == 1
        if name in ("positions", "velocities", "rotations"):
            assert seen.std(0).mean() == pytest.approx(1, abs=1e-2)
    mask = r.of_person(there)
    assert mask.shape == (len(x), 1, r.dims)
    assert mask[~there[:, 1]][:, 0, r.groups[1, "positions"]].sum() == 0


def test_parts_are_checked() -> None:
    body = get_skeleton("sbu15")
    with pytest.raises(InputError, match="Unknown part 'angles' of a representation. Known: root, "):
        Representation(body, 1, upright(body).tolist(), ("root", "positions", "angles"))
    with pytest.raises(InputError, match="has the parts root; it needs root and positions"):
        Representation(body, 1, upright(body).tolist(), ("root",))
