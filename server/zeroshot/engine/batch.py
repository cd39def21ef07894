"""Scheduled sequences -> the tensors of one step, shape by shape. Here tensors begin; called by the runners."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import AttentionMetadata

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class PromptScores:
    """Rows of the step whose logits score a sequence's next prompt tokens."""

    sequence: Sequence
    rows: range
    target_token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    token_ids: Tensor  # [num_tokens] int64
    positions: Tensor  # [num_tokens] int64
    attention: AttentionMetadata
    sequences: list[Sequence]
    last_rows: Tensor  # [num_seqs] int64: the row of each one's last token
    sampled: list[Sequence]  # who gets a new token
    sampled_rows: Tensor  # int64: the row of each one's newest token, and those of what is guessed to follow it
    guessed: list[tuple[int, ...]]  # what is guessed for each of `sampled`
    prompt_scores: list[PromptScores]


def build_batch(scheduled: list[ScheduledSequence], block_size: int, device: torch.device) -> Batch:
    """Decoding sequences go first. A prompt's last token is none of them, even where a chunk holds nothing else: sums
    of a decode run in another order, and how a prompt is cut depends on what else runs.

    A guess decodes too, with a context longer by one: a position then has the same bits as in a step that came to it
    alone.
    """
    scheduled = sorted(scheduled, key=lambda item: not item.sequence.is_decoding)
    token_ids: list[int] = []
    queries: list[_Query] = []
    sampled: list[Sequence] = []
    last_rows: list[int] = []
    sampled_rows: list[int] = []
    guessed: list[tuple[int, ...]] = []
    prompt_scores: list[PromptScores] = []
    for item in scheduled:
        sequence, first_row = item.sequence, len(token_ids)
        start = sequence.num_computed_tokens
        end = start + item.num_tokens
        token_ids += [*sequence.token_ids[start:end], *item.guessed]
        queries += _queries(item)
        last_rows.append(first_row + item.num_tokens - 1)
        if item.needs_sample:
            sampled.append(sequence)
            sampled_rows += range(last_rows[-1], len(token_ids))
            guessed.append(item.guessed)
        if sequence.sampling_params.prompt_logprobs is not None and start < sequence.num_prompt_tokens:
            prompt_scores += _prompt_scores(sequence, start, end, first_row)
    context_lens, query_lens = [query.context_len for query in queries], [query.num_tokens for query in queries]
    tables = _block_tables(queries, block_size)
    positions = _positions(np.array(context_lens), np.array(query_lens))
    query_of_token = np.arange(len(queries)).repeat(query_lens)
    slots = tables[query_of_token, positions // block_size] * block_size + positions % block_size
    attention = AttentionMetadata(
        slot_mapping=_on(device, slots),
        block_tables=_on(device, tables),
        context_lens=context_lens,
        query_lens=query_lens,
        num_decodes=sum(1 + len(item.guessed) for item in scheduled if item.sequence.is_decoding),
    )
    return Batch(
        token_ids=_int64(token_ids, device),
        positions=_on(device, positions),
        attention=attention,
        sequences=[item.sequence for item in scheduled],
        last_rows=_int64(last_rows, device),
        sampled=sampled,
        sampled_rows=_int64(sampled_rows, device),
        guessed=guessed,
        prompt_scores=prompt_scores,
    )


def _int64(values: list[int], device: torch.device) -> Tensor:
    """By way of NumPy, which reads a list of Python's integers several times as fast."""
    return _on(device, np.array(values, np.int64))


def _on(device: torch.device, array: Array) -> Tensor:
    return torch.from_numpy(array).to(device)


@dataclass(frozen=True, slots=True)
class _Query:
    """Neighbouring tokens that attention computes as one sequence."""

    block_table: list[int]
    num_tokens: int
    context_len: int  # tokens up to its last one


def _queries(item: ScheduledSequence) -> list[_Query]:
    table, end = item.sequence.block_table, item.sequence.num_computed_tokens + item.num_tokens
    guesses = [_Query(table, 1, end + i) for i in range(1, len(item.guessed) + 1)]
    return [_Query(table, item.num_tokens, end), *guesses]


def _positions(context_lens: Array, query_lens: Array) -> Array:
    """[num_tokens] int64: the tokens of each query stand at the last positions of its context."""
    ends = query_lens.cumsum()
    positions: Array = np.arange(ends[-1]) + (context_lens - ends).repeat(query_lens)
    return positions


def _block_tables(queries: list[_Query], block_size: int) -> Array:
    """[num_queries, max_blocks] int64: the blocks that each may look at, padded with the last of them.

    Attention may read the padding before it masks it, and a masked NaN would spread: so it is never another's block.
    """
    num_blocks = [-(-query.context_len // block_size) for query in queries]
    width = max(num_blocks)
    tables = [query.block_table[:n] for query, n in zip(queries, num_blocks, strict=True)]
    return np.array([table + table[-1:] * (width - len(table)) for table in tables], np.int64)


def _prompt_scores(sequence: Sequence, start: int, end: int, first_row: int) -> list[PromptScores]:
    """The logits at position p score the token at p + 1: from `prompt_logprobs_start` to the prompt's end."""
    first = max(start + 1, sequence.sampling_params.prompt_logprobs_start)
    last = min(end + 1, sequence.num_prompt_tokens)
    if first >= last:
        return []
    rows = range(first_row + first - 1 - start, first_row + last - 1 - start)
    return [PromptScores(sequence, rows, sequence.token_ids[first:last])]
