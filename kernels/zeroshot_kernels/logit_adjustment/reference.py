"""Logit bias and penalties in PyTorch: the oracle for the kernel."""

import torch
from torch import Tensor


def logit_adjustment_reference(
    logits: Tensor,
    rows: Tensor,
    token_ids: Tensor,
    biases: Tensor,
    is_seen: Tensor,
    output_counts: Tensor,
    repetition_penalties: Tensor,
    presence_penalties: Tensor,
    frequency_penalties: Tensor,
) -> None:
    """In place on logits [num_rows, vocab_size] float32, at the entries (rows[i], token_ids[i]), each named once.

    z + bias; then, if is_seen (the token is in the prompt or the output), times or over the row's repetition penalty,
    whichever makes it less likely (CTRL, Keskar et al. 2019, section 4.1); then, if output_counts (how often the output
    has it) is not 0, minus presence + frequency * count (as OpenAI documents them); at most the largest float32. A bias
    of -inf forbids the token. rows, token_ids: [num_entries] int32, an entry outside the logits is skipped; biases:
    float32; is_seen: bool; output_counts: int32; the penalties: [num_rows] float32.
    """
    num_rows, vocab_size = logits.shape
    kept = (rows >= 0) & (rows < num_rows) & (token_ids >= 0) & (token_ids < vocab_size)
    rows, token_ids = rows[kept].long(), token_ids[kept].long()
    values = logits[rows, token_ids] + biases[kept]
    penalty = repetition_penalties[rows]
    penalised = torch.where(values < 0, values * penalty, values / penalty)
    values = torch.where(is_seen[kept], penalised, values)
    counts = output_counts[kept]
    penalised = values - (presence_penalties[rows] + frequency_penalties[rows] * counts)
    values = torch.where(counts > 0, penalised, values)
    logits[rows, token_ids] = values.clamp(max=torch.finfo(logits.dtype).max)
