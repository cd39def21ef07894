"""The tests of `tests/engine/test_generation.py` once more, on the GPU."""

from tests.engine.test_generation import *  # noqa: F403

# Blocks of 1 and 3 tokens: kernels take multiples of 16.
del test_with_a_cached_prefix, test_two_threads, test_max_tokens_zero_runs_the_prompt_only  # noqa: F821
