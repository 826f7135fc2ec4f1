"""Skeletons as data: one TOML (or JSON) file each; graph, bones and coarsening levels are derived.

The files of the skeletons we ship lie in `motionsynth/skeletons/`; a user's own file has the same form.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

TORSO_KEYS = ("pelvis", "chest", "left_hip", "right_hip", "left_shoulder", "right_shoulder")


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """A tree of joints.

    Attributes:
        name: Short name, as stored in every Parquet row.
        joints: Joint names in storage order, length V. Standard names (`left_elbow`, `right_knee`, ...)
            are what joint limits and left/right swaps are looked up by.
        parents: Index of each joint's parent, length V; -1 for the single root.
        mirror: Pairs (left, right) of joint indices that swap under reflection.
        torso: Joint index for each of `TORSO_KEYS`; they define up and right of the body.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    mirror: tuple[tuple[int, int], ...]
    torso: Mapping[str, int]

    def __post_init__(self) -> None:
        v = len(self.joints)
        if len(set(self.joints)) != v:
            raise InputError(f"Skeleton '{self.name}' names a joint twice; joint names must be unique.")
        if len(self.parents) != v:
            raise InputError(
                f"Skeleton '{self.name}' has {v} joints but {len(self.parents)} parents; give one per joint."
            )
        roots = [self.joints[i] for i, p in enumerate(self.parents) if p < 0]
        if len(roots) != 1:
            raise InputError(
                f"Skeleton '{self.name}' has {len(roots)} roots {roots}; exactly one joint must have the "
                "parent ''."
            )
        if len(self.topological_order) != v:
            raise InputError(f"Skeleton '{self.name}' has a cycle among its parents; it must be a tree.")
        if missing := [k for k in TORSO_KEYS if k not in self.torso]:
            raise InputError(f"Skeleton '{self.name}' lacks torso joints {missing}; add them under [torso].")
        flat = [j for pair in self.mirror for j in pair]
        if len(set(flat)) != len(flat):
            raise InputError(
                f"Skeleton '{self.name}' lists a joint in two mirror pairs; each joint has one twin."
            )

    @property
    def num_joints(self) -> int:
        """V."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the joint without a parent."""
        return next(i for i, p in enumerate(self.parents) if p < 0)

    @property
    def topological_order(self) -> tuple[int, ...]:
        """Joint indices with every parent before its children (shorter than V if there is a cycle)."""
        order = [i for i, p in enumerate(self.parents) if p < 0]
        for joint in order:
            order.extend(i for i, p in enumerate(self.parents) if p == joint)
        return tuple(order)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) for the V - 1 joints with a parent, in joint order."""
        return tuple((i, p) for i, p in enumerate(self.parents) if p >= 0)

    @property
    def mirror_permutation(self) -> np.ndarray:
        """int64 [V]: `positions[..., perm, :]` after reflection of the sideways axis is the mirrored body."""
        perm = np.arange(self.num_joints)
        for left, right in self.mirror:
            perm[left], perm[right] = right, left
        return perm

    @property
    def adjacency(self) -> np.ndarray:
        """float32 [V, V], symmetric, 1 where two joints share a bone, no self loops."""
        a = np.zeros((self.num_joints, self.num_joints), np.float32)
        for child, parent in self.bones:
            a[child, parent] = a[parent, child] = 1.0
        return a

    @property
    def ancestors(self) -> np.ndarray:
        """float32 [V, V-1]: 1 where bone b (in `bones` order) lies between joint v and the root.

        Forward kinematics is then one product: positions = root + ancestors @ (length * direction).
        """
        a = np.zeros((self.num_joints, len(self.bones)), np.float32)
        bone_of = {child: b for b, (child, _) in enumerate(self.bones)}
        for v in self.topological_order:
            if (p := self.parents[v]) >= 0:
                a[v] = a[p]
                a[v, bone_of[v]] = 1.0
        return a

    @property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """Coarsening levels, finest first: joint indices kept at each level, down to a single joint."""
        from motionsynth.pyramid import coarsen

        return coarsen(self)

    def index(self, joint: str) -> int:
        """Index of a joint by name.

        Raises:
            InputError: if the skeleton has no such joint.
        """
        if joint not in self.joints:
            raise InputError(
                f"Skeleton '{self.name}' has no joint '{joint}'. Known: {', '.join(self.joints)}."
            )
        return self.joints.index(joint)

    def to_dict(self) -> dict:
        """The file form: what `from_dict` reads, JSON-serialisable."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "parents": [self.joints[p] if p >= 0 else "" for p in self.parents],
            "mirror": [[self.joints[a], self.joints[b]] for a, b in self.mirror],
            "torso": {k: self.joints[v] for k, v in self.torso.items()},
        }

    @staticmethod
    def from_dict(d: Mapping) -> Skeleton:
        """Build from the file form.

        Args:
            d: `name`, `joints` (names), `parents` (a joint name each, '' for the root), `mirror` (pairs of
                names), `torso` (a joint name for each of `TORSO_KEYS`).

        Raises:
            InputError: a key is missing or names an unknown joint, or the joints do not form one tree.
        """
        if missing := [k for k in ("name", "joints", "parents", "mirror", "torso") if k not in d]:
            raise InputError(
                f"Skeleton file lacks {missing}; it needs name, joints, parents, mirror and torso."
            )
        for key, kind, form in (
            ("joints", (list, tuple), "a list of names"),
            ("parents", (list, tuple), "a list of joint names"),
            ("mirror", (list, tuple), "a list of pairs of joint names"),
            ("torso", Mapping, "a table of joint names"),
        ):
            if not isinstance(d[key], kind):
                raise InputError(f"Skeleton '{d['name']}' has {key} = {d[key]!r}; it must be {form}.")
        joints = tuple(str(j) for j in d["joints"])
        parents = [str(p) for p in d["parents"]]
        if bad := [pair for pair in d["mirror"] if not isinstance(pair, (list, tuple)) or len(pair) != 2]:
            raise InputError(
                f"Skeleton '{d['name']}' has the mirror entry {bad[0]}; each entry is a pair of joints."
            )
        named = [p for p in parents if p != ""]
        named += [j for pair in d["mirror"] for j in pair] + list(d["torso"].values())
        if unknown := sorted({str(n) for n in named} - set(joints)):
            raise InputError(
                f"Skeleton '{d['name']}' refers to joints {unknown} that are not in its joint list."
            )
        at = {j: i for i, j in enumerate(joints)}
        return Skeleton(
            name=str(d["name"]),
            joints=joints,
            parents=tuple(at[p] if p != "" else -1 for p in parents),
            mirror=tuple((at[str(a)], at[str(b)]) for a, b in d["mirror"]),
            torso={k: at[str(v)] for k, v in d["torso"].items()},
        )


