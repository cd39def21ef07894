"""uvicorn's HTTP/1.1, with bounds on what a connection may send and on how long it may take. Used by `serving.py`."""

import json
import logging
from collections.abc import Sized
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 32 * 2**10
_PAUSE_ABOVE = 8
"""Requests that may wait for the answer before theirs; while there are more, nothing more is read."""
_CUT_OFF_ABOVE = 1000
"""As many may have come in what was read before the pause. No client sends more."""
MIN_READ_BYTES = 256 * 2**10
"""What a client has to read of its answer in each `send_timeout_s`: byte by byte it could keep 10 MB here for days."""
MAX_UNREAD_BYTES = 256 * 2**20
"""What all clients together may leave unread; beyond it those are cut off that have left theirs for longest."""


def protocol(receive_timeout_s: float, send_timeout_s: float) -> type[HttpToolsProtocol]:
    """The protocol of one server with its time limits (`Settings`), as `uvicorn.Config` wants it: a class."""
    shared = {"receive_timeout_s": receive_timeout_s, "send_timeout_s": send_timeout_s, "unread": _Unread()}
    return type("Protocol", (LimitedProtocol,), shared)


class _Unread:
    """How much of their answers connections have left unread, those first that have left it for longest."""

    def __init__(self) -> None:
        self._num_bytes: dict[LimitedProtocol, int] = {}
        self._in_all = 0

    def add(self, connection: "LimitedProtocol", num_bytes: int) -> None:
        self._num_bytes[connection] = num_bytes
        self._in_all += num_bytes
        while self._in_all > MAX_UNREAD_BYTES:
            first = next(iter(self._num_bytes))
            self.remove(first)
            first.cut_off("a client has not read what it was sent, and there is no more room for that: cut off")

    def remove(self, connection: "LimitedProtocol") -> None:
        self._in_all -= self._num_bytes.pop(connection, 0)


class _Flow(FlowControl):
    """Reads nothing more while many requests wait, whoever asks for it."""

    def __init__(self, transport: Any, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if len(self._pipeline) <= _PAUSE_ABOVE:
            super().resume_reading()


def _send_until_closed(cycle: RequestResponseCycle) -> Any:
    """The cycle's `send` for a client of HTTP/1.0, which knows no chunks (RFC 9112, section 6.1).

    A body whose length isn't said ends where uvicorn closes the connection.
    """
    send = cycle.send
    is_length_known = True

    async def send_without_chunks(message: Any) -> None:
        nonlocal is_length_known
        if message["type"] == "http.response.start":
            is_length_known = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            cycle.chunked_encoding = None if is_length_known else False
        elif not is_length_known:
            cycle.expected_content_length = len(message.get("body", b""))  # else uvicorn would count it as too long
        await send(message)

    return send_without_chunks


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's, with limits on the size of a request's head and on the time it takes, and errors as JSON.

    A client that doesn't read what it is sent is cut off too: the answer would wait in memory for as long as it likes.
    Nothing is upgraded here: a request that offers it (`Upgrade: h2c`, as Java's client does) is one like any other.

    What is refused here is no HTTP request yet: no route, no surface, so errors have our own envelope.
    """

    receive_timeout_s: float
    send_timeout_s: float
    unread: _Unread
    _refusal: tuple[int, str, str] | None = None
    _num_head_bytes = 0
    """Or of trailers: since the head, or the body, came to an end."""
    _is_in_head = True
    _is_in_message = False
    _has_ended_head = False
    """In the data received last: what is left of that may be a body."""
    _has_body = False
    """The data received last."""
    _answering: RequestResponseCycle | None = None
    """The request whose turn it is: `cycle` is the one that came last."""
    _timer: Any = None
    _send_timer: Any = None
    _num_unread_bytes = 0
    """When `_send_timer` was set."""

    def data_received(self, data: bytes) -> None:
        self._expect_rest()
        was_in_head, self._has_ended_head, self._has_body = self._is_in_head, False, False
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.logger.warning("Invalid HTTP request received.")
                self.send_400_response("")
            return
        # After a body there may be trailers, as many as the client likes.
        is_in_trailers = not (was_in_head or self._is_in_head or self._has_body)
        if is_in_trailers or (was_in_head and self._is_in_head and not self._has_ended_head):
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse_as_too_large("trailers are" if is_in_trailers else "head is")
                self.send_400_response("")
        if self._is_in_message:
            self._expect_rest()

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                return self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:  # the parser has left out the body: again, from the head on
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                # Anew: after an offer on a connection that closes, the old one reads nothing more.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._expect_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_send_timer()
        self.unread.remove(self)
        super().connection_lost(exc)  # tells the request that came last, others may be before it
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()
        self.unread.add(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_send_timer()
        self.unread.remove(self)
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._num_head_bytes and not self.transport.is_closing():
            self._expect_rest()  # of the next request, some of which came meanwhile

    def on_message_begin(self) -> None:
        self._is_in_head = self._is_in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # trailers are nothing that anybody here reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._has_ended_head = True
        self._num_head_bytes = 0
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse_as_too_large("head is")
            raise ValueError("the head is too large")  # the parser stops, and `data_received` answers
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is not a proxy")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            if self.pipeline:
                self.flow.resume_reading()  # who doesn't read can't see that the client has left
            if len(self.pipeline) > _CUT_OFF_ABOVE:
                self.cut_off(f"a client has sent {len(self.pipeline)} requests ahead of their answers: cut off")
                raise ValueError("too many requests")  # the parser stops

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.scope["http_version"] == "1.0":
            cycle.send = _send_until_closed(cycle)  # type: ignore[method-assign]
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        self._num_head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._is_in_head, self._is_in_message = True, False
        self._num_head_bytes = 0
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Everything uvicorn refuses comes through here."""
        status, code, message = self._refusal or (400, "invalid_request", "This is not a valid HTTP request.")
        body = json.dumps({"error": {"code": code, "message": message, "field": None}}).encode()
        phrase = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}[status]
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(body)) + body)
        self.transport.close()

    def _refuse_as_too_large(self, what: str) -> None:
        self._refusal = (431, "headers_too_large", f"The request's {what} larger than {MAX_HEAD_BYTES} bytes.")

    def _expect_rest(self) -> None:
        """Of a head, or of a body that was answered before it came.

        Not while an answer is on its way: a 408 would end up in the middle of it, and the app times its body itself.
        """
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._timer is None and not is_answering:
            self._timer = self.loop.call_later(self.receive_timeout_s, self._on_slow_request)

    def _expect_reader(self) -> None:
        self._num_unread_bytes = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self.send_timeout_s, self._on_slow_reader)

    def _on_slow_reader(self) -> None:
        if self._num_unread_bytes - self.transport.get_write_buffer_size() >= MIN_READ_BYTES:
            self._expect_reader()
            return
        self.cut_off(f"a client has not read what it was sent for {self.send_timeout_s:g} s: cut off")

    def cut_off(self, reason: str) -> None:
        logger.warning(reason)
        self.transport.abort()

    def _on_slow_request(self) -> None:
        if self.transport.is_closing():
            return
        if self._num_head_bytes == 0 or not self._is_in_head:
            self.transport.close()  # it has sent nothing to be answered, or was answered before
            return
        self._refusal = (408, "request_timeout", "The request's head came too slowly.")
        self.send_400_response("")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
