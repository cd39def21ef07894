"""Where a server may listen, found out before a model is loaded."""

import socket

import pytest

from zeroshot.address import check_address, listen
from zeroshot.errors import SettingsError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", ""])
def test_free_addresses(host: str) -> None:
    check_address(host, 0)


def test_a_free_address_of_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    check_address("::1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_port_0_is_one_port_on_every_address(host: str) -> None:
    listeners = listen(host, 0)
    (port,) = {listener.getsockname()[1] for listener in listeners}
    assert port > 0
    for listener in listeners:
        with listener, socket.socket(listener.family) as caller:
            caller.connect(listener.getsockname())


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Port {port} of 127.0.0.1 is in use"):
            check_address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "203.0.113.7"])
def test_an_address_that_is_not_this_machines(host: str) -> None:
    with pytest.raises(SettingsError, match="Can't listen on"):
        check_address(host, 8000)
