"""Metrics as Prometheus reads them from a node, the dashboard's names, and JSON lines of driver and workers."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from motionsynth.splits import Split
from rayjobs import telemetry
from rayjobs.units import log_fields, unit
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana.json").read_text())


def asked_for() -> set[str]:
    """Every metric that a query of the dashboard names."""
    queries = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
    assert len(queries) > 7
    named = [
        set(re.findall(r"\b[a-z]+_[a-z_]+\b", re.sub(r"histogram_quantile|\bby \([^)]*\)", "", q)))
        for q in queries
    ]
    assert all(named)  # no query without a metric
    return set().union(*named)


def test_the_dashboard_asks_only_for_metrics_that_there_are() -> None:
    assert asked_for() <= telemetry.exported_names()
    # And shows each of them.
    bases = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked_for()}
    assert bases == {f"ray_motionsynth_{name}" for name in telemetry.METRICS}


# A whole tiny job in one Ray, a shard that fails among it; then what its node tells Prometheus.
JOB = """
import json, sys, time, urllib.request
from dataclasses import replace
from functools import partial
from cluster.connect import connect
from motionsynth.beds import BedSpec
from motionsynth.recipes import get_recipe
from rayjobs import cli, experiment, generate, generate_beds, score, train
from rayjobs.generate import Wanted, request_for
from storage import Storage

cli.set_up_logging()
storage = Storage(sys.argv[1])
join = lambda: connect("local", 4)
recipe = replace(get_recipe("debug"), bed=BedSpec(shots=2), draws=1, full=False)
train.train(storage, "tiny", "r", recipe, join)
generate_beds.generate_beds(storage, "tiny", "r", recipe, join, previews=False)
def refuse(motions):
    raise OSError("no room")
info = train.finished_checkpoint(storage, experiment.bed_prefix("r", "tiny", recipe.beds[0], recipe.generator))
try:
    request = request_for(storage, info.prefix, {0: 4})
    generate.generate(storage, [Wanted("runs/r/refused", request)], connect=join, grade=refuse)
except cli.JobError as e:
    print(e)
score.score(storage, "tiny", "r", recipe, join, only=("strong",))

import ray
port, text = ray.nodes()[0]["MetricsExportPort"], ""
for _ in range(90):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    except OSError as e:
        text = str(e)
    if "shards_failed_total" in text and "recognisers_trained_total{" in text:
        break
    time.sleep(1)
open(sys.argv[2], "w").write(text)
from pathlib import Path
logs = Path(ray._private.worker._global_node.get_logs_dir_path())
lines = [l for p in logs.glob("worker-*.err") for l in p.read_text().splitlines()]
open(sys.argv[3], "w").write("\\n".join(lines))
"""


@pytest.mark.slow
def test_a_real_run_exports_what_the_dashboard_shows_and_logs_json(tmp_path: Path) -> None:
    motions = make_tiny_set(2)
    split = Split(name="cross_subject", by="subject", train=("01", "02", "03"), test=("04",))
    write_dataset(
        Storage(tmp_path / "out"), "data/tiny", motions, Header.of(motions, splits=(split.to_dict(),))
    )
    metrics, worker_log = tmp_path / "metrics.txt", tmp_path / "workers.txt"
    (tmp_path / "job.py").write_text(JOB)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "out"), str(metrics), str(worker_log)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MOTIONSYNTH_LOG": "json"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in metrics.read_text().splitlines() if line.startswith("ray_motionsynth_")]
    assert asked_for() <= {re.split(r"[{ ]", line)[0] for line in lines}

    def value(name: str) -> float:
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"ray_motionsynth_{name}{{"))

    shards = [o for o in Storage(tmp_path / "out").list("runs/r") if "/shards/" in o.key]
    assert value("shards_finished_total") == value("shard_seconds_count") == len(shards)
    assert value("bytes_written_total") == sum(o.size for o in shards)
    assert value("shards_failed_total") == 1 and value("training_steps_total") == 8
    assert value("recognisers_trained_total") == 1

    driver = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    (failed,) = [line for line in driver if line["levelname"] == "ERROR"]
    assert failed["shard"].startswith("runs/r/refused/shards/000000-") and "no room" in failed["message"]
    assert any(line.get("verb") == "generate" and line["done"] == line["total"] for line in driver)
    worker = [json.loads(line) for line in worker_log.read_text().splitlines() if line.startswith("{")]
    made = [line for line in worker if "shard" in line and line["message"].startswith("done in")]
    assert {line["shard"] for line in made} == {o.key for o in shards}
    assert all(line["seconds"] > 0 and line["worker_id"] and line["actor_id"] for line in made)
    assert [line for line in worker if "recogniser" in line]


def test_a_unit_names_the_lines_inside_it(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("rayjobs.somewhere")
    with caplog.at_level(logging.INFO), unit("trial", "t1"):
        with unit("shard", "a"):
            logger.info("inside", extra={"rows": 3})
            assert log_fields() == {"trial": "t1", "shard": "a"}
        logger.info("between")
    logger.warning("outside")
    inside, between, outside = (json.loads(telemetry.JsonFormatter().format(r)) for r in caplog.records)
    assert (inside["trial"], inside["shard"], inside["rows"]) == ("t1", "a", 3)
    assert between["trial"] == "t1" and "shard" not in between and "trial" not in outside
    assert (outside["levelname"], outside["name"]) == ("WARNING", "rayjobs.somewhere")


def test_outside_ray_nothing_is_counted_and_a_wrong_format_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "_counting", lambda: False)
    telemetry.count("clips_made", 3)
    monkeypatch.setenv("MOTIONSYNTH_LOG", "yaml")
    with pytest.raises(InputError, match="MOTIONSYNTH_LOG is 'yaml'; it must be text or json"):
        telemetry.formatter()
