"""The sampling kernels, in Triton's interpreter: the same tokens as the reference, from the same random numbers."""

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.kernels.buffers import GuardedBuffers, kernel_of, random
from zeroshot_kernels.sampling.reference import filter_candidates, sample_reference, sampling_reference, uniform_noise

kernel = kernel_of("sampling")
sampling = kernel.sampling
generator = importlib.import_module("zeroshot_kernels.sampling.noise_kernel")

triton = pytest.importorskip("triton")
tl = triton.language

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
FILTERS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.6},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.8},
    {"top_k": 7, "top_p": 0.9, "min_p": 0.05},
    {"top_k": 1},
    {"top_p": 1e-9},
    {"top_p": 0.0},
    {"temperature": 50.0, "top_k": 3},
]


def parameters(requests, seeds=None, choices=None, positions=None):
    """The launcher's arguments after `logits`, one request a row."""
    requests = [OFF | request for request in requests]
    count = torch.arange(len(requests))
    return (
        torch.tensor([r["temperature"] for r in requests], dtype=torch.float32),
        torch.tensor([r["top_k"] for r in requests], dtype=torch.int32),
        torch.tensor([r["top_p"] for r in requests], dtype=torch.float32),
        torch.tensor([r["min_p"] for r in requests], dtype=torch.float32),
        count * 977 + 5 if seeds is None else seeds,
        count % 3 if choices is None else choices,
        count + 100 if positions is None else positions,
    )


def assert_same_as_the_reference(logits, *arguments):
    token_ids, logprobs, is_valid = sampling(logits, *arguments)
    expected = sampling_reference(logits, *arguments)
    assert torch.equal(is_valid, expected[2])
    assert torch.equal(token_ids, expected[0])
    torch.testing.assert_close(logprobs, expected[1], rtol=2e-6, atol=2e-6, equal_nan=True)
    return token_ids


# The noise


@triton.jit
def words_kernel(words_ptr, counter, position, seed, choice, num_counters: tl.constexpr):
    offs = tl.arange(0, num_counters)
    zeros = tl.zeros([num_counters], tl.uint64)
    words = generator._philox_4x64_10(
        (offs + counter).to(tl.uint64),
        zeros,
        zeros,
        zeros + tl.load(position).to(tl.uint64),
        zeros + tl.load(seed).to(tl.uint64),
        zeros + tl.load(choice).to(tl.uint64),
    )
    for i in tl.static_range(4):
        tl.store(words_ptr + 4 * offs + i, words[i].to(tl.int64, bitcast=True))


@triton.jit
def noise_kernel(
    noise_ptr, first_tokens_ptr, seeds_ptr, choices_ptr, positions_ptr, height: tl.constexpr, width: tl.constexpr
):
    offs = tl.arange(0, height)
    noise = generator.gumbel_noise(
        tl.load(first_tokens_ptr + offs),
        tl.load(seeds_ptr + offs),
        tl.load(choices_ptr + offs),
        tl.load(positions_ptr + offs),
        width,
    )
    tl.store(noise_ptr + offs[:, None] * width + tl.arange(0, width)[None, :], noise)


@pytest.mark.parametrize(
    ("seed", "choice", "position"), [(0, 0, 0), (2**63 - 1, 127, 1023), (1234567890123456789, 3, 77)]
)
def test_random_words_are_numpys_bit_for_bit(seed, choice, position):
    buffers = GuardedBuffers()
    words = buffers.poisoned(64, 4, dtype=torch.int64)
    arguments = [torch.tensor([value]) for value in (position, seed, choice)]
    words_kernel[(1,)](words, 1, *arguments, num_counters=64)
    philox = np.random.Philox(
        key=np.array([seed, choice], dtype=np.uint64), counter=np.array([0, 0, 0, position], dtype=np.uint64)
    )
    assert np.array_equal(words.numpy().view(np.uint64).ravel(), philox.random_raw(256))
    buffers.check()


