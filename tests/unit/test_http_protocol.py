"""When a connection is cut off. The real protocol, with a clock that the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from zeroshot.http_protocol import MAX_UNREAD_BYTES, MIN_READ_BYTES, protocol

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

    def close(self) -> None: ...

    def abort(self) -> None:
        self.is_aborted = True


async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...


def connect(server: type[Any], timers: Any) -> tuple[Any, Transport]:
    transport = Transport()
    connection = server(uvicorn.Config(app), ServerState(), {}, timers)
    connection.connection_made(transport)
    return connection, transport


@pytest.mark.parametrize(("num_read", "is_cut_off"), [(MIN_READ_BYTES, False), (MIN_READ_BYTES - 1, True), (0, True)])
def test_a_client_may_read_slowly_but_not_next_to_nothing(num_read: int, is_cut_off: bool) -> None:
    timers = Timers()
    connection, transport = connect(protocol(30.0, SEND_TIMEOUT_S), timers)
    transport.num_unread_bytes = 10 * 2**20
    connection.pause_writing()
    for _ in range(3):
        transport.num_unread_bytes -= MIN_READ_BYTES
        timers.fire(SEND_TIMEOUT_S)
        assert not transport.is_aborted
    transport.num_unread_bytes -= num_read
    timers.fire(SEND_TIMEOUT_S)
    assert transport.is_aborted == is_cut_off


def test_what_all_clients_leave_unread_is_bounded() -> None:
    """Beyond the bound those go that have left theirs for longest; who reads, or has gone, doesn't count."""
    server, timers = protocol(30.0, SEND_TIMEOUT_S), Timers()
    connections = [connect(server, timers) for _ in range(6)]
    for connection, transport in connections[:5]:
        transport.num_unread_bytes = MAX_UNREAD_BYTES // 4
        connection.pause_writing()
        if transport is connections[0][1]:
            connection.resume_writing()
    assert not any(transport.is_aborted for _, transport in connections)
    connections[2][0].connection_lost(None)
    connections[5][1].num_unread_bytes = MAX_UNREAD_BYTES // 2
    connections[5][0].pause_writing()
    assert [transport.is_aborted for _, transport in connections] == [False, True, False, False, False, False]
