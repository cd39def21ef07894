"""From logits to a token id: the noise, the filters and the penalties, against independent definitions."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from zeroshot_kernels.sampling.reference import (
    Adjustment,
    adjust_reference,
    filter_candidates,
    sample_reference,
    uniform_noise,
)

NO_FILTER = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def draw(logits, *, temperature=1.0, seed=0, choice=0, position=0, **filters):
    options = NO_FILTER | filters
    return sample_reference(logits, temperature=temperature, seed=seed, choice=choice, position=position, **options)


def hugging_face_filtered(logits, *, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0):
    """[vocab_size] logits with -inf for what Hugging Face's generate would never draw."""
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    if typical_p < 1.0:
        warpers.append(TypicalLogitsWarper(typical_p))
    return warpers(torch.zeros(1, 0, dtype=torch.long), logits[None].clone())[0]


# The noise


def philox_4x64_10(key, counter):
    """Salmon et al. 2011, table 2 and figure 4, on Python's integers: four 64-bit words."""
    mask = 2**64 - 1
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for _ in range(10):
        p0, p2 = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = (p2 >> 64) ^ x1 ^ k0, p2 & mask, (p0 >> 64) ^ x3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x0, x1, x2, x3


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**63 - 1),
    choice=st.integers(0, 127),
    position=st.integers(0, 1023),
    token_id=st.integers(0, 210),
)
def test_noise_is_philox_of_seed_choice_position_and_token(seed, choice, position, token_id):
    words = philox_4x64_10((seed, choice), (token_id // 8 + 1, 0, 0, position))
    half = words[token_id % 8 // 2] >> (32 * (token_id % 2)) & 0xFFFFFFFF
    noise = uniform_noise(seed, choice, position, 211)
    assert float(noise[token_id]) == pytest.approx(min((half + 0.5) / 2**32, 1 - 2**-24), rel=1e-6)


def test_noise_of_a_token_does_not_depend_on_the_size_of_the_vocabulary():
    assert torch.equal(uniform_noise(5, 1, 7, 50257)[:211], uniform_noise(5, 1, 7, 211))


@pytest.mark.parametrize("changed", [{"seed": 6}, {"choice": 2}, {"position": 8}])
def test_noise_changes_with_each_of_its_inputs(changed):
    inputs = {"seed": 5, "choice": 1, "position": 7, "vocab_size": 4096}
    noise, other = uniform_noise(**inputs), uniform_noise(**inputs | changed)
    assert torch.equal(noise, uniform_noise(**inputs))
    assert (noise == other).sum() < 5
    assert abs(float(torch.corrcoef(torch.stack([noise, other]))[0, 1])) < 0.08


def test_noise_is_uniform_on_the_open_interval():
    noise = torch.cat([uniform_noise(seed, 0, seed % 7, 50257) for seed in range(8)])
    assert noise.dtype == torch.float32
    assert noise.min() > 0
    assert noise.max() < 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.0025)  # 5 standard deviations
    assert float(noise.var()) == pytest.approx(1 / 12, abs=0.001)
    counts = torch.histc(noise, bins=64, min=0, max=1)
    assert chi_square(counts, torch.full((64,), 1 / 64)) < chi_square_limit(63)


def test_the_largest_word_stays_below_one():
    """A word that float32 would round up to 1, whose Gumbel noise would be infinite."""
    assert float(uniform_noise(741, 0, 0, 50257)[22777]) == 1 - 2**-24


# The draw


def chi_square(counts, probabilities):
    expected = probabilities.double() * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def chi_square_limit(degrees):
    """Exceeded by chance once in a million (Wilson and Hilferty 1931); the seeds are fixed, so never or always."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 4.75 * math.sqrt(spread)) ** 3


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 8, "top_p": 0.9, "min_p": 0.05},
        {"typical_p": 0.6},
        {"top_k": 10, "top_p": 0.95, "typical_p": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_draws_have_the_frequencies_of_the_filtered_softmax(filters, temperature):
    logits = torch.randn(24, generator=torch.Generator().manual_seed(3)) * 1.5
    probabilities = hugging_face_filtered(logits / temperature, **filters).softmax(-1)
    drawn = [draw(logits, temperature=temperature, seed=11, position=p, **filters) for p in range(4000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=24)
    possible = probabilities > 0
    assert int(counts[~possible].sum()) == 0
    assert possible.sum() > 1
    assert chi_square(counts[possible], probabilities[possible]) < chi_square_limit(int(possible.sum()) - 1)


@pytest.mark.parametrize("filters", [{}, {"top_k": 7}, {"top_p": 0.9}, {"min_p": 0.05}, {"typical_p": 0.7}], ids=str)
def test_a_draw_is_the_best_of_logit_and_noise_of_each_token(filters):
    """Whatever is filtered, a token's noise is that of its id."""
    logits = torch.randn(60, generator=torch.Generator().manual_seed(10))
    allowed = hugging_face_filtered(logits, **filters).double()
    for position in range(100):
        gumbel = -torch.log(-torch.log1p(-uniform_noise(3, 1, position, 60).double()))
        expected = int((allowed + gumbel).argmax())
        assert draw(logits, seed=3, choice=1, position=position, **filters) == expected


def test_draws_over_seeds_and_choices_have_the_same_frequencies():
    logits = torch.tensor([0.0, 1.0, 2.0])
    for drawn in (
        [draw(logits, seed=seed, position=3) for seed in range(3000)],
        [draw(logits, seed=1, choice=choice) for choice in range(3000)],
    ):
        counts = torch.bincount(torch.tensor(drawn), minlength=3)
        assert chi_square(counts, logits.softmax(-1)) < chi_square_limit(2)


@pytest.mark.parametrize(
    "only_the_best",
    [{"temperature": 0.0}, {"temperature": 1e-30}, {"top_k": 1}, {"top_p": 1e-9}, {"top_p": 0.0}, {"min_p": 1.0}],
    ids=str,
)
def test_settings_that_leave_only_the_best_token(only_the_best):
    logits = torch.randn(211, generator=torch.Generator().manual_seed(4))
    assert {draw(logits, position=p, **only_the_best) for p in range(50)} == {int(logits.argmax())}


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"typical_p": 0.5}], ids=str)
@pytest.mark.parametrize("temperature", [5e-324, 1e-60, 1e-45, 1e-30, 1e-4, 1e9, 3e38])
def test_extreme_temperatures_give_a_token(temperature, filters):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(5)) * 30
    drawn = {draw(logits, temperature=temperature, position=p, **filters) for p in range(40)}
    if temperature <= 1e-4:
        assert drawn == {int(logits.argmax())}
    else:
        assert 1 < len(drawn) <= filters.get("top_k", 50)


