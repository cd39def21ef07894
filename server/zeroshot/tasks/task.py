"""One task: a request in its own model -> the engine -> a result in its own model. For `api/tasks.py`, `offline.py`."""

import asyncio
import json
import math
import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from zeroshot.caller import limit_time
from zeroshot.errors import InvalidRequest, OutputIncomplete
from zeroshot.model_client import Completion, ModelClient
from zeroshot.tasks import schema
from zeroshot.tasks.decoding import grammar_of, kept_text, sampling_params
from zeroshot.tasks.prompt import Context, Prompt, fit_prompt, prompt_parts
from zeroshot.tasks.prompt_file import ChoiceOutput, JSONOutput, LabelOutput, PromptFile, ScoreOutput, TextOutput
from zeroshot.tasks.ranking import Ranker
from zeroshot.tasks.results import Explanation, TaskResult, TaskUsage, TextScore
from zeroshot.tasks.schema import TaskRequest, is_stream
from zeroshot.tasks.scoring import Candidate, continuation, perplexity, score
from zeroshot.tasks.template import Template
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import DRAWN_SEEDS, GenerateRequest, SamplingParams


class Task:
    """One version of one prompt file. A request that has it keeps it, whatever happens to the file meanwhile."""

    def __init__(self, file: PromptFile, version: str) -> None:
        self.file = file
        self.name = file.name
        self.version = version
        self.request_model = schema.request_model(file)
        self.result_model = schema.result_model(file)
        self.response_model = schema.response_model(file, self.result_model)
        self._grammar = grammar_of(file)
        output = file.output
        self._ranker = Ranker(file, output) if isinstance(output, LabelOutput | ChoiceOutput) else None

    async def run(self, client: ModelClient, request: TaskRequest) -> TaskResult:
        """`request` is an instance of `request_model`. Raises InvalidRequest, and what the client raises."""
        if is_stream(request):
            raise InvalidRequest("The answer comes whole here: it can't be streamed.", field="stream")
        limit_time(request.timeout)
        match self.file.output:
            case TextOutput() | JSONOutput():
                writing = await self._begin(client, request)
                return self._written(client, writing, (await client.complete(writing.generation))[0])
            case ScoreOutput():
                return await self._score(client, request)
        return await self._rank(client, request)

    async def stream(self, client: ModelClient, request: TaskRequest) -> AsyncGenerator[str | TaskResult, None]:
        """Of a task whose kind is `text`: its output in pieces as it comes, then the whole result.

        The caller limits its own time. Raises what `run` does, before the first piece or later.
        """
        if not isinstance(self.file.output, TextOutput):
            raise TypeError(f"a {self.file.output.kind} task has no text to stream")
        writing, completion, output = await self._begin(client, request), Completion(0), ""
        async with aclosing(client.generate(writing.generation)) as deltas:
            async for delta in deltas:
                completion.add(delta)
                longer = kept_text(completion.text, self.file.output)
                if longer != output:
                    yield longer[len(output) :]
                output = longer
        yield self._written(client, writing, completion)

    def prefixes(self) -> list[str]:
        """What each wording's prompt begins with when a request has only the required inputs."""
        inputs = self.file.inputs.items()
        defaults = {name: field.as_text(field.default) for name, field in inputs if field.default is not None}
        # Without its last white space, which GPT-2 reads together with what follows.
        return [wording.compiled.prefix(defaults).rstrip() for wording in self.file.wordings.values()]

    def check_fits(self, tokenizer: Tokenizer, max_model_len: int) -> tuple[str, int, int] | None:
        """None, or the style that has no room for any input, and the tokens of its fixed text and of its answer."""
        output = self.file.output
        reserved = self.file.decoding.max_tokens if isinstance(output, TextOutput | JSONOutput) else 1
        for style, wording in self.file.wordings.items():
            fixed = len(tokenizer.encode("".join(segment.text for segment in wording.compiled.segments)))
            if fixed + reserved >= max_model_len:
                return style, fixed, reserved
        return None

    def premise_tokens(self, tokenizer: Tokenizer) -> int:
        """Of pmi_dc's premise with the longest label after it, or with one token if requests bring the labels."""
        output = self.file.output
        if not isinstance(output, LabelOutput | ChoiceOutput) or output.premise is None:
            return 0
        fixed = output.labels if isinstance(output, LabelOutput) and isinstance(output.labels, tuple) else ()
        labels = [tokenizer.encode(continuation(output.premise, label)) for label in fixed]
        return len(tokenizer.encode(output.premise)) + max(map(len, labels), default=1)

    def _wording(self, request: TaskRequest) -> Template:
        style = getattr(request, "style", None) or next(iter(self.file.wordings))
        return self.file.wordings[style].compiled

    def _values(self, request: TaskRequest) -> Mapping[str, str]:
        return {name: self.file.inputs[name].as_text(value) for name, value in request.values.items()}

    async def _begin(self, client: ModelClient, request: TaskRequest) -> "_Writing":
        asked: Any = request  # its model has max_tokens, and except for beam search temperature and seed
        given = getattr(asked, "seed", 0)
        output = self.file.output
        params = sampling_params(
            self.file.decoding,
            max_tokens=asked.max_tokens,
            temperature=getattr(asked, "temperature", 0.0),
            seed=secrets.randbelow(DRAWN_SEEDS) if given is None else given,
            grammar=self._grammar,
            keep=output.keep if isinstance(output, TextOutput) else "all",
        )
        prompt = await self._fit(client, request, reserved=params.max_tokens)
        token_ids = prompt.token_ids or [client.eos_token_id]
        return _Writing(
            request,
            prompt,
            GenerateRequest(request_id=uuid.uuid4().hex, prompt_token_ids=token_ids, sampling_params=params),
        )

    def _written(self, client: ModelClient, writing: "_Writing", completion: Completion) -> TaskResult:
        params, output = writing.generation.sampling_params, self.file.output
        num_prompt_tokens = len(writing.generation.prompt_token_ids)
        usage = _usage(num_prompt_tokens, len(completion.token_ids), completion.num_cached_tokens)
        details = {
            "seed": params.seed,
            "decoding": _settings(params),
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
            "completion": completion.text,
        }
        value = (
            kept_text(completion.text, output) if isinstance(output, TextOutput) else _json_value(completion, params)
        )
        explanation = _explain(client, writing.request, writing.prompt, usage.cached_tokens, details)
        return self.result_model(output=value, usage=usage, **explanation)

    async def _rank(self, client: ModelClient, request: TaskRequest) -> TaskResult:
        if self._ranker is None:
            raise TypeError(f"a {self.file.output.kind} task has nothing to rank")
        ranking = await self._ranker.rank(client, self._wording(request), request, self._values(request))
        read = sum(item.num_read_tokens for item in ranking.scored)
        usage = _usage(read, 0, sum(item.num_cached_tokens for item in ranking.scored))
        fields: dict[str, Any] = {
            "output": ranking.scores[0].label,
            "scores": ranking.scores,
            "calibration": ranking.calibration,
            "usage": usage,
        }
        return self.result_model(**fields, **_explain(client, request, ranking.prompt, ranking.num_cached_tokens, {}))

    async def _score(self, client: ModelClient, request: TaskRequest) -> TaskResult:
        prompt = await self._fit(client, request, reserved=1)
        if not prompt.token_ids:
            raise InvalidRequest("There is no text to score.", field=self._wording(request).fields[0])
        # After an end of text, as GPT-2 saw the beginning of every text: so the first token has a probability too.
        item = (await score(client, [Candidate([client.eos_token_id], prompt.token_ids)]))[0]
        usage = _usage(item.num_read_tokens, 0, item.num_cached_tokens)
        value = perplexity(item.logprob, item.num_tokens)
        output = TextScore(logprob=item.logprob, perplexity=value, tokens=item.num_tokens)
        fields = {"output": output, "usage": usage}
        return self.result_model(**fields, **_explain(client, request, prompt, usage.cached_tokens, {}))

    async def _fit(self, client: ModelClient, request: TaskRequest, *, reserved: int) -> Prompt:
        template, values = self._wording(request), self._values(request)
        context = Context(client.tokenizer, client.max_model_len, reserved)
        # In a thread: tokenising a long input takes tens of milliseconds, in which no other request would move.
        return await asyncio.to_thread(fit_prompt, self.file, template, values, context, truncate=request.truncate)


