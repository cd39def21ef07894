"""Log-probabilities as the API has them, and texts that branch."""

import math
from typing import Any

import pytest

PROMPT = "translate English to French: I am hungry. ="


@pytest.fixture
def page(open_page: Any) -> Any:
    page = open_page("#/think")
    page.locator("#think-text").fill(PROMPT)
    return page


def settle(page: Any) -> None:
    page.locator(".heat-text[aria-busy=false]").wait_for()
    page.locator("button.primary:visible", has_text="Continue").wait_for()


def text_of(page: Any) -> str:
    tokens = page.locator(".heat").evaluate_all("nodes => nodes.map(node => node.textContent)")
    return "".join(tokens).replace("⏎\n", "\n")


def test_a_text_is_scored_token_by_token(page: Any, server: Any) -> None:
    page.get_by_role("button", name="Only read it").click()
    settle(page)
    scored = server.http.post("/score", json={"text": PROMPT, "top_logprobs": 10}).json()["results"][0]
    assert text_of(page) == PROMPT
    assert page.locator(".heat").count() == scored["num_tokens"]
    perplexity = float(page.locator(".meters.is-large dd").first.inner_text().replace(",", ""))
    assert perplexity == pytest.approx(scored["perplexity"], rel=0.01)
    surprises = page.locator(".heat").evaluate_all("nodes => nodes.map(n => +n.style.getPropertyValue('--surprise'))")
    expected = [min(1, -token["logprob"] / 12) for token in scored["tokens"]]
    assert surprises == pytest.approx(expected, abs=1e-6)
    page.locator(".heat").nth(3).hover()
    shown = page.locator(".alternative .bar-number").all_inner_texts()[:10]
    top = [100 * math.exp(one["logprob"]) for one in scored["tokens"][3]["top"]]
    assert [float(text.strip("<%")) for text in shown] == pytest.approx(top, abs=0.51)


def test_an_alternative_leads_on_to_a_text_of_its_own(page: Any, server: Any) -> None:
    page.get_by_label("Tokens to continue by").select_option("10")
    page.get_by_role("button", name="Continue it").click()
    settle(page)
    first = text_of(page)
    assert first.startswith(PROMPT)
    page.locator(".heat").nth(page.locator(".heat").count() - 3).focus()
    alternative = page.locator(".alternative:not([disabled])").first
    token = alternative.locator("code").inner_text().replace("␣", " ")
    with page.expect_request("**/generate") as sent:
        alternative.click()
    settle(page)
    second = text_of(page)
    assert page.locator(".branch").count() == 2
    # What was kept, the alternative in place of what stood there, and what the model says after exactly these tokens.
    ids = sent.value.post_data_json["prompt"]
    prefix = server.http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
    assert prefix.endswith(token)
    assert first.startswith(prefix.removesuffix(token))
    assert not first.startswith(prefix)
    answer = server.generate(prompt=ids, max_tokens=10, temperature=0)
    assert second.removesuffix("<|endoftext|>") == prefix + answer["choices"][0]["text"]
    page.locator(".branch").first.click()
    assert text_of(page) == first
    page.locator(".branch").nth(1).click()
    assert text_of(page) == second


def test_a_text_comes_from_the_other_views(open_page: Any) -> None:
    page = open_page("#/tasks/translate")
    page.locator(".bench button.primary").click()
    page.get_by_role("button", name="See it token by token").click()
    settle(page)
    assert page.locator("#think-text").input_value().startswith("translate English to French")
    assert text_of(page) == page.locator("#think-text").input_value()


def test_stop_stops(page: Any, server: Any) -> None:
    page.get_by_label("Tokens to continue by").select_option("80")
    page.locator("#think-text").fill("It was a dark night, and the wind")
    page.locator("#think-text").press("Control+Enter")
    page.locator(".heat-text .caret").wait_for()
    page.keyboard.press("Escape")
    server.wait_until_idle()
    settle(page)
