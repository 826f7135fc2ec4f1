"""The verb on a real run: what `generate` wrote for a bed becomes a dataset that `score` and users read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import pyarrow.parquet as pq
import pytest

from cluster.connect import Connection, connect
from motionsynth.beds import BedSpec
from motionsynth.errors import InputError
from motionsynth.hybrid import PUBLISHED_NOTE
from motionsynth.recipes import Recipe
from motionsynth.refine_config import RefineConfig
from motionsynth.splits import Split
from rayjobs import compose, experiment, pipeline, prepare, score
from rayjobs import train as train_job
from rayjobs.generate import request_for
from rayjobs.refine import refine_bed
from rayjobs.shard_pool import ShardWriter, header_of
from rayjobs.sources import open_source
from storage import ConflictError, Storage
from storage.checkpoints import load_checkpoint, read_config, save_checkpoint
from storage.dataset import read_dataset, verify, write_dataset
from storage.header import Header
from storage.manifest import Manifest, read_manifest, write_manifest
from storage.shards import plan
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]
SPLITS = (
    Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",)),
    Split(name="cross_view", by="view", train=("01",), test=("02",)),
)


def options(storage: Storage, name: str = "mix", **given) -> compose.Options:
    fixed = {"dataset": "tiny", "recipe": "debug", "run": "r", "per_class": 4}
    return compose.Options(storage=storage.uri, name=name, **(fixed | given))


def make_clips(storage: Storage, recipe: Recipe, spec: BedSpec) -> str:
    """Train and generate for one bed as the verbs do, in this process."""
    prefix = experiment.bed_prefix("r", "tiny", spec, recipe.generator)
    train_job.run_loop(storage, "tiny", "r", recipe, spec)
    info = train_job.finished_checkpoint(storage, prefix)
    assert info is not None
    request = request_for(storage, info.prefix, dict.fromkeys(range(3), 4), shard_size=12)
    header = header_of(read_config(storage, info.prefix))
    (shard,) = plan(request)
    record = ShardWriter(storage, None, False).write(f"{prefix}/synthetic", shard)
    write_manifest(
        storage, f"{prefix}/synthetic",
        Manifest(kind="generated", header=header, shards=(record,), request=request.to_dict()),
    )  # fmt: skip
    return f"{prefix}/synthetic"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The tiny set, and clips of a generator of its validation bed; tests write under names of their own."""
    storage = Storage(tmp_path_factory.mktemp("compose"))
    motions = make_tiny_set(2)
    splits = tuple(s.to_dict() for s in SPLITS)
    write_dataset(
        storage, "data/tiny", motions, Header.of(motions, splits=splits, terms="free", title="Tiny")
    )
    recipe = options(storage).chosen(storage)
    make_clips(storage, recipe, recipe.beds[0])
    return storage


def test_the_dataset_is_whole_and_tells_where_its_clips_come_from(
    made: Storage, capsys: pytest.CaptureFixture
) -> None:
    result = compose.verb(options(made))
    motions, header = read_dataset(made, "data/mix")
    assert verify(made, "data/mix") == [] and result["manifest"] == read_manifest(made, "data/mix").digest
    assert Counter(m.source for m in motions.motions) == {"real": 48, "synthetic": 12}
    assert header.dataset == "mix" and header.extra["terms"] == "free" and "as_published" not in header.extra
    origin = header.extra["hybrid"]
    assert origin["synthetic"]["generator"] == "motion_gan" and origin["per_class"] == 4
    assert origin["real"]["manifest"] == read_manifest(made, "data/tiny").digest
    assert origin["splits_left_out"] == ["cross_view"]
    # Real clips are as they were, bit for bit, with their own dataset's name.
    there = read_dataset(made, "data/tiny")[0]
    assert all(
        (a.positions == b.positions).all() and a.dataset == b.dataset == "tiny"
        for a, b in zip(motions.motions, there.motions, strict=False)
    )
    shown = capsys.readouterr().out
    assert "48 real and 12 synthetic clips of 3 classes under data/mix" in shown
    assert (
        "split cross_subject: real 36 train, 12 test; synthetic 12 train" in shown and "cross_view" in shown
    )
    # Anybody reads it without us.
    (shard,) = made.list("data/mix/shards")
    table = pq.read_table(Path(made.uri.removeprefix("file://")) / shard.key)
    assert Counter(table["source"].to_pylist()) == {"real": 48, "synthetic": 12}


