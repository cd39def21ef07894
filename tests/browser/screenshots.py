"""Take the pictures in docs/images: `python -m tests.browser.screenshots`, against a server of its own."""

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.conftest import DEMO
from tests.support.server import run_server

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE = {"width": 1200, "height": 780}
NARROW = {"width": 380, "height": 780}
MAX_BYTES = 200_000


def tasks(page: Any) -> None:
    page.locator("a.card").first.wait_for()


def task(page: Any) -> None:
    page.get_by_label("Question").fill("What is the capital of Spain?")
    for _ in range(2):  # the second time, the prompt is in the cache
        page.locator(".bench button.primary").click()
        page.locator(".answer .meters").wait_for()


def labels(page: Any) -> None:
    page.locator(".bench button.primary").click()
    page.locator(".answer .meters").wait_for()


def complete(page: Any) -> None:
    page.get_by_label("Side by side, as a number").fill("3")
    page.get_by_label("Length, as a number").fill("60")
    page.get_by_label("Seed").fill("7")
    page.locator("#prompt").press("Control+Enter")
    page.locator(".complete .meters").wait_for()


def think(page: Any) -> None:
    page.get_by_label("Tokens to continue by").select_option("10")
    page.get_by_role("button", name="Continue").click()
    settled = page.locator(".heat-text[aria-busy=false]")
    settled.wait_for()
    for _ in range(2):
        page.locator(".heat").nth(11).focus()
        page.locator(".alternative:not([disabled])").first.click()
        settled.wait_for()
    page.locator(".heat").nth(11).focus()


def engine(page: Any) -> None:
    page.locator(".chart").first.wait_for()
    for _ in range(3):
        page.wait_for_timeout(6_000)
        page.get_by_role("button", name="Send 16 prompts at once").click()
        page.get_by_role("button", name="Send 16 prompts at once").wait_for(timeout=120_000)
    page.wait_for_timeout(4_000)


PICTURES: dict[str, tuple[str, Any, str, dict[str, int]]] = {
    "playground-tasks": ("", tasks, "light", WIDE),
    "playground-task": ("#/tasks/answer", task, "light", WIDE),
    "playground-labels": ("#/tasks/classify", labels, "dark", WIDE),
    "playground-complete": ("#/complete", complete, "light", WIDE),
    "playground-think": ("#/think", think, "dark", WIDE),
    "playground-engine": ("#/engine", engine, "light", WIDE),
    "playground-narrow": ("#/tasks/answer", task, "dark", NARROW),
}


def take(browser: Any, url: str, name: str) -> None:
    route, prepare, theme, size = PICTURES[name]
    context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{url}/{route}")
    page.locator("h1:visible").wait_for()
    prepare(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} is {path.stat().st_size} bytes, over {MAX_BYTES}")
    context.close()


def main(names: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, run_server(DEMO, Path(folder)) as server, sync_playwright() as driver:
        server.wait_until_warm()
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name in names or PICTURES:
            take(browser, server.url, name)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
