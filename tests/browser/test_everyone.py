"""For everyone: by keyboard alone, on a narrow screen, in both themes, without mistakes that axe finds."""

from typing import Any

import pytest

VIEWS = ["", "#/tasks/classify", "#/complete", "#/think", "#/engine"]
NARROW = {"width": 380, "height": 800}


def fill_view(page: Any, route: str) -> None:
    """Something to see in each view, so that it is not the empty page that is checked."""
    if route == "":
        page.locator("a.card").first.wait_for()
    elif route.startswith("#/tasks/"):
        page.locator(".bench button.primary").click()
        page.locator(".answer .meters").wait_for()
        for summary in page.locator(".bench summary").all():
            summary.click()
    elif route == "#/complete":
        page.get_by_label("Side by side, as a number").fill("2")
        page.get_by_label("Length, as a number").fill("6")
        page.locator("#prompt").press("Control+Enter")
        page.locator(".complete .meters").wait_for()
        for summary in page.locator(".complete summary").all():
            summary.click()
    elif route == "#/think":
        page.get_by_role("button", name="Only read it").click()
        page.locator(".heat").nth(2).focus()
        page.locator(".alternative:not([disabled])").first.click()
        page.locator(".heat-text[aria-busy=false]").wait_for()
        page.locator(".heat").last.focus()
    else:
        page.locator(".chart b").first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("route", VIEWS)
def test_axe_finds_nothing_serious(open_page: Any, route: str, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="there is no axe: make setup").Axe()
    page = open_page(route, color_scheme=theme)
    fill_view(page, route)
    findings = axe.run(page).response["violations"]
    serious = [
        (finding["id"], node["target"], node["failureSummary"])
        for finding in findings
        for node in finding["nodes"]
        if finding["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("route", VIEWS)
def test_a_narrow_screen_needs_no_sideways_scrolling(open_page: Any, route: str) -> None:
    page = open_page(route, viewport=NARROW)
    fill_view(page, route)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_the_switch_beats_the_system_and_is_remembered(open_page: Any) -> None:
    page = open_page(color_scheme="light")

    def background() -> str:
        return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    light = background()
    page.get_by_role("button", name="Theme: auto. Change to light").click()
    assert background() == light
    page.get_by_role("button", name="Theme: light. Change to dark").click()
    dark = background()
    assert dark != light
    page.reload()
    assert background() == dark
    page.get_by_role("button", name="Theme: dark. Change to auto").click()
    assert background() == light


def test_reduced_motion_is_respected(open_page: Any) -> None:
    page = open_page()
    page.locator("a.card").first.wait_for()
    running = "document.getAnimations().length"
    moving = "getComputedStyle(document.querySelector('.card')).transitionDuration"
    assert page.evaluate(running) == 0
    assert page.evaluate(moving) == "0s"


def tab_to(page: Any, selector: str, most: int = 40) -> None:
    """Presses Tab until the focus is there."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{most} tabs don't lead to {selector}")


def test_everything_works_by_keyboard_alone(open_page: Any) -> None:
    page = open_page()
    page.locator("a.card").first.wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    tab_to(page, "a.card[href='#/tasks/translate']")
    page.keyboard.press("Enter")
    tab_to(page, "textarea[name=text]")
    page.keyboard.press("Control+a")
    page.keyboard.type("I don't know.")
    page.keyboard.press("Control+Enter")
    page.locator(".answer .meters").wait_for()
    assert page.locator(".sheet-text mark").last.inner_text() == "I don't know."


def test_a_branch_grows_by_keyboard_alone(open_page: Any) -> None:
    page = open_page("#/think")
    page.locator("#think-text").focus()
    page.keyboard.press("Control+Enter")
    page.locator(".heat-text[aria-busy=false]").wait_for()
    tab_to(page, ".heat")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator(".heat[aria-pressed=true]").evaluate("node => [...node.parentNode.children].indexOf(node)") == 1
    tab_to(page, ".alternative")
    page.keyboard.press("Enter")
    page.locator(".branch[aria-current=true]").wait_for()
    assert page.locator(".branch").count() == 2
