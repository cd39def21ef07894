"""What a command says of itself, on standard error: its results alone go to standard output."""

import logging
import os
import sys
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

import zeroshot
from zeroshot.settings import LogFormat
from zeroshot.telemetry import logs

console = Console(stderr=True)


def announce(log_format: LogFormat, model: str, url: str) -> None:
    """A server's first words: where it is."""
    if log_format == "json":
        fields = {"version": zeroshot.__version__, "model": model, "url": url}
        logging.getLogger("zeroshot").info("serving", extra={"fields": fields})
    else:
        name = escape(logs.printable(model))
        console.print(f"[bold]Zeroshot[/bold] {zeroshot.__version__} serves [bold]{name}[/bold]")
        console.print(f"  {url}      the playground", highlight=False)
        console.print(f"  {url}docs  every endpoint and task", highlight=False)


def progress_bars() -> Progress:
    return Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console)


def fail(message: str) -> NoReturn:
    """End the command with one readable line."""
    console.print("[bold red]Error:[/bold red]", escape(message), highlight=False, soft_wrap=True)
    sys.exit(1)


def drop_output() -> None:
    """Forget what standard output still holds: Python would try to write it at its end, and say that it can't."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