def test_forbidden_tokens_are_never_drawn():
    logits = torch.randn(30, generator=torch.Generator().manual_seed(6))
    logits[::2] = -torch.inf
    for filters in ({}, {"top_k": 20}, {"top_p": 0.99}, {"min_p": 1e-6}, {"typical_p": 0.9}):
        assert all(draw(logits, position=p, temperature=5.0, **filters) % 2 == 1 for p in range(200))
    logits[1:] = -torch.inf
    logits[0] = -3.0
    assert draw(logits, temperature=2.0) == 0


def test_tokens_that_tie_are_all_drawn():
    logits = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0])
    assert {draw(logits, top_k=1, position=p) for p in range(100)} == {1, 2, 3}
    assert {draw(logits, top_k=2, position=p) for p in range(100)} == {1, 2, 3}
    assert {draw(torch.zeros(7), position=p) for p in range(300)} == set(range(7))


def test_the_logits_are_left_alone():
    logits = torch.randn(50)
    copy = logits.clone()
    draw(logits, temperature=0.5, top_k=5, top_p=0.9, min_p=0.1)
    assert torch.equal(logits, copy)


# The filters


@settings(max_examples=300)
@given(
    values=st.lists(st.integers(-1500, 1500), min_size=1, max_size=40, unique=True),
    top_k=st.integers(0, 45),
    top_p=st.one_of(st.just(1.0), st.floats(0.001, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
    typical_p=st.one_of(st.just(1.0), st.floats(0.001, 0.999)),
)
def test_filters_keep_what_hugging_face_keeps(values, top_k, top_p, min_p, typical_p):
    logits = torch.tensor(values, dtype=torch.float32) / 100
    assume(_is_no_borderline_case(logits.double(), top_k, top_p, min_p))
    filters = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    left = hugging_face_filtered(logits, **filters).double()
    assume(typical_p == 1.0 or _is_no_borderline_case_of_typical_decoding(left[left.isfinite()], typical_p))
    kept = filter_candidates(logits, **filters, typical_p=typical_p)
    expected = hugging_face_filtered(logits, **filters, typical_p=typical_p).isfinite().nonzero().squeeze(1)
    assert len(kept) == len(kept.unique())
    assert sorted(kept.tolist()) == expected.tolist()


def _is_no_borderline_case(logits, top_k, top_p, min_p):
    """False if float32 rounding could decide whether a token is kept."""
    kept = logits.sort(descending=True).values[: top_k or None]
    reached = kept.softmax(-1).cumsum(0)
    ratios = (kept - kept.max()).exp()
    return bool((reached - top_p).abs().min() > 1e-5 or top_p == 1.0) and bool(
        ((ratios - min_p).abs() / ratios).min() > 1e-4 or min_p in (0.0, 1.0)
    )


def _is_no_borderline_case_of_typical_decoding(logits, typical_p):
    probabilities = logits.softmax(-1)
    distances = (logits - (probabilities * logits).sum()).abs().sort()
    reached = probabilities[distances.indices].cumsum(0)
    return bool((reached - typical_p).abs().min() > 1e-5) and bool((distances.values.diff() > 1e-4).all())


def test_typical_decoding_may_leave_out_the_best_and_keeps_what_ties_with_the_last():
    """Expected surprise is that of the eight equals, nearly: the likeliest token says less than one expects."""
    logits = torch.tensor([0.2] + [0.1] * 8).log()
    kept = [filter_candidates(logits, **NO_FILTER, typical_p=p).tolist() for p in (0.001, 0.79, 0.81)]
    assert kept == [[*range(1, 9)], [*range(1, 9)], [*range(9)]]


def test_top_p_of_a_flat_distribution_over_a_whole_vocabulary():
    """More tokens than the first try sorts; float32 sums may differ by a token or two."""
    logits = torch.randn(50257, generator=torch.Generator().manual_seed(7)) * 0.1
    kept = filter_candidates(logits, top_k=0, top_p=0.9, min_p=0.0)
    expected = hugging_face_filtered(logits, top_p=0.9).isfinite().sum()
    assert abs(len(kept) - int(expected)) <= 10
    assert len(kept) == len(kept.unique()) > 40_000
    assert logits[kept].min() >= logits.sort(descending=True).values[len(kept) - 1]


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9])
def test_of_tokens_that_tie_top_p_keeps_the_first(top_p):
    """As in a model whose training never saw most of its vocabulary: it gives all of those tokens the same logit."""
    logits = torch.full((50257,), -1.0)
    logits[[7, 40_000, 123]] = torch.tensor([2.0, 3.0, 0.5])
    kept = filter_candidates(logits, top_k=0, top_p=top_p, min_p=0.0).tolist()
    others = [token_id for token_id in range(50257) if token_id not in (7, 40_000, 123)]
    assert kept == [40_000, 7, 123, *others][: len(kept)]
    assert len(kept) > 3


