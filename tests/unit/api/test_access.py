"""Keys and quotas, without a socket."""

import hmac
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from zeroshot.api.access.keys import EVERYBODY, ApiKeys, Tenant
from zeroshot.api.access.quota import Quotas
from zeroshot.errors import RateLimited, SettingsError
from zeroshot.settings import Settings, load_settings

KEYS = ["first-key-0123456789", "second-key-0123456789"]


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    keys = ApiKeys(KEYS)
    for presented in (KEYS[0].encode(), KEYS[1].encode(), b"", b"wrong", b"\xff" * 5000):
        compared.clear()
        keys.find(presented)
        assert len(compared) == len(KEYS), "it stopped early, or skipped one"
        assert all(len(a) == len(b) == 32 for a, b in compared)


def test_tenants_have_their_own_salt_and_a_name_that_is_not_the_key() -> None:
    keys = ApiKeys(KEYS)
    first, second = (keys.find(key.encode()) for key in KEYS)
    assert first is not None
    assert second is not None
    assert first.cache_salt != second.cache_salt != b""
    assert first.name != second.name
    assert ApiKeys(KEYS).find(KEYS[0].encode()) == first, "a restart must not change it"
    for key in KEYS:
        assert key[:4] not in first.name


def test_keys_come_from_the_environment_and_a_file_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("third-key\n#fourth-key\n")
    monkeypatch.setenv("ZEROSHOT_API_KEYS", " first-key , second-key,")
    monkeypatch.setenv("ZEROSHOT_API_KEYS_FILE", str(tmp_path / "keys"))
    keys = ApiKeys.load(Settings())
    assert len(keys) == 3
    assert all(keys.find(key) for key in (b"first-key", b"second-key", b"third-key"))
    assert not any(
        keys.find(key) for key in (b"", b"fourth-key", b"#fourth-key", b" first-key", b"first-key,second-key")
    )
    assert "first-key" not in repr(Settings())


def test_a_short_key_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys").write_text("short-in-file\n")
    monkeypatch.setenv("ZEROSHOT_API_KEYS", "0123456789abcdef,0123456789abcde")
    monkeypatch.setenv("ZEROSHOT_API_KEYS_FILE", str(tmp_path / "keys"))
    ApiKeys.load(Settings())
    assert [record.getMessage().split(" has")[0] for record in caplog.records] == ["API key 2", "API key 3"]
    assert "0123456789" not in caplog.text
    assert "short-in-file" not in caplog.text


def test_an_empty_variable_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSHOT_API_KEYS", "")
    assert len(ApiKeys.load(Settings())) == 0


def test_an_empty_key_opens_no_door() -> None:
    with pytest.raises(SettingsError, match="key 2 is empty"):
        ApiKeys.load(load_settings(api_keys=[KEYS[0], ""]))


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it() -> None:
    with pytest.raises(SettingsError) as refusal:
        ApiKeys.load(Settings(api_keys=(SecretStr("geheimer schl\u00fcssel"),)))
    assert "geheim" not in refusal.value.message


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        ApiKeys.load(Settings(api_keys_file=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no key"), ("# only a comment\n", "no key"), ("two words\n", "printable"), ("schl\u00fcssel\n", "printable")],
)
def test_a_file_that_would_open_the_door_by_mistake(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(SettingsError, match=message):
        ApiKeys.load(Settings(api_keys_file=tmp_path / "keys"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused_for(quotas: Quotas, tenant: Tenant = EVERYBODY) -> int | None:
    """None if a request may come now, else the seconds to wait."""
    try:
        with quotas.request(tenant):
            return None
    except RateLimited as error:
        return error.retry_after_s


def test_the_rate_is_kept_and_the_wait_is_right() -> None:
    clock = Clock()
    quotas = Quotas(requests_per_minute=4, max_concurrent=None, clock=clock)
    assert [refused_for(quotas) for _ in range(6)] == [None] * 4 + [15, 15]
    clock.now += 10
    assert refused_for(quotas) == 5
    clock.now += 5
    assert [refused_for(quotas) for _ in range(2)] == [None, 15]
    clock.now += 3600
    assert [refused_for(quotas) for _ in range(6)] == [None] * 4 + [15, 15], "an idle hour saves up one minute's worth"


def test_one_tenants_use_is_not_anothers() -> None:
    quotas = Quotas(requests_per_minute=1, max_concurrent=1)
    assert refused_for(quotas, Tenant("a")) is None
    assert refused_for(quotas, Tenant("a")) is not None
    assert refused_for(quotas, Tenant("b")) is None


def test_concurrency_is_given_back_whatever_ends_the_request() -> None:
    quotas = Quotas(requests_per_minute=None, max_concurrent=2)

    def fail() -> Any:
        with quotas.request(EVERYBODY):
            raise ValueError("whatever")

    with quotas.request(EVERYBODY), quotas.request(EVERYBODY):
        assert refused_for(quotas) == 1
    for _ in range(3):
        with pytest.raises(ValueError, match="whatever"):
            fail()
    with quotas.request(EVERYBODY):
        assert refused_for(quotas) is None
