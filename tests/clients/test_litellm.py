"""litellm, unmodified, by its names for servers that speak OpenAI's protocol: texts, streams, chats and errors.

It gets an environment of its own, as it depends on a version of openai of its choice.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import client_environment

pytestmark = pytest.mark.timeout(700)  # the first test may install it
INSTALL_TIMEOUT_S = 300
CALLS = Path(__file__).parent / "litellm_calls.py"


@pytest.fixture(scope="module")
def told(server: Any, model_name: str) -> dict[str, Any]:
    """What litellm was told, see litellm_calls.py."""
    python = client_environment("litellm", "litellm==1.110.2", timeout_s=INSTALL_TIMEOUT_S)
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # or it fetches a list of prices when it is imported
    result = subprocess.run(
        [python, str(CALLS), server.url, model_name],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_texts_are_what_plain_http_says(told: dict[str, Any], server: Any) -> None:
    body = {"prompt": "Grüße aus 東京", "max_tokens": 12, "seed": 3, "n": 2, "logprobs": 1}
    answer = server.http.post("/v1/completions", json=body).json()
    assert told["plain"] == [choice["text"] for choice in answer["choices"]]
    assert told["token_logprobs"] == pytest.approx(answer["choices"][0]["logprobs"]["token_logprobs"], abs=1e-4)
    assert told["usage"] == [answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]]
    assert told["streamed"] == told["plain"][0]


def test_chats_are_what_plain_http_says(told: dict[str, Any], server: Any) -> None:
    body = {"messages": [{"role": "user", "content": "日本"}], "max_tokens": 6}
    one, two = (server.http.post("/v1/chat/completions", json=body | {"seed": seed}).json() for seed in (1, 2))
    choice = one["choices"][0]
    assert told["chat"] == told["chat_streamed"] == choice["message"]["content"]
    assert told["chat_finish_reason"] == choice["finish_reason"]
    assert told["chats_at_once"] == [told["chat"], two["choices"][0]["message"]["content"], told["chat"]]


def test_mistakes_come_as_litellms_own_errors(told: dict[str, Any]) -> None:
    (refused, refused_status, message), (unknown, unknown_status, _) = told["errors"]
    assert (refused, refused_status) == ("BadRequestError", 400)
    assert "temperature" in message
    assert (unknown, unknown_status) == ("NotFoundError", 404)
