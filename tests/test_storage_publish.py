"""Published folders, read by others' software in processes that cannot see ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from motionsynth.terms import grant
from storage import ConflictError, Storage
from storage.card_parts import About
from storage.dataset import read_dataset, verify, write_dataset
from storage.decisions import decide
from storage.facts import read_facts
from storage.header import Header
from storage.publish import publish_dataset
from tests.test_storage_facts import SPLIT, mixed

OWN = grant("Clips", [], ["tiny"], licence="CC-BY-4.0")
ABOUT = About(title="Tiny clips", url="https://example.org/tiny")


def publish(storage: Storage, motions: MotionSet, out: Storage, splits: bool = True, **given) -> dict:
    header = Header.of(motions, (SPLIT.to_dict(),) if splits else ())
    write_dataset(storage, "data/tiny", motions, header, rows_per_shard=9, replace=True)
    facts = read_facts(storage, "data/tiny")
    return publish_dataset(storage, "data/tiny", facts, OWN, out, ABOUT, **given)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MotionSet]:
    from tests.tiny_motion import make_tiny_set

    root, motions = tmp_path_factory.mktemp("publish"), mixed(make_tiny_set())
    publish(Storage(root / "store"), motions, Storage(root / "out"))
    return root / "out", motions


def elsewhere(code: str, tmp_path: Path, *argv: str) -> dict:
    """Run code where only installed packages can be imported, and none of ours; its last line is JSON."""
    ours = "import sys\nfor name in ('motionsynth', 'storage', 'rayjobs'):\n    sys.modules[name] = None\n"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith(("AWS_", "HF_"))}
    env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ours + code, *argv],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


TELL = """
import json, numpy as np
def tell(clips, one):
    x = np.array(one, dtype=np.float64)
    print(json.dumps({"clips": clips, "shape": x.shape, "sum": float(x.sum()), "last": x[-1, -1, -1].tolist()}))
"""
ID = "c1_s02_r0_v02"

READERS = {
    "datasets": """
from datasets import load_dataset
every = load_dataset(sys.argv[1])
assert list(every) == ["train"], every
row = [r for r in every["train"] if r["sample_id"] == sys.argv[2]][0]
tell(len(every["train"]), row["motion"])
""",
    "pandas": """
import pandas
table = pandas.read_parquet(sys.argv[1] + "/data")
table = table[table.accepted.isna()]
motion = table[table.sample_id == sys.argv[2]].motion.iloc[0]
tell(len(table), [[list(map(list, frame)) for frame in person] for person in motion])
""",
    "polars": """
import polars
table = polars.read_parquet(sys.argv[1] + "/data/*.parquet").filter(polars.col("accepted").is_null())
tell(len(table), table.filter(polars.col("sample_id") == sys.argv[2])["motion"][0].to_list())
""",
    "duckdb": """
import duckdb
files = sys.argv[1] + "/data/*.parquet"
(count,), = duckdb.sql(f"SELECT count(*) FROM '{files}' WHERE accepted IS NULL").fetchall()
(motion,), = duckdb.sql(f"SELECT motion FROM '{files}' WHERE sample_id = '{sys.argv[2]}'").fetchall()
tell(count, motion)
""",
    "mlcroissant": """
import mlcroissant
rows = list(mlcroissant.Dataset(sys.argv[1] + "/croissant.json").records("clips"))
text = lambda v: v.decode() if isinstance(v, bytes) else v
row = [r for r in rows if text(r["clips/sample_id"]) == sys.argv[2]][0]
motion = [[[list(joint) for joint in frame] for frame in person] for person in row["clips/motion"]]
tell(len([r for r in rows if r["clips/accepted"] != False]), motion)
""",
}


@pytest.mark.parametrize("reader", READERS)
def test_others_read_it_without_us(published: tuple[Path, MotionSet], tmp_path: Path, reader: str) -> None:
    pytest.importorskip(reader)
    folder, motions = published
    (clip,) = [m for m in motions.motions if m.sample_id == ID]
    got = elsewhere(TELL + READERS[reader], tmp_path, str(folder), ID)
    x = clip.positions.astype(np.float64)
    assert got["clips"] == 29 and tuple(got["shape"]) == x.shape
    assert got["sum"] == pytest.approx(x.sum(), rel=1e-12) and got["last"] == x[-1, -1, -1].tolist()


def test_protocols_are_configurations(published: tuple[Path, MotionSet], tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = """
import json
from datasets import get_dataset_config_names, load_dataset
folder, seen = sys.argv[1], {}
for name in get_dataset_config_names(folder):
    seen[name] = {k: sorted(set(d["subject"])) + [len(d)] for k, d in load_dataset(folder, name).items()}
