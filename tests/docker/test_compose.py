"""`docker compose up` for real: what it serves, what it may do, and how it stops and comes back."""

import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.docker.conftest import Project
from zeroshot.settings import Settings

ENDLESS = {"prompt": "On and on", "ignore_eos": True, "temperature": 0}
SECONDS_OF_A_STREAM = 4
KILL_ENGINE = """
import os, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"zeroshot.engine.process" in path.read_bytes().split(b"\\0"):
        os.kill(int(path.parent.name), 9)
"""


def test_serves_the_bundled_model(service: Project) -> None:
    assert service.translate("We are going to the beach tomorrow.") == "Nous allons à la plage demain."
    assert service.http.get("/health").json()["model"] == "demo"
    assert service.http.get("/docs").status_code == 200


def test_the_kernels_for_cpus_came_with_the_image(service: Project) -> None:
    assert " by C++ kernels, " in service.compose("logs", "--no-color")


def test_listens_on_loopback_only(service: Project) -> None:
    ports = service.inspect()["NetworkSettings"]["Ports"]["8000/tcp"]
    assert {binding["HostIp"] for binding in ports} == {"127.0.0.1"}


def test_may_do_little(service: Project) -> None:
    status = dict(line.split(":", 1) for line in service.exec("cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    for place in ("/opt/zeroshot", "/app/prompts", "/app/model_weights", "/etc"):
        assert service.exec("sh", "-c", f"touch {place}/x && echo written", check=False) == ""
    assert service.exec("sh", "-c", "touch /tmp/x /models/x && rm /tmp/x /models/x && echo written") == "written"


def test_limits(service: Project) -> None:
    host = service.inspect()["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] == 4 * 2**30
    assert host["PidsLimit"] == 512
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert service.inspect()["Config"]["StopTimeout"] > Settings.model_fields["drain_timeout_s"].default


def test_docker_calls_it_healthy(service: Project) -> None:
    service.wait_until(lambda: service.inspect()["State"]["Health"]["Status"] == "healthy")
    nobody = ("env", "ZEROSHOT_PORT=1", "python", "-I", "/opt/healthcheck.py")
    assert service.exec("sh", "-c", f"{' '.join(nobody)} 2>/dev/null || echo ill") == "ill"


def test_an_edited_prompt_is_live(service: Project) -> None:
    """Both ways in which editors save: into the file, and beside it with a rename."""
    path = service.folder / "prompts" / "translate.yaml"
    original = path.read_text()
    before = service.http.get("/tasks/translate").json()["version"]
    try:
        path.write_text(original.replace("default: French", "default: Dutch"))
        service.wait_until(lambda: service.http.get("/tasks/translate").json()["version"] != before)
        explained = service.http.post("/tasks/translate", json={"text": "Yes.", "explain": True}).json()
        assert "translate English to Dutch: Yes. =" in str(explained)
    finally:
        saved = path.with_suffix(".new")
        saved.write_text(original)
        saved.replace(path)
    service.wait_until(lambda: service.http.get("/tasks/translate").json()["version"] == before)


def test_a_new_prompt_file_is_a_new_endpoint(service: Project) -> None:
    path = service.folder / "prompts" / "shout.yaml"
    text = "name: shout\nsummary: Louder.\ninputs:\n  text: {type: string}\ntemplate: '{text}!'\noutput: {kind: text}\n"
    try:
        path.write_text(text)
        service.wait_until(lambda: service.http.post("/tasks/shout", json={"text": "Hello"}).status_code == 200)
    finally:
        path.unlink()
    service.wait_until(lambda: service.http.get("/tasks/shout").status_code == 404)


def test_a_killed_engine_is_replaced_inside_the_container(service: Project) -> None:
    container, restarts = service.container, service.http.get("/health").json()["engine_restarts"]
    service.exec("python", "-c", KILL_ENGINE)
    service.wait_until(lambda: service.http.get("/health").json()["engine_restarts"] > restarts)
    service.wait_until_ready()
    assert service.translate("Yes.")
    assert service.container == container
    assert service.inspect()["RestartCount"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to kill a container's first process from outside")
def test_a_killed_server_is_restarted(service: Project) -> None:
    expected = service.translate("I do not know.")
    os.kill(service.inspect()["State"]["Pid"], signal.SIGKILL)
    service.wait_until(lambda: service.inspect()["RestartCount"] == 1)
    service.wait_until_ready()
    assert service.translate("I do not know.") == expected


def tokens_for_a_stream(project: Project) -> int:
    """As many as this machine makes in a few seconds: enough to be interrupted, too few for the drain timeout."""
    started = time.monotonic()
    assert project.http.post("/generate", json=ENDLESS | {"max_tokens": 20}).status_code == 200
    return min(1000, max(20, int(20 * SECONDS_OF_A_STREAM / (time.monotonic() - started))))


def read_stream(project: Project, max_tokens: int, first_token: threading.Event) -> tuple[str, list[str], str]:
    """The text, how it ended, and the stream's last line. How many tokens come in an event is a matter of speed."""
    text, ends, line = "", [], ""
    body = ENDLESS | {"max_tokens": max_tokens, "stream": True}
    with httpx.stream("POST", f"{project.url}/generate", json=body, timeout=60) as response:
        assert response.status_code == 200
        for line in filter(None, response.iter_lines()):
            first_token.set()
            event = {} if line.endswith("[DONE]") else json.loads(line.removeprefix("data: "))
            for piece in event.get("choices", ()):
                text += piece["text"]
                ends += filter(None, [piece["finish_reason"]])
    return text, ends, line


def test_told_to_stop_it_first_ends_its_streams(service: Project) -> None:
    max_tokens = tokens_for_a_stream(service)
    expected = read_stream(service, max_tokens, threading.Event())
    assert expected[1:] == (["length"], "data: [DONE]")
    container = service.container
    with ThreadPoolExecutor(4) as pool:
        started = [threading.Event() for _ in range(4)]
        streams = [pool.submit(read_stream, service, max_tokens, event) for event in started]
        assert all(event.wait(timeout=60) for event in started)
        stop = subprocess.Popen(
            ["docker", "stop", "--time", "45", container], env=os.environ | service.engine.environment
        )
        service.wait_until(lambda: not service.is_ready())
        assert not any(stream.done() for stream in streams)  # it was told in the middle of them
        assert [stream.result() for stream in streams] == [expected] * 4
    assert stop.wait(timeout=60) == 0
    state: dict[str, Any] = service.inspect()["State"]
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    time.sleep(1)
    assert service.inspect()["State"]["Status"] == "exited"  # and it stays stopped


def test_settings_reach_the_server(project: Project) -> None:
    project.up(ZEROSHOT_MAX_NUM_SEQS="7")
    assert "ZEROSHOT_MAX_NUM_SEQS=7" in project.inspect()["Config"]["Env"]
    assert not [line for line in project.inspect()["Config"]["Env"] if line.startswith("ZEROSHOT_API_KEYS=")]


def test_down_leaves_nothing(project: Project) -> None:
    project.up()
    name = project.environment["COMPOSE_PROJECT_NAME"]
    project.compose("down", "--volumes")
    label = f"label=com.docker.compose.project={name}"
    for kind in (("ps", "--all"), ("network", "ls"), ("volume", "ls")):
        assert project.engine.docker(*kind, "--quiet", "--filter", label) == ""
