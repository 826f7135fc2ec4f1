import copy
import json

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.skeleton import TORSO_KEYS, Skeleton, get_skeleton, shipped

ARM = {
    "name": "arm",
    "joints": ["trunk", "left_hand", "right_hand"],
    "parents": ["", "trunk", "trunk"],
    "mirror": [["left_hand", "right_hand"]],
    "torso": {
        "pelvis": "trunk",
        "chest": "trunk",
        "left_hip": "left_hand",
        "right_hip": "right_hand",
        "left_shoulder": "left_hand",
        "right_shoulder": "right_hand",
    },
}


def toml(d: dict) -> str:
    """TOML of the file form: JSON lists and strings are TOML too."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in d.items() if not isinstance(v, dict)]
    for k, v in d.items():
        if isinstance(v, dict):
            lines += [f"[{k}]", *(f"{a} = {json.dumps(b)}" for a, b in v.items())]
    return "\n".join(lines)


def test_shipped_names() -> None:
    assert {
        "h36m17",
        "kinect20",
        "kinect20_head_first",
        "kinect25",
        "sbu15",
        "smpl22",
        "smpl24",
        "ui_prmd22",
    } <= set(shipped())


@pytest.mark.parametrize("name", shipped())
class TestShipped:
    def test_name_and_joint_count(self, name: str) -> None:
        s = get_skeleton(name)
        assert s.name == name
        assert name.removesuffix("_head_first").endswith(str(s.num_joints))
        assert len(s.bones) == s.num_joints - 1

    def test_mirror_pairs_are_the_left_and_right_names(self, name: str) -> None:
        s = get_skeleton(name)
        for left, right in s.mirror:
            assert s.joints[left].startswith("left_") and s.joints[right] == s.joints[left].replace(
                "left", "right"
            )
        sided = {j for j in s.joints if j.startswith(("left_", "right_"))}
        assert sided == {s.joints[j] for pair in s.mirror for j in pair}

    def test_mirrored_bones_are_bones(self, name: str) -> None:
        s = get_skeleton(name)
        perm = s.mirror_permutation
        assert {(int(perm[a]), int(perm[b])) for a, b in s.bones} == set(s.bones)
        assert np.array_equal(perm[perm], np.arange(s.num_joints))

    def test_ancestors_give_forward_kinematics(self, name: str) -> None:
        s = get_skeleton(name)
        x = np.random.default_rng(0).normal(size=(s.num_joints, 3))
        child, parent = np.array(s.bones).T
        rebuilt = x[s.root] + s.ancestors @ (x[child] - x[parent])
        np.testing.assert_allclose(rebuilt, x, atol=1e-5)

    def test_adjacency_and_order(self, name: str) -> None:
        s = get_skeleton(name)
        assert s.adjacency.sum() == 2 * len(s.bones) and np.array_equal(s.adjacency, s.adjacency.T)
        place = {j: i for i, j in enumerate(s.topological_order)}
        assert all(place[parent] < place[child] for child, parent in s.bones)

    def test_torso_is_on_the_named_side(self, name: str) -> None:
        s = get_skeleton(name)
        for key in TORSO_KEYS:
            if key.startswith(("left_", "right_")):
                assert s.joints[s.torso[key]] == key

    def test_dict_round_trip(self, name: str) -> None:
        s = get_skeleton(name)
        assert Skeleton.from_dict(json.loads(json.dumps(s.to_dict()))) == s


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_custom_file(tmp_path, suffix: str) -> None:
    path = tmp_path / f"arm.{suffix}"
    path.write_text(toml(ARM) if suffix == "toml" else json.dumps(ARM))
    s = get_skeleton(str(path))
    assert s.joints == ("trunk", "left_hand", "right_hand") and s.parents == (-1, 0, 0)
    assert s.mirror == ((1, 2),) and s.torso["right_hip"] == 2 and s.root == 0


def test_joint_names_may_be_numbers() -> None:
    s = Skeleton.from_dict(
        {
            "name": "n",
            "joints": [1, 2],
            "parents": ["", 1],
            "mirror": [],
            "torso": dict.fromkeys(TORSO_KEYS, 2),
        }
    )
    assert s.joints == ("1", "2") and s.parents == (-1, 0) and s.torso["chest"] == 1


def changed(**changes) -> dict:
    return copy.deepcopy(ARM) | changes


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (changed(joints=["trunk", "left_hand", "left_hand"], mirror=[], torso={}), "names a joint twice"),
        (changed(parents=["", "trunk"]), "has 3 joints but 2 parents"),
        (changed(parents=["", "", "trunk"]), "has 2 roots ['trunk', 'left_hand']"),
        (changed(parents=["right_hand", "trunk", "trunk"]), "has 0 roots []"),
        (changed(parents=["", "right_hand", "left_hand"]), "has a cycle among its parents"),
        (changed(torso={"pelvis": "trunk"}), "lacks torso joints ['chest', 'left_hip'"),
        (changed(mirror=[["left_hand", "right_hand"], ["left_hand", "trunk"]]), "in two mirror pairs"),
        ({k: v for k, v in ARM.items() if k != "mirror"}, "lacks ['mirror']"),
        (changed(parents=["", "trunk", "hip"]), "refers to joints ['hip']"),
        (changed(parents=[-1, 0, 0]), "refers to joints ['-1', '0']"),
        (changed(mirror=[["left_hand"]]), "mirror entry ['left_hand']"),
        (changed(mirror=["left_hand"]), "mirror entry left_hand"),
        (changed(joints=3), "joints = 3; it must be a list of names"),
        (changed(parents="trunk"), "parents = 'trunk'; it must be a list of joint names"),
        (changed(torso=["trunk"]), "torso = ['trunk']; it must be a table of joint names"),
    ],
)
def test_bad_content(bad: dict, sentence: str) -> None:
    with pytest.raises(InputError) as e:
        Skeleton.from_dict(bad)
    assert sentence in str(e.value)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("a.toml", "name = ", "cannot be parsed"),
        ("a.json", '{"name": "x"', "cannot be parsed"),
        ("b.json", "[1, 2]", "holds a list; it must hold a table"),
        ("c.toml", 'name = "x"', "lacks ['joints', 'parents', 'mirror', 'torso']"),
        ("missing.toml", None, "does not exist"),
        ("a.txt", "x", "Unknown skeleton"),
    ],
)
def test_bad_file(tmp_path, file: str, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as e:
        get_skeleton(str(tmp_path / file))
    assert sentence in str(e.value)


def test_a_folder_is_not_a_skeleton_file(tmp_path) -> None:
    (tmp_path / "d.toml").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        get_skeleton(str(tmp_path / "d.toml"))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match="Unknown skeleton 'kinect'. Known: h36m17, kinect20, "):
        get_skeleton("kinect")
    with pytest.raises(InputError, match="has no joint 'tail'. Known: pelvis, spine"):
        get_skeleton("kinect20").index("tail")
