"""Ctrl-C while modules are imported. Imports nothing itself, so that the command soon listens to it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_ends_at_once() -> Iterator[None]:
    """Until the block ends, Ctrl-C ends the process with exit status 130, as it does later.

    As an exception it could come out of a module's import as a traceback, be swallowed there, or abort a C++ library.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    yield
    signal.signal(signal.SIGINT, interrupt)
