"""The charts show what the engine does."""

from typing import Any


def test_a_burst_is_seen_running(open_page: Any, server: Any) -> None:
    server.wait_until_idle()
    page = open_page("#/engine")
    requests = page.locator(".chart", has_text="Requests")
    requests.locator("b").first.get_by_text("0", exact=True).wait_for()
    page.get_by_role("button", name="Send 16 prompts at once").click()
    requests.locator("b").first.get_by_text("16", exact=True).wait_for()
    page.locator(".chart", has_text="KV cache").get_by_role("img").wait_for()
    assert page.locator(".chart .chart-line").count() == 8
    page.get_by_role("button", name="Stop them").click()
    server.wait_until_idle()
    requests.locator("b").first.get_by_text("0", exact=True).wait_for()


def test_it_asks_only_while_it_is_seen(open_page: Any) -> None:
    page = open_page("#/engine")
    page.locator(".chart").first.wait_for()
    page.goto(f"{page.url.split('#')[0]}#/tasks")
    page.locator("a.card").first.wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert [url for url in asked if url.endswith("/metrics")] == []
