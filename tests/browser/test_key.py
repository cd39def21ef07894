"""A server that wants a key: the page comes without one, asks, and keeps it for the tab."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import DEMO
from tests.support.server import Server, run_server

KEY = "a-key-of-thirty-two-characters-ab"


@pytest.fixture
def locked_server(tmp_path: Any) -> Iterator[Server]:
    with run_server(DEMO, tmp_path, ZEROSHOT_API_KEYS=KEY) as running:
        yield running


def test_the_page_asks_for_the_key_and_keeps_it_for_the_tab(locked_server: Server, open_page: Any, watch: Any) -> None:
    page = open_page(url=locked_server.url)
    watch[0].expected_statuses = {401}
    field = page.get_by_label("API key")
    field.fill("wrong")
    field.press("Enter")
    page.get_by_text("did not accept the key").wait_for()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    page.locator("a.card").first.wait_for()
    page.reload()
    page.locator("a.card", has_text="translate").click()
    page.locator(".bench button.primary").click()
    page.locator(".answer .meters").wait_for()
    page.get_by_text("Use it from code").click()
    snippet = page.locator(".code pre").inner_text()
    assert "ZEROSHOT_API_KEY" in snippet
    assert KEY not in snippet
    assert page.evaluate("JSON.stringify(localStorage)").find(KEY) == -1
