"""What travels with a job, by the very function of Ray that packs it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cluster.runtime_env import PACKAGES, ROOT, excludes, runtime_env
from motionsynth.errors import InputError


def checkout(folder: Path) -> Path:
    """A folder that looks like a checkout, with what must not travel."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("")
    for name in (
        "tests/test_a.py",
        "docs/a.md",
        ".git/config",
        ".venv/lib/a.py",
        "demo_out/a.parquet",
        "run.log",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "rayjobs" / "docs").mkdir()
    (folder / "rayjobs" / "docs" / "kept.txt").write_text("x")
    (folder / ".gitignore").write_text("# what git ignores\ndemo_out/\n\n*.log\n")
    return folder


def packed(env: dict, out: Path, *, gitignore: bool) -> set[str]:
    """Names of the files in the package that Ray makes of this runtime_env."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    create_package(
        env["working_dir"],
        out,
        include_gitignore=gitignore,
        excludes=[*get_runtime_env_default_excludes(), *env["excludes"]],
    )
    with zipfile.ZipFile(out) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("gitignore", [True, False])
def test_a_package_holds_our_packages_and_nothing_else(tmp_path: Path, gitignore: bool) -> None:
    names = packed(runtime_env(checkout(tmp_path / "c")), tmp_path / "package.zip", gitignore=gitignore)
    expected = {f"{package}/__init__.py" for package in PACKAGES} | {"rayjobs/docs/kept.txt", ".gitignore"}
    assert names == expected


def test_the_package_of_this_checkout_runs_and_is_far_below_the_limit(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    names = packed(runtime_env(), package, gitignore=True)
    assert {"rayjobs/pipeline.py", "motionsynth/skeletons/kinect25.toml"} <= names
    assert not {name.split("/")[0] for name in names} & {"tests", "docs", "benchmarks", ".git", ".venv"}
    assert package.stat().st_size < 20 << 20
    with zipfile.ZipFile(package) as content:
        content.extractall(tmp_path / "unpacked")
    done = subprocess.run(
        [sys.executable, "-m", "rayjobs.pipeline", "--help"],
        cwd=tmp_path / "unpacked",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "--gpus-per-worker" in done.stdout, done.stderr


def test_the_clients_own_variables_are_added_and_win(tmp_path: Path) -> None:
    env = runtime_env(
        checkout(tmp_path), {"AWS_ENDPOINT_URL": "http://s3.example:8333", "OMP_NUM_THREADS": "2"}
    )
    assert env["env_vars"] == {"AWS_ENDPOINT_URL": "http://s3.example:8333", "OMP_NUM_THREADS": "2"}
    assert env["working_dir"] == str(tmp_path)


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "RAY_AUTH_TOKEN", "db_password"]
)
def test_a_secret_is_refused_by_its_name_and_never_shown(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"would hold {name}") as e:
        runtime_env(checkout(tmp_path), {name: "geheim", "AWS_REGION": "eu-central-1"})
    assert "geheim" not in str(e.value) and "AWS_REGION" not in str(e.value)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    checkout(tmp_path)
    (tmp_path / "storage" / "__init__.py").unlink()
    with pytest.raises(InputError, match="has no storage; give the checkout"):
        runtime_env(tmp_path)


def test_a_checkout_without_gitignore_still_leaves_out_what_no_job_needs(tmp_path: Path) -> None:
    assert "/tests/" in excludes(tmp_path) and ".venv/" in excludes(tmp_path)
    assert set(excludes(tmp_path)) < set(excludes(ROOT))
