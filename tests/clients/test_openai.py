"""The `openai` package, unmodified."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.server import run_server

openai = pytest.importorskip("openai", reason="openai is not installed: pip install -e '.[clients]'")

PROMPT = "It was a dark night, and"


@pytest.fixture
def client(server: Any) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_models(client: Any, model_name: str) -> None:
    assert [model.id for model in client.models.list()] == [model_name]
    assert client.models.retrieve(model_name).id == model_name
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-7")
    assert caught.value.code == "model_not_found"


def test_every_parameter_it_has(client: Any, model_name: str) -> None:
    answer = client.completions.create(
        model=model_name,
        prompt=[PROMPT, "Another"],
        best_of=3,
        echo=True,
        frequency_penalty=0.5,
        presence_penalty=0.5,
        logit_bias={"50256": -100, "11": 1},
        logprobs=2,
        max_tokens=5,
        n=2,
        seed=4,
        stop=["\n\n", "never"],
        stream=False,
        suffix=None,
        temperature=0.7,
        top_p=0.9,
        user="somebody",
        extra_body={"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 1},
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text.startswith(PROMPT)
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert len(answer.choices[0].logprobs.tokens) == len(answer.choices[0].logprobs.text_offset)
    assert answer.usage.prompt_tokens == 8
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT], [464, 2068], [[464, 2068], [40]]], ids=str)
def test_a_stream_says_the_same_as_a_plain_answer(client: Any, model_name: str, prompt: Any) -> None:
    body = {"model": model_name, "prompt": prompt, "max_tokens": 20, "seed": 6, "n": 2}
    plain = client.completions.create(**body)
    texts: dict[int, str] = {}
    for chunk in client.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert texts == {choice.index: choice.text for choice in plain.choices}
    assert chunk.choices == []
    assert chunk.usage.completion_tokens == plain.usage.completion_tokens


def test_asynchronous_streams_side_by_side(server: Any, model_name: str) -> None:
    async def text(client: Any, seed: int) -> str:
        body = {"model": model_name, "prompt": PROMPT, "max_tokens": 12, "seed": seed}
        stream = await client.completions.create(**body, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            alone = [await text(client, seed) for seed in range(4)]
            assert await asyncio.gather(*(text(client, seed) for seed in range(4))) == alone
            return alone

    assert len(set(asyncio.run(texts()))) == 4


def test_leaving_a_stream(client: Any, server: Any, model_name: str) -> None:
    tokens_before = server.health()["engine"]["generation_tokens_total"]
    with client.completions.create(
        model=model_name, prompt=PROMPT, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
    health = server.wait_until_idle()
    assert health["engine"]["generation_tokens_total"] - tokens_before < 900


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": [50257]}, "prompt"),
        ({"temperature": -1}, "temperature"),
        ({"suffix": "the end"}, "suffix"),
        ({"max_tokens": 1024}, "prompt"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
    ids=str,
)
def test_mistakes_are_bad_requests(client: Any, model_name: str, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**({"model": model_name, "prompt": "a", "max_tokens": 1} | wrong))
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code


def test_another_model_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-7", prompt="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_full_queue_and_an_engine_that_dies(gpt2_checkpoint: Any, tmp_path: Path) -> None:
    """429 with the time to wait; 503 for a plain request, an error at a stream's end; and then all is well again."""
    full = {"ZEROSHOT_MAX_QUEUED_SEQS": "2"}
    with run_server(gpt2_checkpoint.folder, tmp_path, **full) as server, ThreadPoolExecutor(1) as pool:
        server.wait_until_warm()
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        body = {"model": client.models.list().data[0].id, "prompt": PROMPT, "max_tokens": 1000}
        options = {"extra_body": {"ignore_eos": True}}
        plain = pool.submit(client.completions.create, **body, **options)
        stream = iter(client.completions.create(**body, **options, stream=True))
        next(stream)
        server.wait_until(lambda health: health["engine"]["num_running"] == 2)
        with pytest.raises(openai.RateLimitError) as limited:
            client.completions.create(**body)
        assert limited.value.code == "overloaded"
        assert int(limited.value.response.headers["retry-after"]) >= 1
        children = psutil.Process(server.process.pid).children()
        next(child for child in children if "zeroshot.engine.process" in child.cmdline()).kill()
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "engine_restarting"
        with pytest.raises(openai.InternalServerError) as refused:
            plain.result()
        assert (refused.value.status_code, refused.value.type) == (503, "server_error")
        server.wait_until_idle()
        assert client.completions.create(**(body | {"max_tokens": 2})).choices


def test_what_openai_has_and_this_server_has_not(client: Any, model_name: str) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=model_name, input="a")
