"""Checkpoints: complete or not there, verified, resumable bit for bit, and no pickle anywhere."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from motionsynth.errors import InputError
from storage import MissingError, Storage
from storage.checkpoints import (
    CheckpointInfo,
    checkpoint_digest,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_state,
    read_config,
    save_checkpoint,
    step_prefix,
)
from storage.tensor_tree import flatten, unflatten

CONFIG = {
    "generator": "motion_gan",
    "config": {"width": 8, "loss_weights": {"flow": 0.1}},
    "class_names": ["a", "ü"],
    "metrics": {"loss": 0.5, "undefined": [float("nan"), float("inf")]},
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def test_round_trip(storage_uri: str) -> None:
    storage, net = Storage(storage_uri), model()
    digest = save_checkpoint(storage, "run/step-000000001", net.state_dict(), CONFIG)
    tensors, config = load_checkpoint(storage, "run/step-000000001")
    assert tensors.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
    assert config.pop("git_revision")
    assert config == {**CONFIG, "metrics": {"loss": 0.5, "undefined": [None, None]}}
    assert read_config(storage, "run/step-000000001")["class_names"] == ["a", "ü"]
    assert checkpoint_digest(storage, "run/step-000000001") == digest and len(digest) == 64
    assert load_state(storage, "run/step-000000001") is None


def test_awkward_tensors(tmp_path) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "whole": base,
        "tied": base,
        "view": base[1:],
        "transposed": base.T,
        "parameter": nn.Parameter(base[:, 0]),
        "half": base.to(torch.bfloat16),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 5),
        "also_none": torch.zeros(0),
        "bool": base > 3,
    }
    save_checkpoint(Storage(tmp_path), "c", tensors, {})
    again, _ = load_checkpoint(Storage(tmp_path), "c")
    for name, value in tensors.items():
        assert torch.equal(again[name], value.detach()) and again[name].shape == value.shape


def test_resumed_training_is_bit_equal(storage_uri: str) -> None:
    storage = Storage(storage_uri)

    def step(net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        loss = net(torch.randn(16, 4)).square().mean() + random.random() + float(np.random.rand())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    net = model()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, betas=(0.5, 0.9))
    random.seed(1)
    np.random.seed(1)
    for _ in range(3):
        step(net, optimiser)
    state = {
        "optimiser": optimiser.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "numpy_generator": np.random.default_rng(5).bit_generator.state,
        "python": random.getstate(),
        "step": 3,
    }
    save_checkpoint(storage, "c", net.state_dict(), CONFIG, state)
    for _ in range(3):
        step(net, optimiser)

    other = model()
    other_optimiser = torch.optim.AdamW(other.parameters(), lr=1.0)
    tensors, _ = load_checkpoint(storage, "c")
    loaded = load_state(storage, "c")
    other.load_state_dict(tensors)
    other_optimiser.load_state_dict(loaded["optimiser"])
    torch.set_rng_state(loaded["torch"])
    np.random.set_state(loaded["numpy"])
    random.setstate(loaded["python"])
    assert loaded["numpy_generator"] == state["numpy_generator"] and loaded["step"] == 3
    for _ in range(3):
        step(other, other_optimiser)
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
ARRAYS = st.sampled_from(["<f8", "|u1", "<i4", "|b1", ">f4"]).flatmap(
    lambda d: st.lists(st.integers(0, 3), max_size=3).map(lambda s: np.ones(s, d))
)
TREES = st.recursive(
    SCALARS | ARRAYS,
    lambda t: st.lists(t) | st.lists(t).map(tuple) | st.dictionaries(st.integers() | st.text(), t),
    max_leaves=15,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@settings(max_examples=100)
@given(TREES)
def test_any_state_tree_round_trips(state: object) -> None:
    tensors, tree = flatten(state)
    assert same(unflatten(tensors, json.loads(json.dumps(tree, allow_nan=False))), state)


def test_state_that_would_need_pickle_is_refused(tmp_path) -> None:
    for bad in ({"f": print}, {"x": [object()]}, {(1, 2): 3}, np.array(["text"]), {"s": {1, 2}}):
        with pytest.raises(InputError, match=r"cannot be saved|can be saved without pickle"):
            save_checkpoint(Storage(tmp_path), "c", {}, {}, bad)
    assert not Storage(tmp_path).exists("c/config.json")


def test_nothing_written_is_a_pickle(tmp_path) -> None:
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", model().state_dict(), CONFIG, {"t": torch.zeros(3)})
    kinds = {o.key.rpartition(".")[2] for o in storage.list()}
    assert kinds == {"json", "safetensors"}


def test_digest_is_about_what_samples_depend_on(tmp_path) -> None:
    storage, weights = Storage(tmp_path), model().state_dict()
    first = save_checkpoint(storage, "a", weights, CONFIG)
    moved = save_checkpoint(storage, "b", weights, {**CONFIG, "metrics": {"loss": 0.1}}, {"step": 4})
    assert moved == first
    assert save_checkpoint(storage, "c", weights, {**CONFIG, "class_names": ["a", "b"]}) != first
    weights["0.bias"] = weights["0.bias"] + 1
    assert save_checkpoint(storage, "d", weights, CONFIG) != first


def test_saving_again_replaces_and_leaves_no_litter(tmp_path) -> None:
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", {"w": torch.zeros(3)}, CONFIG, {"step": 1})
    storage.write("c/preview.png", b"kept")
    save_checkpoint(storage, "c", {"w": torch.ones(3)}, CONFIG)
    assert torch.equal(load_checkpoint(storage, "c")[0]["w"], torch.ones(3))
    assert load_state(storage, "c") is None
    assert len(storage.list("c")) == 3 and storage.exists("c/preview.png")


def test_a_crash_while_saving_over_a_checkpoint_keeps_the_old_one(tmp_path, monkeypatch) -> None:
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", {"w": torch.zeros(3)}, CONFIG)
    write = Storage.write

    def crash(self: Storage, key: str, data: bytes) -> None:
        if key == "config.json":
            raise KeyboardInterrupt
        write(self, key, data)

    monkeypatch.setattr(Storage, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(storage, "c", {"w": torch.ones(3)}, CONFIG)
    assert torch.equal(load_checkpoint(storage, "c")[0]["w"], torch.zeros(3))


def model_file(storage: Storage, prefix: str) -> str:
    return next(o.key for o in storage.list(prefix) if "/model-" in o.key)


def flip_model(storage: Storage, prefix: str) -> None:
    data = bytearray(storage.read(model_file(storage, prefix)))
    data[-1] ^= 1
    storage.write(model_file(storage, prefix), bytes(data))


def truncate_model(storage: Storage, prefix: str) -> None:
    key = model_file(storage, prefix)
    storage.write(key, storage.read(key)[:-4])


def edit_config(storage: Storage, prefix: str) -> None:
    raw = storage.read(f"{prefix}/config.json").replace(b'"width":8', b'"width":9')
    storage.write(f"{prefix}/config.json", raw)


DAMAGE: list[tuple[Callable[[Storage, str], None], str]] = [
    (flip_model, "is damaged"),
    (truncate_model, "is damaged"),
    (lambda s, p: s.delete(model_file(s, p)), "is missing"),
    (lambda s, p: s.delete(f"{p}/config.json"), "no complete checkpoint"),
    (lambda s, p: s.write(f"{p}/config.json", b"{"), "damaged or not ours"),
    (lambda s, p: s.write(f"{p}/config.json", b"[]"), "damaged or not ours"),
    (edit_config, "damaged or not ours"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE)
def test_damage_is_named_and_the_latest_falls_back(
    storage_uri: str, damage: Callable[[Storage, str], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(storage_uri)
    for step in (20, 100, 3):
        save_checkpoint(storage, step_prefix("run", step), {"w": torch.full((3,), step)}, CONFIG)
    assert [c.step for c in list_checkpoints(storage, "run")] == [3, 20, 100]
    latest = latest_checkpoint(storage, "run")
    assert latest is not None
    assert latest == CheckpointInfo(
        step=100, prefix="run/step-000000100", digest=checkpoint_digest(storage, "run/step-000000100")
    )
    damage(storage, latest.prefix)
    with pytest.raises(InputError, match=says) as caught:
        load_checkpoint(storage, latest.prefix)
    assert "step-000000100" in str(caught.value)
    with caplog.at_level(logging.WARNING):
        fallback = latest_checkpoint(storage, "run")
    assert fallback is not None and fallback.step == 20
    assert "step-000000100" in caplog.text and "skipped" in caplog.text


def test_no_checkpoints(storage_uri: str) -> None:
    storage = Storage(storage_uri)
    storage.write("run/other/config.json", b"{}")
    storage.write("run/step-x/config.json", b"{}")
    assert list_checkpoints(storage, "run") == [] and latest_checkpoint(storage, "run") is None
    with pytest.raises(MissingError, match="no complete checkpoint"):
        load_checkpoint(storage, "run")


def test_bad_configs(tmp_path) -> None:
    storage = Storage(tmp_path)
    for config in ({"x": object()}, {"x": float("nan")}, {"digest": "d"}):
        with pytest.raises(InputError, match="JSON|must not have the keys"):
            save_checkpoint(storage, "c", {}, config)
    with pytest.raises(InputError, match="must be a tensor"):
        save_checkpoint(storage, "c", {"w": [1]}, {})  # type: ignore[dict-item]
    assert not storage.exists("c/config.json")


def test_a_checkpoint_of_the_future(tmp_path) -> None:
    storage = Storage(tmp_path)
    save_checkpoint(storage, "c", {}, {})
    raw = json.loads(storage.read("c/config.json"))
    storage.write("c/config.json", json.dumps({**raw, "checkpoint_version": 2}).encode())
    with pytest.raises(InputError, match="version 2 .* upgrade"):
        load_checkpoint(storage, "c")
