"""Coarsening of a skeleton graph: the joint pyramid of graph-convolutional generators and critics.

Rule of Kinetic-GAN (Degardin et al., WACV 2022), which for the 25 Kinect v2 joints gives levels of 25, 11, 5
and 1 joints: hands and feet go first, then every other joint of each limb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from motionsynth.skeleton import Skeleton

Graph = dict[int, set[int]]
"""Neighbours of each node; the keys' order is the level's order."""


class Level(NamedTuple):
    """One level of a pyramid.

    Attributes:
        joints: Original joint indices, in level order.
        edges: Pairs of positions *in this level* (not original indices), each with the smaller first, sorted.
    """

    joints: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def adjacency(self) -> np.ndarray:
        """float32 [n, n], symmetric, no self loops."""
        a = np.zeros((len(self.joints), len(self.joints)), np.float32)
        for i, j in self.edges:
            a[i, j] = a[j, i] = 1.0
        return a


def pyramid(skeleton: Skeleton) -> tuple[Level, ...]:
    """Levels with their edges, finest (all joints, the bones) first, down to a single joint."""
    graph: Graph = {i: set() for i in range(skeleton.num_joints)}
    for child, parent in skeleton.bones:
        graph[child].add(parent)
        graph[parent].add(child)
    levels = [_level(graph)]
    while len(graph) > 1:
        graph = _coarser(graph)
        levels.append(_level(graph))
    return tuple(levels)


def coarsen(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """Original joint indices kept at each level, in level order, finest first; the last level is one "
    "joint."""
    return tuple(level.joints for level in pyramid(skeleton))


def kept(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """For each step to a coarser level: the positions in the finer level that stay (the critic's "
    "selection)."""
    levels = coarsen(skeleton)
    return tuple(
        tuple(fine.index(j) for j in coarse) for fine, coarse in zip(levels[:-1], levels[1:], strict=True)
    )


def expansion(skeleton: Skeleton) -> tuple[np.ndarray, ...]:
    """For each step to a coarser level, the matrix that goes back: float32 [fine, coarse], rows sum to 1.

    A joint that stayed is copied; one that went is the mean of its neighbours that stayed (Kinetic-GAN's tables for
    25 joints, but for their extra factor of a half on the four limbs of the last step).
    """
    levels = pyramid(skeleton)
    out = []
    for fine, coarse in zip(levels, levels[1:], strict=False):
        near = fine.adjacency
        at = [fine.joints.index(j) for j in coarse.joints]
        matrix = near[:, at]
        matrix[at] = np.eye(len(at), dtype=np.float32)
        lost = np.flatnonzero(matrix.sum(1) == 0)
        if len(lost):
            # Further than one edge from anything that stayed: the closest ones there are.
            hops = _hops(fine)[lost][:, at]
            matrix[lost] = hops == hops.min(1, keepdims=True)
        out.append(matrix / matrix.sum(1, keepdims=True))
    return tuple(out)


def partitions(level: Level, centre: int, published: bool = False) -> np.ndarray:
    """The three neighbourhoods of spatial graph convolution: float32 [3, n, n], columns of their sum add up to 1.

    Itself, neighbours as far from the centre or farther, neighbours closer to it (ST-GCN, Yan et al., AAAI 2018,
    "spatial configuration"; x @ A sums over sources).

    Args:
        level: Of a pyramid.
        centre: Original index of the joint that distances are taken from.
        published: Count every distance above one edge as the same, as ST-GCN's and Kinetic-GAN's code does.
    """
    n = len(level.joints)
    links = level.adjacency + np.eye(n, dtype=np.float32)
    normed = links / links.sum(0, keepdims=True)
    far = _hops(level)[level.joints.index(centre)].astype(float)
    if published:
        far[far > 1] = np.inf
    itself = np.eye(n, dtype=bool)
    closer = far[:, None] < far[None]
    return np.stack([normed * itself, normed * ~closer * ~itself, normed * closer]).astype(np.float32)


def _hops(level: Level) -> np.ndarray:
    """Edges between any two joints of a level, [n, n]."""
    n = len(level.joints)
    hops = np.full((n, n), n)
    reach = np.eye(n)
    for step in range(n):
        hops[(reach > 0) & (hops == n)] = step
        reach = reach @ (level.adjacency + np.eye(n))
        reach = (reach > 0).astype(float)
    return hops


def _level(graph: Graph) -> Level:
    at = {joint: i for i, joint in enumerate(graph)}
    edges = {(min(at[i], at[j]), max(at[i], at[j])) for i, near in graph.items() for j in near}
    return Level(tuple(graph), tuple(sorted(edges)))


def _coarser(graph: Graph) -> Graph:
    """One application of the rule; leaves a connected graph with at least one node fewer.

    For degree 1, 2, ...: nodes of that degree are removed in order unless a removed neighbour has marked
    them; removing a node marks its neighbours and joins them to each other. A graph that has become one
    cycle loses its unmarked nodes at once.
    """
    graph = {i: set(near) for i, near in graph.items()}
    marked: set[int] = set()
    # Kinetic-GAN stops at degree 10; a skeleton with a busier joint still has to shrink.
    for degree in range(1, max(10, len(graph)) + 1):
        removed = []
        for i in graph:
            if i not in marked and len(graph[i]) == degree:
                near = graph[i]
                marked |= near
                for j in near:
                    graph[j] |= near - {j}
                removed.append(i)
        # Only now: while a pass runs, a removed node still counts in its neighbours' degrees.
        _drop(graph, removed)
        one_cycle = len(graph) > 2 and all(len(near) == 2 for near in graph.values())
        if one_cycle and marked & graph.keys():
            _drop(graph, [i for i in graph if i not in marked])
    return graph


def _drop(graph: Graph, nodes: list[int]) -> None:
    for i in nodes:
        for j in graph.pop(i):
            if j in graph:
                graph[j].discard(i)
