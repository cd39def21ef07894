"""Exact log-probabilities of candidate texts, and what they say about which candidate is meant.

The tokens of a candidate are those of its text alone, put after the prompt's: for GPT-2, whose tokens begin with their
space, " positive" after "Sentiment:" is tokenised the same in one piece or in two. All candidates are sent to the
engine at once, where they share the prompt's blocks of the prefix cache.
"""

import asyncio
import math
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from zeroshot.errors import GenerationFailed
from zeroshot.model_client import ModelClient
from zeroshot.types import GenerateRequest, SamplingParams

T = TypeVar("T")

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The three content-free inputs of Zhao et al. 2021."""

_MAX_EXPONENT = 700.0  # e**710 is too large for a float


@dataclass(frozen=True, slots=True)
class Candidate:
    """Score `target_ids` after `prompt_ids`; neither is empty."""

    prompt_ids: list[int]
    target_ids: list[int]


@dataclass(frozen=True, slots=True)
class Scored:
    logprob: float
    num_tokens: int
    num_read_tokens: int = 0
    num_cached_tokens: int = 0

    def value(self, *, length_norm: bool) -> float:
        return self.logprob / self.num_tokens if length_norm else self.logprob


def continuation(prompt: str, text: str) -> str:
    """The text as it follows the prompt: after a space, unless the prompt ends with white space."""
    return text if not prompt or prompt[-1].isspace() else f" {text}"


async def score(client: ModelClient, candidates: Iterable[Candidate]) -> list[Scored]:
    """The candidates' log-probabilities in nats, in their order, all at once.

    Raises TooMuchAtOnce for more than the server can ever hold, and Overloaded for more than it can now.
    """
    candidates = list(candidates)
    requests = [_scoring_request(candidate) for candidate in candidates]
    client.check_room(requests)
    pairs = zip(candidates, requests, strict=True)
    return await together(_score_one(client, candidate, request) for candidate, request in pairs)


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order. The first error ends the others, and then is raised as it is, not in an ExceptionGroup."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _scoring_request(candidate: Candidate) -> GenerateRequest:
    token_ids = candidate.prompt_ids + candidate.target_ids
    params = SamplingParams(max_tokens=0, prompt_logprobs=0, prompt_logprobs_start=len(candidate.prompt_ids))
    return GenerateRequest(request_id=uuid.uuid4().hex, prompt_token_ids=token_ids, sampling_params=params)


async def _score_one(client: ModelClient, candidate: Candidate, request: GenerateRequest) -> Scored:
    completion = (await client.complete(request))[0]
    if len(completion.prompt_logprobs) != len(candidate.target_ids):
        raise GenerationFailed(
            f"The engine scored {len(completion.prompt_logprobs)} tokens of {len(candidate.target_ids)}."
        )
    logprob = math.fsum(token.logprob for token in completion.prompt_logprobs)
    num_tokens = len(request.prompt_token_ids)
    return Scored(logprob, len(candidate.target_ids), num_tokens, completion.num_cached_tokens)


def perplexity(logprob: float, num_tokens: int) -> float:
    """Per token, of a text with this log-probability in nats. Huge where the text is impossible, never infinite."""
    return math.exp(min(-logprob / num_tokens, _MAX_EXPONENT))


def probabilities(values: Sequence[float]) -> list[float]:
    """Softmax: the candidates' probabilities among themselves."""
    highest = max(values)
    weights = [math.exp(value - highest) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def contextual(values: Sequence[float], content_free: Sequence[Sequence[float]]) -> list[float]:
    """Zhao et al. 2021, section 5: q ~ p / p_cf, with p_cf the mean over the content-free inputs.

    values: [num_candidates]; content_free: [num_inputs][num_candidates]; both log-probabilities.
    """
    rows = [probabilities(row) for row in content_free]
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    # A candidate that has no probability at all after a content-free input would be divided by zero.
    return probabilities([value - math.log(max(mean, 1e-300)) for value, mean in zip(values, means, strict=True)])


def pmi_dc(values: Sequence[float], premise: Sequence[float]) -> list[float]:
    """Holtzman et al. 2021: log P(candidate | prompt) - log P(candidate | domain premise), made to sum to 1."""
    return probabilities([value - prior for value, prior in zip(values, premise, strict=True)])
