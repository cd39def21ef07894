"""`POST /score`: how probable is this text, token by token?"""

import math
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field

from zeroshot.api import fields
from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import documented
from zeroshot.api.generation import Generation, check_size_of_answer, logprob_json
from zeroshot.api.json_answer import JSONAnswer, in_turns
from zeroshot.api.prompts import as_prompts, tokenize_prompts
from zeroshot.caller import limit_time
from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.model_client import Completion, ModelClient
from zeroshot.tasks.schema import Timeout
from zeroshot.tasks.scoring import perplexity
from zeroshot.types import GenerateRequest, SamplingParams

router = APIRouter(tags=["score"])


def _check_texts(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    fields.check_num_items(items)
    if not items or not all(isinstance(item, str) for item in items):
        raise ValueError("expected a text or a list of texts")
    for text in items:
        fields.check_encodable(text)
    return value


def _check_rows(value: Any) -> Any:
    if isinstance(value, list):
        fields.check_num_items(value)
    is_rows = isinstance(value, list) and bool(value) and all(map(fields.is_token_ids, value))
    if not (is_rows or fields.is_token_ids(value)):
        raise ValueError("expected a list of token ids (whole numbers from 0) or a list of such lists; none empty")
    return value


class ScoreBody(fields.StrictBody):
    text: Annotated[str | list[str], BeforeValidator(_check_texts)] = Field(
        default="", description="A text or a list of texts.", examples=["It was a dark night."]
    )
    token_ids: Annotated[list[int] | list[list[int]], BeforeValidator(_check_rows)] = Field(
        default=[], description="Instead of `text`: a list of token ids, or a list of such lists."
    )
    top_logprobs: fields.Logprobs = 0
    timeout: Timeout = None
    add_bos_token: bool = Field(
        default=True,
        description="Put the end-of-text token before the text, as GPT-2 was trained: so that the first token has a "
        "probability too. Without it the first token is only read.",
    )


class ScoredToken(BaseModel):
    token_id: int
    token: str
    logprob: float | None = Field(description="Natural logarithm; null for a token that nothing precedes.")
    rank: int | None = Field(description="1 for the most likely token.")
    top: list[dict[str, Any]]


class ScoreResult(BaseModel):
    logprob: float = Field(description="The sum over all tokens that have one.")
    perplexity: float = Field(description="exp(-logprob / num_tokens): per GPT-2 token, not per word.")
    num_tokens: int = Field(description="How many tokens were scored.")
    tokens: list[ScoredToken]


class ScoreUsage(BaseModel):
    prompt_tokens: int
    cached_tokens: int


class ScoreResponse(BaseModel):
    model: str
    results: list[ScoreResult]
    usage: ScoreUsage


@router.post(
    "/score",
    summary="How probable is a text, token by token?",
    response_model=ScoreResponse,
    responses=documented(400, 413, 422, 429, 500, 503, 504),
)
async def score(body: ScoreBody, request: Request) -> Response:
    """Exact log-probabilities of every token: sum, perplexity, and each token's rank among all that could stand there.

    `<|endoftext|>` in the text is the end-of-text token.
    """
    client: ModelClient = request.app.state.client
    limit_time(body.timeout)
    generation = Generation(client, await _requests(body, client))
    completions = await cancel_on_disconnect(request, generation.complete())
    scored = zip(generation.requests, completions, strict=True)
    results = await in_turns(_result(sent, choices[0], body, client) for sent, choices in scored)
    usage = generation.usage()
    return JSONAnswer(
        {
            "model": client.model_name,
            "results": results,
            "usage": {"prompt_tokens": usage["prompt_tokens"], "cached_tokens": usage["cached_tokens"]},
        }
    )


async def _requests(body: ScoreBody, client: ModelClient) -> list[GenerateRequest]:
    given = [name for name in ("text", "token_ids") if name in body.model_fields_set]
    if len(given) != 1:
        raise InvalidRequest("Give either text or token_ids.", field="text")
    prompts = as_prompts(body.text if given == ["text"] else body.token_ids)
    rows = await tokenize_prompts(prompts, 1, client, field=given[0])
    params = SamplingParams(max_tokens=0, prompt_logprobs=body.top_logprobs)
    request_id = f"score-{uuid.uuid4().hex}"
    requests = []
    for index, row in enumerate(rows):
        token_ids = [client.eos_token_id, *row] if body.add_bos_token else row
        if len(token_ids) < 2:
            raise InvalidRequest("There is nothing to score after the first token.", field=given[0])
        if len(token_ids) > client.max_model_len:
            raise ContextLengthExceeded(len(token_ids), 0, client.max_model_len, field=given[0])
        requests.append(
            GenerateRequest(request_id=f"{request_id}-{index}", prompt_token_ids=token_ids, sampling_params=params)
        )
    check_size_of_answer(requests, field="top_logprobs")
    return requests


def _result(sent: GenerateRequest, scored: Completion, body: ScoreBody, client: ModelClient) -> dict[str, Any]:
    tokens = [logprob_json(client.tokenizer, logprob) for logprob in scored.prompt_logprobs]
    logprob = math.fsum(token["logprob"] for token in tokens)
    result = {"logprob": logprob, "perplexity": perplexity(logprob, len(tokens)), "num_tokens": len(tokens)}
    if not body.add_bos_token:
        token_id = sent.prompt_token_ids[0]
        name = client.tokenizer.token_text(token_id)
        tokens.insert(0, {"token_id": token_id, "token": name, "logprob": None, "rank": None, "top": []})
    return result | {"tokens": tokens}
