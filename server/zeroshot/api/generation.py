"""Many prompts, `n` continuations each, answered together. Shared by every surface that generates text."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from zeroshot.api.fields import SamplingBody
from zeroshot.api.prompts import check_token_ids
from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.model_client import ChoiceDelta, Completion, ModelClient
from zeroshot.tasks.scoring import together
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import BeamParams, GenerateRequest, Grammar, SamplingParams, TokenLogprob

MAX_LOGPROBS_PER_ANSWER = 2**17
"""Log-probabilities, alternatives counted: about 10 MB of JSON."""


class Generation:
    """One HTTP request's GenerateRequests. Counts tokens as their deltas pass."""

    def __init__(self, client: ModelClient, requests: list[GenerateRequest]) -> None:
        self.client, self.requests = client, requests
        self.completion_tokens = 0
        self._cached_tokens = 0

    async def complete(self) -> list[list[Completion]]:
        """Each request's choices, in order. If one request fails, the others are aborted.

        Raises InvalidRequest for an answer that would be too large.
        """
        check_size_of_answer(self.requests)
        self.client.check_room(self.requests)
        completions = await together(self.client.complete(request) for request in self.requests)
        for choices in completions:
            for choice in choices:
                self._count(choice)
        return completions

    def deltas(self) -> AsyncGenerator[tuple[int, ChoiceDelta], None]:
        """(request number, delta) of all requests, merged as they come. Leaving early aborts the rest.

        Raises InvalidRequest for an answer that would be too large.
        """
        check_size_of_answer(self.requests)
        return self._merged() if len(self.requests) > 1 else self._single()

    async def _single(self) -> AsyncGenerator[tuple[int, ChoiceDelta], None]:
        """Without the queue that merges, by which each token would pass through another task."""
        async with aclosing(self.client.generate(self.requests[0])) as deltas:
            async for delta in deltas:
                self._count(delta)
                yield 0, delta

    async def _merged(self) -> AsyncGenerator[tuple[int, ChoiceDelta], None]:
        self.client.check_room(self.requests)
        queue: asyncio.Queue[tuple[int, ChoiceDelta | Exception | None]] = asyncio.Queue()

        async def forward(index: int, request: GenerateRequest) -> None:
            try:
                async with aclosing(self.client.generate(request)) as deltas:
                    async for delta in deltas:
                        queue.put_nowait((index, delta))
                queue.put_nowait((index, None))
            except Exception as error:  # not hidden: raised again below, in the caller's own task
                queue.put_nowait((index, error))

        tasks = [asyncio.create_task(forward(index, request)) for index, request in enumerate(self.requests)]
        try:
            unfinished = len(tasks)
            while unfinished:
                index, item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    unfinished -= 1
                else:
                    self._count(item)
                    yield index, item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def usage(self) -> dict[str, int]:
        prompt_tokens = sum(len(request.prompt_token_ids) for request in self.requests)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
            "cached_tokens": self._cached_tokens,
        }

    def _count(self, delta: ChoiceDelta) -> None:
        self.completion_tokens += len(delta.token_ids)
        if delta.index == 0:  # the others find in the cache what this one has put there
            self._cached_tokens += delta.num_cached_tokens


def check_size_of_answer(requests: list[GenerateRequest], *, field: str = "logprobs") -> None:
    """Raises InvalidRequest for more log-probabilities than are written. field: what asks for alternatives."""
    total = 0
    for request in requests:
        params = request.sampling_params
        if params.logprobs is not None:
            total += request.n * params.max_tokens * (1 + params.logprobs)
        if params.prompt_logprobs is not None:
            num_scored = len(request.prompt_token_ids) - params.prompt_logprobs_start
            total += request.n * num_scored * (1 + params.prompt_logprobs)
    if total > MAX_LOGPROBS_PER_ANSWER:
        raise InvalidRequest(
            f"The answer would hold up to {total} log-probabilities (prompts x n x tokens x (1 + alternatives)), more "
            f"than {MAX_LOGPROBS_PER_ANSWER}. Ask for fewer alternatives or tokens, or send the prompts in parts.",
            field=field,
        )


def sampling_params(
    body: SamplingBody,
    client: ModelClient,
    *,
    num_prompt_tokens: int,
    prompt_field: str = "prompt",
    max_tokens: int | None,
    default_max_tokens: int,
    seed: int,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
    grammar: Grammar | None = None,
    beams: BeamParams | None = None,
) -> SamplingParams:
    """A body's settings for one prompt. Without `max_tokens` it is the default, or what the context has room for.

    Raises InvalidRequest for token ids outside the vocabulary and for a `min_tokens` that can't be reached. With a
    grammar, also for `min_tokens` and `ignore_eos`: only the grammar says where the text ends. Without `max_tokens`,
    raises ContextLengthExceeded for a prompt that leaves no room at all.
    """
    check_token_ids(body.logit_bias, "logit_bias", client.vocab_size)
    check_token_ids(body.stop_token_ids, "stop_token_ids", client.vocab_size)
    if max_tokens is None:
        room = client.max_model_len - num_prompt_tokens
        if room < 1:
            raise ContextLengthExceeded(num_prompt_tokens, None, client.max_model_len, field=prompt_field)
        max_tokens = min(default_max_tokens, room)
    if body.min_tokens > max_tokens:
        raise InvalidRequest(f"min_tokens is {body.min_tokens}, max_tokens {max_tokens}.", field="min_tokens")
    for name in ("min_tokens", "ignore_eos") if grammar else ():
        if getattr(body, name):
            raise InvalidRequest(f"{name} can't be combined with a regular expression or a JSON schema.", field=name)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        typical_p=body.typical_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        seed=seed,
        stop=tuple(body.stop),
        stop_token_ids=tuple(body.stop_token_ids),
        ignore_eos=body.ignore_eos,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        grammar=grammar,
        beams=beams,
    )


def by_probability(candidates: list[Completion]) -> list[Completion]:
    """The highest log-probability per token first, numbered anew. A single one needs no log-probabilities."""
    if len(candidates) == 1:
        return candidates
    ranked = sorted(candidates, key=_mean_logprob, reverse=True)
    for index, choice in enumerate(ranked):
        choice.index = index
    return ranked


def _mean_logprob(choice: Completion) -> float:
    return math.fsum(token.logprob for token in choice.logprobs) / max(1, len(choice.logprobs))


def logprob_json(tokenizer: Tokenizer, logprob: TokenLogprob) -> dict[str, Any]:
    return {
        "token_id": logprob.token_id,
        "token": tokenizer.token_text(logprob.token_id),
        "logprob": logprob.logprob,
        "rank": logprob.rank,
        "top": [
            {"token_id": token_id, "token": tokenizer.token_text(token_id), "logprob": value}
            for token_id, value in logprob.top
        ],
    }
