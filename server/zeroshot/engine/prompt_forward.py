"""Runs prompts through the model on a device, packed, as recorded passes. Called by `cuda_runner.py`.

Launched op by op, a layer is nine launches. Unless there are thousands of tokens, making them takes the host longer
than running them takes the device. So passes are recorded for some numbers of tokens and of sequences, and a step is
padded up to the next of these sizes. A padding token has no slot in the cache and belongs to no sequence; a padding
sequence has no tokens. What padding computes stays in its own rows, since only attention looks at others.

There are dozens of sizes, and recording one takes about two passes. That is done at the first step of a size, not at
the start: most servers never see most of them. At the start, kernels are compiled and the largest size is recorded.
"""

import itertools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroshot.engine.batch import Batch
from zeroshot.engine.decode_record import Layout
from zeroshot.engine.device import Device
from zeroshot.model.gpt2 import GPT2, AttentionMetadata, KVCache

logger = logging.getLogger(__name__)

_ALIGNED = 16
"""Numbers of tokens are multiples of this, so that every array begins at the alignment kernels are compiled for."""

_SEQUENCE_SIZES = (8, 64, 512)
"""And the largest number possible. Padding sequences cost little: their programs find nothing to do."""


class Size(NamedTuple):
    num_tokens: int
    num_seqs: int


class PromptForward:
    def __init__(
        self, model: GPT2, kv_cache: KVCache, layout: Layout, device: Device, *, max_tokens: int, max_seqs: int
    ) -> None:
        """max_tokens, max_seqs: of the largest step."""
        self._model, self._kv_cache, self._layout, self._device = model, kv_cache, layout, device
        self._token_sizes = token_sizes(min(max_tokens, max_seqs * layout.n_positions))
        self._sequence_sizes = [size for size in _SEQUENCE_SIZES if size < max_seqs] + [_power_of_two(max_seqs)]
        largest = Size(self._token_sizes[-1], self._sequence_sizes[-1])
        self._words = torch.zeros(sum(self._lengths(largest)), dtype=torch.int32, device=device.torch_device)
        shape = (largest.num_tokens, model.config.n_embd)
        self._hidden = torch.zeros(shape, dtype=model.dtype, device=device.torch_device)
        self._passes: dict[Size, Callable[[], None]] = {}
        if device.compiles:
            self._compile()

    def __call__(self, batch: Batch) -> Tensor:
        """The final hidden states, [num_tokens, n_embd], valid until the next call.

        To the kernel a single token is a prefill too, whatever the batch calls it.
        """
        num_tokens, num_seqs = len(batch.token_ids), len(batch.attention.context_lens)
        size = Size(_fitting(self._token_sizes, num_tokens), _fitting(self._sequence_sizes, num_seqs))
        words = self._padding(size)
        token_ids, positions, slots, context_lens, query_lens, tables = self._parts(words, size)
        token_ids[:num_tokens], positions[:num_tokens] = batch.token_ids, batch.positions
        slots[:num_tokens] = batch.attention.slot_mapping
        context_lens[:num_seqs], query_lens[:num_seqs] = batch.attention.context_lens, batch.attention.query_lens
        tables[:num_seqs, : batch.attention.block_tables.shape[1]] = batch.attention.block_tables
        self._send(words)
        if size not in self._passes:
            self._passes[size] = self._recorded(size)
        self._passes[size]()
        return self._hidden[:num_tokens]

    def _recorded(self, size: Size) -> Callable[[], None]:
        run = partial(self._run, size)
        try:
            return self._device.record(run)
        except RuntimeError as error:  # CUDA's, most likely for want of memory: the pass runs without a recording too
            logger.warning("slow: steps of %d prompt tokens run op by op, not recorded: %s", size.num_tokens, error)
            return run

    def _padding(self, size: Size) -> np.ndarray[Any, Any]:
        """What a pass of nothing but padding reads."""
        words = np.zeros(sum(self._lengths(size)), np.int32)
        _, _, slots, *_ = self._parts(words, size)
        slots[:] = -1
        return words

    def _send(self, words: np.ndarray[Any, Any]) -> None:
        self._words[: len(words)].copy_(self._device.upload(words))

    def _lengths(self, size: Size) -> tuple[int, ...]:
        return (*[size.num_tokens] * 3, *[size.num_seqs] * 2, size.num_seqs * self._layout.max_blocks)

    def _parts(self, words: Any, size: Size) -> list[Any]:
        """Token ids, positions, slots, context lengths, query lengths, block tables: views of an array or a tensor."""
        lengths = self._lengths(size)
        parts = [words[end - n : end] for n, end in zip(lengths, itertools.accumulate(lengths), strict=True)]
        return [*parts[:-1], parts[-1].reshape(size.num_seqs, -1)]

    @torch.inference_mode()
    def _compile(self) -> None:
        """Runs a pass of padding for each number of sequences, for which kernels are compiled, and records the largest.

        Graphs share the memory of their intermediate results: those recorded later are smaller, and find enough of it.
        """
        for num_seqs in self._sequence_sizes:
            size = Size(self._token_sizes[0], num_seqs)
            self._send(self._padding(size))
            self._run(size)
        largest = Size(self._token_sizes[-1], self._sequence_sizes[-1])
        self._send(self._padding(largest))
        self._passes[largest] = self._recorded(largest)

    def _run(self, size: Size) -> None:
        token_ids, positions, slots, context_lens, query_lens, tables = self._parts(self._words, size)
        attention = AttentionMetadata(
            slot_mapping=slots,
            block_tables=tables,
            context_lens=context_lens,
            query_lens=query_lens,
            num_decodes=0,
        )
        hidden = self._model.forward(token_ids, positions, self._kv_cache, attention)
        self._hidden[: size.num_tokens].copy_(hidden)


def token_sizes(max_tokens: int) -> list[int]:
    """Four to each doubling where the device's time depends on the number: at most a fifth of a pass is padding."""
    most = -(-max_tokens // _ALIGNED) * _ALIGNED
    doublings = (2**exponent for exponent in range(8, most.bit_length()))
    sizes = [16, 32, 64, 128, 192, *(start * part // 4 for start in doublings for part in range(4, 8))]
    return [size for size in sizes if size < most] + [most]


def _fitting(sizes: list[int], number: int) -> int:
    return next(size for size in sizes if size >= number)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`, and at least 8."""
    return max(8, 1 << (number - 1).bit_length())
