"""Drawing tokens by the C++ kernel."""

import torch
from torch import Tensor

from zeroshot_kernels.cpu.library import library


def draw(
    logits: Tensor,
    temperatures: Tensor,
    top_ks: Tensor | None,
    top_ps: Tensor | None,
    min_ps: Tensor | None,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
) -> tuple[Tensor, Tensor]:
    """What `sample_reference` draws of each row, but for the rounding of logarithms and sums, int64 [num_rows], and
    whether all of a row's logits are finite, bool [num_rows]. -1 where a logit is NaN or +inf, or all are -inf.

    logits: [num_rows, vocab_size] float32, rows contiguous; temperatures: [num_rows] float32; top_ks: int64, top_ps,
    min_ps: float32, or all three None: no filter is on; seeds, choices, positions: int64, the last one how many tokens
    precede the one that is drawn. Of tokens that tie, top-p keeps the first.
    """
    tokens = torch.empty(len(logits), dtype=torch.int64)
    are_finite = torch.empty(len(logits), dtype=torch.bool)
    filters = (None if values is None else values.data_ptr() for values in (top_ks, top_ps, min_ps))
    library().zeroshot_draw(
        logits.data_ptr(), temperatures.data_ptr(), *filters, seeds.data_ptr(), choices.data_ptr(),
        positions.data_ptr(), tokens.data_ptr(), are_finite.data_ptr(), *logits.shape, logits.stride(0),
    )  # fmt: skip
    return tokens, are_finite
