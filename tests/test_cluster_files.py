"""The files of cluster/ against the rest of the project: versions, entry points, image, secrets; and what docs say."""

from __future__ import annotations

import importlib
import math
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import pytest
import tyro

from tests.cluster_files import CLUSTER, LAUNCHERS, ROOT, growth, launcher, manifest, ray_clusters
from tests.documents import split_submitted

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
DOCKERFILE = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
DOCUMENTS = (ROOT / "docs" / "clusters.md", ROOT / "README.md")


def images() -> set[str]:
    """Every image that a file of cluster/ names for its nodes."""
    found = {launcher(name)["docker"]["image"] for name in LAUNCHERS}
    for spec in ray_clusters():
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            found |= {c["image"] for c in group["template"]["spec"]["containers"]}
    return found


def instructions(name: str) -> list[str]:
    """Arguments of all lines of the Dockerfile that begin with this instruction."""
    return re.findall(rf"^{name}\s+(.+)$", DOCKERFILE, re.MULTILINE)


def test_all_nodes_run_one_image_of_this_version() -> None:
    (image,) = images()
    assert image.rpartition(":")[2] == PYPROJECT["project"]["version"]
    assert f"-t {image} ." in DOCKERFILE.replace("#       ", "")


def test_the_image_has_the_ray_and_the_python_that_were_tested() -> None:
    (base,) = instructions("FROM")
    ray, python, kind = re.fullmatch(r"rayproject/ray:([\d.]+)-py3(\d+)-(\w+)", base).groups()  # type: ignore[union-attr]
    assert ray == PINNED["ray"] and kind == "gpu"
    assert f">=3.{python}" == PYPROJECT["project"]["requires-python"]
    assert {spec["rayVersion"] for spec in ray_clusters()} == {ray}


