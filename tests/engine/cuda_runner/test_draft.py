"""The tests of `tests/engine/test_draft.py` that run a whole engine once more, on the CUDA runner."""

import pytest

from tests.engine.test_draft import (  # noqa: F401
    drafts,
    engines,
    plain,
    small,
    test_a_draft_that_fails_is_left_alone,
    test_a_draft_that_is_another_model_is_sometimes_wrong,
    test_a_draft_that_is_the_model_is_always_right,
    test_an_aborted_stream_leaves_nothing_behind,
    test_the_outputs_are_those_without,
)


@pytest.fixture(scope="module")
def dtype():
    return "fp32"


def test_all_that_it_has_guessed_it_has_read(engines, step, request_of):  # noqa: F811
    """A guess that holds as a whole leaves it one new token, which a recorded step reads."""
    engine, results = engines["itself"], {}
    draft = engine.scheduler.guess
    engine.add_request(request_of("a", [1, 2, 3], max_tokens=60, ignore_eos=True))
    for _ in range(5):
        step(engine, results)
        token_ids = [1, 2, 3, *results["a", 0].token_ids]
        if len(token_ids) > 4:
            assert draft._read == token_ids[:-1]
    engine.abort("a")
    assert len(token_ids) == 4 + 4 * 5
