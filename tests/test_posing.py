"""Joint positions as rotating nodes: what they rebuild, and who is held while absent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionsynth.errors import InputError
from motionsynth.posing import best_fit, held, hierarchy, rotations, smallest
from motionsynth.skeleton import Skeleton, get_skeleton, shipped


def wild(skeleton: Skeleton, seed: int, persons: int = 1, frames: int = 5) -> np.ndarray:
    """float32 [M, T, V, 3]: every joint anywhere, as no body could be."""
    return (
        np.random.default_rng(seed).normal(0, 1, (persons, frames, skeleton.num_joints, 3)).astype(np.float32)
    )


def rotation(rng: np.random.Generator, shape: tuple[int, ...] = ()) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))
    q[..., 0] *= np.linalg.det(q)[..., None]
    return q


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(shipped()))
def test_every_bone_points_where_it_did(seed: int, name: str) -> None:
    skeleton = get_skeleton(name)
    x = wild(skeleton, seed)[0].astype(np.float64)
    rest, local = rotations(x, skeleton)
    nodes = hierarchy(skeleton)
    world: list[np.ndarray] = []
    for node in nodes:
        turn = local[node.name]
        np.testing.assert_allclose(
            turn @ np.swapaxes(turn, -1, -2), np.broadcast_to(np.eye(3), turn.shape), atol=1e-9
        )
        world.append(turn if node.parent < 0 else world[node.parent] @ turn)
        if node.bone >= 0:
            bone = x[:, node.bone] - x[:, skeleton.parents[node.bone]]
            there = world[node.parent] @ rest[node.bone]
            unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
            np.testing.assert_allclose(unit(there), unit(bone), atol=1e-7)
    assert sorted(n.bone for n in nodes if n.bone >= 0) == sorted(c for c, _ in skeleton.bones)


@given(seed=st.integers(0, 2**32 - 1))
def test_smallest_and_best_fit_find_a_rotation_that_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, r = rng.normal(size=(4, 3)), rotation(rng, (4,))
    np.testing.assert_allclose(
        np.linalg.norm(np.cross(np.einsum("tij,tj->ti", smallest(a, a[::-1]), a), a[::-1])), 0, atol=1e-7
    )
    np.testing.assert_allclose(best_fit(a, np.einsum("tij,kj->tki", r, a)), r, atol=1e-7)


def test_an_absent_person_is_held_and_nobody_is_refused() -> None:
    skeleton = get_skeleton("sbu15")
    x = wild(skeleton, 0, persons=2, frames=6)
    x[1, [0, 3]] = 0
    got, there = held(x, skeleton, 1)
    assert there.tolist() == [False, True, True, False, True, True]
    np.testing.assert_array_equal(got[[0, 3]], x[1, [1, 2]])
    for positions, person, sentence in [
        (x * 0, 0, "absent in every frame"),
        (x, 2, "there is no person 2"),
        (x[:, :, :3], 0, r"\[persons, frames, 15, 3\]"),
        (np.full_like(x, np.inf), 1, "not finite"),
    ]:
        with pytest.raises(InputError, match=sentence):
            held(positions, skeleton, person)
