"""Every command of docs/publishing.md, in its order, on the real sample and a real (small) training."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from motionsynth.recipes import get_recipe
from rayjobs import cli, experiment
from rayjobs import train as train_job
from rayjobs.generate import request_for
from rayjobs.shard_pool import ShardWriter, header_of
from storage import Storage
from storage.checkpoints import read_config
from storage.dataset import write_dataset
from storage.header import Header
from storage.manifest import Manifest, write_manifest
from storage.shards import plan
from tests.tiny_motion import make_tiny_set

DOC = Path(__file__).resolve().parents[1] / "docs" / "publishing.md"


def commands() -> list[list[str]]:
    """The lines of its bash blocks, split as a shell does."""
    blocks = re.findall(r"```bash\n(.*?)```", DOC.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def run(words: list[str]) -> dict:
    """One command as its module runs it, in this process: a Ray for each would take minutes."""
    assert words[:2] == ["python", "-m"]
    module = importlib.import_module(words[2])
    return module.verb(cli.parse(module.Options, words[3:]))


def tour(storage: Storage) -> None:
    """What the README's tour leaves of its first draw, by the debug recipe: other weights in the same places."""
    recipe = get_recipe("debug")
    bed = get_recipe("demo").beds[0]
    train_job.run_loop(storage, "sample", "tour", replace(recipe, bed=bed), bed)
    prefix = experiment.bed_prefix("tour", "sample", bed, recipe.generator)
    info = train_job.finished_checkpoint(storage, prefix)
    assert info is not None
    request = request_for(storage, info.prefix, {0: 3}, shard_size=3)
    record = ShardWriter(storage, None, False).write(f"{prefix}/synthetic", plan(request)[0])
    header = header_of(read_config(storage, info.prefix))
    manifest = Manifest(kind="generated", header=header, shards=(record,), request=request.to_dict())
    write_manifest(storage, f"{prefix}/synthetic", manifest)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = commands()
    verbs = {words[2] for words in listed}
    assert verbs == {f"rayjobs.{v}" for v in ("prepare", "publish", "generate", "export")}
    storage = Storage("out")
    write_dataset(storage, "data/mine", make_tiny_set(), Header.of(make_tiny_set()))
    for words in listed:
        if "runs/tour/" in " ".join(words) and not storage.list("runs"):
            tour(storage)
        run(words)
    card = (tmp_path / "published" / "model" / "README.md").read_text()
    assert "Its tensors hold" in card and "PDDL-1.0" in card
    assert len(list((tmp_path / "exported" / "glb").glob("*.glb"))) == 20
    assert 'license: "cc-by-4.0"' in (tmp_path / "published" / "mine" / "README.md").read_text()
    generated = Storage("published").list("runs/new")
    assert any(o.key.endswith(".parquet") for o in generated)