def test_composing_again_changes_nothing_and_other_content_needs_another_name(made: Storage) -> None:
    first = compose.verb(options(made, "twice"))
    before = {o.key: made.digest(o.key) for o in made.list("data/twice")}
    assert compose.verb(options(made, "twice")) == first
    assert {o.key: made.digest(o.key) for o in made.list("data/twice")} == before
    with pytest.raises(
        ConflictError, match="already holds another dataset; choose another --as, or --replace"
    ):
        compose.verb(options(made, "twice", per_class=2))
    assert made.digest("data/twice/manifest.json") == before["data/twice/manifest.json"]
    assert compose.verb(options(made, "twice", per_class=2, replace=True))["clips"] == 54


def test_a_refined_set_is_composed_like_any_other(made: Storage) -> None:
    recipe = options(made).chosen(made)
    refine_bed(made, "tiny", "r", RefineConfig(published_threshold=1e6), recipe.beds[0], ["motion_gan"])
    refined = experiment.synthetic_prefix("r", "tiny", recipe.beds[0], "refined:motion_gan")
    compose.verb(options(made, "refined", synthetic=refined))
    motions, header = read_dataset(made, "data/refined")
    graded = [m.accepted for m in motions.motions if m.source == "synthetic"]
    assert graded == [True] * 12 and header.extra["hybrid"]["synthetic"]["prefix"] == refined


def test_80_10_10_holds_out_people_whom_the_generator_has_not_seen(made: Storage) -> None:
    spec = options(made).chosen(made).beds[0]
    seen = {m.subject for m in experiment.load_bed(made, "tiny", spec).train.motions}
    result = compose.verb(options(made, "people", splits="80/10/10"))
    (split,) = (Split.from_dict(s) for s in read_dataset(made, "data/people")[1].splits)
    assert seen <= set(split.train) and len(split.validation) == len(split.test) == 1
    assert result["splits"]["80_10_10"] == {
        "real": {"train": 24, "validation": 12, "test": 12, "none": 0},
        "synthetic": {"train": 12, "validation": 0, "test": 0, "none": 0},
    }


