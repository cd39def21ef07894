"""Keeps Python's garbage collector out of the way of steady work. Called by both processes once they have loaded."""

import gc

_ALLOCATIONS_BETWEEN_COLLECTIONS = 10_000
"""Python's own threshold is 700 or 2,000, by its version."""


def freeze_loaded_objects() -> None:
    """Exempt everything loaded so far from collection, and collect less often from now on.

    Modules and the model stay until the process ends. With PyTorch and transformers imported, a full collection takes
    0.1 s to walk through them, and ten thousand generated tokens are enough to trigger one. An H200 generates that many
    for 512 sequences in about the same time.

    Little of what is allocated afterwards is in reference cycles. With the higher threshold a request body of 4 MB is
    parsed in 90 ms instead of 250 (by hand).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
