"""The files of `ray up`, without a cloud: Ray's launcher schema, and the clouds' own descriptions of a machine.

Ray's schema takes any `node_config`; what may stand there is known to botocore's model of EC2 and to the description
of Compute Engine that Google's client brings along.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cluster_files import LAUNCHERS, growth, launcher


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a token, as on a machine that runs `ray up`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("not a token")


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does first: merged with Ray's defaults and checked."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", LAUNCHERS)
def test_rays_own_schema_accepts_it(name: str) -> None:
    prepared = validate(launcher(name))
    # Left out, each of these would be Ray's default, which installs a nightly Ray.
    assert not prepared["setup_commands"] and not prepared["head_setup_commands"]
    assert "pip install" not in json.dumps(prepared)


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("idle_timeout_minute",), 5),
        (("docker", "imagee"), "x"),
        (("available_node_types", "cpu", "max_worker"), 3),
        (("available_node_types", "cpu", "resources", "CPU"), "16"),
        (("head_node_type",), "haed"),
        (("max_workers",), -1),
    ],
)
def test_a_mistake_is_caught(name: str, path: tuple[str, ...], value: Any) -> None:
    config = launcher(name)
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(config)


def ec2_errors(node_config: dict[str, Any]) -> str:
    """What EC2's own model of a request to run instances says."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    return ParamValidator().validate(node_config | {"MinCount": 1, "MaxCount": 1}, shape).generate_report()


@pytest.mark.parametrize("node", launcher("aws")["available_node_types"])
def test_ec2_knows_every_field(node: str) -> None:
    assert ec2_errors(launcher("aws")["available_node_types"][node]["node_config"]) == ""


@pytest.mark.parametrize(
    "mistake",
    [
        {"InstanceTyp": "g6.2xlarge"},
        {"InstanceMarketOptions": "spot"},
        {"BlockDeviceMappings": [{"Ebs": {"VolumeSize": "150 GB"}}]},
        {"IamInstanceProfile": {"name": "motionsynth-worker"}},
    ],
    ids=str,
)
def test_ec2s_model_catches_mistakes(mistake: dict[str, Any]) -> None:
    node = launcher("aws")["available_node_types"]["gpu_spot"]["node_config"]
    assert ec2_errors(node | mistake)


def compute_engine() -> dict[str, Any]:
    """Schemas of Compute Engine's objects, from the description in Google's client."""
    from googleapiclient.discovery_cache import get_static_doc

    return json.loads(get_static_doc("compute", "v1") or "{}")["schemas"]


def gce_errors(value: Any, schema: dict[str, Any], schemas: dict[str, Any], at: str = "") -> list[str]:
    """Fields that Compute Engine does not know, or would take for another type."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    types: dict[str, tuple[type, ...]] = {
        "object": (dict,), "array": (list,), "string": (str, int), "boolean": (bool,), "integer": (int,),
    }  # fmt: skip
    if not isinstance(value, types[schema["type"]]):
        return [f"{at}: {value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    found = []
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += gce_errors(item, schema["items"], schemas, f"{at}[{i}]")
    if isinstance(value, dict):
        for key, item in value.items():
            known = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            found += gce_errors(item, known, schemas, f"{at}.{key}") if known else [f"{at}.{key} is unknown"]
    return found


@pytest.mark.parametrize("node", launcher("gcp")["available_node_types"])
def test_compute_engine_knows_every_field(node: str) -> None:
    config = launcher("gcp")["available_node_types"][node]["node_config"]
    assert gce_errors(config, {"$ref": "Instance"}, compute_engine()) == []


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"machinetype": "g2-standard-8"}, "machinetype is unknown"),
        ({"scheduling": [{"preemptible": True}]}, "is no object"),
        ({"scheduling": {"provisioningModel": "SPOTTY"}}, "'SPOTTY' is none of"),
        ({"disks": [{"boot": "yes"}]}, "'yes' is no boolean"),
    ],
)
def test_compute_engines_description_catches_mistakes(mistake: dict[str, Any], said: str) -> None:
    config = launcher("gcp")["available_node_types"]["gpu_spot"]["node_config"] | mistake
    found = gce_errors(config, {"$ref": "Instance"}, compute_engine())
    assert len(found) == 1 and said in found[0], found


def test_ray_takes_googles_nodes_for_ordinary_machines() -> None:
    """Ray's provider for Google imports, which needs the extra `gcp`, and sees no TPU."""
    from ray.autoscaler._private.gcp.config import get_node_type
    from ray.autoscaler._private.gcp.node import GCPNodeType

    for node in launcher("gcp")["available_node_types"].values():
        assert get_node_type(node["node_config"]) == GCPNodeType.COMPUTE


def launched(name: str, request: dict[str, float], count: int = 1, failed: str = "") -> dict[str, int]:
    """Nodes that Ray's own scheduler would start for these requests, after a launch of the type `failed` has failed."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(validate(launcher(name)), skip_content_hash=True)
    requests = [ResourceRequestUtil.make(request) for _ in range(count)]
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
            recoverable_resource_availabilities={failed: 0.0} if failed else {},
        )
    )
    return {r.instance_type: r.count for r in reply.to_launch}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_spot_nodes_come_first_and_on_demand_ones_in_their_stead(name: str) -> None:
    gpu: dict[str, float] = {"CPU": 1, "GPU": 1}
    assert launched(name, gpu) == {"gpu_spot": 1}
    assert launched(name, gpu, failed="gpu_spot") == {"gpu_on_demand": 1}
    # Work without a GPU goes to nodes that have none.
    assert launched(name, {"CPU": 1}, count=4) == {"cpu": 1}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_it_grows_to_what_the_commands_count_on(name: str) -> None:
    assert launched(name, {"CPU": 1}, count=128) == {"cpu": 8}
    assert launched(name, {"CPU": 1, "GPU": 1}, count=4) == {"gpu_spot": 4}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_authentication_is_chosen_and_its_token_comes_from_a_file(name: str) -> None:
    config = launcher(name)
    env = dict(
        o.removeprefix("--env=").split("=", 1) for o in config["docker"]["run_options"] if "--env" in o
    )
    assert env["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in env
    assert config["file_mounts"] == {env["RAY_AUTH_TOKEN_PATH"]: "~/.ray/auth_token"}
    assert env["RAY_enable_autoscaler_v2"] == "1"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_it_grows_from_nothing_and_the_head_does_no_work(name: str) -> None:
    config = launcher(name)
    types = config["available_node_types"]
    head = types.pop("head")
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert all(t["min_workers"] == 0 < t["max_workers"] for t in types.values())
    assert config["max_workers"] == sum(t["max_workers"] for t in types.values())
    assert types["gpu_spot"]["resources"] == types["gpu_on_demand"]["resources"]
    assert growth(name) == (160, 4)


def test_nodes_use_the_bucket_by_a_role_and_only_the_head_may_start_others() -> None:
    types = launcher("aws")["available_node_types"]
    profiles = {name: t["node_config"]["IamInstanceProfile"]["Name"] for name, t in types.items()}
    assert profiles.pop("head") == "motionsynth-head" and set(profiles.values()) == {"motionsynth-worker"}
