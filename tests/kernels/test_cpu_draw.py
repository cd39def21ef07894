"""The C++ kernel that draws tokens: `sample_reference`'s draws, one thread or several, alone and among other rows."""

import shutil
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroshot_kernels.cpu.draw import draw as draw_and_check
from zeroshot_kernels.sampling.reference import Adjustment, adjust_reference, filter_candidates, sample_reference

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")

NO_FILTERS = (None, None, None)


def draw(logits, *arguments, adjustments=None, typical_ps=None):
    token_ids, are_finite = draw_and_check(logits, adjustments, *arguments, typical_ps=typical_ps)
    assert are_finite.tolist() == logits.isfinite().all(1).tolist()
    return token_ids


def keys(num_rows, seed):
    """Seeds, choices, positions."""
    generator = torch.Generator().manual_seed(seed)
    ranges = ((0, 2**63 - 1), (0, 128), (1, 1024))
    return [torch.randint(*bounds, (num_rows,), generator=generator) for bounds in ranges]


def filters(num_rows, *, top_k=0, top_p=1.0, min_p=0.0):
    return torch.full((num_rows,), top_k), torch.full((num_rows,), top_p), torch.full((num_rows,), min_p)


def reference(logits, temperatures, top_ks, top_ps, min_ps, *drawn, typical_ps=None):
    if top_ks is None:
        top_ks, top_ps, min_ps = filters(len(logits))
    if typical_ps is None:
        typical_ps = torch.ones(len(logits))
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "choice", "position")
    columns = (column.tolist() for column in (temperatures, top_ks, top_ps, min_ps, typical_ps, *drawn))
    return [
        sample_reference(row, **dict(zip(names, values, strict=True)))
        for row, *values in zip(logits, *columns, strict=True)
    ]


@pytest.mark.parametrize("vocab_size", [1, 5, 8, 17, 1000, 4095, 4096, 4097, 50257])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 10.0, 1000.0])
def test_it_draws_what_the_reference_draws(vocab_size, spread):
    """Also of rows with a gap between them, as the LM head leaves it."""
    num_rows = 8
    generator = torch.Generator().manual_seed(vocab_size)
    logits = spread * torch.randn(num_rows, vocab_size + 3, generator=generator)[:, :vocab_size]
    temperatures = torch.tensor([1e-30, 0.01, 0.5, 1.0, 1.0, 2.0, 1e6, 0.0])
    drawn = keys(num_rows, seed=vocab_size)
    found = draw(logits, temperatures, *NO_FILTERS, *drawn)
    assert found.tolist() == reference(logits, temperatures, *NO_FILTERS, *drawn)
    alone = [
        draw(logits[i : i + 1], temperatures[i : i + 1], *NO_FILTERS, *(key[i : i + 1] for key in drawn))
        for i in range(num_rows)
    ]
    assert torch.cat(alone).tolist() == found.tolist()


FILTERS = [
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 3500},
    {"top_k": 49_000},
    {"top_k": 2**31},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 1e-9},
    {"top_p": 0.0},
    {"min_p": 1e-3},
    {"min_p": 0.5},
    {"min_p": 1.0},
    {"top_k": 100, "top_p": 0.7, "min_p": 0.01},
]