@pytest.mark.slow
def test_its_files_can_be_prepared_elsewhere_with_all_three_sides(
    made: Storage, tmp_path: Path, ray_local: None, capsys: pytest.CaptureFixture
) -> None:
    compose.verb(options(made, "exported", splits="80/10/10"))
    folder = Path(made.uri.removeprefix("file://")) / "data" / "exported"
    source = open_source("parquet", [folder], name="imported")
    other = Storage(tmp_path)
    result = prepare.prepare(other, source, cpus=join().cpus)
    assert result["splits"] == {"80_10_10": {"train": 36, "test": 12, "neither": 0, "validation": 12}}
    prepare.report(result)
    assert "36 train, 12 test, 12 validation" in capsys.readouterr().out
    spec = BedSpec(protocol="80_10_10", scarcity="full")
    here, there = (experiment.load_bed(s, d, spec) for s, d in ((made, "exported"), (other, "imported")))
    assert [m.sample_id for m in here.evaluate.motions] == [m.sample_id for m in there.evaluate.motions]
    assert len(here.synthetic) == len(there.synthetic) == 12


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"protocol": "fold1"}, "no protocol 'fold1'. Known: cross_subject, cross_view"),
        ({"protocol": "all"}, "one dataset for one protocol, --protocol names 2"),
        ({"per_class": 500}, "has 4 accepted synthetic clips and 500 are asked for"),
        (
            {"scarcity": "rare"},
            "no synthetic clips for cross_subject-validation-rare-k3-s0-d0 .*; run .*generate",
        ),
        ({"splits": "thirds"}, "Unknown splits 'thirds'. Known: official, 80/10/10"),
        ({"splits": "official", "as_published": True}, "leave out --splits official"),
        ({"name": "tiny"}, "--as 'tiny' is the real dataset itself"),
        ({"name": "a/b"}, "dataset name 'a/b' cannot be used"),
        ({"dataset": "none"}, "holds no dataset"),
        ({"synthetic": "data/tiny"}, "'data/tiny' is not a generated set"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(made: Storage, given: dict, sentence: str) -> None:
    before = [o.key for o in made.list()]
    with pytest.raises(InputError, match=sentence) as e:
        compose.verb(options(made, **{"name": "bad"} | given))
    assert "\n" not in str(e.value) and [o.key for o in made.list()] == before


def test_a_generator_that_saw_held_out_views_is_refused_by_the_command(made: Storage) -> None:
    recipe = options(made).chosen(made)
    prefix = f"{experiment.bed_prefix('r', 'tiny', recipe.beds[0], recipe.generator)}/synthetic"
    command = [
        sys.executable,
        "-m",
        "rayjobs.compose",
        "--storage",
        made.uri,
        "--dataset",
        "tiny",
        "--recipe",
        "debug",
    ]
    command += [
        "--as",
        "leak",
        "--per-class",
        "4",
        "--protocol",
        "cross_view",
        "--synthetic",
        prefix,
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "that split 'cross_view' holds out of training (view 02)" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 2 and not made.list("data/leak")


def test_a_checkpoint_that_changed_or_other_clips_are_refused(made: Storage, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for o in made.list():
        if o.key.startswith(("runs", "data/tiny/")):
            storage.write(o.key, made.read(o.key))
    recipe = options(storage).chosen(storage)
    motions, header = read_dataset(storage, "data/tiny")
    write_dataset(storage, "data/tiny", motions.select(range(47)), header, replace=True)
    with pytest.raises(InputError, match="trained on other clips: dataset 'tiny' has been prepared anew"):
        compose.verb(options(storage))
    write_dataset(storage, "data/tiny", motions, header, replace=True)
    prefix = experiment.bed_prefix("r", "tiny", recipe.beds[0], recipe.generator)
    info = train_job.finished_checkpoint(storage, prefix)
    assert info is not None
    tensors, config = load_checkpoint(storage, info.prefix)
    save_checkpoint(storage, info.prefix, {k: v + 1 for k, v in tensors.items()}, config)
    with pytest.raises(InputError, match="is no longer the one that made"):
        compose.verb(options(storage))


def join() -> Connection:
    return connect("local")


def never() -> NoReturn:
    raise AssertionError("Ray was asked for though there is nothing to do")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_hybrid_dataset_is_scored_against_its_real_clips_and_says_how_it_was_made(
    made: Storage, ray_local: None, capsys: pytest.CaptureFixture
) -> None:
    compose.verb(options(made, "scored"))
    compose.verb(options(made, "pooled", as_published=True))
    assert read_dataset(made, "data/pooled")[1].extra["as_published"] is True
    for name, protocol, published in (("scored", "cross_subject", False), ("pooled", "as_published", True)):
        capsys.readouterr()
        given = pipeline.Options(
            storage=made.uri, dataset=name, recipe="debug", run="r", scarcity="full", address="local"
        )
        recipe = given.chosen(made)
        result = score.score(made, name, "r", recipe, join, workers=1)
        assert [a["arm"] for a in result["arms"]] == ["weak", "strong", "hybrid", "tstr:hybrid"]
        assert result["protocols"] == [protocol] and result["as_published"] is published
        hybrid = next(a for a in result["arms"] if a["arm"] == "hybrid")
        assert hybrid["runs"] == 1 and hybrid["difference"] is not None
        stored = json.loads(made.read(f"runs/r/{name}/score-validation-tcn.json"))
        assert stored["as_published"] is published and stored["bed"] == asdict(recipe.bed)
        records = [json.loads(made.read(o.key)) for o in made.list(f"scores/{name}")]
        assert {r["as_published"] for r in records if "arm" in r} == {published}
        # The pipeline goes straight to the table: a generator is not trained on what one made.
        again = pipeline.verb(given)
        assert again["trained"] == 0 and again["trained_generators"] == []
        assert (PUBLISHED_NOTE in capsys.readouterr().out) is published
