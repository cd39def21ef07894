"""A pinned prompt stays in the prefix cache while other prompts come and go."""

from collections.abc import Callable
from typing import Any

import pytest

from zeroshot.engine.engine import Engine
from zeroshot.types import GenerateRequest, SamplingParams

BLOCK_SIZE, NUM_BLOCKS = 4, 32
PINNED = list(range(10, 22))


@pytest.fixture
def engine(checkpoint: Callable[..., Any], load_engine: Callable[..., Engine]) -> Engine:
    return load_engine(
        checkpoint().folder,
        kv_block_size=BLOCK_SIZE,
        kv_cache_tokens=BLOCK_SIZE * NUM_BLOCKS,
        max_num_seqs=2,
    )


def run(
    engine: Engine, prompt: list[int], *, pin_prompt: bool = False, max_tokens: int = 0, cache_salt: bytes = b""
) -> int:
    """Cached tokens that the request found."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    engine.add_request(
        GenerateRequest(
            request_id="one",
            prompt_token_ids=prompt,
            sampling_params=params,
            pin_prompt=pin_prompt,
            cache_salt=cache_salt,
        )
    )
    found = 0
    while engine.has_work:
        found = max([found, *(output.num_cached_tokens for output in engine.step())])
    assert engine.stats().num_free_kv_blocks == engine.stats().num_kv_blocks == NUM_BLOCKS
    return found


def fill_the_cache(engine: Engine, first_token: int = 30) -> None:
    for number in range(10):
        run(engine, [first_token + number] * 24)


def test_without_a_pin_other_prompts_push_it_out(engine: Engine) -> None:
    run(engine, PINNED)
    fill_the_cache(engine)
    assert run(engine, [*PINNED, 1]) == 0


def test_a_pinned_prompt_stays(engine: Engine) -> None:
    run(engine, PINNED, pin_prompt=True)
    fill_the_cache(engine)
    assert run(engine, [*PINNED, 1]) == len(PINNED)


def test_a_prompt_that_was_there_before_its_pin_stays(engine: Engine) -> None:
    run(engine, PINNED)
    run(engine, PINNED, pin_prompt=True)
    fill_the_cache(engine)
    assert run(engine, [*PINNED, 1]) == len(PINNED)


def test_a_request_that_needs_every_block_gets_them(engine: Engine) -> None:
    run(engine, PINNED, pin_prompt=True)
    run(engine, [5] * 100, max_tokens=28)
    assert run(engine, [*PINNED, 1]) == 0


def test_pins_beyond_a_quarter_of_the_cache_lapse_oldest_first(engine: Engine) -> None:
    prompts = [[100 + number] * 12 for number in range(4)]  # 3 blocks each; 8 blocks may be pinned
    for prompt in prompts:
        run(engine, prompt, pin_prompt=True)
    fill_the_cache(engine)
    found = [run(engine, [*prompt, 1]) for prompt in prompts]
    assert found[0] == 0
    assert found[2:] == [12, 12]


# A salt for each tenant


def test_other_salts_find_nothing_not_even_what_was_generated(engine: Engine) -> None:
    prompt = list(range(40, 60))
    assert run(engine, prompt, max_tokens=8, cache_salt=b"a" * 16) == 0
    assert run(engine, prompt, max_tokens=8, cache_salt=b"a" * 16) == 16
    for salt in (b"b" * 16, b""):
        assert run(engine, prompt, max_tokens=8, cache_salt=salt) == 0
        assert run(engine, prompt, max_tokens=8, cache_salt=salt) == 16


def test_a_pinned_prompt_is_everybodys_and_what_follows_it_is_not(engine: Engine) -> None:
    run(engine, PINNED, pin_prompt=True)
    question = [*PINNED, *range(60, 73)]
    for salt in (b"a" * 16, b"b" * 16):
        assert run(engine, question, cache_salt=salt) == len(PINNED)
        assert run(engine, question, cache_salt=salt) == len(PINNED) + 12
    assert run(engine, question) == len(PINNED)


def test_a_prompt_that_only_begins_like_a_pinned_one_is_private(engine: Engine) -> None:
    run(engine, PINNED, pin_prompt=True)
    prompt = [*PINNED[:8], *range(60, 73)]
    assert run(engine, prompt, cache_salt=b"a" * 16) == 8
    assert run(engine, prompt, cache_salt=b"b" * 16) == 8
    assert run(engine, prompt, cache_salt=b"b" * 16) == 20