def rows_of_every_kind(vocab_size, spreads):
    """Logits and temperatures, two rows for each spread: flat, steep, and with tokens that are forbidden."""
    num_rows, generator = 2 * len(spreads), torch.Generator().manual_seed(vocab_size)
    numbers = torch.randn(num_rows, vocab_size + 5, generator=generator)[:, :vocab_size]
    logits = torch.tensor(spreads).repeat(2)[:, None] * numbers
    logits[1, 1::2] = logits[2, 1:] = -torch.inf
    return logits, torch.tensor([1.0, 0.3, 2.0]).repeat(num_rows // 3)


@pytest.mark.parametrize("vocab_size", [1, 17, 1000, 50257])
@pytest.mark.parametrize("filters_on", FILTERS, ids=str)
def test_filters_leave_what_the_reference_leaves(vocab_size, filters_on):
    """Rows with filters beside rows without."""
    logits, temperatures = rows_of_every_kind(vocab_size, [0.01, 0.3, 1.0, 3.0, 10.0, 300.0])
    num_rows = len(logits)
    on = filters(num_rows, **filters_on)
    for values, off in zip(on, (0, 1.0, 0.0), strict=True):
        values[[3, 8]] = off
    drawn = keys(num_rows, seed=vocab_size)
    assert draw(logits, temperatures, *on, *drawn).tolist() == reference(logits, temperatures, *on, *drawn)


@pytest.mark.parametrize("vocab_size", [1, 17, 1000, 50257])
@pytest.mark.parametrize("typical_p", [1e-9, 0.2, 0.9, 0.999])
@pytest.mark.parametrize("others", [None, {}, {"top_k": 40}, {"top_p": 0.9}, {"top_p": 1e-9}, {"min_p": 0.01}], ids=str)
def test_typical_decoding_leaves_what_the_reference_leaves(vocab_size, typical_p, others):
    """Of what the other filters leave. One row in three is drawn without."""
    logits, temperatures = rows_of_every_kind(vocab_size, [0.3, 1.0, 3.0, 10.0, 300.0, 2.0, 0.5, 1.5, 30.0])
    num_rows = len(logits)
    on = NO_FILTERS if others is None else filters(num_rows, **others)
    typical_ps = torch.full((num_rows,), typical_p)
    typical_ps[2::3] = 1.0
    drawn = keys(num_rows, seed=vocab_size)
    found = draw(logits, temperatures, *on, *drawn, typical_ps=typical_ps).tolist()
    assert found == reference(logits, temperatures, *on, *drawn, typical_ps=typical_ps)


@pytest.mark.parametrize("filters_on", FILTERS, ids=str)
def test_filters_leave_what_the_reference_leaves_of_a_vocabulary_that_is_mostly_one_tie(filters_on):
    num_rows, vocab_size = 8, 50257
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_rows, vocab_size, generator=generator)
    logits[:, torch.randperm(vocab_size, generator=generator)[:30_000]] = -2.5
    temperatures = torch.tensor([0.3, 1.0, 2.0, 100.0]).repeat(2)
    on, drawn = filters(num_rows, **filters_on), keys(num_rows, seed=1)
    assert draw(logits, temperatures, *on, *drawn).tolist() == reference(logits, temperatures, *on, *drawn)


