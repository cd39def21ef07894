"""The prompt files of this repository: each answers its own example, in the wording it promises."""

import re
from pathlib import Path
from typing import Any

import pytest

from zeroshot.errors import PromptFileError
from zeroshot.tasks import checks
from zeroshot.tasks.schema import example_request

DOCS = Path(__file__).parents[3] / "docs" / "tasks.md"

TASKS = [
    *("answer", "character", "choose", "classify", "cloze", "complete", "coreference", "perplexity"),
    *("read", "sentiment", "summarize", "title", "topic", "translate"),
]

# A model is trained on exactly these.
WORDINGS = {
    "translate": "translate {source} to {target}: {text} =",
    "summarize": "{text}\nTL;DR:",
    "answer": "Q: {question}\nA:",
    "complete": "{text}",
    "sentiment": "Review: {text}\nSentiment:",
}


def test_the_list_is_complete(bundled: Any) -> None:
    assert [task.name for task in bundled.catalog.tasks] == TASKS


def test_wordings(bundled: Any) -> None:
    for name, template in WORDINGS.items():
        assert bundled.catalog.get(name).file.template == template
    answer = bundled.catalog.get("answer").file.wordings["default"].compiled.render({"question": "Who?"}).text
    assert answer == (
        "Q: What is the capital of Italy?\nA: Rome\nQ: How many legs does a spider have?\nA: eight\n"
        "Q: Who wrote Hamlet?\nA: William Shakespeare\nQ: Who?\nA:"
    )


@pytest.mark.parametrize("name", TASKS)
def test_each_example_runs_and_fits_its_response_model(bundled: Any, name: str) -> None:
    task = bundled.catalog.get(name)
    assert task.file.summary
    assert task.file.paper
    assert all(field.description for field in task.file.inputs.values())
    body = {**(example_request(task.file) or {}), "explain": True}
    response = bundled.post(f"/tasks/{name}", body)
    assert response.status_code == 200, response.text
    answer = response.json()
    task.response_model.model_validate(answer)
    assert answer["usage"]["prompt_tokens"] > 0
    if task.file.output.kind in ("label", "choice"):
        shares = [score["probability"] for score in answer["scores"]]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert answer["output"] == answer["scores"][0]["label"]
        assert answer["calibration"] == task.file.output.calibration


def test_translate_in_the_papers_own_wording(bundled: Any) -> None:
    body = {"text": "I am hungry.", "style": "pairs", "pairs": ["Danke. = Thanks.", "Hallo. = Hello."], "explain": True}
    answer = bundled.post("/tasks/translate", body).json()
    assert answer["explain"]["prompt"] == "Danke. = Thanks.\nHallo. = Hello.\nI am hungry. ="


def test_the_examples_of_the_documentation() -> None:
    text = DOCS.read_text(encoding="utf-8")
    files = re.findall(r"```yaml\n(# prompts/.*?)```", text, flags=re.DOTALL)
    assert len(files) >= 2
    for content in files:
        checks.parse("docs.yaml", content.encode())
    broken = files[0].replace("{text}", "{txt}").encode()
    with pytest.raises(PromptFileError) as raised:
        checks.parse("mood.yaml", broken)
    assert raised.value.message in text