def test_noise_is_the_references_in_any_tile():
    first_tokens, seeds, choices, positions = (
        torch.tensor(values) for values in ([0, 8, 128, 4096], [3, 2**62, 5, 3], [0, 1, 2, 0], [9, 0, 1023, 9])
    )
    noise = torch.full((4, 128), torch.nan)
    noise_kernel[(1,)](noise, first_tokens, seeds, choices, positions, height=4, width=128)
    for row, first, *drawn_by in zip(noise, first_tokens, seeds, choices, positions, strict=True):
        u = uniform_noise(*(int(value) for value in drawn_by), 5000)[int(first) : int(first) + 128].double()
        torch.testing.assert_close(row, -(-torch.log1p(-u)).log().float(), rtol=1e-6, atol=1e-6)


# The draw


@pytest.mark.parametrize("vocab_size", [1, 7, 128, 211, 1000, 5000])
def test_tokens_are_the_references(vocab_size):
    buffers = GuardedBuffers()
    logits = buffers.copy(3 * random(len(FILTERS), vocab_size, seed=vocab_size))
    assert_same_as_the_reference(logits, *(buffers.copy(tensor) for tensor in parameters(FILTERS)))
    buffers.check()


@pytest.mark.parametrize("spread", [0.01, 1.0, 20.0])
def test_tokens_are_the_references_for_flat_and_peaked_rows(spread):
    for seed in range(3):
        logits = spread * random(len(FILTERS), 600, seed=seed) - 50
        arguments = parameters(FILTERS, seeds=torch.arange(len(FILTERS)) + 1000 * seed)
        if spread > 0.1:
            assert_same_as_the_reference(logits, *arguments)
        else:  # float32 sums of nearly equal probabilities may put the end of top-p a token apart
            without_top_p = [request for request in FILTERS if "top_p" not in request]
            assert_same_as_the_reference(logits[: len(without_top_p)], *parameters(without_top_p))


def test_a_whole_vocabulary():
    """k above the number of tiles and above the candidates that are gathered, too."""
    requests = [{}, {"top_k": 50, "top_p": 0.95}, {"temperature": 2.0, "top_k": 3000, "top_p": 0.9}, {"top_p": 0.9}]
    logits = torch.full((4, 50304), torch.nan)[:, :50257]
    logits.copy_(3 * random(4, 50257, seed=1))
    assert_same_as_the_reference(logits, *parameters(requests))


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(-1500, 1500), min_size=1, max_size=40, unique=True),
    top_k=st.integers(0, 45),
    top_p=st.one_of(st.just(1.0), st.floats(0.001, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
    temperature=st.floats(0.1, 5.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_filters_give_the_references_token(values, top_k, top_p, min_p, temperature, seed):
    logits = torch.tensor(values, dtype=torch.float32)[None] / 100
    assume(_is_no_borderline_case(logits[0].double() / temperature, top_k, top_p, min_p))
    request = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    assert_same_as_the_reference(logits, *parameters([request], seeds=torch.tensor([seed])))


def _is_no_borderline_case(logits, top_k, top_p, min_p):
    """False if float32 rounding could decide whether a token is kept."""
    kept = logits.sort(descending=True).values[: top_k or None]
    reached = kept.softmax(-1).cumsum(0)
    ratios = (kept - kept.max()).exp()
    return bool((reached - top_p).abs().min() > 1e-5 or top_p == 1.0) and bool(
        ((ratios - min_p).abs() / ratios).min() > 1e-4 or min_p in (0.0, 1.0)
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"temperature": 0.8},
        {"top_k": 4},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_draws_have_the_frequencies_of_the_filtered_softmax(request_):
    options = OFF | request_
    logits = random(12, seed=3) * 1.5
    scaled = logits / options.pop("temperature")
    kept = filter_candidates(scaled, **options)
    probabilities = torch.zeros(12).index_copy_(0, kept, scaled[kept].softmax(-1)).double()
    draws = 120
    arguments = parameters([request_] * draws, seeds=torch.full((draws,), 11), positions=torch.arange(draws))
    counts = torch.bincount(sampling(logits.expand(draws, 12), *arguments)[0], minlength=12)
    possible = probabilities > 0
    assert int(counts[~possible].sum()) == 0
    expected = probabilities[possible] * draws
    degrees = int(possible.sum()) - 1
    # Exceeded by chance once in a million (Wilson and Hilferty 1931); the seeds are fixed, so never or always.
    spread = 2 / (9 * degrees)
    limit = degrees * (1 - spread + 4.75 * math.sqrt(spread)) ** 3
    assert float(((counts[possible] - expected) ** 2 / expected).sum()) < limit


def test_greedy_takes_the_first_of_the_best_tokens():
    logits = torch.zeros(3, 300)
    logits[0, [40, 200]] = 5.0
    logits[1, [129, 130, 299]] = 5.0
    assert assert_same_as_the_reference(logits, *parameters([{"temperature": 0.0}] * 3)).tolist() == [40, 129, 0]


def test_tokens_that_tie_with_the_kth_are_kept():
    logits = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0]).expand(12, 5)
    for request in ({"top_k": 1}, {"top_k": 2}, {"top_k": 2, "top_p": 0.999}):
        assert set(assert_same_as_the_reference(logits, *parameters([request] * 12)).tolist()) == {1, 2, 3}


def test_top_p_keeps_only_as_many_of_tokens_that_tie_as_it_needs():
    """Which of them is not defined (the kernel takes the first); how many is."""
    logits = torch.zeros(24, 10)
    token_ids, _, _ = sampling(logits, *parameters([{"top_p": 0.35}] * 24))
    assert set(token_ids.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "request_", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"top_k": 30, "top_p": 0.5}], ids=str
)
def test_extreme_temperatures_give_the_references_token(request_):
    temperatures = [5e-324, 1e-60, 1e-45, 1e-30, 1e-4, 1e9]
    logits = 30 * random(len(temperatures), 50, seed=5)
    assert_same_as_the_reference(logits, *parameters([request_ | {"temperature": t} for t in temperatures]))


