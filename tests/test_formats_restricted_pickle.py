import collections
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motionsynth.errors import InputError
from motionsynth.formats.restricted_pickle import read_pickle

arrays = hnp.arrays(
    dtype=st.sampled_from(["f2", "f4", ">f8", "i8", ">i2", "u1", "?", "U3", "S2"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | arrays
)
trees = st.recursive(
    leaves,
    lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        same_type = isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        return same_type and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pickle") / "x.pkl"


@given(tree=trees, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_data_comes_back(file: Path, tree: Any, protocol: int) -> None:
    file.write_bytes(pickle.dumps(tree, protocol))
    assert same(read_pickle(file), tree)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_either_memory_order(file: Path, protocol: int, order: Any) -> None:
    x = np.asarray(np.arange(24, dtype=np.float16).reshape(2, 3, 4), order=order)
    file.write_bytes(pickle.dumps([x, x], protocol))
    a, b = read_pickle(file)
    assert np.array_equal(a, x) and a is b


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_numpy_generations(file: Path, module: bytes) -> None:
    x = np.arange(6.0).reshape(2, 3)
    data = pickle.dumps({"x": x, "n": np.int64(5), "f": np.float32(0.5)}, 2)
    assert b"cnumpy._core.multiarray\n" in data
    file.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"c" + module + b"\n"))
    got = read_pickle(file)
    assert np.array_equal(got["x"], x) and got["n"] == 5 and got["f"] == 0.5
    assert type(got["n"]) is int and type(got["f"]) is float


def test_shared_and_deep_structures(file: Path) -> None:
    shared = [1, 2]
    deep: list = []
    for _ in range(400):
        deep = [deep]
    file.write_bytes(pickle.dumps({"a": shared, "b": [shared, shared], "deep": deep}))
    got = read_pickle(file)
    assert got["a"] is got["b"][0] is got["b"][1]
    assert got["deep"] == deep


class Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (lambda p: Call(os.system, f"touch {p}"), f"{os.system.__module__}.system"),
        (lambda p: Call(eval, f"open({str(p)!r}, 'w')"), "builtins.eval"),
        (lambda p: Call(touch, str(p)), "test_formats_restricted_pickle.touch"),
        (lambda p: Call(getattr, "", "join"), "builtins.getattr"),
        (lambda p: {"annotations": [Call(np.load, str(p))]}, "numpy.load"),
        (lambda p: collections.OrderedDict(a=1), "collections.OrderedDict"),
        (lambda p: complex(1, 2), "builtins.complex"),
        (lambda p: Path("x"), "pathlib"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_function_is_refused_by_name_and_not_called(tmp_path: Path, evil, name: str, protocol: int) -> None:
    flag = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(evil(flag), protocol).replace(b"c__builtin__\n", b"cbuiltins\n"))
    with pytest.raises(InputError) as e:
        read_pickle(path)
    assert name in str(e.value) and "refused" in str(e.value) and "\n" not in str(e.value)
    assert not flag.exists()


def numpy_call(function: bytes, *arguments: bytes) -> bytes:
    return b"\x80\x03c" + function + b"\n(" + b"".join(arguments) + b"tR."


F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR"
REBUILD = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"


def array_state(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    content = b"B" + struct.pack("<I", len(data)) + data
    return b"\x80\x03" + REBUILD + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


def test_the_hand_made_array_is_good(file: Path) -> None:
    file.write_bytes(array_state(b"K\x02\x85", F4, struct.pack("<2f", 1, 2)))
    assert read_pickle(file).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (array_state(b"J\xff\xff\xff\x7f\x85", F4, b"1234"), "has 4 bytes instead of"),
        (array_state(b"J\xff\xff\xff\xff\x85", F4, b"1234"), "shape is not a tuple of sizes"),
        (array_state(b"K\x01\x85", F4.replace(b"f4", b"O8"), b"12345678"), "type 'O8', which is neither"),
        (array_state(b"K\x01\x85", F4.replace(b"f4", b"f9"), b"123456789"), "unknown type 'f9'"),
        (array_state(b"K\x01\x85", b"N", b"1234"), "not made of bytes, a type and a shape"),
        (b"\x80\x03" + REBUILD + b".", "array without content"),
        (b"\x80\x03" + REBUILD + b"K\x01b.", "state is not complete"),
        (numpy_call(b"numpy\nndarray", b"K\x05"), "a call of numpy.ndarray"),
        (
            numpy_call(b"numpy.core.multiarray\n_reconstruct", b"K\x05"),
            "something else than a plain numpy array",
        ),
        (
            numpy_call(b"_codecs\nencode", b"X\x01\x00\x00\x00a", b"X\x03\x00\x00\x00hex"),
            "something else than bytes",
        ),
        (numpy_call(b"builtins\nbytes", b"J\xff\xff\xff\x7f"), "builds bytes by a call"),
        (b"\x80\x03c_codecs\nencode\nN}X\x01\x00\x00\x00xK\x01s\x86b.", "tries to change a function"),
        (b"\x80\x03cnumpy\nndarray\n.", "it holds a"),
        (b"\x80\x04\x8f.", "it holds a set"),
        (b"\x80\x02]q\x00h\x00a.", "a list that contains itself"),
        (b"\x80\x04\x82\x01.", "truncated, damaged or no pickle"),
        (b"", "empty or truncated"),
        (pickle.dumps({"a": np.zeros(100)})[:-40], "truncated"),
        (b"not a pickle at all", "truncated, damaged or no pickle"),
    ],
)
def test_crafted_and_damaged_pickles(file: Path, data: bytes, sentence: str) -> None:
    file.write_bytes(data)
    with pytest.raises(InputError) as e:
        read_pickle(file)
    assert sentence in str(e.value)


@given(cut=st.integers(0, 400), flip=st.integers(0, 255), at=st.integers(0, 400))
def test_no_damage_escapes_as_another_error(file: Path, cut: int, flip: int, at: int) -> None:
    good = pickle.dumps(
        {"split": {"train": ["a"]}, "annotations": [{"keypoint": np.ones((1, 2, 3, 3), "f2")}]}
    )
    data = bytearray(good)
    data[at % len(data)] ^= flip
    file.write_bytes(bytes(data[: max(1, len(data) - cut)]) if cut % 2 else bytes(data))
    try:
        read_pickle(file)
    except InputError as e:
        assert str(e)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(tmp_path / "absent.pkl")
