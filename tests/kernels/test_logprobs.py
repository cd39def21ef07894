"""Log-probabilities of given tokens from hidden states: reference and kernel against log_softmax in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.logprobs.reference import logprobs_reference

TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-5}
"""Logits stay in float32 whatever the inputs are. No bfloat16: the interpreter's tl.dot multiplies its bits."""

SHAPES = [(1, 48, 211), (7, 64, 512), (63, 32, 513), (33, 100, 1100)]


def inputs(num_tokens, n_embd, vocab_size, dtype=torch.float32):
    hidden = random(num_tokens, n_embd, seed=0, dtype=dtype)
    lm_head = random(vocab_size, n_embd, seed=1, dtype=dtype) * 0.4
    targets = torch.randint(vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(2))
    targets[0] = vocab_size - 1
    return hidden, lm_head, targets


def formula(hidden, lm_head, targets):
    logits = hidden.double() @ lm_head.double().t()
    chosen = logits.gather(1, targets[:, None])
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], (logits > chosen).sum(-1) + 1


@pytest.mark.parametrize("dtype", [*TOLERANCES, torch.float64], ids=str)
def test_the_reference_is_the_formula(dtype):
    logprobs, ranks = logprobs_reference(*inputs(300, 48, 211, dtype))
    expected, expected_ranks = formula(*inputs(300, 48, 211, dtype))
    assert relative_error(logprobs, expected) <= TOLERANCES.get(dtype, 1e-14)
    assert torch.equal(ranks, expected_ranks.int())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype):
    kernel = kernel_of("logprobs")
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(*shape, dtype)]
    out = buffers.poisoned(shape[0]), buffers.poisoned(shape[0], dtype=torch.int32)
    sizes = kernel.LogprobsWorkspace.allocate(shape[0], shape[2], torch.device("cpu"))
    workspace = kernel.LogprobsWorkspace(*(buffers.poisoned(*t.shape, dtype=t.dtype) for t in sizes))
    kernel.logprobs(*arguments, out=out, workspace=workspace)
    expected, expected_ranks = formula(*arguments)
    assert relative_error(out[0], expected) <= TOLERANCES[dtype]
    assert torch.equal(out[1], expected_ranks.int())
    buffers.check()


def test_a_row_gets_the_same_bits_in_any_batch():
    kernel = kernel_of("logprobs")
    hidden, lm_head, targets = inputs(40, 48, 600)
    together = kernel.logprobs(hidden, lm_head, targets)
    alone = kernel.logprobs(hidden[37:38], lm_head, targets[37:38])
    assert torch.equal(together[0][37:38], alone[0])
    assert torch.equal(together[1][37:38], alone[1])


def test_a_certain_token_has_log_probability_0_and_rank_1():
    kernel = kernel_of("logprobs")
    hidden, lm_head, _ = inputs(20, 100, 300)
    hidden *= 200
    targets = (hidden.double() @ lm_head.double().t()).argmax(-1)
    logprobs, ranks = kernel.logprobs(hidden, lm_head, targets)
    assert logprobs.max() <= 0
    assert logprobs.min() > -100
    assert (ranks == 1).all()


def test_tokens_that_tie_share_a_rank():
    kernel = kernel_of("logprobs")
    hidden, lm_head = torch.ones(4, 32), torch.zeros(300, 32)
    lm_head[[3, 4, 5]] = 1.0
    lm_head[6] = 2.0
    for function in (kernel.logprobs, logprobs_reference):
        assert function(hidden, lm_head, torch.tensor([6, 3, 5, 0]))[1].tolist() == [1, 2, 2, 5]


def test_a_row_with_nan_gives_nan_and_only_that_row():
    kernel = kernel_of("logprobs")
    hidden, lm_head, targets = inputs(5, 48, 211)
    hidden[1, 3] = torch.nan
    hidden[3, 3] = torch.inf
    logprobs, _ = kernel.logprobs(hidden, lm_head, targets)
    assert logprobs.isnan().tolist() == [False, True, False, True, False]


def test_what_does_not_fit_is_refused_with_both_values():
    kernel = kernel_of("logprobs")
    hidden, lm_head, targets = inputs(5, 48, 211)
    with pytest.raises(ValueError, match=r"\(5, 47\).*\(211, 48\)"):
        kernel.logprobs(hidden[:, :47], lm_head, targets)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        kernel.logprobs(hidden.half(), lm_head, targets)
    with pytest.raises(ValueError, match="5 rows, 4 targets"):
        kernel.logprobs(hidden, lm_head, targets[:4])
    with pytest.raises(ValueError, match="hidden: the last axis must have stride 1, has 5"):
        kernel.logprobs(hidden.t().contiguous().t(), lm_head, targets)
