"""`structured_outputs: {"choice": [...]}`: the text is one of the given ones.

All choices are scored exactly, as whole texts. At temperature 0 the most probable one is taken; otherwise one is drawn
by the model's probabilities among them: a choice is not judged by its first token alone, as it is by a token mask.
"""

import math
import random
from collections.abc import AsyncGenerator

import msgspec

from zeroshot.api.generation import Generation, check_size_of_answer
from zeroshot.api.prompts import MAX_SEQS_PER_REQUEST, MAX_TOKEN_BYTES
from zeroshot.api.threads import in_thread
from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.model_client import ChoiceDelta, Completion, ModelClient
from zeroshot.tasks.scoring import probabilities
from zeroshot.types import GenerateRequest, SamplingParams

_FIELD = "structured_outputs"
_CHANGES_NOTHING = SamplingParams()
_NOT_TOGETHER = (
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "min_tokens",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stop",
    "stop_token_ids",
)


async def encode_choices(choices: list[str], client: ModelClient) -> list[list[int]]:
    """Raises InvalidRequest for more text than a context holds."""
    num_chars, limit = sum(map(len, choices)), MAX_TOKEN_BYTES * client.max_model_len
    if num_chars > limit:
        raise InvalidRequest(f"The choices have {num_chars} characters, at most {limit} are read.", field=_FIELD)
    # In threads: 131,072 characters take 0.2 s, in which no stream would move.
    return [await in_thread(client.tokenizer.encode, text) for text in choices]


class ChoiceGeneration(Generation):
    """Instead of what its requests ask for, each of their continuations is one of `choices`."""

    def __init__(
        self, client: ModelClient, requests: list[GenerateRequest], choices: list[str], *, prompt_field: str
    ) -> None:
        """prompt_field: where the prompts came from; errors name it."""
        super().__init__(client, requests)
        self._texts = choices
        self._prompt_field = prompt_field
        self._choices: list[tuple[str, list[int]]] = []

    async def complete(self) -> list[list[Completion]]:
        """Raises InvalidRequest for what can't be combined with choices, and for what doesn't fit."""
        token_ids = await encode_choices(self._texts, self.client)
        self._choices = list(zip(self._texts, token_ids, strict=True))
        for request in self.requests:
            self._check(request)
        check_size_of_answer([_with_max_tokens(request, max(map(len, token_ids))) for request in self.requests])
        numbers = range(len(self._choices))
        scoring = [self._scoring_request(request, number) for request in self.requests for number in numbers]
        scored = [scores[0] for scores in await Generation(self.client, scoring).complete()]
        count = len(self._choices)
        completions = [
            self._choose(request, scored[index * count : (index + 1) * count])
            for index, request in enumerate(self.requests)
        ]
        for chosen in completions:
            for completion in chosen:
                self._count(completion)
        return completions

    async def deltas(self) -> AsyncGenerator[tuple[int, ChoiceDelta], None]:
        for index, chosen in enumerate(await self.complete()):
            for completion in chosen:
                yield index, completion

    def _check(self, request: GenerateRequest) -> None:
        params = request.sampling_params
        for name in _NOT_TOGETHER:
            if getattr(params, name) != getattr(_CHANGES_NOTHING, name):
                raise InvalidRequest(f"{name} can't be combined with {_FIELD}.", field=name)
        if len(self.requests) * len(self._choices) > MAX_SEQS_PER_REQUEST:
            raise InvalidRequest(
                f"{len(self.requests)} prompts x {len(self._choices)} choices are too much for one request: at most "
                f"{MAX_SEQS_PER_REQUEST}.",
                field=_FIELD,
            )
        longest = max(len(token_ids) for _, token_ids in self._choices)
        num_tokens = len(request.prompt_token_ids) + longest
        if num_tokens > self.client.max_model_len:
            hint = ": the prompt, or the longest choice"
            raise ContextLengthExceeded(num_tokens, 0, self.client.max_model_len, field=self._prompt_field, hint=hint)
        if longest > params.max_tokens:
            raise InvalidRequest(
                f"The longest choice has {longest} tokens, max_tokens is {params.max_tokens}.", field="max_tokens"
            )

    def _scoring_request(self, request: GenerateRequest, index: int) -> GenerateRequest:
        params = request.sampling_params
        start = len(request.prompt_token_ids) if params.prompt_logprobs is None else 1
        return GenerateRequest(
            request_id=f"{request.request_id}-{index}",
            prompt_token_ids=request.prompt_token_ids + self._choices[index][1],
            sampling_params=SamplingParams(
                max_tokens=0, prompt_logprobs=params.logprobs or 0, prompt_logprobs_start=start
            ),
        )

    def _choose(self, request: GenerateRequest, scored: list[Completion]) -> list[Completion]:
        params = request.sampling_params
        values = [
            math.fsum(logprob.logprob for logprob in item.prompt_logprobs[-len(token_ids) :])
            for item, (_, token_ids) in zip(scored, self._choices, strict=True)
        ]
        highest = max(values)
        best = values.index(highest)
        weights = (
            probabilities([(value - highest) / params.temperature for value in values]) if params.temperature else []
        )
        chosen = []
        for index in range(request.n):
            draw = random.Random(f"{params.seed} {index}")  # noqa: S311 - reproducible on purpose
            number = draw.choices(range(len(values)), weights)[0] if weights else best
            chosen.append(self._completion(index, number, scored[number]))
        return chosen

    def _completion(self, index: int, number: int, scored: Completion) -> Completion:
        text, token_ids = self._choices[number]
        split = len(scored.prompt_logprobs) - len(token_ids)
        return Completion(
            index=index,
            text=text,
            token_ids=token_ids,
            logprobs=scored.prompt_logprobs[split:],
            prompt_logprobs=scored.prompt_logprobs[:split],
            finish_reason="stop",
            num_cached_tokens=scored.num_cached_tokens,
        )


def _with_max_tokens(request: GenerateRequest, max_tokens: int) -> GenerateRequest:
    params = msgspec.structs.replace(request.sampling_params, max_tokens=max_tokens)
    return msgspec.structs.replace(request, sampling_params=params)
