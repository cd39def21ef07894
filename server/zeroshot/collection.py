"""Python's garbage collector, beside a server's steady work."""

import gc


def keep_what_is_there() -> None:
    """Call once all is loaded. Modules and models stay for good, and collections need not walk through them.

    With PyTorch and transformers imported such a walk takes 0.1 s, and some ten thousand tokens are objects enough to
    cause one: about as long as 512 sequences on an H200 need to draw as many.
    """
    gc.collect()
    gc.freeze()
