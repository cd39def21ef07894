"""Run by the interpreter of an environment with some version of `openai`: prints what it was told, as JSON."""

import importlib.metadata
import json
import sys
from typing import Any

import openai


def main(url: str, model: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    body: dict[str, Any] = {"model": model, "prompt": ["Grüße aus 東京", "Two"], "max_tokens": 12, "seed": 3, "n": 2}
    plain = client.completions.create(**body, logprobs=1, echo=True, suffix=None, extra_body={"top_k": 40})
    chunks = list(
        client.completions.create(
            **body, echo=True, extra_body={"top_k": 40}, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [""] * 4
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.text
    chat: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "日本"}],
        "max_tokens": 6,
        "seed": 1,
    }
    pieces = client.chat.completions.create(**chat, stream=True)
    print(  # noqa: T201
        json.dumps(
            {
                "version": importlib.metadata.version("openai"),
                "models": [found.id for found in client.models.list()],
                "plain": [choice.text for choice in plain.choices],
                "logprobs": plain.choices[0].logprobs.token_logprobs,
                "streamed": texts,
                "usage": [plain.usage.total_tokens, chunks[-1].usage.total_tokens],
                "chat": client.chat.completions.create(**chat).choices[0].message.content,
                "chat_streamed": "".join(piece.choices[0].delta.content or "" for piece in pieces),
                "errors": [error(client, model=model, temperature=-1), error(client, model="gpt-7")],
            }
        )
    )


def error(client: openai.OpenAI, **body: Any) -> list[Any]:
    try:
        client.completions.create(prompt="a", **body)
    except openai.APIStatusError as caught:
        return [type(caught).__name__, caught.status_code, caught.code, caught.param]
    return []


main(*sys.argv[1:])
