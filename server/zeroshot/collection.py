"""Python's garbage collector, beside a server's steady work."""

import gc


def keep_what_is_there() -> None:
    """Call once all is loaded. Modules and models stay for good, and collections need not walk through them.

    With PyTorch and transformers imported such a walk takes 0.1 s, and 4,096 tokens are enough objects to cause one: on
    a GPU that would be a third of what 512 sequences have drawn meanwhile.
    """
    gc.collect()
    gc.freeze()
