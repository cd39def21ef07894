"""`POST /v1/completions`: OpenAI's, with vLLM's extensions."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from zeroshot.api import fields
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import OPENAI_ERRORS
from zeroshot.api.generation import by_probability, sampling_params
from zeroshot.api.guided_choice import encode_choices
from zeroshot.api.json_answer import JSONAnswer, in_turns
from zeroshot.api.openai_choice import ChoiceFormat, ChoiceWriter
from zeroshot.api.openai_protocol import Frame, OpenAIBody, UsageInChunks, openai_usage
from zeroshot.api.prompts import as_prompts, tokenize_prompts
from zeroshot.api.sse import STREAMED, event_stream
from zeroshot.api.structured_outputs import default_max_tokens, generation_of
from zeroshot.caller import limit_time
from zeroshot.errors import InvalidRequest
from zeroshot.model_client import Completion, ModelClient
from zeroshot.types import GenerateRequest, Grammar

router = APIRouter(prefix="/v1", tags=["openai"])

DEFAULT_MAX_TOKENS = 16


class CompletionBody(OpenAIBody):
    prompt: fields.Prompt = Field(examples=["It was a dark night, and"])
    max_tokens: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Default: 16, or what the context has room for."
    )
    best_of: int | None = Field(
        default=None,
        ge=1,
        le=fields.MAX_CHOICES,
        description="Generate this many and return the n with the highest log-probability per token.",
    )
    echo: bool = Field(default=False, description="Put the prompt before the text, and before the logprobs.")
    logprobs: fields.Logprobs | None = None
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, le=2**31 - 1, description="Keep only the prompt's last tokens; -1: as many as fit."
    )
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = Field(default=False, description="Show tokens in logprobs as `token_id:464`.")
    include_stop_str_in_output: bool = False

    @property
    def num_generated(self) -> int:
        """Continuations generated for each prompt."""
        return self.best_of or self.n

    def check(self, client: ModelClient) -> None:
        super().check(client)
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidRequest(f"best_of is {self.best_of}: it must be at least n, {self.n}.", field="best_of")
        if self.stream and self.num_generated > self.n:
            raise InvalidRequest("best_of can't be streamed: the best is known only at the end.", field="best_of")
        if self.choices is not None and self.num_generated > self.n:
            raise InvalidRequest("best_of can't be combined with structured_outputs.choice.", field="best_of")
        if self.truncate_prompt_tokens == 0:
            raise InvalidRequest("truncate_prompt_tokens must be at least 1, or -1.", field="truncate_prompt_tokens")


@router.post("/completions", summary="Continue a text, as OpenAI's API does.", responses=STREAMED | OPENAI_ERRORS)
async def completions(body: CompletionBody, request: Request) -> Response:
    """See OpenAI's reference for the answer, also of a stream.

    The text the model sees may hold the end-of-text token as `<|endoftext|>`.
    """
    client: ModelClient = request.app.state.client
    body.check(client)
    limit_time(body.timeout)
    call = await _Call.prepare(body, client)
    headers = body.ignored_fields()
    if body.stream:
        return await event_stream(request, call.stream(), headers=headers)
    return JSONAnswer(await cancel_on_disconnect(request, call.run()), headers=headers)


class _Call:
    """One request: the body, and the generation it asks for."""

    def __init__(self, body: CompletionBody, client: ModelClient, prompts: list[list[int]]) -> None:
        self.body, self.client = body, client
        self.frame = Frame("text_completion", "cmpl", client)
        self.grammar = body.grammar()
        requests = [self._request(index, token_ids) for index, token_ids in enumerate(prompts)]
        self.generation = generation_of(client, requests, body.choices)
        self.format = ChoiceFormat(
            echo=body.echo,
            has_logprobs=body.logprobs is not None,
            has_token_ids=body.return_token_ids,
            tokens_as_ids=body.return_tokens_as_token_ids,
            keeps_stop=body.include_stop_str_in_output,
        )

    @classmethod
    async def prepare(cls, body: CompletionBody, client: ModelClient) -> Self:
        prompts = await tokenize_prompts(as_prompts(body.prompt), body.num_generated, client)
        if body.truncate_prompt_tokens is not None:
            num_kept = await _num_kept(body, client)
            prompts = [prompt[-num_kept:] for prompt in prompts]
        return cls(body, client, prompts)

    async def run(self) -> dict[str, Any]:
        completions = await self.generation.complete()
        choices = await in_turns(
            self._writer(prompt_index, choice.index).piece(choice)
            for prompt_index, candidates in enumerate(completions)
            for choice in self._chosen(candidates)
        )
        return self.frame.around(choices, usage=openai_usage(self.generation.usage()))

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        usage = UsageInChunks(self.body.stream_options, self.generation)
        writers: dict[tuple[int, int], ChoiceWriter] = {}
        async with aclosing(self.generation.deltas()) as deltas:
            async for prompt_index, delta in deltas:
                key = (prompt_index, delta.index)
                if key not in writers:
                    writers[key] = self._writer(*key)
                if writers[key].has_news(delta):
                    yield self.frame.around([writers[key].piece(delta)], **usage.so_far())
        if usage.is_wanted:
            yield self.frame.around([], **usage.total())

    def _chosen(self, candidates: list[Completion]) -> list[Completion]:
        return by_probability(candidates)[: self.body.n] if len(candidates) > self.body.n else candidates

    def _writer(self, prompt_index: int, choice_index: int) -> ChoiceWriter:
        prompt_ids = self.generation.requests[prompt_index].prompt_token_ids
        index = prompt_index * self.body.n + choice_index
        return ChoiceWriter(index, prompt_ids, self.client.tokenizer, self.format)

    def _request(self, index: int, token_ids: list[int]) -> GenerateRequest:
        body = self.body
        params = sampling_params(
            body,
            self.client,
            num_prompt_tokens=len(token_ids),
            max_tokens=body.max_tokens,
            default_max_tokens=_default_max_tokens(body, self.client, self.grammar),
            # Without one each prompt gets its own, or the same prompt twice would get the same text twice.
            seed=body.engine_seed(),
            logprobs=0 if body.logprobs is None and body.num_generated > body.n else body.logprobs,
            prompt_logprobs=body.logprobs if body.echo else None,
            grammar=self.grammar,
            beams=body.beams(),
        )
        return GenerateRequest(
            request_id=f"{self.frame.id}-{index}",
            prompt_token_ids=token_ids,
            sampling_params=params,
            n=body.num_generated,
        )


async def _num_kept(body: CompletionBody, client: ModelClient) -> int:
    """How many of a prompt's tokens are kept at most: 1 or more."""
    if body.truncate_prompt_tokens is not None and body.truncate_prompt_tokens > 0:
        return body.truncate_prompt_tokens
    if body.max_tokens is not None:
        max_tokens = body.max_tokens
    elif body.choices is not None:
        max_tokens = max(map(len, await encode_choices(body.choices, client)))
    else:
        max_tokens = _default_max_tokens(body, client, body.grammar())
    return max(1, client.max_model_len - max_tokens)


def _default_max_tokens(body: CompletionBody, client: ModelClient, grammar: Grammar | None) -> int:
    return default_max_tokens(DEFAULT_MAX_TOKENS, client, choices=body.choices, grammar=grammar)
