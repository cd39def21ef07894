"""`POST /generate`: text in, text out, every sampling setting, one or many prompts, streamed or not."""

import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, Field

from zeroshot.api import fields
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import documented
from zeroshot.api.generation import Generation, as_prompts, check_token_ids, logprob_json, tokenize_prompts
from zeroshot.api.sse import event_stream
from zeroshot.client import ChoiceDelta, EngineClient
from zeroshot.errors import InvalidRequest
from zeroshot.types import MAX_SEED, GenerateRequest, SamplingParams

router = APIRouter(tags=["generate"])

DEFAULT_MAX_TOKENS = 64
MAX_CHOICES = 128


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _check_prompt_type(value: Any) -> Any:
    """One message instead of one for each member of the union."""
    items = value if isinstance(value, list) else [value]
    is_texts = bool(items) and all(isinstance(item, str) for item in items)
    is_rows = isinstance(value, list) and bool(value) and all(_is_token_ids(item) for item in value)
    if not (is_texts or is_rows or _is_token_ids(value)):
        raise ValueError(
            "expected a text, a list of texts, a list of token ids (whole numbers from 0), or a list of such lists; "
            "none of them empty"
        )
    if is_texts:
        for text in items:
            fields.check_encodable(text)
    return value


Prompt = Annotated[
    str | list[str] | list[int] | list[list[int]],
    BeforeValidator(_check_prompt_type),
    Field(description="A text, a list of texts, a list of token ids, or a list of lists of token ids."),
]


class GenerateBody(fields.StrictBody):
    prompt: Prompt = Field(examples=["It was a dark night, and"])
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description=f"Tokens to generate. Default: {DEFAULT_MAX_TOKENS}, or what the context has room for.",
    )
    min_tokens: int = Field(default=0, ge=0, le=2**31 - 1, description="No end of text or stop before this many.")
    temperature: fields.Temperature = 1.0
    top_k: fields.TopK = 0
    top_p: fields.TopP = 1.0
    min_p: fields.MinP = 0.0
    repetition_penalty: fields.RepetitionPenalty = 1.0
    presence_penalty: fields.Penalty = 0.0
    frequency_penalty: fields.Penalty = 0.0
    logit_bias: fields.LogitBias = Field(default={})
    seed: fields.Seed | None = Field(default=None, description="Default: a random one, which the answer names.")
    n: int = Field(default=1, ge=1, le=MAX_CHOICES, description="Continuations for each prompt.")
    stop: fields.Stop = Field(default=[])
    stop_token_ids: list[fields.TokenId] = Field(default=[], max_length=fields.MAX_STOPS)
    ignore_eos: bool = Field(default=False, description="Go on after the end-of-text token.")
    logprobs: fields.Logprobs | None = None
    return_token_ids: bool = False
    stream: bool = Field(default=False, description="Answer with server-sent events as the text comes.")


class Alternative(BaseModel):
    token_id: int
    token: str
    logprob: float


class Logprob(Alternative):
    """Natural logarithm of the model's own probability, before temperature, penalties and bias."""

    rank: int = Field(description="1 for the most likely token.")
    top: list[Alternative]


class Choice(BaseModel):
    index: int = Field(description="Prompt number times n, plus the continuation's number.")
    text: str
    finish_reason: str = Field(description="`stop` or `length`.")
    stop_reason: str | int | None = Field(description="The stop string or token id that ended the text.")
    token_ids: list[int] | None = None
    logprobs: list[Logprob] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = Field(description="Prompt tokens whose computation was reused from earlier requests.")


class GenerateResponse(BaseModel):
    id: str
    model: str
    seed: int
    choices: list[Choice]
    usage: Usage


@router.post(
    "/generate",
    summary="Continue a text.",
    response_model=GenerateResponse,
    responses=documented(400, 413, 422, 429, 500, 503),
)
async def generate(body: GenerateBody, request: Request) -> Response:
    """With `stream: true` the answer is a stream of events, each `{"id", "choices": [one piece of one choice]}`.

    The last piece of each choice has its `finish_reason`; the last event has `usage`; then comes `[DONE]`.
    """
    call = await _Call.prepare(body, request.app.state.client)
    if body.stream:
        return await event_stream(call.stream())
    return JSONResponse(await cancel_on_disconnect(request, call.run()))


class _Call:
    """One request to `/generate`: the body, and the generation it asks for."""

    def __init__(self, body: GenerateBody, client: EngineClient, prompts: list[list[int]]) -> None:
        self.body, self.client = body, client
        self.id = f"gen-{uuid.uuid4().hex}"
        self.seed = secrets.randbelow(MAX_SEED) if body.seed is None else body.seed
        self.generation = Generation(client, [self._request(index, ids) for index, ids in enumerate(prompts)])

    @classmethod
    async def prepare(cls, body: GenerateBody, client: EngineClient) -> "_Call":
        check_token_ids(body.logit_bias, "logit_bias", client.vocab_size)
        check_token_ids(body.stop_token_ids, "stop_token_ids", client.vocab_size)
        return cls(body, client, await tokenize_prompts(as_prompts(body.prompt), body.n, client))

    async def run(self) -> dict[str, Any]:
        completions = await self.generation.complete()
        choices = [self._piece(index, choice) for index, choices in enumerate(completions) for choice in choices]
        return self._envelope(choices) | {"seed": self.seed, "usage": self.generation.usage()}

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        has_details = self.body.logprobs is not None or self.body.return_token_ids
        async with aclosing(self.generation.deltas()) as deltas:
            async for index, delta in deltas:
                if delta.text or delta.finish_reason or has_details:
                    yield self._envelope([self._piece(index, delta)])
        yield self._envelope([]) | {"seed": self.seed, "usage": self.generation.usage()}

    def _request(self, index: int, token_ids: list[int]) -> GenerateRequest:
        body = self.body
        room = max(1, self.client.max_model_len - len(token_ids))
        max_tokens = min(DEFAULT_MAX_TOKENS, room) if body.max_tokens is None else body.max_tokens
        if body.min_tokens > max_tokens:
            raise InvalidRequest(f"min_tokens is {body.min_tokens}, max_tokens {max_tokens}.", field="min_tokens")
        params = SamplingParams(
            max_tokens=max_tokens,
            min_tokens=body.min_tokens,
            temperature=body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            logit_bias=body.logit_bias,
            seed=self.seed,
            stop=tuple(body.stop),
            stop_token_ids=tuple(body.stop_token_ids),
            ignore_eos=body.ignore_eos,
            logprobs=body.logprobs,
        )
        return GenerateRequest(
            request_id=f"{self.id}-{index}", prompt_token_ids=token_ids, sampling_params=params, n=body.n
        )

    def _piece(self, prompt_index: int, delta: ChoiceDelta) -> dict[str, Any]:
        piece: dict[str, Any] = {
            "index": prompt_index * self.body.n + delta.index,
            "text": delta.text,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        if self.body.return_token_ids:
            piece["token_ids"] = delta.token_ids
        if self.body.logprobs is not None:
            piece["logprobs"] = [logprob_json(self.client.tokenizer, logprob) for logprob in delta.logprobs]
        return piece

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "model": self.client.model_name, "choices": choices}
