"""LM head and sampling in one: the tokens that the reference draws from the product's logits."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.lm_head_sampling.reference import lm_head_sampling_reference
from zeroshot_kernels.sampling.reference import sample_reference

DTYPES = [torch.float32, torch.float16]
"""No bfloat16: the interpreter's tl.dot multiplies its bits. It is compiled, and tested on a GPU."""

TEMPERATURES = [0.0, 1.0, 0.5, 3.0, 1e-30]


def inputs(num_rows, n_embd, vocab_size, dtype=torch.float32):
    hidden = random(num_rows, n_embd, seed=0, dtype=dtype)
    lm_head = (random(vocab_size, n_embd, seed=1) * 2 * n_embd**-0.5).to(dtype)
    rows = torch.arange(num_rows)
    temperatures = torch.tensor(TEMPERATURES)[rows % len(TEMPERATURES)]
    return hidden, lm_head, temperatures, rows * 977 + 5, rows % 3, rows + 100


def test_the_reference_draws_each_row_from_its_logits():
    hidden, lm_head, temperatures, seeds, choices, positions = inputs(5, 48, 211)
    token_ids, logprobs, is_valid = lm_head_sampling_reference(hidden, lm_head, temperatures, seeds, choices, positions)
    assert is_valid.all()
    for row in range(5):
        logits = lm_head @ hidden[row]
        expected = sample_reference(
            logits,
            temperature=float(temperatures[row]),
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            seed=int(seeds[row]),
            choice=int(choices[row]),
            position=int(positions[row]),
        )
        assert int(token_ids[row]) == expected
        assert float(logprobs[row]) == pytest.approx(float(logits.log_softmax(-1)[expected]), abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 48, 211), (5, 64, 128), (17, 32, 300), (33, 100, 129), (70, 32, 64)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_are_the_references(shape, dtype):
    kernel = kernel_of("lm_head_sampling")
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(*shape, dtype)]
    out = tuple(buffers.poisoned(shape[0], dtype=dtype) for dtype in (torch.int64, torch.float32, torch.bool))
    sizes = kernel.SamplingWorkspace.allocate(shape[0], shape[2], torch.device("cpu"))
    workspace = kernel.SamplingWorkspace(*(buffers.poisoned(*t.shape, dtype=t.dtype) for t in sizes))
    token_ids, logprobs, is_valid = kernel.lm_head_sampling(*arguments, out=out, workspace=workspace)
    expected = lm_head_sampling_reference(*arguments)
    assert torch.equal(token_ids, expected[0])
    torch.testing.assert_close(logprobs, expected[1], rtol=2e-6, atol=2e-6)
    assert is_valid.all()
    buffers.check()


@pytest.mark.parametrize("rows", [1, 5])
def test_without_log_probabilities_the_tokens_are_the_same(rows):
    lm_head_sampling = kernel_of("lm_head_sampling").lm_head_sampling
    hidden, *rest = inputs(rows, 48, 211)
    hidden[rows - 1, 3] = torch.inf if rows > 1 else hidden[0, 3]
    token_ids, _, is_valid = lm_head_sampling(hidden, *rest)
    found = lm_head_sampling(hidden, *rest, with_logprobs=False)
    assert torch.equal(found[0], token_ids)
    assert found[1].isnan().all()
    assert torch.equal(found[2], is_valid)
    assert is_valid.tolist() == [True] * 4 + [False] if rows > 1 else [True]


def test_the_logits_are_written_if_asked_for():
    kernel = kernel_of("lm_head_sampling")
    arguments = inputs(5, 48, 211)
    buffers = GuardedBuffers()
    logits = buffers.poisoned(5, 256)[:, :211]
    with_logits = kernel.lm_head_sampling(*arguments, logits=logits)
    assert relative_error(logits, arguments[0].double() @ arguments[1].double().t()) <= 3e-7
    assert all(torch.equal(a, b) for a, b in zip(with_logits, kernel.lm_head_sampling(*arguments), strict=True))
    buffers.check()


def test_a_row_gets_the_same_bits_in_any_batch():
    kernel = kernel_of("lm_head_sampling")
    arguments = inputs(40, 48, 211)
    together = kernel.lm_head_sampling(*arguments)
    hidden, lm_head, *rest = arguments
    for row in (0, 21, 39):
        only = slice(row, row + 1)
        alone = kernel.lm_head_sampling(hidden[only], lm_head, *(tensor[only] for tensor in rest))
        assert all(torch.equal(a, b[only]) for a, b in zip(alone, together, strict=True))


def test_a_row_with_nan_or_inf_is_flagged_and_touches_no_other():
    kernel = kernel_of("lm_head_sampling")
    arguments = inputs(5, 48, 211)
    expected = kernel.lm_head_sampling(*arguments)[0]
    arguments[0][1, 3] = torch.nan
    arguments[0][3, 3] = torch.inf
    for function in (kernel.lm_head_sampling, lm_head_sampling_reference):
        token_ids, logprobs, is_valid = function(*arguments)
        assert is_valid.tolist() == [True, False, True, False, True]
        assert torch.equal(token_ids, torch.where(is_valid, expected, 0))
        assert torch.equal(logprobs.isnan(), ~is_valid)


def test_what_does_not_fit_is_refused_with_both_values():
    kernel = kernel_of("lm_head_sampling")
    hidden, lm_head, *rest = inputs(5, 48, 211)
    with pytest.raises(ValueError, match=r"\(5, 47\).*\(211, 48\)"):
        kernel.lm_head_sampling(hidden[:, :47], lm_head, *rest)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        kernel.lm_head_sampling(hidden.half(), lm_head, *rest)
    with pytest.raises(ValueError, match=r"4 rows, parameters for.*5, 5, 5, 5"):
        kernel.lm_head_sampling(hidden[:4], lm_head, *rest)
    with pytest.raises(ValueError, match=r"\(5, 210\).*\(5, 211\)"):
        kernel.lm_head_sampling(hidden, lm_head, *rest, logits=torch.zeros(5, 210))


def test_a_logit_of_minus_infinity_is_an_overflow_too():
    kernel = kernel_of("lm_head_sampling")
    hidden, lm_head, *rest = inputs(2, 48, 211)
    hidden.zero_()
    hidden[0, 0], hidden[1, 1] = -10.0, 1.0
    lm_head[7, 0] = 3e38
    for function in (kernel.lm_head_sampling, lm_head_sampling_reference):
        assert function(hidden, lm_head, *rest)[2].tolist() == [False, True]
