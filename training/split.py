"""Which documents training never sees, decided by the text itself before anything is counted or trained.

A hash of the folded text decides: the split is the same on every machine and in every order, and all wordings,
directions and repetitions of one sentence fall on the same side.
"""

import hashlib

from training.dedupe import fold

HELD_OUT_PER_MILLE = 10


def is_held_out(key: str, *, per_mille: int = HELD_OUT_PER_MILLE) -> bool:
    """Whether the document known by `key` (an English sentence, a title, a review) belongs to the held-out split."""
    digest = hashlib.blake2b(fold(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 1000 < per_mille
