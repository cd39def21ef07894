"""Text Generation Inference's surface: `POST /`, `POST /generate` with `inputs`, `POST /generate_stream`, `GET /info`.

As TGI does it: greedy unless sampling is asked for, a stop string stays at the end of the text, errors are
`{"error", "error_type"}`. Log-probabilities are the model's own, before temperature and penalties.
"""

import secrets
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

import zeroshot
from zeroshot.api import envelopes, fields
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import TGI_ERRORS, TGI_ERRORS_EVERYWHERE
from zeroshot.api.generation import Generation, by_probability
from zeroshot.api.json_answer import JSONAnswer, in_turns
from zeroshot.api.prompts import MAX_PROMPTS, tokenize_prompts
from zeroshot.api.sse import STREAMED, event_stream
from zeroshot.api.tgi_fields import TGIBody
from zeroshot.errors import ContextLengthExceeded
from zeroshot.model_client import ChoiceDelta, Completion, ModelClient
from zeroshot.text.detokenizer import utf8_decoder
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import DRAWN_SEEDS, MAX_SEED, GenerateRequest, SamplingParams, TokenLogprob

router = APIRouter(tags=["tgi"])

DEFAULT_MAX_NEW_TOKENS = 100


class TGIAnswer(BaseModel):
    generated_text: str
    details: dict[str, Any] | None = Field(default=None, description="If asked for: tokens, seed and finish reason.")


@router.post(
    "/",
    summary="Continue a text, as TGI does: the answer is a list.",
    response_model=list[TGIAnswer],
    responses=STREAMED | TGI_ERRORS,
)
async def compat_generate(body: TGIBody, request: Request) -> Response:
    return await answer(body, request, as_list=True)


@router.post(
    "/generate_stream",
    summary="Continue a text in a stream, as TGI does.",
    response_class=StreamingResponse,
    responses=STREAMED | TGI_ERRORS,
)
async def generate_stream(body: TGIBody, request: Request) -> Response:
    body.stream = True
    return await answer(body, request)


@router.get("/info", summary="The model and the limits, as TGI tells them.", responses=TGI_ERRORS_EVERYWHERE)
async def info(request: Request) -> dict[str, Any]:
    client: ModelClient = request.app.state.client
    return {
        "model_id": client.model_name,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": client.max_queued_seqs,
        "max_best_of": fields.MAX_CHOICES,
        "max_stop_sequences": fields.MAX_STOPS,
        "max_input_tokens": client.max_model_len - 1,
        "max_total_tokens": client.max_model_len,
        "max_client_batch_size": MAX_PROMPTS,
        "validation_workers": 1,
        "router": "zeroshot",
        "version": zeroshot.__version__,
        "sha": None,
        "docker_label": None,
    }


async def answer(body: TGIBody, request: Request, *, as_list: bool = False) -> Response:
    """The answer to a body in TGI's schema, on whichever path it came."""
    envelopes.use(request.scope, envelopes.tgi)
    call = await _Call.prepare(body, request.app.state.client)
    headers = body.ignored_fields()
    if body.stream:
        return await event_stream(request, call.stream(), end=b"", headers=headers)
    result = await cancel_on_disconnect(request, call.run())
    return JSONAnswer([result] if as_list else result, headers=headers)


