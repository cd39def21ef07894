"""Tokens drawn before a grammar's mask is computed are those drawn under it, and few masks are computed."""

import shutil
from dataclasses import replace

import pytest

from tests.conftest import DEMO
from zeroshot.engine.guide import Guide
from zeroshot.errors import InvalidRequest
from zeroshot.types import Grammar

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")

PROMPT = [464, 2106, 286]
WORDS = Grammar(kind="regex", source="( [a-z]+){40,}", field="regex")
JSON = Grammar(
    kind="json_schema",
    source='{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, '
    '"required": ["name", "age"], "additionalProperties": false}',
    field="schema",
)
ASKED = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.8, "logprobs": 2},
    {"temperature": 1.0, "repetition_penalty": 1.3, "logit_bias": {262: 5.0}},
    {"temperature": 1.0, "min_tokens": 20},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "typical_p": 0.9},
]


@pytest.fixture(scope="module")
def engine(load_engine):
    return load_engine(DEMO)


@pytest.fixture
def num_masks(monkeypatch):
    """[how many have been computed]."""
    counted, compute_mask = [0], Guide.compute_mask

    def count(guide):
        counted[0] += 1
        compute_mask(guide)

    monkeypatch.setattr(Guide, "compute_mask", count)
    return counted


def requests(request_of, grammar):
    return [
        request_of(str(i), PROMPT, max_tokens=30, seed=i, grammar=grammar, **params) for i, params in enumerate(ASKED)
    ]


@pytest.mark.parametrize("grammar", [WORDS, JSON], ids=lambda grammar: grammar.kind)
def test_the_tokens_are_those_drawn_under_the_mask(engine, run, request_of, monkeypatch, grammar):
    together = run(engine, *requests(request_of, grammar))
    alone = {}
    for request in requests(request_of, grammar):
        alone |= run(engine, request)
    backend = engine.model.backend
    monkeypatch.setattr(engine.model, "backend", replace(backend, sampling_kernels=None))
    masked = run(engine, *requests(request_of, grammar))
    for key, result in masked.items():
        assert together[key].token_ids == alone[key].token_ids == result.token_ids, key
        assert together[key].finish_reason == result.finish_reason


def test_where_most_tokens_may_come_few_masks_are_computed(engine, run, request_of, num_masks):
    result = run(engine, request_of("a", PROMPT, max_tokens=60, temperature=0.0, grammar=WORDS))["a", 0]
    assert len(result.token_ids) == 60
    assert num_masks[0] < 20
    run(engine, request_of("b", PROMPT, max_tokens=60, temperature=1.0, top_k=5, grammar=WORDS))
    assert num_masks[0] > 60


def test_a_grammar_that_becomes_too_large_after_the_draw_ends_that_request_alone(engine, run, request_of, monkeypatch):
    compute_mask, allows = Guide.compute_mask, Guide.allows

    def refuse_some(guide):
        if guide.is_open and guide._grammar.field == "large":
            raise InvalidRequest("too large to follow", field="large")
        compute_mask(guide)

    monkeypatch.setattr(Guide, "compute_mask", refuse_some)
    monkeypatch.setattr(
        Guide, "allows", lambda guide, token_id: guide._grammar.field != "large" and allows(guide, token_id)
    )
    large = Grammar(kind=WORDS.kind, source=WORDS.source, field="large")
    results = run(
        engine,
        request_of("a", PROMPT, max_tokens=10, temperature=1.0, grammar=large),
        request_of("b", PROMPT, max_tokens=10, temperature=1.0, grammar=WORDS),
    )
    assert (results["a", 0].finish_reason, results["a", 0].error_code) == ("error", "invalid_request")
    assert len(results["b", 0].token_ids) == 10
