"""By which names a local server without keys may be called."""

from typing import Any

import pytest

from zeroshot.api.access.hosts import HostCheck
from zeroshot.api.access.keys import ApiKeys
from zeroshot.errors import HostNotAllowed
from zeroshot.settings import Settings


def check(*values: bytes, **settings: Any) -> None:
    hosts = HostCheck.wanted_by(Settings(**settings), ApiKeys([]))
    assert hosts is not None
    hosts.require({"headers": [(b"host", value) for value in values]})


@pytest.mark.parametrize(
    "value", [b"localhost", b"LocalHost:8000", b"127.0.0.1", b"127.0.0.1:1", b"127.8.8.8", b"[::1]", b"[::1]:8000", b""]
)
def test_this_machine(value: bytes) -> None:
    check(value)


@pytest.mark.parametrize(
    "value",
    [
        b"evil.example", b"evil.example:8000", b"localhost.evil.example", b"127.0.0.1.evil.example", b"0.0.0.0:8000",
        b"[::1].evil.example", b"localhost:8000.evil.example", b"evil@localhost", b"localhost/",
        b"[", b":8000", b"\xff",
    ],
)  # fmt: skip
def test_others(value: bytes) -> None:
    with pytest.raises(HostNotAllowed):
        check(value)
    with pytest.raises(HostNotAllowed):
        check(b"localhost", value)


def test_no_header_is_no_browser() -> None:
    check()


def test_names_that_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSHOT_ALLOWED_HOSTS", "gpt.example, Other.example")
    check(b"gpt.example:443")
    check(b"other.example")
    with pytest.raises(HostNotAllowed):
        check(b"third.example")


def test_keys_or_another_address_need_no_check() -> None:
    assert HostCheck.wanted_by(Settings(host="127.0.0.1"), ApiKeys(["a-key-of-some-length"])) is None
    for host in ("0.0.0.0", "::", "192.168.1.7"):
        assert HostCheck.wanted_by(Settings(host=host), ApiKeys([])) is None
    for host in ("localhost", "::1", "127.0.0.2"):
        assert HostCheck.wanted_by(Settings(host=host), ApiKeys([])) is not None
