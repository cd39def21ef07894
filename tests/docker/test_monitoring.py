"""The dashboard and the alerts against a real server, read by a real Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Server, run_server

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker/monitoring"
CONFIG = MONITORING / "prometheus/prometheus.yml"
DASHBOARD = json.loads((MONITORING / "grafana/dashboards/zeroshot.json").read_text())
RULES = [
    rule for group in yaml.safe_load((CONFIG.parent / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC = re.compile(r"\b(?:vllm:|zeroshot_)\w+")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Debian's package prometheus is missing"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server to which everything that the dashboard shows has happened."""
    folder = tmp_path_factory.mktemp("server")
    with run_server(ROOT / "model_weights/demo", folder, ZEROSHOT_MAX_QUEUED_SEQS="4") as running:
        running.wait_until_warm()
        misbehave(running)
        yield running


def misbehave(server: Server) -> None:
    """A success, a bad input, a caller who leaves, and one request too many."""
    assert server.http.post("/tasks/translate", json={"text": "Yes.", "source": "English"}).status_code == 200
    assert server.http.post("/tasks/translate", json={"text": 1}).status_code == 422
    endless = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "stream": True, "n": 4}
    with server.http.stream("POST", "/generate", json=endless) as response:
        lines = response.iter_lines()  # held until the end: an iterator that is dropped closes the response
        next(lines)
        assert server.http.post("/generate", json={"prompt": "Me too", "n": 2}).status_code == 429
    server.wait_until_idle()


def lines_of(server: Server) -> set[str]:
    """The names of all series that the server has, as a query names them."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("query", QUERIES + [rule["expr"] for rule in RULES if "zeroshot_" in rule["expr"]])
def test_what_is_queried_exists(server: Server, query: str) -> None:
    names = set(METRIC.findall(query))
    assert names
    assert names <= lines_of(server)


def test_the_dashboard_is_wired() -> None:
    """It queries the data source that is provisioned, and lies where its provider looks."""
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ][0]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    provider = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/zeroshot.yaml").read_text())["providers"][
        0
    ]
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./docker/monitoring/grafana/dashboards"] == provider["options"]["path"]
    assert source["url"] == "http://prometheus:9090"
    assert yaml.safe_load(CONFIG.read_text())["scrape_configs"][0]["static_configs"][0]["targets"] == ["zeroshot:8000"]


@needs_prometheus
def test_promtool_accepts_the_configuration() -> None:
    subprocess.run(["promtool", "check", "config", str(CONFIG)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with the committed configuration, but for the server's address and a shorter interval."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copyfile(CONFIG.parent / "alerts.yml", folder / "alerts.yml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1") as api:
            wait_for_scrapes(api, 3)
            yield api
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_scrapes(api: httpx.Client, count: int) -> None:
    for _ in range(600):
        try:
            result = query(api, 'count_over_time(up{job="zeroshot"}[1m])')
            if result and float(result[0]["value"][1]) >= count:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("Prometheus does not scrape the server")


def query(api: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = api.get("/query", params={"query": expression.replace("$__rate_interval", "1m")})
    if answer.status_code == 503:  # it is still starting
        return []
    assert answer.status_code == 200, answer.text
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


@needs_prometheus
@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_something(prometheus: httpx.Client, expression: str) -> None:
    assert query(prometheus, expression)


@needs_prometheus
def test_alerts_are_evaluated_and_silent(prometheus: httpx.Client) -> None:
    for _ in range(100):
        groups = prometheus.get("/rules").json()["data"]["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        if all(rule["health"] != "unknown" for rule in rules.values()):
            break
        time.sleep(0.1)
    assert rules.keys() == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    assert not [name for name, rule in rules.items() if rule["state"] == "firing"]


@needs_prometheus
def test_an_engine_that_keeps_dying_is_noticed(tmp_path: Path) -> None:
    """The rule's own expression, on made-up figures."""
    test = {
        "rule_files": [str(CONFIG.parent / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": "zeroshot_engine_restarts_total", "values": "0+1x20"}],
                "alert_rule_test": [
                    {
                        "eval_time": "15m",
                        "alertname": "ZeroshotEngineRestarts",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "warning"},
                                "exp_annotations": {
                                    "summary": "The engine was replaced 15 times in 15 minutes; the log says why."
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test))
    result = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
