# ruff: noqa: N803
"""Top-k, top-p and min-p of one row, unsorted: is a token among those that are kept, and which is the best of them?

The order of tokens, "more likely first, ties by token id", is that of their keys: see `key_of`. How the kept ones are
found without sorting is in `kernel.py`.
"""

import triton
import triton.language as tl

from zeroshot_kernels.sampling.noise_kernel import gumbel_noise

INFINITY_BITS = tl.constexpr(0x7F800000)


@triton.jit
def first_kept(
    logits_row_ptr,  # [vocab_size]
    token,
    top_k,
    mass_limit,
    largest_key,
    row_max,
    temperature,
    seed,
    choice,
    position,
    vocab_size,
    BLOCK_V: tl.constexpr,
):
    """The best of the kept tokens, tried from `token`, the best of all, on.

    A token is kept if fewer than top_k are more likely, those before it weigh less than mass_limit (or none is before
    it), and its key is at most largest_key."""
    is_kept = False
    while not is_kept:
        pivot_key = key_of(tl.load(logits_row_ptr + token), row_max, temperature)
        # Each column adds up its own, and they meet once, after the loop: in the loop no warp waits for another.
        before = tl.zeros([BLOCK_V], tl.int32)
        more_likely = tl.zeros([BLOCK_V], tl.int32)
        masses = tl.zeros([BLOCK_V], tl.float32)
        for start in tl.range(0, vocab_size, BLOCK_V, num_stages=3):
            offs_v = start + tl.arange(0, BLOCK_V)
            logits = tl.load(logits_row_ptr + offs_v, mask=offs_v < vocab_size, other=float("-inf"))
            keys = key_of(logits, row_max, temperature)
            is_before = (keys < pivot_key) | ((keys == pivot_key) & (offs_v < token))
            before += is_before.to(tl.int32)
            more_likely += (keys < pivot_key).to(tl.int32)
            masses += tl.where(is_before, tl.exp(-keys.to(tl.float32, bitcast=True)), 0.0)
        is_kept = (tl.sum(more_likely, axis=0) < top_k) & (tl.sum(masses, axis=0) < mass_limit)
        # The first token always is: even with NaN for a parameter this ends.
        is_kept = (is_kept & (pivot_key <= largest_key)) | (tl.sum(before, axis=0) == 0)
        if not is_kept:
            best_scores = tl.full([BLOCK_V], float("-inf"), tl.float32)
            best_tokens = tl.zeros([BLOCK_V], tl.int32)
            for start in range(0, vocab_size, BLOCK_V):
                offs_v = start + tl.arange(0, BLOCK_V)
                logits = tl.load(logits_row_ptr + offs_v, mask=offs_v < vocab_size, other=float("-inf"))
                keys = key_of(logits, row_max, temperature)
                is_before = (keys < pivot_key) | ((keys == pivot_key) & (offs_v < token))
                is_before = is_before & (keys <= largest_key)
                if tl.max(is_before.to(tl.int32), axis=0) > 0:
                    one = tl.zeros([1], tl.int64)
                    noise = gumbel_noise(start + one, seed + one, choice + one, position + one, BLOCK_V)
                    scores = -keys.to(tl.float32, bitcast=True) + tl.reshape(noise, [BLOCK_V])
                    scores = tl.where(is_before, scores, float("-inf"))
                    best_tokens = tl.where(scores > best_scores, offs_v, best_tokens)
                    best_scores = tl.maximum(best_scores, scores)
            is_best = best_scores == tl.max(best_scores, axis=0)
            token = tl.min(tl.where(is_best, best_tokens, vocab_size), axis=0)
    return token


@triton.jit
def top_k_mass(
    logits_row_ptr,  # [vocab_size]
    candidates_ptr,  # [CANDIDATES]
    tile_keys,  # [BLOCK_TILES]
    top_k,
    row_max,
    temperature,
    vocab_size,
    BLOCK_V: tl.constexpr,
    CANDIDATES: tl.constexpr,
):
    """A key that exactly the top_k most likely tokens (and what ties with the last) reach, and the sum of their exp(s).

    Among the top_k best tiles each has a token as good as the worst of those maxima: so the k-th best token is."""
    bound = INFINITY_BITS
    low = 0
    while low < bound:
        middle = low + (bound - low) // 2
        if tl.sum((tile_keys <= middle).to(tl.int32), axis=0) >= top_k:
            bound = middle
        else:
            low = middle + 1

    num_candidates = 0
    for start in range(0, vocab_size, BLOCK_V):
        offs_v = start + tl.arange(0, BLOCK_V)
        logits = tl.load(logits_row_ptr + offs_v, mask=offs_v < vocab_size, other=float("-inf"))
        is_candidate = (key_of(logits, row_max, temperature) <= bound) & (offs_v < vocab_size)
        places = num_candidates + tl.cumsum(is_candidate.to(tl.int32), axis=0) - 1
        tl.store(candidates_ptr + places, logits, mask=is_candidate & (places < CANDIDATES))
        num_candidates += tl.sum(is_candidate.to(tl.int32), axis=0)
    tl.debug_barrier()  # other threads read what these have stored
    source_ptr = candidates_ptr
    length = num_candidates
    if num_candidates > CANDIDATES:
        source_ptr = logits_row_ptr
        length = vocab_size

    low = 0
    num_kept = num_candidates
    mass = 0.0
    while (low < bound) & (num_kept != top_k):
        middle = low + (bound - low) // 2
        num_reached, _ = _count_reached(source_ptr, length, middle, row_max, temperature, BLOCK_V)
        if num_reached >= top_k:
            bound = middle
            num_kept = num_reached
        else:
            low = middle + 1
    _, mass = _count_reached(source_ptr, length, bound, row_max, temperature, BLOCK_V)
    return bound, mass


@triton.jit
def _count_reached(source_ptr, length, key, row_max, temperature, BLOCK_V: tl.constexpr):
    """How many of the `length` logits have at most this key, and the sum of their exp(s)."""
    reached = tl.zeros([BLOCK_V], tl.int32)
    masses = tl.zeros([BLOCK_V], tl.float32)
    for start in tl.range(0, length, BLOCK_V, num_stages=3):
        offs = start + tl.arange(0, BLOCK_V)
        keys = key_of(tl.load(source_ptr + offs, mask=offs < length, other=0.0), row_max, temperature)
        is_reached = (keys <= key) & (offs < length)
        reached += is_reached.to(tl.int32)
        masses += tl.where(is_reached, tl.exp(-keys.to(tl.float32, bitcast=True)), 0.0)
    return tl.sum(reached, axis=0), tl.sum(masses, axis=0)


@triton.jit
def key_of(logits, row_max, temperature):
    """The bits of -s = (max - z) / temperature as an integer: floats >= 0 are in the order of their bits. 0 is best."""
    distances = tl.abs(logits - row_max)
    return tl.div_rn(distances, tl.zeros_like(distances) + temperature).to(tl.int32, bitcast=True)
