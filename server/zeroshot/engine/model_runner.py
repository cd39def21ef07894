"""The `Runner` of a CPU: one forward pass a step, and everything is done when `execute` returns."""

from itertools import islice

import torch

from zeroshot.engine.batch import Batch, PromptScores, build_batch
from zeroshot.engine.runner import StepResult, not_finite
from zeroshot.engine.sampler import (
    SampledToken,
    drawn_of,
    greedy_tokens,
    is_plain_greedy,
    sample,
    score_prompt,
    up_to_first_wrong,
)
from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import GPT2, KVCache
from zeroshot.types import TokenLogprob

_ROWS_SCORED_AT_ONCE = 128  # logits of that many rows are held at a time: 26 MB for GPT-2's vocabulary


class ModelRunner:
    def __init__(self, model: GPT2, kv_cache: KVCache) -> None:
        self.model = model
        self.kv_cache = kv_cache
        self.block_size = kv_cache.key.shape[2]
        self.device = kv_cache.key.device

    @torch.inference_mode()
    def execute(self, scheduled: list[ScheduledSequence], *, steps_ahead: int) -> StepResult:  # noqa: ARG002
        batch = build_batch(scheduled, self.block_size, self.device)
        hidden = self.model.forward(batch.token_ids, batch.positions, self.kv_cache, batch.attention)
        are_finite = _rows_of(hidden, batch.last_rows).sum(-1).isfinite()
        return StepResult(
            sampled=self._draw(hidden, batch) if batch.sampled else [],
            prompt_logprobs=[(scores.sequence, self._score(hidden, scores)) for scores in batch.prompt_scores],
            not_finite=not_finite(batch.sequences, are_finite.tolist()),
        )

    def _draw(self, hidden: torch.Tensor, batch: Batch) -> list[tuple[Sequence, SampledToken]]:
        hidden = _rows_of(hidden, batch.sampled_rows)
        if not any(batch.guessed):
            return list(zip(batch.sampled, draw(self.model, hidden, batch.sampled), strict=True))
        # All rows at once: the LM head's weights are read for each call.
        if all(map(is_plain_greedy, batch.sampled)):
            rows = iter(greedy_tokens(*self.model.greedy(hidden)))
            drawn = [up_to_first_wrong(list(islice(rows, 1 + len(guess))), guess) for guess in batch.guessed]
        else:
            logits = torch.split(self.model.compute_logits(hidden), [1 + len(guess) for guess in batch.guessed])
            how = (self.model.config.eos_token_id, self.model.backend.sampling_kernels)
            drawn = [drawn_of(*item, *how) for item in zip(logits, batch.sampled, batch.guessed, strict=True)]
        return [(sequence, token) for sequence, tokens in zip(batch.sampled, drawn, strict=True) for token in tokens]

    def _score(self, hidden: torch.Tensor, scores: PromptScores) -> list[TokenLogprob | None]:
        num_top = scores.sequence.sampling_params.prompt_logprobs or 0
        result: list[TokenLogprob | None] = []
        for start in range(0, len(scores.rows), _ROWS_SCORED_AT_ONCE):
            rows = scores.rows[start : start + _ROWS_SCORED_AT_ONCE]
            logits = self.model.compute_logits(hidden[rows.start : rows.stop])
            targets = scores.target_token_ids[start : start + len(rows)]
            result += score_prompt(logits, targets, num_top, self.model.backend.sampling_kernels)
        return result


def draw(model: GPT2, hidden: torch.Tensor, sequences: list[Sequence]) -> list[SampledToken]:
    """Each sequence's next token. hidden: [num_seqs, n_embd], the final states of their newest tokens."""
    if all(map(is_plain_greedy, sequences)):
        return greedy_tokens(*model.greedy(hidden))
    return sample(model.compute_logits(hidden), sequences, model.config.eos_token_id, model.backend.sampling_kernels)


def _rows_of(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """rows: ascending. All of them are what a step has that only decodes."""
    return hidden if len(rows) == len(hidden) else hidden.index_select(0, rows)
