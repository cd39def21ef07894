"""The prompts of a request: texts or token ids as they come -> token ids that fit the model. For every surface."""

from collections.abc import Iterable

from zeroshot.api.threads import in_thread
from zeroshot.errors import InvalidRequest
from zeroshot.model_client import ModelClient

Prompt = str | list[int]

MAX_PROMPTS = 128
MAX_SEQS_PER_REQUEST = 256
MAX_TOKEN_BYTES = 128
"""GPT-2's longest token. A text longer than this times the context can't fit: no need to tokenise it to know."""


def as_prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[Prompt]:
    """The four shapes a prompt can have, as a list of prompts."""
    if isinstance(prompt, str):
        return [prompt]
    token_ids = [item for item in prompt if isinstance(item, int)]
    return [token_ids] if token_ids else [item for item in prompt if not isinstance(item, int)]


async def tokenize_prompts(
    prompts: list[Prompt], n: int, client: ModelClient, *, field: str = "prompt"
) -> list[list[int]]:
    """Token ids of each prompt, all in the vocabulary. Raises InvalidRequest for too many, empty or too long ones."""
    if len(prompts) > MAX_PROMPTS or len(prompts) * n > MAX_SEQS_PER_REQUEST:
        raise InvalidRequest(
            f"{len(prompts)} prompts x n={n} is too much for one request: at most {MAX_PROMPTS} prompts and "
            f"{MAX_SEQS_PER_REQUEST} continuations.",
            field=field,
        )
    return [await _tokenize(prompt, client, field) for prompt in prompts]


async def _tokenize(prompt: Prompt, client: ModelClient, field: str) -> list[int]:
    if not prompt:
        raise InvalidRequest("The prompt is empty: give it at least one character or token.", field=field)
    if not isinstance(prompt, str):
        check_token_ids(prompt, field, client.vocab_size)
        return prompt
    check_length(prompt, client, field)
    # In a thread: tokenising a long text takes tens of milliseconds, in which no stream would move.
    return await in_thread(client.tokenizer.encode_with_special, prompt)


def check_length(text: str, client: ModelClient, field: str) -> None:
    """Raises InvalidRequest for a text that can't fit the context, whatever its tokens are."""
    if len(text) > MAX_TOKEN_BYTES * client.max_model_len:
        raise InvalidRequest(
            f"The prompt has {len(text)} characters; no text of that length fits {client.max_model_len} tokens.",
            field=field,
        )


def check_token_ids(token_ids: Iterable[int], field: str, vocab_size: int) -> None:
    """Raises InvalidRequest for an id outside the vocabulary: it must never reach the engine."""
    bad = next((token_id for token_id in token_ids if not 0 <= token_id < vocab_size), None)
    if bad is not None:
        raise InvalidRequest(f"{field}: token id {bad} is not in the vocabulary of {vocab_size}.", field=field)
