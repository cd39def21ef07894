"""`docker/ray/`, and what an application is built from: read by the schemas of those who will read it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from zeroshot.errors import PromptFileError, SettingsError

ROOT = Path(__file__).parents[2]
RAYSERVICE = ROOT / "docker" / "ray" / "rayservice.yaml"


@pytest.fixture(autouse=True)
def with_ray() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: make test-cluster")


def serve_config() -> dict[str, Any]:
    return dict(yaml.safe_load(yaml.safe_load(RAYSERVICE.read_text())["spec"]["serveConfigV2"]))


def test_the_rayservice_has_the_fields_of_a_rayservice() -> None:
    command = ["check-jsonschema", "--schemafile", str(Path(__file__).parent / "rayservice.schema.json")]
    result = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:], str(RAYSERVICE)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_serve_reads_the_configuration_and_ignores_nothing_in_it() -> None:
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    config = serve_config()
    read = ServeDeploySchema.model_validate(config)
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    assert config["http_options"].keys() <= HTTPOptionsSchema.model_fields.keys()
    (application,) = config["applications"]
    assert application.keys() <= ServeApplicationSchema.model_fields.keys()
    assert read.applications[0].import_path == "zeroshot.cluster.application:app"


def test_its_arguments_build_the_application() -> None:
    from zeroshot.cluster.application import app

    (application,) = serve_config()["applications"]
    ingress = app(application["args"])._bound_deployment
    (engine, given, prompts, needs_keys) = ingress.init_args
    scaling = engine._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)
    assert given == {"model": "demo", "host": "0.0.0.0", "num_threads": 3}
    assert len(prompts) > 1000
    assert not needs_keys
    workers = yaml.safe_load(RAYSERVICE.read_text())["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    cpus = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert cpus >= application["args"]["num_cpus"] + 1, "an engine and an ingress fit a worker"


def test_keys_do_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    from zeroshot.cluster.application import app

    monkeypatch.setenv("ZEROSHOT_API_KEYS", "a-key-of-more-than-16-characters")
    monkeypatch.setenv("ZEROSHOT_MAX_NUM_SEQS", "7")
    ingress = app({"model": "demo"})._bound_deployment
    (_, given, _, needs_keys) = ingress.init_args
    assert "a-key" not in repr(ingress.init_args)
    assert needs_keys, "an ingress that finds none must not serve everybody"
    assert given["max_num_seqs"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_replica": 3}, "There is no setting 'max_replica'"),
        ({"min_replicas": 0}, "min_replicas"),
        ({"num_gpus": -1}, "num_gpus"),
        ({"max_num_seqs": "many"}, "max_num_seqs"),
        ({"port": 9000}, "The port is the proxies'"),
    ],
)
def test_arguments_that_can_not_be(arguments: dict[str, Any], message: str) -> None:
    from zeroshot.cluster.application import app

    with pytest.raises(SettingsError, match=message):
        app(arguments)


def test_a_folder_that_is_none() -> None:
    from zeroshot.cluster.application import app

    with pytest.raises(PromptFileError, match="is not a folder"):
        app({"prompts": "/nowhere/at/all"})