print(json.dumps(seen))
"""
    got = elsewhere(code, tmp_path, str(published[0]))
    assert got == {
        "all": {"train": ["", "01", "02", "03", "04", 29]},
        "cross_subject": {"train": ["01", "02", 12], "test": ["03", 6]},
        "refused": {"train": ["", 1]},
    }


def test_the_front_matter_is_what_the_hub_reads(published: tuple[Path, MotionSet]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.DatasetCard.load(published[0] / "README.md").data.to_dict()
    assert data["license"] == "cc-by-4.0" and data["size_categories"] == ["n<1K"]
    assert data["pretty_name"] == "Tiny clips" and "synthetic" in data["tags"]
    assert [c["config_name"] for c in data["configs"]] == ["all", "cross_subject", "refused"]
    assert data["configs"][0]["default"] is True


def test_the_sums_are_right_and_we_read_it_too(published: tuple[Path, MotionSet], tmp_path: Path) -> None:
    folder, motions = published
    lines = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert set(lines) == set(files) - {"SHA256SUMS"}
    assert all(hashlib.sha256(files[k].read_bytes()).hexdigest() == v for k, v in lines.items())
    assert verify(Storage(folder), "") == []
    again = {m.sample_id: m for m in read_dataset(Storage(folder), "")[0].motions}
    assert set(again) == {m.sample_id for m in motions.motions}
    assert all(np.array_equal(again[m.sample_id].positions, m.positions) for m in motions.motions)
    assert json.loads((folder / "skeleton.json").read_text())["parents"][1] == "pelvis"


def test_without_splits_shards_are_copied_byte_for_byte(storage_uri: str, tiny_set: MotionSet) -> None:
    storage = Storage(storage_uri)
    result = publish(storage.sub("in"), tiny_set, storage.sub("out"), splits=False)
    shards = {o.key.rpartition("/")[2]: storage.digest(o.key) for o in storage.list("in/data/tiny/shards")}
    copied = {o.key.rpartition("/")[2]: storage.digest(o.key) for o in storage.list("out/data")}
    assert shards == copied and len(shards) == 3 and result["configs"] == {"all": {"train": 24}}
    # The same again: nothing changes. Splits, asked to be copied: the same files, no protocol among the configurations.
    before = {o.key: storage.digest(o.key) for o in storage.list("out")}
    publish(storage.sub("in"), tiny_set, storage.sub("out"), splits=False)
    assert {o.key: storage.digest(o.key) for o in storage.list("out")} == before
    result = publish(storage.sub("in"), tiny_set, storage.sub("other"), copy=True)
    assert list(result["configs"]) == ["all"] and storage.exists("other/splits.json")


def test_another_publication_is_replaced_only_when_asked(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage, out = Storage(tmp_path / "store"), Storage(tmp_path / "out")
    out.write(".git/config", b"kept")
    publish(storage, tiny_set, out)
    before = {o.key: out.digest(o.key) for o in out.list()}
    with pytest.raises(ConflictError, match=r"README.md differs\); give another --out, or --replace"):
        publish(storage, mixed(tiny_set), out)
    assert {o.key: out.digest(o.key) for o in out.list()} == before
    publish(storage, mixed(tiny_set), out, overwrite=True)
    assert verify(out, "") == [] and out.exists(".git/config")
    publish(storage, tiny_set, out, overwrite=True)
    assert {o.key: out.digest(o.key) for o in out.list()} == before


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, tiny_set: MotionSet) -> None:
    out = Storage(tmp_path / "out")
    out.write("thesis.tex", b"x")
    for overwrite in (False, True):
        with pytest.raises(ConflictError, match=r"holds other files \(thesis.tex\)"):
            publish(Storage(tmp_path / "store"), tiny_set, out, overwrite=overwrite)
    assert [o.key for o in out.list()] == ["thesis.tex"]


def test_a_damaged_shard_leaves_no_sums(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage, out = Storage(tmp_path / "store"), Storage(tmp_path / "out")
    manifest = write_dataset(storage, "d", tiny_set, Header.of(tiny_set))
    facts = read_facts(storage, "d")
    key = f"d/{manifest.shards[0].key}"
    storage.write(key, storage.read(key)[:-1] + b"?")
    with pytest.raises(Exception, match="differs from its recorded digest"):
        publish_dataset(storage, "d", facts, OWN, out, ABOUT)
    assert not out.exists("SHA256SUMS")


def test_a_protocol_may_have_any_name(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage, out = Storage(tmp_path / "store"), Storage(tmp_path / "out")
    splits = tuple(replace(SPLIT, name=n).to_dict() for n in ("all", "a/b c"))
    write_dataset(storage, "d", tiny_set, Header.of(tiny_set, splits))
    result = publish_dataset(storage, "d", read_facts(storage, "d"), OWN, out, ABOUT)
    assert list(result["configs"]) == ["all", "split_all", "a_b_c"]


def test_marked_clips_are_published_as_refused(tmp_path: Path, tiny_set: MotionSet) -> None:
    storage = Storage(tmp_path / "store")
    bad = tiny_set.motions[3].sample_id
    write_dataset(storage, "data/tiny", tiny_set, Header.of(tiny_set))
    decide(storage, "data/tiny", {bad: "floats"})
    facts = read_facts(storage, "data/tiny")
    result = publish_dataset(storage, "data/tiny", facts, OWN, Storage(tmp_path / "out"), ABOUT)
    assert result["configs"] == {"all": {"train": 23}, "refused": {"train": 1}}
    published, _ = read_dataset(Storage(tmp_path), "out")
    assert [m.sample_id for m in published.motions if m.accepted is False] == [bad]
    with pytest.raises(InputError, match="copies of its shards would not say so"):
        publish_dataset(storage, "data/tiny", facts, OWN, Storage(tmp_path / "other"), ABOUT, copy=True)
    assert not (tmp_path / "other").exists()
