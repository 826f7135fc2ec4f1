"""The files of cluster/ as data, for the tests that hold them against schemas and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
LAUNCHERS = ("aws", "gcp")


def launcher(name: str) -> dict[str, Any]:
    """`cluster/NAME.yaml`."""
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def manifest(name: str) -> list[dict[str, Any]]:
    """All documents of `cluster/kuberay/NAME`."""
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text()))


def ray_clusters() -> tuple[dict[str, Any], dict[str, Any]]:
    """The specification of the RayCluster, and the one inside the RayJob."""
    return manifest("raycluster.yaml")[1]["spec"], manifest("rayjob.yaml")[1]["spec"]["rayClusterSpec"]


def growth(platform: str) -> tuple[int, int]:
    """CPUs and GPUs to which a platform's cluster can grow; substitutes of spot nodes do not count twice."""
    if platform == "kuberay":
        sizes = []
        for group in ray_clusters()[0]["workerGroupSpecs"]:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            cpus, gpus = int(limits["cpu"]), int(limits.get("nvidia.com/gpu", 0))
            sizes.append((group["maxReplicas"] * cpus, group["maxReplicas"] * gpus))
    else:
        types = launcher(platform)["available_node_types"]
        workers = [types[name] for name in types if name not in ("head", "gpu_on_demand")]
        sizes = [
            (t["max_workers"] * t["resources"]["CPU"], t["max_workers"] * t["resources"].get("GPU", 0))
            for t in workers
        ]
    return sum(cpus for cpus, _ in sizes), sum(gpus for _, gpus in sizes)
