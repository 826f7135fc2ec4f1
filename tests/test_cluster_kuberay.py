"""The KubeRay manifests against a strict schema of ray.io/v1 (tests/kuberay/schema.yaml), without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.cluster_files import CLUSTER, growth, manifest, ray_clusters

SCHEMA = yaml.safe_load((Path(__file__).parent / "kuberay" / "schema.yaml").read_text())
MANIFESTS = sorted(path.name for path in (CLUSTER / "kuberay").glob("*.yaml"))


def errors(document: dict[str, Any]) -> list[str]:
    """What is wrong with one document of a manifest."""
    kind = document.get("kind", "none")
    if kind not in SCHEMA["$defs"]:
        return [f"kind {kind} is unknown"]
    validator = Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{kind}"})
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]


def leaves_open(schema: Any, at: str = "") -> list[str]:
    """Objects of a schema that name their properties and let others pass."""
    found = []
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("additionalProperties") is not False:
            found.append(at)
        for key, value in schema.items():
            found += leaves_open(value, f"{at}/{key}")
    return found


def test_the_schema_is_one_and_strict() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert not leaves_open(SCHEMA["$defs"])


def test_both_kinds_are_there() -> None:
    assert MANIFESTS == ["raycluster.yaml", "rayjob.yaml"]
    assert [d["kind"] for d in manifest("raycluster.yaml")] == ["ServiceAccount", "RayCluster"]
    assert [d["kind"] for d in manifest("rayjob.yaml")] == ["ServiceAccount", "RayJob"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid(name: str) -> None:
    found = [error for document in manifest(name) for error in errors(document)]
    assert not found, "\n".join(found)


def put(document: Any, path: str, value: Any) -> None:
    """Set the field at `spec/workerGroupSpecs/0/...`; the last name may be new."""
    *parents, last = path.split("/")
    for name in parents:
        document = document[int(name) if name.isdecimal() else name]
    document[last] = value


MISTAKES = [
    ("spec/entrypoynt", "python -m rayjobs.status", "entrypoynt"),
    ("spec/submissionMode", "K8SJobMode", "K8SJobMode"),
    ("spec/preRunningDeadlineSeconds", 0, "minimum of 1"),
    ("spec/activeDeadlineSeconds", "1d", "'1d' is not of type 'integer'"),
    ("spec/rayClusterSpec/authOptions/mode", "tokens", "tokens"),
    ("spec/rayClusterSpec/autoscalerOptions/idleTimeoutSecond", 60, "idleTimeoutSecond"),
    ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0, "0 is not of type 'string'"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/minReplicas", "two", "'two' is not of type 'integer'"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/maxReplica", 3, "maxReplica"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/template/spec/toleration", [], "toleration"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/limits", {}, "limits"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/cpu", "7 cores", "7 cores"),
    ("spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/gpu", "1", "gpu"),
    ("spec/rayClusterSpec/headGroupSpec/template/spec/containers/0/securityContext/privileged", True, "False was"),
    ("apiVersion", "ray.io/v1alpha1", "'ray.io/v1' was expected"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "said"), MISTAKES, ids=[path for path, _, _ in MISTAKES])
def test_a_mistake_is_caught(path: str, value: Any, said: str) -> None:
    # Through JSON, since YAML's anchors make several places one object.
    job = json.loads(json.dumps(manifest("rayjob.yaml")[1]))
    put(job, path, value)
    found = errors(job)
    assert len(found) == 1 and said in found[0], found


def test_a_group_without_its_name_is_caught() -> None:
    cluster = manifest("raycluster.yaml")[1]
    del cluster["spec"]["workerGroupSpecs"][0]["groupName"]
    assert any("groupName" in error for error in errors(cluster))


def test_the_job_brings_the_same_cluster() -> None:
    cluster, job = ray_clusters()
    assert cluster == job


def test_authentication_is_chosen_and_the_ports_stay_inside() -> None:
    spec = ray_clusters()[0]
    assert spec["authOptions"] == {"mode": "token"}
    assert (
        spec["headGroupSpec"]["serviceType"] == "ClusterIP" and "enableIngress" not in spec["headGroupSpec"]
    )


def test_it_grows_from_nothing_and_the_head_does_no_work() -> None:
    spec = ray_clusters()[0]
    assert spec["enableInTreeAutoscaling"] and spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
    assert all(g["minReplicas"] == g["replicas"] == 0 < g["maxReplicas"] for g in groups.values())
    assert growth("kuberay") == (140, 4)


def test_pods_ask_for_what_they_may_use_and_run_as_nobody_special() -> None:
    spec = ray_clusters()[0]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["serviceAccountName"] == "motionsynth"
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_verb_has_time_to_answer_sigterm() -> None:
    head = ray_clusters()[0]["headGroupSpec"]["template"]["spec"]
    wait = next(e["value"] for e in head["containers"][0]["env"] if e["name"] == "RAY_JOB_STOP_WAIT_TIME_S")
    assert head["terminationGracePeriodSeconds"] > int(wait) > 60


def test_the_job_leaves_no_cluster_behind() -> None:
    spec = manifest("rayjob.yaml")[1]["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["activeDeadlineSeconds"] and spec["backoffLimit"] > 0