@settings(max_examples=200)
@given(
    values=st.lists(st.integers(-12, 12), min_size=1, max_size=120),
    top_k=st.integers(0, 130),
    top_p=st.one_of(st.just(1.0), st.floats(0.0, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
    temperature=st.sampled_from([0.125, 0.5, 1.0, 4.0, 16.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_draw_is_of_a_token_that_is_kept(values, top_k, top_p, min_p, temperature, seed):
    """Of many that tie: top-k keeps all that tie with the last one, top-p the first ones."""
    logits = torch.tensor(values) / 4
    scaled = (logits - logits.max()) / temperature
    order = scaled.sort(descending=True, stable=True)
    kth = order.values[:top_k][-1] if top_k else -torch.inf
    likely = order.values.double().exp() * (order.values >= kth)
    before = (likely.cumsum(0) - likely) / likely.sum()
    assume(top_p == 1.0 or float((before - top_p).abs().min()) > 1e-6)
    assume(min_p == 0.0 or float((order.values.double().exp() - min_p).abs().min()) > 1e-6)
    is_kept = (order.values >= kth) & ((before < top_p) | (top_p == 1.0)) & (order.values.double().exp() >= min_p)
    is_kept[0] = True
    num_draws = 64
    positions = torch.arange(1, num_draws + 1)
    same = torch.zeros(num_draws, dtype=torch.int64)
    found = draw(
        logits.expand(num_draws, -1).contiguous(),
        torch.full((num_draws,), temperature),
        *filters(num_draws, top_k=top_k, top_p=top_p, min_p=min_p),
        same + seed,
        same,
        positions,
    )
    assert {*found.tolist()} <= {*order.indices[is_kept].tolist()}


def test_threads_make_no_difference():
    logits, temperatures, drawn = torch.randn(4, 50257), torch.ones(4), keys(4, seed=1)
    on = (torch.tensor([0, 40, 0, 0]), torch.tensor([1.0, 0.95, 0.9, 1.0]), torch.tensor([0.0, 0.0, 0.0, 0.1]))
    num_threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(draw(logits, temperatures, *on, *drawn).tolist())
    torch.set_num_threads(num_threads)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("filters_on", [{}, {"top_k": 10}, {"top_p": 0.8}, {"min_p": 0.1}], ids=str)
def test_draws_have_the_frequencies_of_the_filtered_softmax(filters_on):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    num_draws, logits = 20_000, torch.linspace(-3, 3, 40)[order]
    kept = filter_candidates(logits / 1.3, **{"top_k": 0, "top_p": 1.0, "min_p": 0.0} | filters_on)
    positions = torch.arange(1, num_draws + 1)
    same = torch.zeros(num_draws, dtype=torch.int64)
    found = draw(
        logits.expand(num_draws, -1).contiguous(),
        torch.full((num_draws,), 1.3),
        *filters(num_draws, **filters_on),
        same + 5,
        same,
        positions,
    )
    counts = Counter(found.tolist())
    assert {*counts} <= {*kept.tolist()}
    expected = num_draws * (logits[kept].double() / 1.3).softmax(0)
    counts = torch.tensor([counts[token] for token in kept.tolist()])
    chi_square, degrees = float(((counts - expected) ** 2 / expected).sum()), len(kept) - 1
    spread = 2 / (9 * degrees)  # Wilson and Hilferty 1931
    assert chi_square < degrees * (1 - spread + 3.72 * spread**0.5) ** 3, (
        "one in ten thousand of right samplers is above"
    )


@pytest.mark.parametrize("place", [0, 500, 4999])
@pytest.mark.parametrize("filters_on", [{}, {"top_k": 10}, {"top_p": 0.8}], ids=str)
def test_rows_without_a_softmax_get_no_token(filters_on, place):
    logits = torch.randn(5, 5000)
    logits[0, place], logits[1, place], logits[2, place] = torch.nan, torch.inf, -torch.inf
    logits[3] = -torch.inf
    found = draw(logits, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), *filters(5, **filters_on), *keys(5, seed=2))
    assert found[[0, 1, 3]].tolist() == [-1, -1, -1]
    assert found[[2, 4]].min() >= 0


# Adjustments


def adjusted(logits, adjustments):
    """Copies, by the reference."""
    copies = logits.clone()
    for row, adjustment in zip(copies, adjustments, strict=True):
        if adjustment is not None:
            adjust_reference(row, adjustment)
    return copies


def adjustment(rng, vocab_size):
    """Each part of one with a chance of a half."""

    def tokens(most):
        return torch.randint(vocab_size, (int(torch.randint(1, most, (1,), generator=rng)),), generator=rng).tolist()

    def half():
        return bool(torch.rand(1, generator=rng) < 0.5)

    def number(low, high):
        return low + (high - low) * float(torch.rand(1, generator=rng))

    token_ids = tokens(300) if half() else []
    return Adjustment(
        logit_bias={token: number(-8, 8) for token in tokens(40)} if half() else {},
        token_ids=token_ids,
        num_prompt_tokens=int(torch.randint(len(token_ids) + 1, (1,), generator=rng)),
        repetition_penalty=number(0.5, 2) if half() else 1.0,
        presence_penalty=number(-2, 2) if half() else 0.0,
        frequency_penalty=number(-2, 2) if half() else 0.0,
        forbidden_ids=[*tokens(10), -1, vocab_size] if half() else (),
        is_allowed=(torch.rand(vocab_size, generator=rng) < 0.7).numpy() if half() else None,
    )


@pytest.mark.parametrize("vocab_size", [50, 300, 4096, 50257])
@pytest.mark.parametrize("seed", range(8))
def test_rows_are_adjusted_as_the_reference_adjusts_them(vocab_size, seed):
    """Some of them, with filters and without, greedy and not; the logits stay as they are."""
    num_rows = 10
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_rows, vocab_size + 3, generator=rng)[:, :vocab_size]
    adjustments = [None if row % 5 == 2 else adjustment(rng, vocab_size) for row in range(num_rows)]
    temperatures = torch.tensor([0.0, 0.3, 1.0, 1.0, 2.0]).repeat(2)
    on = filters(num_rows)
    on[0][3:6], on[1][6:8] = 20, 0.7
    drawn, before = keys(num_rows, seed), logits.clone()
    found = draw(logits, temperatures, *on, *drawn, adjustments=adjustments)
    assert found.tolist() == reference(adjusted(logits, adjustments), temperatures, *on, *drawn)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("part", ["logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_each_part_changes_a_logit_as_the_reference_changes_it(part):
    """But for rounding: the token that is drawn shows which of two logits is larger, and they are close."""
    token_ids = [1, 2, 2, 3, 1, 1, 2]
    value = {1: 0.7} if part == "logit_bias" else 0.7
    adjustments = [Adjustment(token_ids=token_ids, num_prompt_tokens=4, **{part: value})] * 41
    values = torch.linspace(-5, 5, 41)
    rows = torch.full((len(values), 6), -100.0)
    rows[:, 1] = values
    expected = adjusted(rows, adjustments)[:, 1]
    for sign, winner in ((1, 5), (-1, 1)):
        rows[:, 5] = expected + sign * 2e-6
        temperatures, found_keys = torch.zeros(len(rows)), keys(len(rows), 0)
        found = draw(rows, temperatures, *NO_FILTERS, *found_keys, adjustments=adjustments)
        assert found.tolist() == [winner] * len(rows)


def test_a_row_that_is_not_finite_before_it_is_adjusted_is_found():
    logits = torch.randn(4, 5000)
    logits[0, 4000], logits[1, 3], logits[2, 7] = torch.nan, torch.inf, -torch.inf
    adjustments = [Adjustment(forbidden_ids=(4000, 3, 7))] * 4
    found = draw(logits, torch.ones(4), *NO_FILTERS, *keys(4, seed=1), adjustments=adjustments)  # checks `are_finite`
    assert found.min() >= 0
