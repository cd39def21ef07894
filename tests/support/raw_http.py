"""HTTP byte by byte, for what no client library would send."""

import json
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class NoAnswer(AssertionError):
    """The connection was closed, or nothing came within the time allowed."""


def connect(url: str, timeout_s: float = 30.0) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=timeout_s)


def post_raw(server: Any, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which the request was sent, and whose answer nobody has read."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection = connect(server.url)
    connection.sendall(head.encode() + content)
    return connection


def exchange(url: str, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 30.0) -> Answer:
    """Send the pieces, `pause_s` between them, and read one answer. Raises NoAnswer."""
    with connect(url, timeout_s) as connection:
        send(connection, pieces, pause_s)
        return read_answer(connection, has_body=not pieces[0].startswith(b"HEAD "))


def send(connection: socket.socket, pieces: Iterable[bytes], pause_s: float = 0.0) -> None:
    """Stops when the other side has answered early and closed."""
    try:
        for number, piece in enumerate(pieces):
            if number and pause_s:
                time.sleep(pause_s)
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass


def read_answer(connection: socket.socket, *, has_body: bool = True) -> Answer:
    """One HTTP/1.1 answer, its body by Content-Length, chunked, or until the connection is closed."""
    try:
        with connection.makefile("rb") as stream:
            return read_one(stream, has_body=has_body)
    except (TimeoutError, ConnectionResetError) as error:
        raise NoAnswer(repr(error)) from None


def read_one(stream: Any, *, has_body: bool = True) -> Answer:
    """The next answer of a stream that may hold several. Raises NoAnswer."""
    status_line = stream.readline()
    if not status_line.startswith(b"HTTP/1.1 "):
        raise NoAnswer(f"closed, or no HTTP: {status_line[:80]!r}")
    headers: dict[str, str] = {}
    for line in iter(stream.readline, b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    status = int(status_line.split()[1])
    if not has_body:
        body = b""
    elif headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers["content-length"])) if "content-length" in headers else stream.read()
    return Answer(status, headers, body)
