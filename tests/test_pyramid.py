import numpy as np
import pytest

from motionsynth.pyramid import coarsen, expansion, kept, partitions, pyramid
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


KINECT25_UP = {
    # level-local numbers of the published tables: new node -> coarse nodes whose mean it is
    1: {0: (2, 3, 4), 1: (4,), 3: (0,), 5: (1,), 7: (2,), 9: (3,), 2: (0,), 4: (1,), 6: (2,), 8: (3,), 10: (4,)},
    0: {
        1: (0, 10), 3: (1,), 4: (2, 10), 6: (2, 3), 8: (4, 10), 10: (4, 5), 12: (0, 6), 15: (7,), 16: (0, 8), 19: (9,),
        21: (3,), 22: (3,), 23: (5,), 24: (5,), 0: (0,), 2: (1,), 5: (2,), 7: (3,), 9: (4,), 11: (5,), 13: (6,),
        14: (7,), 17: (8,), 18: (9,), 20: (10,),
    },
}  # fmt: skip


@pytest.mark.parametrize("step", sorted(KINECT25_UP))
def test_kinect25_expands_by_the_published_table(step: int) -> None:
    matrix = expansion(get_skeleton("kinect25"))[step]
    table = KINECT25_UP[step]
    assert sorted(table) == list(range(len(matrix)))
    for node, sources in table.items():
        expected = np.zeros(matrix.shape[1])
        expected[list(sources)] = 1 / len(sources)
        np.testing.assert_allclose(matrix[node], expected, atol=1e-6, err_msg=str(node))


@pytest.mark.parametrize("name", shipped())
def test_expanding_keeps_what_stayed_and_averages_the_rest(name: str) -> None:
    skeleton = get_skeleton(name)
    for matrix, stay in zip(expansion(skeleton), kept(skeleton), strict=True):
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
        np.testing.assert_array_equal(matrix[list(stay)], np.eye(len(stay)))


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("published", [True, False])
def test_partitions_share_out_every_neighbour_once(name: str, published: bool) -> None:
    skeleton = get_skeleton(name)
    centre = coarsen(skeleton)[-1][0]
    for level in pyramid(skeleton):
        a = partitions(level, centre, published)
        links = level.adjacency + np.eye(len(level.joints))
        np.testing.assert_array_equal((a > 0).sum(0), links)
        np.testing.assert_allclose(a.sum((0, 1)), 1, atol=1e-6)
        assert np.array_equal(a[0] > 0, np.eye(len(level.joints)) > 0)


def test_partitions_point_towards_the_centre() -> None:
    chain = tree((-1, 0, 1, 2, 3))
    level = pyramid(chain)[0]
    _, farther, closer = partitions(level, 0)
    # column 2: its source 1 is closer to joint 0, its source 3 farther
    assert closer[1, 2] > 0 and farther[3, 2] > 0 and closer[3, 2] == 0
    # the published code sees beyond one edge no difference
    _, same, near = partitions(level, 0, published=True)
    assert same[2, 3] > 0 and near[2, 3] == 0 and near[1, 2] > 0
