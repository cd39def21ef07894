"""Debian's Chromium, a real server with the demo model, and pages that are watched for everything that must not be."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import DEMO
from tests.support.server import Server, run_server

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(DEMO, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One for each file: while Playwright is open its event loop counts as running, and asyncio.run() is refused."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no playwright: make setup")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """What a page did that it must not: errors on its console, requests to other hosts, breaches of its policy."""

    def __init__(self, context: Any, origin: str) -> None:
        self.wrong: list[str] = []
        self.expected_statuses: set[int] = set()
        context.on("request", lambda request: self._on_request(request, origin))
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))

    def _on_request(self, request: Any, origin: str) -> None:
        if not request.url.startswith((origin, "blob:")):
            self.wrong.append(f"a request to {request.url}")

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def unexpected(self) -> list[str]:
        """Without the refusals that the test brought about itself, which Chromium also logs."""
        expected = [f"status of {status}" for status in self.expected_statuses]
        return [wrong for wrong in self.wrong if not any(part in wrong for part in expected)]


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Of the browser's context; tests override this."""
    return {}


@pytest.fixture
def watch() -> Iterator[list[Watch]]:
    watches: list[Watch] = []
    yield watches
    assert [wrong for watch in watches for wrong in watch.unexpected()] == []


@pytest.fixture
def open_page(chromium: Any, server: Server, watch: list[Watch]) -> Iterator[Any]:
    """open_page(route="", url=the server's, **context options) -> a watched page in a fresh profile."""
    contexts = []

    def open_one(route: str = "", url: str = server.url, **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce"} | options
        context = chromium.new_context(**options)
        contexts.append(context)
        watch.append(Watch(context, url))
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{url}/{route}")
        return page

    yield open_one
    for context in contexts:
        context.close()
