"""What a run takes from the model's manifest, and which evaluations it selects."""

import json
from pathlib import Path

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.runner import Options, check, tasks_shown_in_training


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
