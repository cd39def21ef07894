"""The `zeroshot` command's way in, also of `python -m zeroshot`: light, so that it soon listens to Ctrl-C."""

import os
import signal


def main() -> None:
    """The command's exit status is 130 where Ctrl-C comes while the rest is still being imported, as it is later."""
    # At once: as an exception it could be swallowed by a module's import, or come out of it as another one.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from zeroshot.cli import main as run

    signal.signal(signal.SIGINT, interrupt)
    run()


if __name__ == "__main__":
    main()
