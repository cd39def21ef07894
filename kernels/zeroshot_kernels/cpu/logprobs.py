"""Log-probabilities by the C++ kernel."""

import torch
from torch import Tensor

from zeroshot_kernels.cpu.library import library


def logprobs(logits: Tensor, target_token_ids: Tensor, num_top: int) -> tuple[Tensor, Tensor]:
    """Log-softmax of each row's target and best tokens, float32, and their ids, int64: [num_rows, 1 + num_top].

    The target's id is its rank: 1 if no token is more likely. Of equal logits the first comes first. A row with a logit
    that is not finite gets NaN, and zeros for ids.

    logits: [num_rows, vocab_size] float32, rows contiguous; target_token_ids: [num_rows] int64, in the vocabulary;
    num_top: at most vocab_size.
    """
    found = logits.new_empty((len(logits), 1 + num_top))
    ids = torch.empty(found.shape, dtype=torch.int64)
    library().zeroshot_logprobs(
        logits.data_ptr(), target_token_ids.data_ptr(), found.data_ptr(), ids.data_ptr(), *logits.shape,
        logits.stride(0), num_top,
    )  # fmt: skip
    return found, ids
