"""bfloat16 where the processor has it, float32 where it would be emulated."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from motionsynth import precision


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    precision._emulated.cache_clear()
    yield
    precision._emulated.cache_clear()


def product(name: str) -> torch.dtype:
    with precision.autocast(name, "cpu"):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("AVX512", torch.bfloat16),
        ("SVE256", torch.bfloat16),
        ("AVX2", torch.float32),
        ("DEFAULT", torch.float32),
    ],
)
def test_a_cpu_without_bfloat16_computes_in_float32(
    capability: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with caplog.at_level(logging.WARNING):
        assert product("bfloat16") == expected and product("bfloat16") == expected
        assert product("float32") == torch.float32
    # Said once, and only where it is so.
    assert len(caplog.records) == (expected == torch.float32)


def test_a_gpu_is_not_asked_about_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch, "autocast", lambda device, dtype, enabled: (device, dtype, enabled))
    assert precision.autocast("bfloat16", "cuda") == ("cuda", torch.bfloat16, True)
    assert precision.autocast("bfloat16", "cpu") == ("cpu", torch.bfloat16, False)
