"""Where a server listens: its sockets, and the URL that leads there."""

import errno
import os
import socket
from contextlib import ExitStack

from zeroshot.errors import SettingsError


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def check_address(host: str, port: int) -> None:
    """Raises SettingsError where nothing can listen there: said before a model is fetched and loaded for nothing."""
    for listener in listen(host, port):
        listener.close()


def listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address that the host has. Port 0: one that the system picks, the same for all.

    Raises SettingsError where nothing can listen there.
    """
    listeners: list[socket.socket] = []
    with ExitStack() as closing:
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, (name, _, *rest) in dict.fromkeys((family, address) for family, *_, address in found):
                listener = _socket(family)
                if listener is None:
                    continue
                listeners.append(closing.enter_context(listener))
                listener.bind((name, port, *rest))
                listener.listen()
                port = listener.getsockname()[1]
        except (socket.gaierror, UnicodeError) as error:
            raise SettingsError(f"Can't listen on {host}: {getattr(error, 'strerror', None) or error}") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message = f"Port {port} of {host} is in use. Stop what listens there, or choose another with --port."
            else:
                message = f"Can't listen on port {port} of {host}: {os.strerror(error.errno or 0)}"
            raise SettingsError(message) from None
        if not listeners:
            raise SettingsError(f"Can't listen on {host}: this machine has no addresses of its kind.")
        closing.pop_all()
    return listeners


def _socket(family: int) -> socket.socket | None:
    """As asyncio's server makes it, which leaves out families that this machine doesn't have."""
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return listener
