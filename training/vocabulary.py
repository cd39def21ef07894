"""Text -> GPT-2 tokens, and the few rows of the vocabulary that a small corpus can train.

The model keeps GPT-2's real 50,257-token BPE, so every code path of the server is the real one. A corpus of some
twenty million tokens uses a fraction of these tokens often enough to learn them. During training only that fraction
has rows of its own ("kept"); all others share one row. On export the shared row is copied to each of them.

As an input, the shared row says "some rare token". As an output it must never win, and after export there are tens of
thousands of copies of it in the softmax: see `log_copies` in `model.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 50256
GPT2_VOCAB_SIZE = 50257


def load_tokenizer(folder: Path) -> Tokenizer:
    """GPT-2's byte-level BPE from two files in `folder`; `<|endoftext|>` in a text is plain text."""
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: it is part of GPT-2's tokenizer")
    tokenizer = Tokenizer(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which GPT-2 token ids are kept, sorted; compact id `i` stands for `kept[i]`, the last one for all others."""

    kept: npt.NDArray[np.int64]  # [num_kept]

    @classmethod
    def from_counts(cls, counts: npt.NDArray[np.int64], *, min_count: int) -> "Vocabulary":
        """Keep tokens seen at least `min_count` times (counts: [50257]), and always `<|endoftext|>`."""
        often = counts >= min_count
        often[END_OF_TEXT_ID] = True
        return cls(np.flatnonzero(often))

    @property
    def shared_id(self) -> int:
        """The compact id of every token that is not kept."""
        return len(self.kept)

    @property
    def num_shared(self) -> int:
        """How many GPT-2 tokens share that row."""
        return GPT2_VOCAB_SIZE - len(self.kept)

    @property
    def size(self) -> int:
        """Rows of the compact embedding: the kept tokens and the shared row."""
        return len(self.kept) + 1

    def to_compact(self) -> npt.NDArray[np.uint16]:
        """Lookup table [50257]: GPT-2 token id -> compact id."""
        table = np.full(GPT2_VOCAB_SIZE, self.shared_id, dtype=np.uint16)
        table[self.kept] = np.arange(len(self.kept), dtype=np.uint16)
        return table
