"""What is sent: checked here, the same id for the same request, no secret, not too large."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runtime_env import PACKAGES
from motionsynth.errors import InputError
from rayjobs import job_request
from rayjobs.job_request import PACKAGE_BYTES, Request, make_request, verbs

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "s3://bucket/x"
STATUS = ["status", "--storage", BUCKET, "--run", "demo"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkout."""
    made = tmp_path / "checkout"
    for package in PACKAGES:
        (made / package).mkdir(parents=True)
        (made / package / "__init__.py").touch()
    return made


def request(folder: Path, *words: str, loopback: bool = False, shared: bool = False) -> Request:
    return make_request(words or STATUS, loopback=loopback, shared=shared, folder=folder)


def test_every_verb_is_known_and_can_be_sent() -> None:
    found = verbs()
    assert {
        "pipeline",
        "prepare",
        "train",
        "generate",
        "score",
        "status",
        "tuning.search",
        "tuning.report",
    } <= set(found)
    assert "submit" not in found
    for module in found.values():
        assert importlib.import_module(module).Options.__dataclass_fields__.keys() >= {
            "storage",
            "run",
            "json",
        }


@pytest.mark.parametrize(
    "before",
    [["status"], ["rayjobs.status"], ["python", "-m", "rayjobs.status"], ["python3", "-m", "rayjobs.status"]],
)
def test_a_verb_may_be_written_in_full(folder: Path, before: list[str]) -> None:
    made = request(folder, *before, *STATUS[1:])
    assert made.entrypoint == f"python -m rayjobs.status --storage {BUCKET} --run demo"
    assert made.id == request(folder).id and made.id.startswith("motionsynth-status-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "^No verb is given.*Known: .*pipeline"),
        (
            ["python", "-m", "rayjobs.pipelin"],
            "^Unknown verb 'rayjobs.pipelin'. Known: .*pipeline, .*tuning.search",
        ),
        (["submit", "--storage", BUCKET], "^Unknown verb 'submit'"),
        (["os", "--storage", BUCKET], "^Unknown verb 'os'"),
        ([*STATUS, "--rnu", "x"], "--rnu.*python -m rayjobs.status --help"),
        (["status"], "--storage.*rayjobs.status --help"),
        ([*STATUS[:-1], "../x"], "The run name '../x' cannot be used"),
        (["status", "--storage", "s3://key:secret@bucket/x"], "has credentials in it"),
        (["status", "--storage", "gs://bucket/x"], "Unknown storage scheme 'gs'"),
        (["status", "--storage", "out"], "'out' is a folder, and the cluster's workers do not see"),
    ],
)
def test_a_mistake_costs_no_cluster_time(folder: Path, words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make_request(words, loopback=False, folder=folder)
    assert "secret" not in str(caught.value)


def test_a_folder_of_this_machine_is_absolute_in_the_job(folder: Path) -> None:
    """The job runs in another folder."""
    for words in (["--storage", "my out"], ["--storage=my out"]):
        made = request(folder, "status", *words, loopback=True)
        assert f"{os.getcwd()}/my out" in made.entrypoint
    assert (
        request(folder, "status", "--storage", "out", shared=True).id
        == request(folder, "status", "--storage", os.path.abspath("out"), shared=True).id
    )


def test_the_id_is_of_what_is_asked_and_of_the_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = request(folder).id
    assert request(folder, "status", "--run=demo", "--storage", f"{BUCKET}/").id == first
    assert request(folder, *STATUS[:-1], "other").id != first
    (folder / "ignored.log").write_text("x")
    (folder / ".gitignore").write_text("*.log\n")
    ignoring = request(folder).id
    (folder / "ignored.log").write_text("y")
    assert request(folder).id == ignoring
    (folder / "rayjobs" / "new.py").write_text("x = 1\n")
    changed = request(folder).id
    assert changed != ignoring
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:8333")
    assert request(folder).id != changed


def test_no_secret_is_sent_and_none_changes_the_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:8333")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    before = request(folder)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "hush")
    made = request(folder)
    assert made == before and "hush" not in repr(made)
    env = made.runtime_env["env_vars"]
    assert env["AWS_ENDPOINT_URL"] == "http://store:8333" and env["AWS_REGION"] == "eu-west-1"
    # Longer than a verb may take to end once it is told to.
    assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) > 300


def test_too_large_a_folder_names_what_is_large(folder: Path) -> None:
    for name, size in (
        ("data/raw/a.bin", PACKAGE_BYTES),
        ("data/raw/b.bin", 30 << 20),
        ("notes/c.bin", 5 << 20),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            file.truncate(size)  # sparse
    with pytest.raises(InputError, match=r"135 MiB.* takes 100;.*data/raw/ 130 MiB, notes/c.bin 5 MiB"):
        request(folder)
    (folder / ".rayignore").write_text("data/raw\n")
    request(folder)


@pytest.mark.parametrize("option", [["--raw", "clips"], ["--recipe", "demo,mine.json"]])
def test_files_that_do_not_travel_are_named(folder: Path, option: list[str]) -> None:
    words = ["pipeline", "--storage", BUCKET, "--dataset", "nucla", *option]
    with pytest.raises(InputError, match=f"{option[0]} '.*' does not travel to the cluster"):
        request(folder, *words)
    (folder / "clips").mkdir()
    (folder / "clips" / "a.txt").touch()
    (folder / "mine.json").write_text("{}")
    request(folder, *words)
    (folder / ".gitignore").write_text("clips\nmine.json\n")
    with pytest.raises(InputError, match="does not travel"):
        request(folder, *words)
    request(folder, *words[:-1], f"/data/{option[1].split(',')[-1]}")


def test_nothing_is_asked_of_a_cluster_before_the_options_are_right() -> None:
    """The command, at an address where nobody answers: it would wait for minutes."""
    done = subprocess.run(
        [sys.executable, "-m", "rayjobs.submit", "--address", "http://10.255.255.1:8265", "--", *STATUS, "--rnu", "x"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2 and "--rnu" in done.stderr and "waiting" not in done.stderr


def test_ray_packs_the_files_that_are_hashed(folder: Path, tmp_path: Path) -> None:
    """Held against Ray's own packing, whose rules for ignoring are not quite those of git."""
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    for name in (
        "a.log",
        "b.txt",
        "sub/c.log",
        "sub/__pycache__/d.pyc",
        ".git/e",
        "tests/f.py",
        "keep/tests/g.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / ".gitignore").write_text("*.log\n")
    made = request(folder)
    excludes = made.runtime_env["excludes"]
    packed = job_request.packed_files(folder, excludes)
    assert {"b.txt", "keep/tests/g.py"} <= set(packed) and not {"a.log", "sub/c.log", "tests/f.py"} & set(
        packed
    )
    create_package(
        str(folder), tmp_path / "p.zip", include_gitignore=True, excludes=[*excludes, ".git", "__pycache__"]
    )
    assert {n for n in ZipFile(tmp_path / "p.zip").namelist() if not n.endswith("/")} == set(packed)
