"""`POST /generate`: text in, text out, every sampling setting, one or many prompts, streamed or not."""

import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Discriminator, Field, Tag

from zeroshot.api import beams, fields, tgi
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.envelopes import TGIErrorResponse
from zeroshot.api.errors import documented
from zeroshot.api.generation import logprob_json, sampling_params
from zeroshot.api.json_answer import JSONAnswer, in_turns
from zeroshot.api.prompts import as_prompts, tokenize_prompts
from zeroshot.api.sse import STREAMED, event_stream
from zeroshot.api.structured_outputs import StructuredOutputs, default_max_tokens, generation_of
from zeroshot.api.tgi_fields import TGIBody
from zeroshot.caller import limit_time
from zeroshot.model_client import ChoiceDelta, ModelClient
from zeroshot.tasks.results import ErrorResponse
from zeroshot.types import DRAWN_SEEDS, GenerateRequest

router = APIRouter(tags=["generate"])

DEFAULT_MAX_TOKENS = 64


class GenerateBody(fields.SamplingBody, fields.PromptBody):
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description=f"Tokens to generate. Default: {DEFAULT_MAX_TOKENS}, or what the context has room for.",
    )
    seed: fields.Seed | None = Field(default=None, description="Default: a random one, which the answer names.")
    n: int = Field(default=1, ge=1, le=fields.MAX_CHOICES, description="Continuations for each prompt.")
    logprobs: fields.Logprobs | None = None
    return_token_ids: bool = False
    structured_outputs: StructuredOutputs | None = Field(
        default=None, description="What the text must be: one of `choice`, or what fits `regex`, or `json`, a schema."
    )
    num_beams: int = Field(
        default=1,
        ge=1,
        le=beams.MAX_BEAMS,
        description="Above 1: beam search, which finds `n` texts; nothing is drawn.",
    )
    length_penalty: beams.LengthPenalty | None = Field(default=None, description="Of beam search. Default: 1.")
    early_stopping: beams.EarlyStopping | None = Field(default=None, description="Of beam search. Default: false.")
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
    beam_score: float | None = Field(default=None, description="With num_beams: log-probability / length penalty.")
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


def _schema_of(body: Any) -> str:
    is_tgi = isinstance(body, TGIBody) or (isinstance(body, dict) and "inputs" in body)
    return "tgi-body" if is_tgi else "generate-body"


EitherBody = Annotated[
    Annotated[GenerateBody, Tag("generate-body")] | Annotated[TGIBody, Tag("tgi-body")], Discriminator(_schema_of)
]


@router.post(
    "/generate",
    summary="Continue a text.",
    response_model=GenerateResponse | tgi.TGIAnswer,
    responses=STREAMED
    | documented(400, 413, 500)
    | documented(422, 429, 503, 504, model=ErrorResponse | TGIErrorResponse)
    | documented(424, model=TGIErrorResponse),
)
async def generate(body: EitherBody, request: Request) -> Response:
    """With `stream: true` the answer is a stream of events, each `{"id", "choices": [one piece of one choice]}`.

    The last piece of each choice has its `finish_reason`; the last event has `usage`; then comes `[DONE]`.

    A body with `inputs` is answered as Text Generation Inference does, also its errors.
    """
    if isinstance(body, TGIBody):
        return await tgi.answer(body, request)
    limit_time(body.timeout)
    call = await _Call.prepare(body, request.app.state.client)
    if body.stream:
        return await event_stream(request, call.stream())
    return JSONAnswer(await cancel_on_disconnect(request, call.run()))


class _Call:
    """One request to `/generate`: the body, and the generation it asks for."""

    def __init__(self, body: GenerateBody, client: ModelClient, prompts: list[list[int]]) -> None:
        self.body, self.client = body, client
        self.id = f"gen-{uuid.uuid4().hex}"
        self.seed = secrets.randbelow(DRAWN_SEEDS) if body.seed is None else body.seed
        asked = body.structured_outputs
        self.choices = asked.choice if asked else None
        self.grammar = asked.grammar() if asked else None
        self.beams = beams.beam_params(
            body,
            num_beams=body.num_beams,
            length_penalty=body.length_penalty,
            early_stopping=body.early_stopping,
        )
        requests = [self._request(index, ids) for index, ids in enumerate(prompts)]
        self.generation = generation_of(client, requests, self.choices)

    @classmethod
    async def prepare(cls, body: GenerateBody, client: ModelClient) -> "_Call":
        return cls(body, client, await tokenize_prompts(as_prompts(body.prompt), body.n, client))

    async def run(self) -> dict[str, Any]:
        completions = await self.generation.complete()
        choices = await in_turns(
            self._piece(index, choice) for index, choices in enumerate(completions) for choice in choices
        )
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
        params = sampling_params(
            body,
            self.client,
            num_prompt_tokens=len(token_ids),
            max_tokens=body.max_tokens,
            default_max_tokens=default_max_tokens(
                DEFAULT_MAX_TOKENS, self.client, choices=self.choices, grammar=self.grammar
            ),
            seed=self.seed,
            logprobs=body.logprobs,
            grammar=self.grammar,
            beams=self.beams,
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
        if delta.beam_score is not None:
            piece["beam_score"] = delta.beam_score
        if self.body.return_token_ids:
            piece["token_ids"] = delta.token_ids
        if self.body.logprobs is not None:
            piece["logprobs"] = [logprob_json(self.client.tokenizer, logprob) for logprob in delta.logprobs]
        return piece

    def _envelope(self, choices: list[Any]) -> dict[str, Any]:
        return {"id": self.id, "model": self.client.model_name, "choices": choices}
