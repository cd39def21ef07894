"""Holds a sequence to a grammar: which tokens may come next. Called by `engine.py` before and after each step.

No tensors: a mask is a NumPy array, which the samplers apply to the logits. Masks are at the level of bytes, so any
byte-level vocabulary will do, and a character may be made of several tokens.
"""

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

import llguidance
import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from zeroshot.errors import WeightsError
from zeroshot.model.config import GPT2Config
from zeroshot.text.grammar_check import PARSER_LIMITS, compiled_form, one_line, refusal
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import Grammar

_MAX_COMPILED = 32
_OPEN_SHARE = 0.1
"""Of the vocabulary, from which on a token that is drawn from all of it is likely to be one that may come."""


class Guide:
    """One sequence's place in its grammar."""

    def __init__(self, grammar: Grammar, matcher: LLMatcher, vocab_size: int) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._vocab_size = vocab_size
        self.mask: NDArray[np.bool_] | None = None
        """[vocab_size]: True for the tokens that may come next. End of text is one where the text may end. None: not
        computed, since a token may be drawn from all and asked about."""
        self.is_open = False
        """Whether many tokens could come when the mask was last computed."""

    def fork(self, grammar: Grammar | None = None) -> "Guide":
        """At the same place. `grammar`: the same one, as another request has given it."""
        return Guide(grammar or self._grammar, self._matcher.deep_copy(), self._vocab_size)

    def allows(self, token_id: int) -> bool:
        """Whether it may come next: what the mask says of it, for a hundredth of what a mask can take."""
        return bool(self._matcher.validate_tokens([token_id]))

    def compute_mask(self) -> None:
        """Raises InvalidRequest where the grammar has become too large to follow."""
        raw = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise refusal(self._grammar, one_line(self._matcher.get_error()))
        self.mask = np.unpackbits(raw, bitorder="little", count=self._vocab_size).view(np.bool_)
        self.is_open = bool(np.count_nonzero(self.mask) > _OPEN_SHARE * self._vocab_size)

    def accept(self, token_id: int) -> None:
        """Move on by a token that the mask allowed. Raises InvalidRequest where that can't be."""
        if not self._matcher.consume_token(token_id):
            raise refusal(self._grammar, one_line(self._matcher.get_error()))

    @property
    def is_complete(self) -> bool:
        """True when nothing but the end of the text can come."""
        return self._matcher.is_stopped()


class GuideCompiler:
    """Compiles grammars for one checkpoint's tokens, and keeps the latest. Any thread may call it."""

    def __init__(self, folder: Path, config: GPT2Config) -> None:
        self._folder, self._config = folder, config
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[str, str], Guide] = OrderedDict()
        self._lock = Lock()

    @property
    def other_eos_token_ids(self) -> tuple[int, ...]:
        """With which of the checkpoint's a text held to a grammar may end too. None before the first is compiled."""
        return () if self._tokenizer is None else tuple(self._tokenizer.eos_tokens[1:])

    def warm_up(self) -> None:
        """Read the vocabulary: half a second in which no other thread runs. Without one, grammars will be refused."""
        if self._tokenizer is None:
            with suppress(WeightsError):
                self._tokenizer = _read_vocabulary(self._folder, self._config)

    def compile(self, grammar: Grammar) -> Guide:
        """A guide at the beginning of a text. Raises InvalidRequest for a grammar that can't be used."""
        key = (grammar.kind, grammar.source)
        with self._lock:
            compiled = self._compiled.get(key)
        if compiled is None:  # takes seconds: without the lock, so that other grammars don't wait
            compiled = self._compile(grammar)
        with self._lock:
            self._compiled[key] = compiled
            self._compiled.move_to_end(key)
            while len(self._compiled) > _MAX_COMPILED:
                self._compiled.popitem(last=False)
            return compiled.fork(grammar)

    def _compile(self, grammar: Grammar) -> Guide:
        self.warm_up()
        if self._tokenizer is None:
            raise refusal(grammar, "this checkpoint has no tokenizer, or no end-of-text token")
        try:
            matcher = LLMatcher(self._tokenizer, compiled_form(grammar), log_level=0, limits=PARSER_LIMITS)
        except ValueError as error:
            raise refusal(grammar, one_line(str(error))) from None
        if matcher.is_error():
            raise refusal(grammar, one_line(matcher.get_error()))
        guide = Guide(grammar, matcher, self._config.vocab_size)
        guide.compute_mask()  # some grammars turn out to be too large only here
        if guide.mask is None or not guide.mask.any():
            raise refusal(grammar, "no text fits it")
        return guide


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, config: GPT2Config) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = config.eos_token_id
        self.bos_token_id = None
        token_ids = range(config.vocab_size)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in token_ids]
        self.special_token_ids = sorted({*tokenizer.special_ids, config.eos_token_id} & {*token_ids})

    def __call__(self, raw: bytes) -> list[int]:
        return self._tokenizer.encode(raw.decode("utf-8", errors="replace"))


def _read_vocabulary(folder: Path, config: GPT2Config) -> LLTokenizer:
    """Its ends of text: the checkpoint's first, and of the others those that are no text, which a grammar may want."""
    tokenizer = Tokenizer.from_folder(folder)
    eos_token_id = config.eos_token_id
    if not 0 <= eos_token_id < config.vocab_size or not tokenizer.token_bytes(eos_token_id):
        raise WeightsError(f"{folder}: token {eos_token_id}, the end of text, is not in the vocabulary")
    vocabulary = _Vocabulary(tokenizer, config)
    others = [token_id for token_id in config.other_eos_token_ids if token_id in vocabulary.special_token_ids]
    wrapped = TokenizerWrapper(vocabulary)
    return llguidance.LLTokenizer(wrapped, n_vocab=config.vocab_size, eos_token=[eos_token_id, *others])
