"""`openai` 2.x and 3.x, one beside the other: the same calls, the same answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import client_environment

CALLS = Path(__file__).parent / "openai_calls.py"


@pytest.fixture(scope="session")
def openai_2() -> str:
    return str(client_environment("openai-2", "openai==2.54.0"))


def call(python: str, url: str, model: str) -> dict[str, Any]:
    command = [python, str(CALLS), url, model]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


def test_openai_2_and_3_are_told_the_same(openai_2: str, server: Any, model_name: str) -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install -e '.[clients]'")
    old, new = call(openai_2, server.url, model_name), call(sys.executable, server.url, model_name)
    assert (old.pop("version").split(".")[0], new.pop("version").split(".")[0]) == ("2", "3")
    assert old == new
    assert old["models"] == [model_name]
    assert old["streamed"] == old["plain"]
    assert all(text.startswith(("Grüße aus 東京", "Two")) for text in old["plain"])
    assert old["logprobs"][0] is None
    assert old["usage"][0] == old["usage"][1]
    assert old["chat"] == old["chat_streamed"] != ""
    assert old["errors"][0][:2] == ["BadRequestError", 400]
    assert old["errors"][0][3] == "temperature"
    assert old["errors"][1] == ["NotFoundError", 404, "model_not_found", "model"]


def test_answers_are_what_plain_http_says(openai_2: str, server: Any, model_name: str) -> None:
    body = {"prompt": ["Grüße aus 東京", "Two"], "max_tokens": 12, "seed": 3, "n": 2, "echo": True, "top_k": 40}
    choices = server.http.post("/v1/completions", json=body).json()["choices"]
    assert call(openai_2, server.url, model_name)["plain"] == [choice["text"] for choice in choices]