def test_forbidden_tokens_are_never_drawn():
    logits = random(len(FILTERS), 300, seed=6)
    logits[:, ::2] = -torch.inf
    logits[:, 128:256] = -torch.inf  # a whole tile
    assert (assert_same_as_the_reference(logits, *parameters(FILTERS)) % 2 == 1).all()


def test_only_one_token_is_possible():
    logits = torch.full((len(FILTERS), 300), -torch.inf)
    logits[:, 131] = -3.0
    token_ids, logprobs, is_valid = sampling(logits, *parameters(FILTERS))
    assert (token_ids == 131).all()
    assert (logprobs == 0).all()
    assert is_valid.all()


def test_rows_that_are_not_valid_are_flagged_and_touch_no_other():
    logits = random(6, 300, seed=7)
    expected = sampling(logits, *parameters(FILTERS[:6]))[0]
    logits[1, 299] = torch.nan
    logits[3, 0] = torch.inf
    logits[4] = -torch.inf
    token_ids, logprobs, is_valid = sampling(logits, *parameters(FILTERS[:6]))
    assert is_valid.tolist() == [True, False, True, False, False, True]
    assert torch.equal(token_ids, torch.where(is_valid, expected, 0))
    assert torch.equal(logprobs.isnan(), ~is_valid)


def test_a_row_that_must_be_finite_is_flagged_for_minus_infinity_too():
    """And not for what a tile has past the vocabulary's 300 tokens."""
    logits = random(6, 300, seed=9)
    logits[1, 299] = -torch.inf
    logits[2, 0] = torch.inf
    logits[4, 128:256] = -torch.inf
    logits[5, 7] = torch.nan
    arguments = (logits, *parameters(FILTERS[:6]))
    token_ids, logprobs, is_valid = sampling(*arguments, must_be_finite=True)
    assert is_valid.tolist() == [True, False, False, True, False, False]
    expected = sampling_reference(*arguments, must_be_finite=True)
    assert torch.equal(is_valid, expected[2])
    assert torch.equal(token_ids, expected[0])
    assert torch.equal(logprobs.isnan(), ~is_valid)


def plain(arguments):
    """The same parameters, with no filters."""
    temperatures, _, _, _, *draws = arguments
    return temperatures, None, None, None, *draws


