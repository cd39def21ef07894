"""Text streams into the page, stops when one stops it, and comes back from history and from its seed."""

from typing import Any

import pytest


@pytest.fixture
def page(open_page: Any) -> Any:
    page = open_page("#/complete")
    page.locator("#prompt").wait_for()
    return page


def set_number(page: Any, label: str, value: str) -> None:
    page.get_by_label(f"{label}, as a number").fill(value)


# A run of few tokens is over between two looks of a locator; the page itself sees each change.
WATCH_BEGINNING = """() => {
  window.begun = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (document.querySelector(".complete [aria-busy=true]")) { observer.disconnect(); resolve(true); }
    });
    observer.observe(document.body, { subtree: true, attributes: true, childList: true });
  });
}"""

WATCH_TEXT = """() => {
  window.lengths = new Set();
  const observer = new MutationObserver(() => {
    for (const shown of document.querySelectorAll(".output-text")) window.lengths.add(shown.innerText.length);
  });
  observer.observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def finish(page: Any) -> list[str]:
    page.evaluate(WATCH_BEGINNING)
    page.locator("#prompt").press("Control+Enter")
    page.evaluate("() => window.begun")
    page.locator(".complete [aria-busy=false] .output[data-state=finished]").first.wait_for()
    return page.locator(".output-text").all_inner_texts()


def test_the_text_comes_in_pieces(page: Any) -> None:
    set_number(page, "Length", "200")
    page.evaluate(WATCH_TEXT)
    finish(page)
    assert page.evaluate("() => window.lengths.size") > 3


def test_stop_frees_the_engine(page: Any, server: Any) -> None:
    server.wait_until_idle()
    set_number(page, "Length", "1000")
    page.get_by_text("More settings").click()
    page.get_by_label("Go on after end of text").check()
    page.get_by_role("button", name="Continue").click()
    server.wait_until(lambda health: health["engine"]["num_running"] == 1)
    page.locator(".output-text", has_text="the wind ").wait_for()
    page.get_by_role("button", name="Stop").click()
    server.wait_until_idle()
    assert page.locator(".output[data-state=stopped]").count() == 1
    assert page.locator(".output-end").inner_text() == "Stopped here"
    shown = page.locator(".output-text").inner_text()
    assert len(page.locator(".history-text").inner_text()) > 0
    page.get_by_role("button", name="Go on", exact=True).click()
    assert page.locator("#prompt").input_value() == shown


def test_leaving_the_page_frees_the_engine_too(page: Any, server: Any) -> None:
    set_number(page, "Length", "1000")
    page.get_by_text("More settings").click()
    page.get_by_label("Go on after end of text").check()
    set_number(page, "Side by side", "3")
    tokens_before = server.health()["engine"]["generation_tokens_total"]
    page.get_by_role("button", name="Continue").click()
    server.wait_until(lambda health: health["engine"]["num_running"] == 3)
    page.goto("about:blank")
    health = server.wait_until_idle()
    assert health["engine"]["generation_tokens_total"] - tokens_before < 3 * 1000


def test_several_side_by_side_are_the_api_s_and_the_seed_brings_them_back(page: Any, server: Any) -> None:
    set_number(page, "Side by side", "3")
    set_number(page, "Length", "12")
    texts = finish(page)
    assert len(texts) == 3
    seed = int(page.locator(".meters .link").inner_text())
    prompt = page.locator("#prompt").input_value()
    answer = server.generate(prompt=prompt, n=3, max_tokens=12, temperature=0.8, top_k=40, seed=seed)
    assert texts == [prompt + choice["text"] for choice in answer["choices"]]
    page.get_by_role("button", name="Keep last").click()
    assert page.get_by_label("Seed").input_value() == str(seed)
    assert finish(page) == texts


def test_every_setting_reaches_the_server(page: Any) -> None:
    page.get_by_text("More settings").click()
    for label, value in [
        ("Temperature", "1.2"),
        ("Top k", "7"),
        ("Top p", "0.9"),
        ("Length", "5"),
        ("Min p", "0.01"),
        ("Typical p", "0.95"),
        ("Repetition", "1.1"),
        ("Presence", "0.1"),
        ("Frequency", "0.2"),
        ("At least", "1"),
    ]:
        set_number(page, label, value)
    page.get_by_label("Seed").fill("11")
    page.get_by_label("Stop at").fill("\\n")
    page.get_by_label("Stop at").press("Enter")
    page.get_by_label("Stop token ids").fill("3, 4")
    page.get_by_label("Bias", exact=True).fill(" night")
    page.get_by_label("Bias", exact=True).press("Enter")
    page.get_by_role("button", name="Remove ␣night -5").wait_for()
    with page.expect_request("**/generate") as sent:
        finish(page)
    assert sent.value.post_data_json == {
        "prompt": "It was a dark night, and the wind",
        "temperature": 1.2,
        "top_k": 7,
        "top_p": 0.9,
        "max_tokens": 5,
        "min_p": 0.01,
        "typical_p": 0.95,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "min_tokens": 1,
        "seed": 11,
        "stop": ["\n"],
        "stop_token_ids": [3, 4],
        "logit_bias": {"1755": -5},
        "stream": True,
    }


def test_history_survives_a_reload(page: Any) -> None:
    page.locator("#prompt").fill("Once upon a time")
    set_number(page, "Length", "8")
    texts = finish(page)
    page.reload()
    page.locator(".history-item").click()
    assert page.locator("#prompt").input_value() == "Once upon a time"
    assert page.locator(".output-text").all_inner_texts() == texts
    assert page.get_by_label("Length, as a number").input_value() == "8"
    page.get_by_role("button", name="Clear").click()
    page.reload()
    page.get_by_text("Your runs stay here").wait_for()


def test_a_refusal_is_readable(page: Any, watch: Any) -> None:
    watch[0].expected_statuses = {400, 422}
    set_number(page, "Temperature", "hot")
    page.get_by_role("button", name="Continue").click()
    assert "temperature" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Temperature, as a number").get_attribute("aria-invalid") == "true"
    set_number(page, "Temperature", "0.8")
    set_number(page, "Length", "5000")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("alert").get_by_text("context_length_exceeded").wait_for()
    set_number(page, "Length", "5")
    finish(page)
    assert page.get_by_role("alert").count() == 0
