"""Addresses that cannot take a job, and the token's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from motionsynth.errors import InputError
from rayjobs.job_address import check_address, is_loopback, token_header


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "is a Ray Client address.*http://head:8265"),
        ("ray://head", "is a Ray Client address.*http://head:8265"),
        ("head:8265", "has no scheme; write http://HOST:8265"),
        ("https://me:secret@head:8265", "^The address has credentials in it"),
        ("ftp://head:8265", "'ftp://head:8265' is none of a dashboard"),
        ("http://", "is none of a dashboard"),
        ("http://head:port", "is none of a dashboard"),
        ("http://head:8265/?x=1", "is none of a dashboard"),
    ],
)
def test_wrong_addresses_are_one_sentence(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_address(address)
    assert ". " not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://head:8265", "https://ray.example/cluster/", "http://[::1]:8265"])
def test_right_addresses_pass(address: str) -> None:
    assert check_address(address) == address.rstrip("/")


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9:1", True),
        ("http://localhost:8265", True),
        ("http://[::1]:8265", True),
        ("http://10.0.0.7:8265", False),
        ("http://localhost.example:8265", False),
    ],
)
def test_loopback(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_token_of_the_environment_or_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token_header() is None
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH is .* cannot be read"):
        token_header()
    (tmp_path / "token").write_text("abc\n")
    assert token_header() == {"Authorization": "Bearer abc"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "def")
    assert token_header() == {"Authorization": "Bearer def"}