def test_without_filters_and_log_probabilities_the_tokens_are_the_same():
    logits = random(len(FILTERS), 600, seed=11)
    logits[0, 5] = torch.nan
    logits[1, 590] = torch.inf
    logits[2] = -torch.inf
    logits[3, 128:256] = -torch.inf
    logits[4, 100:110] = 9.0
    for arguments in (parameters(FILTERS), plain(parameters(FILTERS)), plain(parameters([{"temperature": 0.0}] * 12))):
        arguments = [values if values is None else values[: len(FILTERS)] for values in arguments]
        for must_be_finite in (False, True):
            options = {"must_be_finite": must_be_finite}
            token_ids, logprobs, is_valid = sampling(logits, *arguments, with_logprobs=False, **options)
            expected = sampling_reference(logits, *arguments, **options)
            assert torch.equal(is_valid, expected[2])
            assert torch.equal(token_ids, expected[0])
            assert logprobs.isnan().all()
            assert is_valid.tolist()[:4] == [False, False, False, not must_be_finite]


def test_a_row_gets_the_same_token_and_bits_in_any_batch():
    logits = random(len(FILTERS), 600, seed=8)
    arguments = parameters(FILTERS)
    together = sampling(logits, *arguments)
    for row in range(len(FILTERS)):
        only = slice(row, row + 1)
        alone = sampling(logits[only], *(tensor[only] for tensor in arguments))
        assert torch.equal(alone[0], together[0][only])
        assert torch.equal(alone[1], together[1][only])


def test_buffers_given_are_the_ones_written():
    buffers = GuardedBuffers()
    logits = buffers.copy(random(len(FILTERS), 600, seed=9))
    before = logits.clone()
    sizes = kernel.SamplingWorkspace.allocate(len(FILTERS) + 2, 600, torch.device("cpu"))
    workspace = kernel.SamplingWorkspace(*(buffers.poisoned(*t.shape, dtype=t.dtype) for t in sizes))
    out = tuple(buffers.poisoned(len(FILTERS), dtype=dtype) for dtype in (torch.int64, torch.float32, torch.bool))
    expected = sampling(logits, *parameters(FILTERS))
    for _ in range(2):
        returned = sampling(logits, *parameters(FILTERS), out=out, workspace=workspace)
        assert all(a is b for a, b in zip(returned, out, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
    assert torch.equal(logits, before)
    buffers.check()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 6])
def test_a_workspace_is_aligned_for_any_number_of_rows(num_rows):
    """Kernels are compiled for pointers at a multiple of 16 bytes, and for others anew: in the middle of a request."""
    workspace = kernel.SamplingWorkspace.allocate(num_rows, 50257, torch.device("cpu"))
    assert [tensor.data_ptr() % 16 for tensor in workspace] == [0] * len(workspace)


def test_what_does_not_fit_is_refused_with_both_values():
    logits = random(3, 300, seed=10)
    with pytest.raises(ValueError, match=r"float32, are torch.float16"):
        sampling(logits.half(), *parameters(FILTERS[:3]))
    with pytest.raises(ValueError, match="logits: the last axis must have stride 1, has 3"):
        sampling(logits.t().contiguous().t(), *parameters(FILTERS[:3]))
    with pytest.raises(ValueError, match=r"3 rows.*2, 2"):
        sampling(logits, *parameters(FILTERS[:2]))
    temperatures, top_ks, _, _, *draws = parameters(FILTERS[:3])
    with pytest.raises(ValueError, match=r"3 rows.*\[3, 3, 3, 3, 3\]"):
        sampling(logits, temperatures, top_ks, None, None, *draws)
    small = kernel.SamplingWorkspace.allocate(1, 300, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"\(1, 3\), needs \(3, 3\)"):
        sampling(logits, *parameters(FILTERS[:3]), workspace=small)


def test_the_batched_reference_is_the_reference_row_by_row():
    logits = random(len(FILTERS), 50, seed=11)
    token_ids, logprobs, _ = sampling_reference(logits, *parameters(FILTERS))
    *_, seeds, choices, positions = parameters(FILTERS)
    for row, request in enumerate(FILTERS):
        drawn_by = {"seed": int(seeds[row]), "choice": int(choices[row]), "position": int(positions[row])}
        options = {k: torch.tensor(v).item() if k != "top_k" else v for k, v in (OFF | request).items()}
        assert int(token_ids[row]) == sample_reference(logits[row], **options, **drawn_by)
        assert float(logprobs[row]) == float(logits[row].log_softmax(-1)[token_ids[row]])
