"""GPT-2's byte-level BPE (Radford et al. 2019, section 2.2), from a checkpoint's own tokenizer files.

Encoding is the `tokenizers` library's. Decoding is ours: every GPT-2 token is a fixed string of bytes, so a table
lookup is exact, and cheap enough to do at each token of a stream.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as BPETokenizer

from zeroshot.errors import WeightsError

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Raises WeightsError where the files are missing or don't fit the model."""

    def __init__(self, bpe: BPETokenizer) -> None:
        bpe.no_truncation()
        bpe.no_padding()
        # Two of them, because requests are tokenised in threads and the library keeps the choice in the object.
        self._special_bpe = bpe
        self._plain_bpe = BPETokenizer.from_str(bpe.to_str())
        self._plain_bpe.encode_special_tokens = True
        added: dict[int, Any] = bpe.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.vocab_size: int = max(bpe.get_vocab(with_added_tokens=True).values()) + 1
        self._token_bytes = _byte_table(bpe, {token_id: token.content for token_id, token in added.items()})

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Reads `tokenizer.json`, or `vocab.json` and `merges.txt`."""
        whole, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
        try:
            if whole.exists():
                return cls(BPETokenizer.from_file(str(whole)))
            if vocab.exists() and merges.exists():
                return cls(_from_vocab_and_merges(vocab, merges))
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise WeightsError(f"{folder}: the tokenizer files can't be read: {error}") from None
        raise WeightsError(f"{folder} has no tokenizer.json, and no vocab.json with merges.txt")

    def encode(self, text: str) -> list[int]:
        """Everything in `text` is text: "<|endoftext|>" becomes seven ordinary tokens."""
        return _ids(self._plain_bpe, text)

    def encode_with_special(self, text: str) -> list[int]:
        """The same, but "<|endoftext|>" is the end-of-text token."""
        return _ids(self._special_bpe, text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; none for an id the tokenizer doesn't know (a padded vocabulary)."""
        return self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""

    def decode(self, token_ids: list[int]) -> str:
        """Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

    def token_text(self, token_id: int) -> str:
        """A token as one string: its text, or `bytes:\\xe2\\x80` where it is only part of a character."""
        raw = self.token_bytes(token_id)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _ids(bpe: BPETokenizer, text: str) -> list[int]:
    """As a batch of one, during which other threads run: the library's `encode` holds Python's lock."""
    (encoding,) = bpe.encode_batch([text], add_special_tokens=False)
    return list(encoding.ids)


def _from_vocab_and_merges(vocab: Path, merges: Path) -> BPETokenizer:
    bpe = BPETokenizer(models.BPE.from_file(str(vocab), str(merges)))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if END_OF_TEXT in json.loads(vocab.read_text(encoding="utf-8")):
        bpe.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return bpe


def _byte_table(bpe: BPETokenizer, added: dict[int, str]) -> list[bytes]:
    byte_of = _byte_of_character()
    table = [b""] * (max(bpe.get_vocab(with_added_tokens=True).values()) + 1)
    for token, token_id in bpe.get_vocab(with_added_tokens=False).items():
        table[token_id] = bytes(byte_of[character] for character in token if character in byte_of)
    for token_id, content in added.items():
        table[token_id] = content.encode("utf-8")
    return table


def _byte_of_character() -> dict[str, int]:
    """GPT-2 writes each byte as a printable character: itself where it is one, else U+0100 and on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(0x100 + offset): byte for offset, byte in enumerate(others)}
