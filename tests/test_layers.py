"""The architecture as tests: who may import whom, what lies at the top level, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from motionsynth.generators import GENERATORS
from motionsynth.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("motionsynth", "storage", "cluster", "rayjobs", "tuning")

# What each layer may import of ours; a layer may always import itself.
ALLOWED = {
    "motionsynth": set(),
    "storage": {"motionsynth"},
    "cluster": {"motionsynth.errors"},
    "rayjobs": {"motionsynth", "storage", "cluster"},
    "tuning": {"motionsynth", "storage", "cluster", "rayjobs"},
}
RAY_LAYERS = {"cluster", "rayjobs", "tuning"}
# Third-party modules that `motionsynth` may import at the top of a file (inside a function: any extra).
SCIENCE = {"torch", "numpy", "pyarrow"}

FOLDERS = {"cluster", "rayjobs", "motionsynth", "tuning", "storage", "tests", "benchmarks", "docs"}
FILES = {
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "LICENSE",
    "CITATION.cff",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
}
MAX_LINES = 500


def sources(*packages: str) -> list[Path]:
    return sorted(p for name in packages for p in (ROOT / name).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> list[tuple[int, str]]:
    """(line, module) of every import, also inside functions, and of `import_module("...")` with a literal."""
    tree = ast.parse(path.read_text(), str(path))
    inside = set()
    if top_level_only:
        for node in ast.walk(tree):
            # `if TYPE_CHECKING:` is never executed.
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
                inside.update(id(n) for n in ast.walk(node))
    found = []
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            # `from motionsynth import errors` imports motionsynth.errors.
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append((node.lineno, str(node.args[0].value)))
    return found


def under(module: str, allowed: set[str]) -> bool:
    return any(module == a or module.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("layer", PACKAGES)
def test_imports_run_one_way(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(layer)
        for line, module in imports(path)
        if module.split(".")[0] in PACKAGES and not under(module, ALLOWED[layer] | {layer})
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_upper_layers_import_ray() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(*(set(PACKAGES) - RAY_LAYERS))
        for line, module in imports(path)
        if module.split(".")[0] == "ray"
    ]
    assert not wrong, "\n".join(wrong)


def test_science_needs_only_torch_numpy_pyarrow() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module} at its top"
        for path in sources("motionsynth")
        for line, module in imports(path, top_level_only=True)
        if (name := module.split(".")[0]) not in sys.stdlib_module_names
        and name != "__future__"
        and name not in SCIENCE | {"motionsynth"}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_of_tests() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources(*PACKAGES)
        for line, module in imports(path)
        if module.split(".")[0] == "tests"
    ]
    assert not wrong, "\n".join(wrong)


def tracked() -> list[Path]:
    """Files of the repository as git sees them (tracked, or new and not ignored)."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_top_level_is_fixed() -> None:
    entries = {path.parts[0] for path in tracked()}
    odd = {e for e in entries if not e.startswith(".")} - FOLDERS - FILES
    assert not odd, f"{sorted(odd)} lie at the top level; allowed: {sorted(FOLDERS | FILES)}"


def test_no_long_files_and_no_drawers() -> None:
    python = [path for path in tracked() if path.suffix == ".py"]
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python}
    long = {str(path): n for path, n in lengths.items() if n > MAX_LINES}
    assert not long, f"above {MAX_LINES} lines, split by idea: {long}"
    drawers = [str(p) for p in python if p.stem in ("utils", "helpers", "common") or "common" in p.parts]
    assert not drawers


def test_packages_are_listed_in_pyproject() -> None:
    """A subpackage that is missing there would be missing from an installed copy only."""
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {
        ".".join(p.parent.relative_to(ROOT).parts) for p in sources(*PACKAGES) if p.name == "__init__.py"
    }
    assert present == listed


def without(*packages: str) -> str:
    """The beginning of a program that runs as on a machine without these packages."""
    return f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(packages)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


WITHOUT_RAY = without("ray", "boto3", "botocore")

IMPORT_ALL = (
    WITHOUT_RAY
    + """
import importlib, pkgutil
import motionsynth
names = [m.name for m in pkgutil.walk_packages(motionsynth.__path__, "motionsynth.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
)


def run_python(code: str, *argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def test_the_block_blocks() -> None:
    done = run_python(WITHOUT_RAY + "import ray")
    assert done.returncode != 0 and "ModuleNotFoundError" in done.stderr


CHEAP = (
    without("torch")
    + """
import importlib
from motionsynth.recipe_files import recipe_to_dict
from motionsynth.recipes import RECIPES, get_recipe
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len([recipe_to_dict(get_recipe(name)) for name in RECIPES]))
"""
)


def test_verbs_and_recipes_are_cheap_to_import() -> None:
    """PyTorch takes seconds to import, which whoever asks for --help or mistypes an option need not wait for."""
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources("rayjobs", "tuning")]
    done = run_python(CHEAP, *(n.removesuffix(".__init__") for n in names))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(RECIPES)


def test_motionsynth_imports_without_ray_and_boto3() -> None:
    done = run_python(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


SAMPLE_WITHOUT_RAY = (
    WITHOUT_RAY
    + """
import dataclasses, json
from motionsynth.generators import SampleRequest, build_config, build_generator, fit_context, load_generator
from tests.tiny_motion import make_tiny_set

name = sys.argv[1]
motions = make_tiny_set()
config, context = build_config(name, {}), fit_context(motions)
fresh = build_generator(name, config, context)
stored = {"generator": name, "generator_config": dataclasses.asdict(config), "context": context.to_dict()}
generator = load_generator(fresh.state_dict(), json.loads(json.dumps(stored)))
clips = generator.sample([SampleRequest(sample_id="a", label=2, seed=1)])
print(clips[0].label_name, clips[0].positions.shape[2:])
"""
)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_sample_without_ray_and_boto3(name: str) -> None:
    done = run_python(SAMPLE_WITHOUT_RAY, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wave right hand (20, 3)\n"
