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
    draft = engine.scheduler.guessing.guess
    engine.add_request(request_of("a", [1, 2, 3], max_tokens=60, ignore_eos=True))
    for _ in range(5):
        step(engine, results)
        token_ids = [1, 2, 3, *results["a", 0].token_ids]
        if len(token_ids) > 4:
            assert draft._read == token_ids[:-1]
    engine.abort("a")
    assert len(token_ids) == 4 + 4 * 5


def test_a_draft_of_fewer_positions_guesses_up_to_the_last_of_them(engines, run, request_of, caplog):  # noqa: F811
    """Its last guess stands behind them: drawn, never run."""
    engine = engines["another"]
    num_positions = engine.scheduler.guessing.guess._num_positions
    for num_tokens in range(num_positions - 9, num_positions + 1):  # any of its guesses' tokens may be the last
        run(engine, request_of("a", [1] * num_tokens, max_tokens=20, ignore_eos=True))
    assert "the draft model failed" not in caplog.text
    assert not engine.scheduler.guessing.guess._has_failed
