"""Every task can be run from its card, and its answer is the API's."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROMPTS = Path(__file__).parents[2] / "prompts"
NAMES = sorted(yaml.safe_load(path.read_text())["name"] for path in PROMPTS.glob("*.yaml"))


def run(page: Any) -> Any:
    page.locator(".bench button.primary").click()
    answer = page.locator(".answer:not(.waiting)")
    answer.locator(".meters").wait_for()
    return answer


def test_there_is_a_card_for_each_prompt_file(open_page: Any) -> None:
    page = open_page()
    page.locator("a.card").first.wait_for()
    assert sorted(page.locator("a.card strong").all_inner_texts()) == NAMES
    page.locator("a.card", has_text="translate").click()
    page.get_by_role("heading", name="translate").wait_for()


@pytest.mark.parametrize("name", NAMES)
def test_a_task_answers_as_the_api_does(open_page: Any, server: Any, name: str) -> None:
    page = open_page(f"#/tasks/{name}")
    page.locator(".bench").wait_for()
    with page.expect_request(f"**/tasks/{name}") as sent:
        answer = run(page)
    body = json.loads(sent.value.post_data)
    task = server.http.get(f"/tasks/{name}").json()
    always = {"explain": True} | ({"stream": True} if task["kind"] == "text" else {})
    assert {field: value for field, value in body.items() if field != "seed"} == task["example"] | always
    body.pop("stream", None)
    shown = server.http.post(f"/tasks/{name}", json=body).json()
    assert body.get("seed") == shown["explain"].get("seed")
    if isinstance(shown["output"], str):
        assert shown["output"].strip() in answer.inner_text()
    read = page.locator(".sheet-text").evaluate("node => node.textContent")
    assert read == shown["explain"]["prompt"] + (shown["explain"].get("completion") or "")
    if "scores" in shown:
        assert page.locator(".score-label").all_inner_texts() == [score["label"] for score in shown["scores"]]


def test_the_prompt_takes_shape_while_one_types(open_page: Any) -> None:
    page = open_page("#/tasks/translate")
    page.get_by_label("Text").fill("{target} <b>Hi</b>")
    page.get_by_label("Target").fill("")
    sheet = page.locator(".sheet-text")
    assert sheet.inner_text() == "translate English to target: {target} <b>Hi</b> ="
    assert sheet.locator("mark").all_inner_texts() == ["English", "target", "{target} <b>Hi</b>"]


def test_a_text_is_shown_while_it_is_written(open_page: Any, server: Any) -> None:
    body = {"text": "It was a dark night", "max_tokens": 250, "temperature": 1}
    lengths = (
        (seed, server.http.post("/tasks/complete", json=body | {"seed": seed}).json()["usage"]["completion_tokens"])
        for seed in range(50)
    )
    seed = next(seed for seed, num_tokens in lengths if num_tokens > 150)
    page = open_page("#/tasks/complete")
    page.get_by_text("Settings").click()
    page.get_by_label("Max tokens").fill("250")
    page.get_by_label("Temperature").fill("1")
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label("Text", exact=True).fill(body["text"])
    page.locator(".bench button.primary").click()
    so_far = page.locator(".answer.writing .answer-text")
    so_far.wait_for()
    begun = so_far.inner_text()
    page.locator(".answer .meters").wait_for()
    assert page.locator(".answer-text").inner_text().startswith(begun.rstrip())
    assert page.locator(".writing").count() == 0


def test_what_came_from_the_cache_is_marked(open_page: Any, server: Any) -> None:
    page = open_page("#/tasks/answer")
    run(page)
    assert "cached\n0 tokens" not in run(page).inner_text()
    example = server.http.get("/tasks/answer").json()["example"]
    explain = server.http.post("/tasks/answer", json=example | {"explain": True}).json()["explain"]
    cached = "".join(page.locator(".sheet-text .from-cache").all_inner_texts())
    assert explain["prompt"].startswith(cached)
    assert len(cached) > 40


def test_calibrations_stand_side_by_side(open_page: Any, server: Any) -> None:
    page = open_page("#/tasks/classify")
    run(page)
    example = server.http.get("/tasks/classify").json()["example"]
    shares = {}
    for calibration in ("contextual", "none", "pmi_dc"):
        answer = server.http.post("/tasks/classify", json=example | {"calibration": calibration}).json()
        shares[calibration] = {score["label"]: score["probability"] for score in answer["scores"]}
    for row in page.locator(".score-row").all():
        label = row.locator(".score-label").inner_text()
        shown = [float(text.rstrip("%")) for text in row.locator(".bar-number").all_inner_texts()]
        assert shown == pytest.approx([100 * share[label] for share in shares.values()], abs=0.6)


def test_a_refusal_names_the_field(open_page: Any, watch: Any) -> None:
    page = open_page("#/tasks/choose")
    watch[0].expected_statuses = {422}
    options = page.get_by_label("Options")
    options.fill("only one")
    page.locator(".bench button.primary").click()
    page.get_by_role("alert").wait_for()
    assert options.get_attribute("aria-invalid") == "true"
    assert "at least" in page.locator(".field-error").inner_text()
    options.fill("light\nstones")
    assert page.get_by_role("alert").count() == 0
    run(page)


def test_the_curl_line_works(open_page: Any) -> None:
    page = open_page("#/tasks/translate")
    page.get_by_label("Text").fill('It\'s "cold" $HOME `id` \\ today.')
    run(page)
    page.get_by_text("Use it from code").click()
    text = page.locator(".code pre").inner_text()
    command = shlex.split(text.replace("\\\n", " "))
    assert command[0] == "curl"
    answer = json.loads(subprocess.run([*command, "-s"], capture_output=True, check=True).stdout)
    assert answer["output"] == page.locator(".answer-text").inner_text()


@pytest.mark.parametrize("name", ["translate", "sentiment", "perplexity"])
def test_the_python_and_openai_snippets_work(open_page: Any, name: str, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    page = open_page(f"#/tasks/{name}")
    answer = run(page).inner_text()
    page.get_by_text("Use it from code").click()
    for language in ("Python", "openai"):
        page.get_by_role("button", name=language, exact=True).click()
        script = tmp_path / f"with_{language}.py"
        script.write_text(page.locator(".code pre").inner_text())
        ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, ran.stderr
        # The openai client gets a text's log-probability, which its snippet doesn't print.
        shown = "perplexity" if name == "perplexity" else re.findall(r"\w+", answer)[0]
        assert (shown if name != "perplexity" or language == "Python" else "cat") in ran.stdout