class _Call:
    """One request: the body, and the generation it asks for."""

    def __init__(self, body: TGIBody, client: ModelClient, token_ids: list[int]) -> None:
        self.parameters = body.parameters
        self.tokenizer = client.tokenizer
        self.token_ids = token_ids
        given = self.parameters.seed
        self.seed = secrets.randbelow(DRAWN_SEEDS) if given is None else given
        self.prefix = body.inputs if self.parameters.return_full_text else ""
        request = GenerateRequest(
            request_id=f"tgi-{uuid.uuid4().hex}",
            prompt_token_ids=token_ids,
            sampling_params=self._sampling_params(client, has_logprobs=body.stream),
            n=self.parameters.best_of,
        )
        self.generation = Generation(client, [request])

    @classmethod
    async def prepare(cls, body: TGIBody, client: ModelClient) -> Self:
        parameters = body.parameters
        parameters.check(stream=body.stream)
        (token_ids,) = await tokenize_prompts([body.inputs], parameters.best_of, client, field="inputs")
        return cls(body, client, token_ids if parameters.truncate is None else token_ids[-parameters.truncate :])

    async def run(self) -> dict[str, Any]:
        (candidates,) = await self.generation.complete()
        best, *others = by_probability(candidates)
        result: dict[str, Any] = {"generated_text": self._text(best)}
        if self.parameters.has_details:
            result["details"] = self._details(best)
            if others:
                result["details"]["best_of_sequences"] = await in_turns(
                    {"generated_text": self._text(other)} | self._details(other) for other in others
                )
        return result

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        # Each token's own text: a stop string stays, so that nothing waits here for what may become one.
        decoder = utf8_decoder()
        whole, num_sent = Completion(0), 0
        async with aclosing(self.generation.deltas()) as deltas:
            async for _, delta in deltas:
                whole.add(delta)
                if not delta.token_ids:  # a piece of a long prompt
                    continue
                text = decoder.decode(self.tokenizer.token_bytes(delta.token_ids[0]))
                if delta.finish_reason is not None:
                    text = (whole.text + _stop_string(whole))[num_sent:]
                num_sent += len(text)
                yield self._event(delta, whole, text)

    def _event(self, delta: ChoiceDelta, whole: Completion, text: str) -> dict[str, Any]:
        logprob = delta.logprobs[0]
        is_last = delta.finish_reason is not None
        event: dict[str, Any] = {
            "index": len(whole.token_ids),
            "token": self._token(logprob, text),
            "generated_text": self._text(whole) if is_last else None,
            "details": self._summary(whole) | {"input_length": len(self.token_ids)} if is_last else None,
        }
        if self.parameters.top_n_tokens:
            event["top_tokens"] = self._top(logprob)
        return event

    def _sampling_params(self, client: ModelClient, *, has_logprobs: bool) -> SamplingParams:
        parameters = self.parameters
        num_prompt_tokens, max_new_tokens = len(self.token_ids), parameters.max_new_tokens
        if num_prompt_tokens + (max_new_tokens or 1) > client.max_model_len:
            raise ContextLengthExceeded(
                num_prompt_tokens,
                max_new_tokens,
                client.max_model_len,
                field="inputs",
                max_tokens_field="max_new_tokens",
            )
        needs_logprobs = has_logprobs or parameters.has_details or parameters.best_of > 1
        return SamplingParams(
            max_tokens=max_new_tokens or min(DEFAULT_MAX_NEW_TOKENS, client.max_model_len - num_prompt_tokens),
            temperature=parameters.temperature if parameters.is_sampling else 0.0,
            top_k=parameters.top_k,
            top_p=parameters.top_p,
            typical_p=parameters.typical_p,
            repetition_penalty=parameters.repetition_penalty,
            frequency_penalty=parameters.frequency_penalty,
            seed=self.seed % (MAX_SEED + 1),
            stop=tuple(parameters.stop),
            logprobs=(parameters.top_n_tokens or 0) if needs_logprobs else None,
            grammar=parameters.grammar.grammar() if parameters.grammar else None,
            prompt_logprobs=0 if parameters.decoder_input_details else None,
        )

    def _text(self, choice: Completion) -> str:
        return self.prefix + choice.text + _stop_string(choice)

    def _summary(self, choice: Completion) -> dict[str, Any]:
        return {
            "finish_reason": _finish_reason(choice),
            "generated_tokens": len(choice.token_ids),
            "seed": self.seed if self.parameters.is_sampling else None,
        }

    def _details(self, choice: Completion) -> dict[str, Any]:
        texts = _texts(self.tokenizer, choice.token_ids)
        details = self._summary(choice) | {
            "prefill": self._prefill(choice),
            "tokens": [self._token(logprob, text) for logprob, text in zip(choice.logprobs, texts, strict=True)],
        }
        if self.parameters.top_n_tokens:
            details["top_tokens"] = [self._top(logprob) for logprob in choice.logprobs]
        return details

    def _prefill(self, choice: Completion) -> list[dict[str, Any]]:
        if not self.parameters.decoder_input_details:
            return []
        logprobs = [None, *(logprob.logprob for logprob in choice.prompt_logprobs)]
        texts = map(self.tokenizer.token_text, self.token_ids)
        rows = zip(self.token_ids, texts, logprobs, strict=True)
        return [{"id": token_id, "text": text, "logprob": logprob} for token_id, text, logprob in rows]

    def _token(self, logprob: TokenLogprob, text: str) -> dict[str, Any]:
        special = logprob.token_id in self.tokenizer.special_ids
        return {"id": logprob.token_id, "text": text, "logprob": logprob.logprob, "special": special}

    def _top(self, logprob: TokenLogprob) -> list[dict[str, Any]]:
        special, name = self.tokenizer.special_ids, self.tokenizer.token_text
        return [{"id": i, "text": name(i), "logprob": value, "special": i in special} for i, value in logprob.top]


def _stop_string(delta: ChoiceDelta) -> str:
    return delta.stop_reason if isinstance(delta.stop_reason, str) else ""


def _finish_reason(choice: Completion) -> str:
    if choice.finish_reason == "length":
        return "length"
    return "stop_sequence" if isinstance(choice.stop_reason, str) else "eos_token"


def _texts(tokenizer: Tokenizer, token_ids: Iterable[int]) -> list[str]:
    """Each token's text; a character made of several tokens is the last one's. Joined, they are the whole text."""
    decoder = utf8_decoder()
    texts = [decoder.decode(tokenizer.token_bytes(token_id)) for token_id in token_ids]
    texts[-1:] = [text + decoder.decode(b"", final=True) for text in texts[-1:]]
    return texts
