"""The tests of `tests/engine/test_faults.py` once more, on the CUDA runner."""

from tests.engine.test_faults import *  # noqa: F403
from tests.engine.test_faults import free_blocks, tokens_of

# These count steps, and take one for one token.
del test_abort_in_every_phase_gives_the_blocks_back_at_once  # noqa: F821
del test_abort_of_one_choice_leaves_the_others  # noqa: F821
# This model's keys and values are in fp32.
del test_the_log_says_that_keys_and_values_may_be_too_large  # noqa: F821


def test_abort_in_every_phase_gives_the_blocks_back(small, load_engine, prompts_of, step, request_of):
    engine = load_engine(small.folder, max_num_batched_tokens=16, max_num_seqs=4)
    total = free_blocks(engine)
    (prompt,) = prompts_of(9, [60])
    for num_steps in (0, 1, 3, 4, 6, 8):  # waiting, first chunk, last chunk but one, first token, decoding ahead
        engine.add_request(request_of("a", prompt, max_tokens=60, ignore_eos=True))
        for _ in range(num_steps):
            step(engine, {})
        assert (free_blocks(engine) < total) == (num_steps > 0)
        engine.abort("a")
        assert free_blocks(engine) == total
        assert not engine.has_work
        assert engine.step() == []


def test_abort_of_one_choice_leaves_the_other_choices(small, load_engine, prompts_of, step, drain, run, request_of):
    (prompt,) = prompts_of(10, [20])
    request = request_of("a", prompt, n=3, max_tokens=60, temperature=1.0, ignore_eos=True)
    expected = tokens_of(run(load_engine(small.folder), request))
    engine, results = load_engine(small.folder), {}
    engine.add_request(request)
    for _ in range(4):
        step(engine, results)
    engine.abort("a", 1)
    drain(engine, results)
    assert results["a", 1].finish_reason is None
    assert 0 < len(results["a", 1].token_ids) < 60
    for key in (("a", 0), ("a", 2)):
        assert results[key].token_ids == expected[key]
