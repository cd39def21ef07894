"""LM head and sampling in PyTorch: the oracle for the kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels.sampling.reference import sampling_reference


def lm_head_sampling_reference(
    hidden: Tensor,
    lm_head: Tensor,
    temperatures: Tensor,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
    *,
    with_logprobs: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sampling_reference` of the rows of hidden @ lm_head^T, with no filter. A row with NaN or inf in it is not valid.

    hidden: [num_rows, n_embd]; lm_head: [vocab_size, n_embd]; temperatures: [num_rows] float32; seeds, choices,
    positions: [num_rows] int64. Returns token ids int64, log-probabilities float32 (NaN unless `with_logprobs`) and
    is_valid bool: [num_rows].
    """
    logits = F.linear(hidden.float(), lm_head.float())
    logits[~logits.isfinite()] = torch.nan
    draws = (seeds, choices, positions)
    return sampling_reference(logits, temperatures, None, None, None, *draws, with_logprobs=with_logprobs)