def shipped() -> list[str]:
    """Names of the skeletons that come with the package."""
    folder = resources.files("motionsynth") / "skeletons"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


@cache
def get_skeleton(name: str) -> Skeleton:
    """A shipped skeleton by name, or one read from a `.toml` or `.json` file.

    Args:
        name: `kinect25`, `kinect20`, ... (see `shipped`), or a path that ends in `.toml` or `.json`.

    Raises:
        InputError: unknown name, missing file, or a file that does not describe a skeleton.
    """
    if name in shipped():
        text = (resources.files("motionsynth") / "skeletons" / f"{name}.toml").read_text()
        return Skeleton.from_dict(tomllib.loads(text))
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        raise InputError(
            f"Unknown skeleton '{name}'. Known: {', '.join(shipped())}, or the path of a .toml or .json file."
        )
    try:
        text = path.read_text()
        parsed = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise InputError(
            f"Skeleton file '{name}' does not exist; give the path of a .toml or .json file."
        ) from None
    except OSError as e:
        raise InputError(
            f"Skeleton file '{name}' cannot be read ({e.strerror}); give a readable file."
        ) from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"Skeleton file '{name}' cannot be parsed ({e}); fix its syntax.") from None
    if not isinstance(parsed, dict):
        raise InputError(
            f"Skeleton file '{name}' holds a {type(parsed).__name__}; it must hold a table (object)."
        )
    return Skeleton.from_dict(parsed)
