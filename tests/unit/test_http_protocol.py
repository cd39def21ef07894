"""When a connection's time is up. The real protocol, with a clock that the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from zeroshot.http_protocol import MIN_READ_BYTES, protocol

SEND_TIMEOUT_S = 60.0


class Timers:
    """The part of an event loop that the protocol uses until a request has come."""

    def __init__(self) -> None:
        self._due: dict[float, Callable[[], None]] = {}

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        self._due[delay_s] = callback
        return self

    def cancel(self) -> None: ...

    def fire(self, delay_s: float) -> None:
        self._due.pop(delay_s)()


class Transport(asyncio.Transport):
    is_aborted = False
    num_unread_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.num_unread_bytes

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize(("num_read", "is_cut_off"), [(MIN_READ_BYTES, False), (MIN_READ_BYTES - 1, True), (0, True)])
def test_a_client_may_read_slowly_but_not_next_to_nothing(num_read: int, is_cut_off: bool) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    timers: Any = Timers()
    transport = Transport()
    connection = protocol(30.0, SEND_TIMEOUT_S)(uvicorn.Config(app), ServerState(), {}, timers)
    connection.connection_made(transport)
    transport.num_unread_bytes = 10 * 2**20
    connection.pause_writing()
    for _ in range(3):
        transport.num_unread_bytes -= MIN_READ_BYTES
        timers.fire(SEND_TIMEOUT_S)
        assert not transport.is_aborted
    transport.num_unread_bytes -= num_read
    timers.fire(SEND_TIMEOUT_S)
    assert transport.is_aborted == is_cut_off