@pytest.mark.parametrize(
    "filters", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-9}, {"min_p": 1.0}, {"top_p": 0.999}, {"typical_p": 1e-9}]
)
def test_at_least_one_token_stays(filters):
    for logits in (torch.zeros(1), torch.tensor([-torch.inf, 2.0, -torch.inf]), torch.tensor([0.0, 1e30, -1e30])):
        kept = filter_candidates(logits, **NO_FILTER | filters)
        assert int(logits.argmax()) in kept.tolist()


# The penalties


@settings(max_examples=100)
@given(
    prompt=st.lists(st.integers(0, 49), min_size=1, max_size=20),
    output=st.lists(st.integers(0, 49), max_size=20),
    penalty=st.floats(0.5, 3.0),
)
def test_repetition_penalty_is_hugging_faces(prompt, output, penalty):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(8)) * 3
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), logits[None].clone())[0]
    adjust_reference(
        logits, Adjustment(token_ids=prompt + output, num_prompt_tokens=len(prompt), repetition_penalty=penalty)
    )
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=0)


@settings(max_examples=100)
@given(
    output=st.lists(st.integers(0, 9), max_size=30),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
)
def test_presence_and_frequency_penalties_are_openais(output, presence, frequency):
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, with c[j] how often token j was generated."""
    logits = torch.randn(10, generator=torch.Generator().manual_seed(9))
    expected = [float(logits[j]) - output.count(j) * frequency - (output.count(j) > 0) * presence for j in range(10)]
    penalties = {"presence_penalty": presence, "frequency_penalty": frequency}
    adjust_reference(logits, Adjustment(token_ids=[0, 1, 2, *output], num_prompt_tokens=3, **penalties))
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-5, atol=1e-5)
