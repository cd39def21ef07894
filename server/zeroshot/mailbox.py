"""What the engine has sent for one request and its task has not fetched yet. Filled and emptied on the event loop."""

import asyncio
from collections.abc import Callable

from zeroshot.errors import ZeroshotError
from zeroshot.types import TokenOutput, join


class Mailbox:
    """Wakes its reader for each output, in order. A patient one wakes it when a choice has ended, with all in one.

    A reader that wants the whole text gains nothing from waking up at each token, and takes time from the engine, which
    runs on the same cores.
    """

    def __init__(
        self, *, is_patient: bool, num_choices: int = 1, on_end: Callable[[Exception | None], None] = lambda _: None
    ) -> None:
        """on_end: called when the last choice has ended, or with the error that ended the request, whether or not
        anybody has read so far: a client that reads nothing keeps its reader waiting for as long as it likes.
        """
        self._is_patient = is_patient
        self._unfinished = set(range(num_choices))
        self._on_end = on_end
        self._outputs: list[TokenOutput] = []
        self._error: ZeroshotError | None = None
        self._has_mail = asyncio.Event()

    def put(self, output: TokenOutput) -> None:
        earlier = self._earlier(output) if self._is_patient else None
        if earlier is None:
            self._outputs.append(output)
        else:
            join(earlier, output)
        if not self._is_patient or output.finish_reason is not None:
            self._has_mail.set()
        if output.finish_reason is not None:
            self.end(output.choice_index)

    def end(self, choice_index: int) -> None:
        """The choice has ended: the engine says so, or its reader, who has found the end in its text."""
        self._unfinished.discard(choice_index)
        if not self._unfinished:
            self._on_end(None)

    def fail(self, error: ZeroshotError) -> None:
        """End the request with this error, after what has come before it."""
        self._error = error
        self._has_mail.set()
        self._on_end(error)

    async def get(self) -> list[TokenOutput]:
        """What has come since, at least one output. Raises the error that ended the request."""
        await self._has_mail.wait()
        if self._error is not None and not self._outputs:
            raise self._error
        if self._error is None:
            self._has_mail.clear()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _earlier(self, output: TokenOutput) -> TokenOutput | None:
        return next((other for other in self._outputs if other.choice_index == output.choice_index), None)
