"""Speculative decoding by a draft model: a smaller one writes ahead, and the model checks several tokens in one step.

(Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen et al. 2023, "Accelerating
Large Language Model Decoding with Speculative Sampling".) Both accept a token by a rule on the two models'
distributions. Here none is needed, see `speculative.py`. The draft draws with the request's own sampler and with the
random numbers that the model will draw with at that position, so where the distributions are alike, so are the tokens.
"""

import logging
from dataclasses import replace

import msgspec

from zeroshot.engine.decode_state import MAX_STEPS
from zeroshot.engine.runner import Runner
from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import num_guessable
from zeroshot.errors import SettingsError
from zeroshot.model.config import GPT2Config

logger = logging.getLogger(__name__)

CHUNK = 256
"""Tokens of a prompt that the draft reads at once."""


class Draft:
    """Guesses what comes next in a sequence. Remembers what it has read of the one it was asked about last."""

    def __init__(self, runner: Runner, num_tokens: int) -> None:
        """runner: of the draft model, with a KV cache of its own for one context; num_tokens: guessed at most."""
        self._runner = runner
        self._num_tokens = num_tokens
        config = runner.model.config
        self._num_positions, self._eos_token_id = config.n_positions, config.eos_token_id
        self._blocks = list(range(len(runner.kv_cache.key[0])))
        self._read: list[int] = []
        """Tokens whose keys and values are in its cache."""
        self._salt = b""
        """Of that sequence: how long a guess takes must not tell one key about another's prompt."""
        self._has_failed = False

    def __call__(self, sequence: Sequence, most: int) -> tuple[int, ...]:
        """Never raises: a request is as well off without guesses."""
        most = min(most, self._num_tokens, self._num_positions - sequence.num_tokens + 1)
        count = num_guessable(sequence, most)
        if count <= 0 or self._has_failed:
            return ()
        try:
            return self._guess(sequence, count)
        except Exception:  # whatever it was, the model itself goes on
            logger.exception("the draft model failed: from here on nothing is guessed")
            self._has_failed = True
            return ()

    def _guess(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        if sequence.cache_salt != self._salt:
            self._salt = sequence.cache_salt
            self._read.clear()
        copy, params = self._copy(sequence, count), sequence.sampling_params
        ends = {None, *params.stop_token_ids} | (set() if params.ignore_eos else {self._eos_token_id})
        drawn: list[int | None] = []
        while len(drawn) < count and ends.isdisjoint(drawn):
            drawn += self._step(copy)
        self._read = copy.token_ids[: copy.num_computed_tokens]
        num_usable = 1 + next((i for i, token_id in enumerate(drawn) if token_id in ends), count)
        # None, from NaN: the model may know better.
        return tuple(token_id for token_id in drawn[: min(num_usable, count)] if token_id is not None)

    def _copy(self, sequence: Sequence, count: int) -> Sequence:
        """The sequence with the draft's blocks, to go on for `count` tokens.

        And for one more if there is a position: a GPU runs several steps before the host looks, and the one that draws
        that token reads the last guess. If all of them hold, a single new token is left to read next time.
        """
        end = min(sequence.num_tokens + count, self._num_positions) + 1
        max_tokens = end - sequence.num_prompt_tokens
        return replace(
            sequence,
            token_ids=list(sequence.token_ids),
            sampling_params=msgspec.structs.replace(
                sequence.sampling_params, max_tokens=max_tokens, logprobs=None, prompt_logprobs=None
            ),
            block_table=self._blocks,
            num_computed_tokens=min(_num_common(self._read, sequence.token_ids), sequence.num_tokens - 1),
        )

    def _step(self, copy: Sequence) -> list[int | None]:
        """Reads on, up to a chunk. The tokens drawn: none before the newest token has been read. None: not finite."""
        num_tokens = min(copy.num_uncomputed_tokens, CHUNK)
        result = self._runner.execute([ScheduledSequence(copy, num_tokens)], steps_ahead=MAX_STEPS)
        copy.num_computed_tokens += num_tokens
        drawn = [token.token_id for _, token in result.sampled]
        for token_id in drawn:
            if token_id is None:
                break
            copy.num_computed_tokens = copy.num_tokens
            copy.token_ids.append(token_id)  # penalties and positions count it
        return drawn


def check_draft(draft: GPT2Config, model: GPT2Config) -> None:
    """Raises SettingsError for a draft that writes other tokens than the model reads."""
    for name in ("vocab_size", "eos_token_id"):
        theirs, ours = getattr(draft, name), getattr(model, name)
        if theirs != ours:
            raise SettingsError(
                f"speculative_model: its {name} is {theirs}, the model's is {ours}. A draft needs the same tokens."
            )


def _num_common(a: list[int], b: list[int]) -> int:
    """The length of the longest prefix that both lists have."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
