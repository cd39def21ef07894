"""Hidden states -> a drawn token for each row, on the device, with no word from the host. Called by `cuda_runner.py`.

The work depends on what the rows ask for, and a captured graph does the same work each time. So there are four kinds
of step, each doing more than the one before, and a step is of the first kind that is enough for all of its rows. A row
gets the same token from any of them: the noise is a function of (seed, choice, position, token id).
"""

from enum import Enum

import torch
from torch import Tensor

from zeroshot.engine.decode_record import token_mask
from zeroshot.engine.decode_state import DecodeState, Rows
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import GPT2
from zeroshot.types import MAX_LOGPROBS

_FUSED_ROWS = 64
"""Up to this many rows the LM head waits for its weights anyway, and drawing in the same kernel costs nothing."""


class StepKind(Enum):
    PLAIN = "greedy or temperature"
    FILTERED = "top-k, top-p, min-p"
    FULL = "and bias, penalties, log-probabilities"
    MASKED = "and a mask of the tokens that a grammar allows"


def step_kind(sequences: list[Sequence]) -> StepKind:
    if any(token_mask(sequence) is not None for sequence in sequences):
        return StepKind.MASKED
    if any(_needs_full(sequence) for sequence in sequences):
        return StepKind.FULL
    if any(_has_filter(sequence) for sequence in sequences):
        return StepKind.FILTERED
    return StepKind.PLAIN


def _needs_full(sequence: Sequence) -> bool:
    params = sequence.sampling_params
    # `min_tokens` counts even once it is reached: a kind that changes midway would be one more thing to get right.
    return bool(params.logit_bias or params.logprobs is not None or params.min_tokens > 0 or params.has_penalties)


def _has_filter(sequence: Sequence) -> bool:
    params = sequence.sampling_params
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


class DeviceSampler:
    def __init__(self, model: GPT2, state: DecodeState) -> None:
        self._model, self._state, self._ops = model, state, model.backend.ops
        self._lm_head = model.lm_head.weight[: model.config.vocab_size]  # [vocab_size, n_embd]

    def draw(self, hidden: Tensor, rows: Rows, kind: StepKind, step: int = 0) -> None:
        """hidden: [num_rows, n_embd], by `GPT2.decode` if rows are a slice. Fills `drawn[step]` (from FULL on
        log-probabilities too), advances the rows."""
        state, num_rows, advance = self._state, len(hidden), self._ops.advance
        seeds = (state.seeds[rows], state.choices[rows], state.draw_positions[rows])
        temperatures = state.temperatures[rows]
        if kind is StepKind.PLAIN and num_rows <= _FUSED_ROWS:
            # These may start before the kernel ahead has ended: that has to be one of the same decode step.
            ops = self._model.decode_ops(num_rows) if isinstance(rows, slice) else self._ops
            arguments = (hidden, self._lm_head, temperatures, *seeds)
            token_ids, _, is_valid = ops.lm_head_sampling(*arguments, with_logprobs=False)
            advance = ops.advance
        else:
            raw = logits = self._model.compute_logits(hidden)
            if kind in (StepKind.FULL, StepKind.MASKED):
                logits = self._adjusted(raw, rows)
            if kind is StepKind.MASKED:
                logits.masked_fill_(~state.token_mask[rows], -torch.inf)
            filters = [values[rows] for values in (state.top_ks, state.top_ps, state.min_ps)]
            parameters = (temperatures, *([None] * 3 if kind is StepKind.PLAIN else filters), *seeds)
            # -inf is a token that was forbidden; from the model it is an overflow.
            options = {"must_be_finite": logits is raw, "with_logprobs": False}
            token_ids, _, is_valid = self._ops.sampling(logits, *parameters, **options)
            if logits is not raw:
                is_valid &= raw.sum(-1).isfinite()
                self._note_logprobs(raw, rows, token_ids, step)
                self._note_entries(rows, token_ids)
        advance(token_ids, is_valid, None if isinstance(rows, slice) else rows, *state.advanced(step))

    def _adjusted(self, raw: Tensor, rows: Rows) -> Tensor:
        """A copy of the logits with bias and penalties: [num_rows, vocab_size]."""
        state = self._state
        token_ids, biases, is_seen, counts = state.entries[:, rows]
        row_numbers = torch.arange(len(raw), dtype=torch.int32, device=raw.device)[:, None]
        in_use = self._entry_columns() < state.num_entries[rows, None]
        # With the strides of `raw`, whose rows are aligned: a clone would close the gaps.
        logits = torch.empty_strided(raw.shape, raw.stride(), dtype=raw.dtype, device=raw.device).copy_(raw)
        self._ops.logit_adjustment(
            logits,
            torch.where(in_use, row_numbers, -1).flatten(),
            token_ids.flatten(),
            biases.flatten().view(torch.float32),
            is_seen.flatten() > 0,
            counts.flatten(),
            state.repetition_penalties[rows],
            state.presence_penalties[rows],
            state.frequency_penalties[rows],
        )
        return logits

    def _note_logprobs(self, raw: Tensor, rows: Rows, token_ids: Tensor, step: int) -> None:
        """Before temperature, penalties and bias."""
        num_top = min(MAX_LOGPROBS, raw.shape[1])
        logprobs, ids = logprobs_of(raw, token_ids, num_top)
        self._state.logprobs[step, rows, : 1 + num_top] = logprobs
        self._state.logprob_ids[step, rows, : 1 + num_top] = ids

    def _note_entries(self, rows: Rows, token_ids: Tensor) -> None:
        """Rows with penalties: the drawn token is in the output once more."""
        state = self._state
        entries, num_entries = state.entries[:, rows], state.num_entries[rows]
        columns, token_ids = self._entry_columns(), token_ids.int()[:, None]
        counts_this = (state.has_penalties[rows] > 0)[:, None]
        is_known = (entries[0] == token_ids) & (columns < num_entries[:, None]) & counts_this
        is_new = counts_this & ~is_known.any(1, keepdim=True)
        at_end = is_new & (columns == num_entries[:, None])
        changed = is_known | at_end
        state.entries[:, rows] = torch.stack(
            [
                torch.where(at_end, token_ids, entries[0]),
                torch.where(at_end, 0, entries[1]),
                torch.where(changed, 1, entries[2]),
                torch.where(at_end, 1, entries[3] + is_known),
            ]
        )
        state.num_entries[rows] = num_entries + is_new.squeeze(1)

    def _entry_columns(self) -> Tensor:
        return torch.arange(self._state.entries.shape[2], dtype=torch.int32, device=self._state.entries.device)


def logprobs_of(logits: Tensor, token_ids: Tensor, num_top: int) -> tuple[Tensor, Tensor]:
    """Log-softmax of each row's token and of its best ones; the token's rank and the best ones' ids.

    logits: [num_rows, vocab_size] float32; token_ids: [num_rows] int64. Returns [num_rows, 1 + num_top] each.
    """
    logit = logits.gather(1, token_ids[:, None])
    best = logits.topk(num_top)
    total = logits.logsumexp(-1, keepdim=True)
    rank = (logits > logit).sum(-1, keepdim=True) + 1
    return torch.cat([logit, best.values], 1) - total, torch.cat([rank, best.indices], 1)
