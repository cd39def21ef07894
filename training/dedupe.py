"""Exact and near duplicates, found before anything is split or counted (Radford et al. 2019, section 2.1).

Short texts (sentence pairs, questions) are compared exactly after folding case and punctuation: two short sentences
that share most of their words are different facts, not copies. Long texts are compared by MinHash over five-word
shingles (Broder 1997): chapters that appear in two collections differ by a few words only.
"""

import hashlib
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from datasketch import MinHash, MinHashLSH

Item = TypeVar("Item", bound=Hashable)

SHINGLE_WORDS = 5


def fold(text: str) -> str:
    """The form in which two texts count as the same: lower case, letters and digits only."""
    return " ".join(re.findall(r"\w+", text.lower()))


def unique(items: Iterable[Item]) -> list[Item]:
    """The first of each group of equal items, in order."""
    return list(dict.fromkeys(items))


def shingles(text: str) -> set[bytes]:
    """Every run of five folded words, hashed to eight bytes."""
    words = fold(text).split()
    runs = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {hashlib.blake2b(" ".join(words[i : i + SHINGLE_WORDS]).encode(), digest_size=8).digest() for i in runs}


def drop_near_duplicates(texts: Sequence[str], *, threshold: float = 0.5, num_perm: int = 64) -> list[str]:
    """The texts whose estimated Jaccard similarity to every earlier kept text is below `threshold`.

    Candidates come from locality-sensitive hashing, so time grows with the number of texts, not with its square.
    """
    index = MinHashLSH(threshold=threshold, num_perm=num_perm)
    kept: list[str] = []
    for text in texts:
        sketch = MinHash(num_perm=num_perm)
        sketch.update_batch(sorted(shingles(text)))
        if not index.query(sketch):
            index.insert(str(len(kept)), sketch)
            kept.append(text)
    return kept
