"""What a run takes from the model's manifest, and which evaluations it selects."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from zeroshot.errors import EngineUnavailable, InvalidRequest
from zeroshot.evaluation import runner
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.runner import Options, check, evaluate_over_http, tasks_shown_in_training


def test_tasks_that_a_manifest_says_were_shown(tmp_path):
    sources = [{"name": "a", "shows": "translation"}, {"name": "b", "shows": "completion, summaries"}]
    for manifest in (
        {"sources": sources},
        {"main": {"seed": 0, "sources": sources[:1]}, "final": {"sources": sources}},
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert tasks_shown_in_training(tmp_path) == {"translation", "completion", "summaries"}


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"sources": [{"name": "a"}]}', '{"sources": 3}'])
def test_without_a_manifest_nothing_is_known(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert tasks_shown_in_training(tmp_path) is None


def test_selection_keeps_the_order_of_the_registry(tmp_path):
    assert check(Options(tmp_path)) == list(ALL)
    assert [evaluation.name for evaluation in check(Options(tmp_path, ["lambada", "ptb"]))] == ["ptb", "lambada"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["lambda"]}, "There is no evaluation 'lambda'. There are: wikitext2,"),
        ({"limit": 0}, "limit"),
        ({"stride": 0}, "stride"),
        ({"data": Path("nowhere")}, "nowhere is not a folder"),
    ],
)
def test_options_that_cannot_be_right(tmp_path, change, message):
    with pytest.raises(InvalidRequest, match=message):
        check(Options(**({"data": tmp_path} | change)))


def test_an_engine_that_does_not_come_back_leaves_what_was_measured(scripted, write_jsonl, monkeypatch):
    """Of hours of results, nothing may be lost with the evaluation that it left."""
    write_jsonl("sst2_test.jsonl", [{"text": "Fine.", "label": 1}])
    folder = write_jsonl("nq_open_dev.jsonl", [{"question": "Who?", "answer": ["x"]}])

    def answer(name, body):
        if name == "sentiment":
            raise EngineUnavailable("The engine was not ready after 600 s.")
        return "x"

    @asynccontextmanager
    async def opened(url):
        yield scripted(answer)

    monkeypatch.setattr(runner, "over_http", opened)
    names = ["natural-questions", "sst2"]
    report = asyncio.run(evaluate_over_http("", Options(folder, names), lambda *_: None))
    outcomes = {outcome.name: outcome for outcome in report.outcomes}
    assert outcomes["natural-questions"].rows[0].value == 100
    assert (outcomes["sst2"].status, outcomes["sst2"].reason) == ("failed", "The engine was not ready after 600 s.")
    assert not report.is_success
