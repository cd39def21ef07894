"""Label and choice tasks: which of the candidates does the model find most probable here? Called by `task.py`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zeroshot.caller import CALLER
from zeroshot.errors import ContextLengthExceeded, InvalidRequest, TooMuchAtOnce
from zeroshot.model_client import ModelClient
from zeroshot.tasks.prompt import Context, Prompt, fit_prompt, render_prompt
from zeroshot.tasks.prompt_file import OPTION_FIELD, Calibration, ChoiceOutput, LabelOutput, PromptFile
from zeroshot.tasks.results import Score
from zeroshot.tasks.schema import TaskRequest
from zeroshot.tasks.scoring import (
    CONTENT_FREE,
    Candidate,
    Scored,
    contextual,
    continuation,
    pmi_dc,
    probabilities,
    score,
)
from zeroshot.tasks.template import Template
from zeroshot.text.tokenizer import Tokenizer

_MAX_PRIORS = 4096


@dataclass(frozen=True, slots=True)
class Ranking:
    prompt: Prompt
    scores: list[Score]
    """Best first."""
    calibration: Calibration
    scored: list[Scored]
    """All that was sent to the engine, calibration too."""
    num_cached_tokens: int
    """Of the prompt: what every candidate found in the cache, and so none of them has put there for the others."""


class Ranker:
    """Ranks for one prompt file and, as it remembers the scores of content-free prompts, for one model."""

    def __init__(self, file: PromptFile, output: LabelOutput | ChoiceOutput) -> None:
        self.file = file
        self.output = output
        self._priors: dict[tuple[bytes, str, str], Scored] = {}  # by salt: a hit is faster, which would tell others

    async def rank(
        self, client: ModelClient, template: Template, request: TaskRequest, values: Mapping[str, str]
    ) -> Ranking:
        """Raises ContextLengthExceeded, InvalidRequest, and what the client raises."""
        labels = self._labels(request)
        length_norm: bool = getattr(request, "length_norm", self.output.length_norm)
        calibration: Calibration = getattr(request, "calibration", "none")
        # In a thread: tokenising long inputs takes tens of milliseconds, in which no other request would move.
        prompt, candidates = await asyncio.to_thread(self._candidates, client, template, request, values, labels)
        scored = await self._score(client, candidates)
        prior_prompts = await asyncio.to_thread(
            self._prior_prompts, calibration, client, template, prompt.values, labels, truncate=request.truncate
        )
        priors, fresh = await self._score_priors(client, prior_prompts, labels, calibration)

        own = [item.value(length_norm=length_norm) for item in scored]
        rows = [[item.value(length_norm=length_norm) for item in row] for row in priors]
        match calibration:
            case "contextual":
                shares = contextual(own, rows)
            case "pmi_dc":
                shares = pmi_dc(own, rows[0])
            case "none":
                shares = probabilities(own)
        scores = [
            Score(label=label, probability=share, logprob=item.logprob, tokens=item.num_tokens)
            for label, share, item in zip(labels, shares, scored, strict=True)
        ]
        scores.sort(key=lambda item: -item.probability)
        if self.file.scores_inside:
            best = render_prompt(template, {**prompt.values, OPTION_FIELD: scores[0].label}, client.tokenizer)
            prompt = replace(best, truncated=prompt.truncated)
        num_cached = min(len(prompt.token_ids), *(item.num_cached_tokens for item in scored))
        return Ranking(prompt, scores, calibration, scored + fresh, num_cached)

    def _labels(self, request: TaskRequest) -> Sequence[str]:
        name = self.file.options_input
        if name is not None:
            brought: list[str] = request.values[name]
            return brought
        return self.output.labels if isinstance(self.output, LabelOutput) else ()

    def _candidates(
        self,
        client: ModelClient,
        template: Template,
        request: TaskRequest,
        values: Mapping[str, str],
        labels: Sequence[str],
    ) -> tuple[Prompt, list[Candidate]]:
        if self.file.scores_inside:
            return self._candidates_inside(client, template, request, values, labels)
        prompt, targets = self._fit(client, template, values, labels, truncate=request.truncate)
        prompt_ids = prompt.token_ids or [client.eos_token_id]
        return prompt, [Candidate(prompt_ids, target) for target in targets]

    def _fit(
        self,
        client: ModelClient,
        template: Template,
        values: Mapping[str, str],
        labels: Sequence[str],
        *,
        truncate: bool,
    ) -> tuple[Prompt, list[list[int]]]:
        """A prompt with room for each label after it, and the labels' tokens."""
        tokenizer = client.tokenizer
        targets = _targets(tokenizer, template.render(values).text, labels)
        reserved = 0
        while True:
            # A cut prompt can end otherwise than the whole one: the labels get their space or lose it, and so may be
            # longer than what was reserved for them.
            reserved = max(reserved, *map(len, targets))
            context = Context(tokenizer, client.max_model_len, reserved)
            prompt = fit_prompt(self.file, template, values, context, truncate=truncate)
            targets = _targets(tokenizer, prompt.rendered.text, labels)
            if max(map(len, targets)) <= reserved:
                return prompt, targets

    def _candidates_inside(
        self,
        client: ModelClient,
        template: Template,
        request: TaskRequest,
        values: Mapping[str, str],
        labels: Sequence[str],
    ) -> tuple[Prompt, list[Candidate]]:
        """Trinh and Le 2018: each option stands in the text; `partial` scores what follows it, `full` everything."""
        tokenizer = client.tokenizer
        longest = max(labels, key=lambda label: len(tokenizer.encode(label)))
        is_full = getattr(request, "scoring", "partial") == "full"
        # One more than the text, in case it is scored from its first token: that one comes after an end of text.
        # Another for the boundary after the option, where a token may be split.
        reserved = 2
        while True:
            context = Context(tokenizer, client.max_model_len, reserved)
            wanted = {**values, OPTION_FIELD: longest}
            prompt = fit_prompt(self.file, template, wanted, context, truncate=request.truncate)
            candidates = []
            for label in labels:
                rendered = template.render({**prompt.values, OPTION_FIELD: label})
                split = rendered.end_of(OPTION_FIELD)
                before, after = tokenizer.encode(rendered.text[:split]), tokenizer.encode(rendered.text[split:])
                if not after and not is_full:
                    raise InvalidRequest("Nothing follows the option: there is no rest to score.", field="scoring")
                parts = ([client.eos_token_id], before + after) if is_full else (before, after)
                candidates.append(Candidate(*parts))
            most = max(len(candidate.prompt_ids) + len(candidate.target_ids) for candidate in candidates)
            if most <= client.max_model_len:
                return prompt, candidates
            reserved += most - client.max_model_len  # an option can have more tokens in its place than by itself

    def _prior_prompts(
        self,
        calibration: Calibration,
        client: ModelClient,
        template: Template,
        values: Mapping[str, str],
        labels: Sequence[str],
        *,
        truncate: bool,
    ) -> list[str]:
        match calibration:
            case "contextual":
                free = [{**values, **dict.fromkeys(self.file.content_inputs, text)} for text in CONTENT_FREE]
                # "[MASK]" may be longer than what it stands for, and so the prompt too long again.
                prompts = [self._fit(client, template, each, labels, truncate=truncate)[0] for each in free]
                return [prompt.rendered.text for prompt in prompts]
            case "pmi_dc":
                return [self.output.premise or template.text_after_last_field.lstrip()]
            case "none":
                return []

    async def _score(
        self, client: ModelClient, candidates: list[Candidate], calibration: Calibration = "none"
    ) -> list[Scored]:
        """Raises what `score` does; of TooMuchAtOnce, one that names where the labels come from."""
        try:
            return await score(client, candidates)
        except TooMuchAtOnce as error:
            field = self.file.options_input
            if calibration == "none":
                remedy = "The task has too many labels for it." if field is None else f"Send fewer {field}."
            else:
                remedy = "Set" if field is None else f"Send fewer {field}, or set"
                remedy += f" calibration to none: {calibration} scores each label more than once."
                field = field or "calibration"
            raise TooMuchAtOnce(error.size, field=field, remedy=remedy) from None

    async def _score_priors(
        self, client: ModelClient, prompts: list[str], labels: Sequence[str], calibration: Calibration
    ) -> tuple[list[list[Scored]], list[Scored]]:
        """[num_prompts][num_labels], and those of them that had to be computed. Raises InvalidRequest."""
        if len(self._priors) > _MAX_PRIORS:
            self._priors.clear()
        salt = CALLER.get().cache_salt
        pairs = [(salt, prompt, label) for prompt in prompts for label in labels]
        known = {pair: self._priors[pair] for pair in pairs if pair in self._priors}
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        candidates = await asyncio.to_thread(_prior_candidates, client.tokenizer, client.eos_token_id, missing)
        longest = max((len(item.prompt_ids) + len(item.target_ids) for item in candidates), default=0)
        if longest > client.max_model_len:  # after a premise, with which the prompt has nothing to do
            hint = ": the longest label, which pmi_dc scores after the task's premise"
            field = self.file.options_input or "calibration"
            raise ContextLengthExceeded(longest, 0, client.max_model_len, field=field, hint=hint)
        fresh = await self._score(client, candidates, calibration)
        new = dict(zip(missing, fresh, strict=True))
        self._priors |= new
        known |= new
        return [[known[salt, prompt, label] for label in labels] for prompt in prompts], fresh


def _targets(tokenizer: Tokenizer, prompt: str, labels: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(continuation(prompt, label)) for label in labels]


def _prior_candidates(tokenizer: Tokenizer, eos_token_id: int, pairs: list[tuple[bytes, str, str]]) -> list[Candidate]:
    return [
        Candidate(tokenizer.encode(prompt) or [eos_token_id], tokenizer.encode(continuation(prompt, label)))
        for _, prompt, label in pairs
    ]