def test_the_image_holds_every_package_and_what_it_copies_exists() -> None:
    copied = {
        source
        for line in instructions("COPY")
        for source in line.replace("--chown=ray:users ", "").split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    packages = {name.split(".")[0] for name in PYPROJECT["tool"]["setuptools"]["packages"]}
    needed = packages | {"pyproject.toml", "constraints.txt", PYPROJECT["project"]["readme"]}
    assert needed | set(PYPROJECT["project"]["license-files"]) == copied
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied


def test_the_image_runs_as_a_user_and_installs_what_is_pinned() -> None:
    assert instructions("USER") == ["ray"]
    pip = [line for line in instructions("RUN") if "pip install" in line]
    assert len(pip) == 2 and "-c constraints.txt" in pip[0] and "--no-deps ." in pip[1]


def test_the_image_finds_its_dependencies_in_pyproject() -> None:
    """The line of Python in the Dockerfile, run."""
    code = shlex.split(instructions("RUN")[0].split(" > ")[0])
    assert code[:2] == ["python", "-c"]
    done = subprocess.run([sys.executable, *code[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert done.stdout.splitlines() == PYPROJECT["project"]["dependencies"] + extras["mat"] + extras["gcp"]


def lines() -> Iterator[tuple[str, str]]:
    """(where, line) of every command line in the README's section and in docs/clusters.md."""
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        if document.name == "README.md":
            text = text[text.index("## On a cluster") :].split("\n## ")[0]
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            yield from ((document.name, line.strip()) for line in block.splitlines())


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every verb that a manifest or a document runs."""
    yield "rayjob.yaml", shlex.split(manifest("rayjob.yaml")[1]["spec"]["entrypoint"])
    for where, line in lines():
        if found := re.search(r"python -m (?:rayjobs|tuning)\.[^'\"#]*", line):
            _, _, module, *arguments = shlex.split(found[0])
            for name, own in split_submitted(module, arguments):
                yield where, ["python", "-m", name, *own]


COMMANDS = list(commands())


def parsed(words: list[str]) -> Any:
    """The options of a command line `python -m MODULE ...`, by the module's own parser."""
    assert words[:2] == ["python", "-m"]
    module = importlib.import_module(words[2])
    return tyro.cli(module.Options, args=words[3:], config=(tyro.conf.FlagCreatePairsOff,))


def test_every_place_has_commands() -> None:
    assert {where for where, _ in COMMANDS} == {"rayjob.yaml", "clusters.md", "README.md"}


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w}: {' '.join(c[2:])}" for w, c in COMMANDS])
def test_commands_are_verbs_whose_options_parse(where: str, words: list[str]) -> None:
    options = parsed(words)
    if words[2] != "rayjobs.submit":
        assert options.storage.startswith(("s3://", "/"))


def parse_by_ray(line: str) -> None:
    """Parse a command line as the program `ray` does, with the one that `ray exec` would run; nothing is run."""
    from ray.scripts.scripts import cli

    words = shlex.split(line)[1:]
    context, command = cli.make_context("ray", list(words)), cli
    while isinstance(command, click.Group):
        command = command.get_command(context, words[0])
        assert command, f"ray has no command {words[0]}"
        words = words[1:]
    command.make_context(line, list(words), parent=context)
    assert all((ROOT / word).is_file() for word in words if word.startswith("cluster/"))
    if line.startswith("ray exec"):
        parse_by_ray(words[-1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("line", [line for _, line in lines() if line.startswith("ray ")])
def test_rays_command_line_takes_what_the_documents_say(line: str) -> None:
    parse_by_ray(line)


@pytest.mark.parametrize(
    "line", ["ray up --yess cluster/aws.yaml", 'ray exec cluster/aws.yaml "ray job submitt"']
)
def test_rays_command_line_would_not_take_a_mistake(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        parse_by_ray(line)


def test_a_mistyped_option_would_not_parse(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parsed([*COMMANDS[0][1], "--gpu-per-worker", "1"])
    assert "--gpu-per-worker" in capsys.readouterr().err


def test_the_job_counts_on_what_its_cluster_can_grow_to() -> None:
    options = parsed(COMMANDS[0][1])
    assert (options.cpus, options.gpus) == growth("kuberay")
    # A worker holds one CPU beside its share of a GPU: both must fit on one node.
    gpu = next(g for g in ray_clusters()[0]["workerGroupSpecs"] if g["groupName"] == "gpu")
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert math.floor(1 / options.gpus_per_worker) <= int(limits["cpu"])


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_commands_of_a_launcher_count_on_what_it_can_grow_to(name: str) -> None:
    readme = DOCUMENTS[1].read_text()
    (line,) = [line for line in readme.splitlines() if line.startswith(f"ray exec cluster/{name}.yaml")]
    found = re.search(r"--cpus (\d+) --gpus (\d+)", readme[readme.index(line) :].split("```")[0])
    assert found and tuple(map(int, found.groups())) == growth(name)


@pytest.mark.parametrize("title", ["A cluster that is there", "AWS", "Google Cloud", "Kubernetes"])
def test_the_readme_has_three_commands_for_each_platform(title: str) -> None:
    text = DOCUMENTS[1].read_text()
    section = text[text.index("## On a cluster") :].split("\n## ")[0].replace("\\\n", " ")
    block = section[section.index(f"**{title}**") :].split("```")[1]
    assert len([line for line in block.splitlines()[1:] if line.strip()]) == 3


SECRETS = {
    "an AWS key": r"(AKIA|ASIA)[A-Z0-9]{16}",
    "a long random value": r"(?<![/\w.-])[A-Za-z0-9+/]{40,}={0,2}(?![\w./-])",
    "a private key": r"-----BEGIN",
    "a variable with a secret in it": (
        r"(?i)(secret|token|password|access_key)[\w-]*['\"]?(,?\s*value:|\s*[:=])"
        r"\s*['\"]?[A-Za-z0-9+][A-Za-z0-9+/]{11,}"
    ),
}


def secrets_in(text: str) -> list[str]:
    return [what for what, pattern in SECRETS.items() if re.search(pattern, text)]


def test_no_file_of_the_folder_holds_a_secret() -> None:
    files = [p for p in CLUSTER.rglob("*") if p.is_file() and p.suffix in (".yaml", "", ".py")]
    assert len(files) >= 8
    found = {path.name: said for path in files if (said := secrets_in(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "AWS_ACCESS_KEY_ID: AKIA" + "ABCDEFGH12345678",
        "- {name: AWS_SECRET_ACCESS_KEY, value: " + "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzz}",
        "- name: AWS_SECRET_ACCESS_KEY\n  value: " + "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzz",
        "RAY_AUTH_TOKEN=" + "0123456789abcdef" * 4,
        "password: hunter2hunter2",
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert secrets_in(text)


def test_what_must_be_changed_is_marked_and_explained() -> None:
    """Every value that nobody can know beforehand is a CHANGE-ME, and the documentation says what each one is."""
    marks = {
        mark
        for path in CLUSTER.rglob("*.yaml")
        for mark in re.findall(r"[\w-]*CHANGE-ME[\w-]*", path.read_text())
    }
    text = DOCUMENTS[0].read_text()
    assert marks and not [mark for mark in marks if f"`{mark}`" not in text]
