"""Speculative decoding by a draft model: a smaller one writes ahead, and the model checks several tokens in one step.

(Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen et al. 2023, "Accelerating
Large Language Model Decoding with Speculative Sampling".) Both accept a token by a rule on the two models'
distributions. Here none is needed, see `speculative.py`. The draft draws with the request's own sampler and with the
random numbers that the model will draw with at that position, so where the distributions are alike, so are the tokens.
"""

import logging

import torch

from zeroshot.engine.model_runner import draw
from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import num_guessable
from zeroshot.errors import SettingsError
from zeroshot.model.config import GPT2Config
from zeroshot.model.gpt2 import GPT2, AttentionMetadata

logger = logging.getLogger(__name__)

_CHUNK = 256  # tokens of a prompt that the draft reads at once


class Draft:
    """Guesses what comes next in a sequence, and remembers what it has read of one: that of the last call."""

    def __init__(self, model: GPT2, num_tokens: int) -> None:
        """num_tokens: how many it guesses, at most."""
        self._model = model
        self._num_tokens = num_tokens
        self._num_positions = model.config.n_positions
        block_size = model.backend.kv_block_size
        num_blocks = -(-self._num_positions // block_size)
        self._kv_cache = model.allocate_kv_cache(num_blocks, block_size)
        self._block_table = torch.arange(num_blocks)[None]
        self._read: list[int] = []
        """Tokens whose keys and values are in its cache."""
        self._salt = b""
        """Of the sequence that they are of: how long a guess takes must not tell one key about another's prompt."""
        self._has_failed = False

    def __call__(self, sequence: Sequence) -> tuple[int, ...]:
        """Never raises: a request is as well off without guesses."""
        count = min(num_guessable(sequence, self._num_tokens), self._num_positions - sequence.num_tokens + 1)
        if count <= 0 or self._has_failed:
            return ()
        try:
            return self._guess(sequence, count)
        except Exception:  # whatever it was, the model itself goes on
            logger.exception("the draft model failed: from here on nothing is guessed")
            self._has_failed = True
            return ()

    @torch.inference_mode()
    def _guess(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        if sequence.cache_salt != self._salt:
            self._salt = sequence.cache_salt
            self._read.clear()
        num_tokens, params = sequence.num_tokens, sequence.sampling_params
        ends = {*params.stop_token_ids} | (set() if params.ignore_eos else {self._model.config.eos_token_id})
        try:
            for _ in range(count):
                (drawn,) = draw(self._model, self._last_hidden(sequence.token_ids), [sequence])
                if drawn.token_id is None:  # NaN: the model may know better
                    break
                sequence.token_ids.append(drawn.token_id)  # penalties and positions count it
                if drawn.token_id in ends:
                    break
            return tuple(sequence.token_ids[num_tokens:])
        finally:
            del sequence.token_ids[num_tokens:]

    def _last_hidden(self, token_ids: list[int]) -> torch.Tensor:
        """The newest token's final hidden state, [1, n_embd]. Runs what the last call has not read."""
        start = min(_num_common(self._read, token_ids), len(token_ids) - 1)
        del self._read[start:]
        while True:
            piece = token_ids[start : start + _CHUNK]
            positions = torch.arange(start, start + len(piece))
            attention = AttentionMetadata(
                slot_mapping=positions,  # its blocks lie one after the other
                block_tables=self._block_table,
                context_lens=[start + len(piece)],
                query_lens=[len(piece)],
                num_decodes=int(len(piece) == 1),
            )
            hidden = self._model.forward(torch.tensor(piece), positions, self._kv_cache, attention)
            self._read += piece
            start += len(piece)
            if start == len(token_ids):
                return hidden[-1:]


def check_draft(draft: GPT2Config, model: GPT2Config) -> None:
    """Raises SettingsError for a draft that writes other tokens than the model reads."""
    for name in ("vocab_size", "eos_token_id"):
        theirs, ours = getattr(draft, name), getattr(model, name)
        if theirs != ours:
            raise SettingsError(
                f"speculative_model: its {name} is {theirs}, the model's is {ours}. A draft needs the same tokens."
            )


def _num_common(a: list[int], b: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
