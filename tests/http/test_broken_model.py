"""A model whose numbers break at one position: streams get what came before it, then an error that says so."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.server import Server, run_server
from zeroshot.engine.outbox import CROWD

BROKEN_POSITION = 60
PROMPT = [11, 12, 13]
LEFT = BROKEN_POSITION - len(PROMPT) + 1
"""Tokens that can be drawn: the last one is drawn at the position before the broken one."""


@pytest.fixture(scope="module")
def broken(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = shutil.copytree(gpt2_checkpoint.folder, tmp_path_factory.mktemp("broken") / "model")
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("wpe.weight"))
    tensors[name][BROKEN_POSITION] = float("nan")
    save_file(tensors, model / "model.safetensors")
    with run_server(model, tmp_path_factory.mktemp("server")) as running:
        yield running


def events_of(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = server.http.post("/generate", json=body | {"stream": True})
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("num_streams", [1, CROWD + 3])
def test_a_stream_gets_every_token_before_the_error(broken: Server, num_streams: int, logprobs: int | None) -> None:
    bodies = [
        {"prompt": PROMPT, "seed": seed, "ignore_eos": True, "return_token_ids": True, "logprobs": logprobs}
        for seed in range(num_streams)
    ]
    expected = [broken.generate(**body, max_tokens=LEFT)["choices"][0]["token_ids"] for body in bodies]
    with ThreadPoolExecutor(num_streams) as pool:
        streams = list(pool.map(lambda body: events_of(broken, body | {"max_tokens": 200}), bodies))
    for events, token_ids in zip(streams, expected, strict=True):
        *pieces, error = events
        assert error["error"]["code"] == "nan_logits"
        assert [token for piece in pieces for choice in piece["choices"] for token in choice["token_ids"]] == token_ids
    assert broken.wait_until_idle()


def test_a_plain_request_gets_the_error_alone(broken: Server) -> None:
    response = broken.http.post("/generate", json={"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "nan_logits"
