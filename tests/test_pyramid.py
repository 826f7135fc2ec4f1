import numpy as np
import pytest

from motionsynth.pyramid import coarsen, kept, pyramid
from motionsynth.skeleton import TORSO_KEYS, Skeleton, get_skeleton, shipped


def tree(parents: tuple[int, ...]) -> Skeleton:
    return Skeleton(
        name="tree",
        joints=tuple(f"j{i}" for i in range(len(parents))),
        parents=parents,
        mirror=(),
        torso=dict.fromkeys(TORSO_KEYS, 0),
    )


def test_kinect25_gives_the_published_table() -> None:
    levels = pyramid(get_skeleton("kinect25"))
    assert [level.joints for level in levels] == [
        tuple(range(25)),
        (0, 2, 5, 7, 9, 11, 13, 14, 17, 18, 20),
        (5, 9, 13, 17, 20),
        (20,),
    ]
    assert [set(level.edges) for level in levels[1:]] == [
        {(0, 10), (0, 6), (0, 8), (1, 10), (2, 10), (2, 3), (4, 10), (4, 5), (6, 7), (8, 9)},
        {(0, 4), (1, 4), (2, 4), (3, 4), (2, 3)},
        set(),
    ]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_skeleton_shrinks_to_one_joint(name: str) -> None:
    skeleton = get_skeleton(name)
    levels = pyramid(skeleton)
    assert skeleton.levels == coarsen(skeleton) == tuple(level.joints for level in levels)
    assert set(levels[0].edges) == {(min(b), max(b)) for b in skeleton.bones}
    assert len(levels[-1].joints) == 1 and 3 <= len(levels) <= 6
    for fine, coarse, stay in zip(levels, levels[1:], kept(skeleton), strict=False):
        assert len(coarse.joints) < len(fine.joints)
        assert tuple(fine.joints[i] for i in stay) == coarse.joints


@pytest.mark.parametrize("name", shipped())
def test_every_level_is_connected(name: str) -> None:
    for level in pyramid(get_skeleton(name)):
        n = len(level.joints)
        a = level.adjacency
        assert np.array_equal(a, a.T) and not a.diagonal().any()
        assert (np.linalg.matrix_power(a + np.eye(n), n) > 0).all()


def test_a_skeleton_and_its_reordering_keep_their_symmetry() -> None:
    """Left and right limbs must coarsen alike, else a generator is biased to one side."""
    skeleton = get_skeleton("kinect25")
    twin = skeleton.mirror_permutation
    for level in coarsen(skeleton):
        assert {int(twin[j]) for j in level} == set(level)


@pytest.mark.parametrize(
    "parents",
    [
        (-1,),
        (-1, 0),
        (-1, 0, 1),
        tuple(range(-1, 40)),
        (-1, *([0] * 15)),
        (-1, *([0] * 12), *range(1, 13), *range(1, 13)),
    ],
    ids=["one", "two", "three", "chain", "star", "busy hub"],
)
def test_any_tree_shrinks_to_one_joint(parents: tuple[int, ...]) -> None:
    levels = coarsen(tree(parents))
    sizes = [len(level) for level in levels]
    assert sizes[-1] == 1 and sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
