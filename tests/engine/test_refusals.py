"""What the engine refuses when it is asked, and that what it runs then is undisturbed."""

import pytest

from zeroshot.errors import ContextLengthExceeded, InvalidRequest


@pytest.fixture(scope="module")
def engine(checkpoint, load_engine):
    return load_engine(checkpoint().folder)


@pytest.mark.parametrize(
    ("prompt", "params", "error", "field"),
    [
        ([], {}, InvalidRequest, "prompt"),
        ([1] * 128, {"max_tokens": 1}, ContextLengthExceeded, "prompt"),
        ([1] * 129, {"max_tokens": 0}, ContextLengthExceeded, "prompt"),
        ([1], {"max_tokens": 128}, ContextLengthExceeded, "prompt"),
        ([1, 211], {}, InvalidRequest, "prompt"),
        ([-1], {}, InvalidRequest, "prompt"),
        ([1], {"logit_bias": {211: 1.0}}, InvalidRequest, "logit_bias"),
        ([1], {"stop_token_ids": (-1,)}, InvalidRequest, "stop_token_ids"),
        ([1], {"logprobs": 212}, InvalidRequest, "logprobs"),
        ([1], {"prompt_logprobs": 212}, InvalidRequest, "logprobs"),
        ([1], {"seed": 2**63}, InvalidRequest, "seed"),
    ],
)
def test_a_request_that_can_not_run_is_refused(engine, run, request_of, prompt, params, error, field):
    with pytest.raises(error) as raised:
        engine.add_request(request_of("bad", prompt, **params))
    assert raised.value.field == field
    assert not engine.has_work
    assert not engine.is_active("bad")
    assert run(engine, request_of("bad", [1, 2], max_tokens=1))["bad", 0].finish_reason in ("stop", "length")


def test_an_id_in_use_is_refused(engine, request_of, drain):
    engine.add_request(request_of("same", [1, 2], max_tokens=3))
    with pytest.raises(InvalidRequest, match="same"):
        engine.add_request(request_of("same", [3], max_tokens=3))
    assert list(drain(engine)) == [("same", 0)]


def test_exactly_the_context_is_accepted(engine, run, request_of):
    assert len(run(engine, request_of("a", [1] * 100, max_tokens=28, ignore_eos=True))["a", 0].token_ids) == 28