@dataclass(frozen=True, slots=True)
class _Writing:
    """A request whose answer is generated, and what the engine is asked for."""

    request: TaskRequest
    prompt: Prompt
    generation: GenerateRequest


def _json_value(completion: Completion, params: SamplingParams) -> Any:
    """Raises OutputIncomplete. What is complete can be read: the grammar has seen to it."""
    if completion.finish_reason != "stop":
        raise OutputIncomplete(
            f"After {params.max_tokens} tokens the JSON was not complete. Raise max_tokens, or bound the schema's "
            "strings, numbers and lists.",
            field="max_tokens",
        )
    return json.loads(completion.text, parse_float=_finite, parse_int=_finite)


def _finite(digits: str) -> float | int:
    """Raises OutputIncomplete for a number that Python can't hold, or that JSON has no way to write."""
    try:
        value = int(digits) if digits.lstrip("-").isdigit() else float(digits)
    except ValueError:  # more digits than Python reads
        value = math.inf
    if isinstance(value, float) and math.isinf(value):
        raise OutputIncomplete(
            f"The model wrote a number that is too large, {digits[:40]}. Bound the schema's numbers."
        )
    return value


def _usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> TaskUsage:
    return TaskUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        cached_tokens=cached_tokens,
    )


def _settings(params: SamplingParams) -> dict[str, Any]:
    """max_tokens, temperature, and what differs from the defaults; not the seed, which is shown by itself."""
    usual = SamplingParams()
    names = [name for name in params.__struct_fields__ if name not in ("seed", "max_tokens", "temperature")]
    special = [name for name in names if getattr(params, name) != getattr(usual, name)]
    settings = {name: msgspec.to_builtins(getattr(params, name)) for name in special}
    return {"max_tokens": params.max_tokens, "temperature": params.temperature, **settings}


def _explain(
    client: ModelClient, request: TaskRequest, prompt: Prompt, cached_tokens: int, details: Mapping[str, Any]
) -> dict[str, Explanation]:
    """{"explain": ...} if the request asks for it, else nothing."""
    if not request.explain:
        return {}
    explanation = Explanation(
        prompt=prompt.rendered.text,
        parts=prompt_parts(prompt, client.tokenizer),
        prompt_tokens=len(prompt.token_ids),
        cached_tokens=cached_tokens,
        truncated=prompt.truncated,
        **details,
    )
    return {"explain": explanation}
