# ruff: noqa: N803
"""Gumbel noise of tokens by a counter-based generator: `uniform_noise` of the reference, bit for bit.

Philox-4x64-10 (Salmon et al. 2011) of (seed, choice, position, token): the same in any batch, tile and step.
"""

import triton
import triton.language as tl


@triton.jit
def gumbel_noise(first_tokens, seeds, choices, positions, WIDTH: tl.constexpr):
    """[M, WIDTH] float32: -log(-log(1 - u)) for tokens first_tokens[m] + (0 .. WIDTH - 1); all arguments are [M].

    A counter of Philox gives eight tokens their numbers; first_tokens and WIDTH must be multiples of 8.
    """
    counters = (first_tokens // 8 + 1)[:, None] + tl.arange(0, WIDTH // 8)[None, :]
    nothing = tl.zeros(counters.shape, tl.uint64)
    w0, w1, w2, w3 = _philox_4x64_10(
        counters.to(tl.uint64),
        nothing,
        nothing,
        positions.to(tl.uint64)[:, None] + nothing,
        seeds.to(tl.uint64)[:, None] + nothing,
        choices.to(tl.uint64)[:, None] + nothing,
    )
    # Token t has half t % 2 of word t % 8 // 2. Joining adds a last axis: words' high bit, words' low bit, half.
    low = tl.join(tl.join(_low(w0), _low(w2)), tl.join(_low(w1), _low(w3)))
    high = tl.join(tl.join(_high(w0), _high(w2)), tl.join(_high(w1), _high(w3)))
    halves = tl.reshape(tl.join(low, high), [counters.shape[0], WIDTH])
    u = tl.minimum((halves.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 1 - 5.9604644775390625e-08)
    # log1p(-u) = log(w) * -u / (w - 1) with w = 1 - u as rounded (Goldberg 1991, theorem 4).
    w = 1.0 - u
    exponential = tl.where(w == 1.0, u, tl.log(w) * (u / tl.where(w == 1.0, 1.0, w - 1.0)))
    return -tl.log(exponential)


@triton.jit
def _low(words):
    return (words & 0xFFFFFFFF).to(tl.uint32)


@triton.jit
def _high(words):
    return (words >> 32).to(tl.uint32)


@triton.jit
def _philox_4x64_10(x0, x1, x2, x3, k0, k1):
    """Salmon et al. 2011, table 2 and figure 4: ten rounds over four 64-bit words."""
    m0 = tl.full(x0.shape, 0xD2E7470EE14C6C93, tl.uint64)
    m1 = tl.full(x0.shape, 0xCA5A826395121157, tl.uint64)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(x0, m0), x0 * m0
        high1, low1 = tl.umulhi(x2, m1), x2 * m1
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0 += tl.full(x0.shape, 0x9E3779B97F4A7C15, tl.uint64)
        k1 += tl.full(x0.shape, 0xBB67AE8584CAA73B, tl.uint64)
    return x0, x1, x2, x3
