"""Log-probabilities of given tokens in PyTorch: the oracle for the kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_AT_ONCE = 128  # logits of that many rows are held at a time: 26 MB for GPT-2's vocabulary


def logprobs_reference(hidden: Tensor, lm_head: Tensor, target_token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """log_softmax(hidden @ lm_head^T)[target] of each row, and the target's rank: 1 if no token is more likely.

    hidden: [num_tokens, n_embd]; lm_head: [vocab_size, n_embd]; target_token_ids: [num_tokens] int32 or int64. Returns
    [num_tokens] float32 (float64 if hidden is) and [num_tokens] int32. A row whose logits have NaN or inf gets NaN.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logprobs = torch.empty(len(hidden), dtype=dtype, device=hidden.device)
    ranks = torch.empty(len(hidden), dtype=torch.int32, device=hidden.device)
    for start in range(0, len(hidden), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        logits = F.linear(hidden[rows].to(dtype), lm_head.to(dtype))
        logits[~logits.isfinite()] = torch.nan
        target_logits = logits.gather(1, target_token_ids[rows, None].long())
        logprobs[rows] = (target_logits - logits.logsumexp(-1, keepdim=True)).squeeze(1)
        ranks[rows] = (logits > target_logits).sum(-1, dtype=torch.int32) + 1
    return logprobs, ranks
