"""Run by the interpreter of an environment with litellm: prints what it was told, as JSON."""

import asyncio
import importlib.metadata
import json
import sys
from typing import Any

import litellm

PROMPT = "Grüße aus 東京"
MESSAGES = [{"role": "user", "content": "日本"}]


def main(url: str, model: str) -> None:
    where: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}
    text = {"model": f"text-completion-openai/{model}", "prompt": PROMPT, "max_tokens": 12, "seed": 3, **where}
    chat = {"model": f"openai/{model}", "messages": MESSAGES, "max_tokens": 6, "seed": 1, **where}
    plain = litellm.text_completion(**text, n=2, logprobs=1)
    answer = litellm.completion(**chat)
    print(  # noqa: T201
        json.dumps(
            {
                "version": importlib.metadata.version("litellm"),
                "plain": [choice.text for choice in plain.choices],
                "token_logprobs": plain.choices[0].logprobs.token_logprobs,
                "usage": [plain.usage.prompt_tokens, plain.usage.completion_tokens],
                "streamed": "".join(
                    chunk.choices[0].text or "" for chunk in litellm.text_completion(**text, stream=True)
                ),
                "chat": answer.choices[0].message.content,
                "chat_finish_reason": answer.choices[0].finish_reason,
                "chat_streamed": chat_text(litellm.completion(**chat, stream=True)),
                "chats_at_once": asyncio.run(chats_at_once(chat)),
                "errors": [
                    error_of(lambda: litellm.text_completion(**(text | {"temperature": -1}))),
                    error_of(lambda: litellm.completion(**(chat | {"model": "openai/gpt-7"}))),
                ],
            }
        )
    )


def chat_text(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def chats_at_once(chat: dict[str, Any]) -> list[str]:
    answers = await asyncio.gather(*(litellm.acompletion(**(chat | {"seed": seed})) for seed in (1, 2, 1)))
    return [answer.choices[0].message.content for answer in answers]


def error_of(call: Any) -> list[Any]:
    """[its class, its HTTP status, its message]"""
    try:
        call()
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None), str(error)]
    return []


if __name__ == "__main__":
    main(*sys.argv[1:])
