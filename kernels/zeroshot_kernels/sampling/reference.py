"""Sampling in PyTorch: the oracle for the kernel, and the CPU backend.

The order is Hugging Face's: bias, penalties, temperature, top-k, top-p, min-p, typical decoding (no kernel of a GPU).
The draw is Gumbel-max: the token with the largest logit + Gumbel noise is an exact sample of softmax(logits) (Gumbel
1954; Maddison et al. 2014). The noise is a function of (seed, choice, position, token id) alone, so a request gets the
same tokens in any batch.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CANDIDATES_TRIED = 1024  # top-p usually keeps far fewer tokens: sorting these first spares sorting the vocabulary


def uniform_noise(seed: int, choice: int, position: int, vocab_size: int) -> Tensor:
    """[vocab_size] float32 in (0, 1), one number a token id, from Philox-4x64-10 (Salmon et al. 2011).

    Key (seed, choice); counter (token_id // 8 + 1, 0, 0, position); within a counter's four 64-bit words the low
    half of word 0 is the first token's. The number is (word + 0.5) / 2**32, kept below 1.
    """
    key = np.array([seed, choice], dtype=np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(-(-vocab_size // 2))
    halves = words.astype("<u8", copy=False).view("<u4")[:vocab_size]
    # Fine steps near 0 matter (there the noise is largest and decides), coarse ones near 1 don't.
    return torch.from_numpy(((halves.astype(np.float32) + 0.5) * np.float32(2**-32)).clip(max=1 - 2**-24))


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What changes a row's logits before a token of it is drawn, in this order. Nothing does by default."""

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    token_ids: Sequence[int] = ()
    """The prompt, then the output; not read where no penalty is on."""
    num_prompt_tokens: int = 0
    repetition_penalty: float = 1.0
    """Of prompt and output, as in CTRL (Keskar et al. 2019, section 4.1)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both of the output only, as OpenAI documents them."""
    forbidden_ids: Sequence[int] = ()
    is_allowed: NDArray[np.bool_] | None = None
    """[vocab_size], contiguous; None: all are."""


def adjust_reference(logits: Tensor, adjustment: Adjustment) -> None:
    """In place on logits [vocab_size] float32. Of forbidden ids those are skipped that are not in the vocabulary."""
    most = torch.finfo(logits.dtype).max
    if adjustment.logit_bias:
        ids = _to_tensor(adjustment.logit_bias.keys(), logits.device)
        biases = torch.tensor(list(adjustment.logit_bias.values()), device=logits.device)
        logits[ids] = (logits[ids] + biases).clamp(max=most)
    if adjustment.repetition_penalty != 1.0:
        seen = _to_tensor({*adjustment.token_ids}, logits.device)
        values, penalty = logits[seen], adjustment.repetition_penalty
        penalised = torch.where(values < 0, values * penalty, values / penalty)
        logits[seen] = penalised.clamp(max=most)  # one divided by a tiny penalty overflows
    counts = Counter(adjustment.token_ids[adjustment.num_prompt_tokens :])
    if counts and (adjustment.presence_penalty or adjustment.frequency_penalty):
        weighted = adjustment.frequency_penalty * _to_tensor(counts.values(), logits.device)
        logits[_to_tensor(counts.keys(), logits.device)] -= adjustment.presence_penalty + weighted
    logits[[i for i in adjustment.forbidden_ids if 0 <= i < len(logits)]] = -torch.inf
    if adjustment.is_allowed is not None:
        logits.masked_fill_(torch.from_numpy(~adjustment.is_allowed).to(logits.device), -torch.inf)


def _to_tensor(numbers: Collection[int], device: torch.device) -> Tensor:
    return torch.from_numpy(np.fromiter(numbers, np.int64, len(numbers))).to(device)


def filter_candidates(logits: Tensor, *, top_k: int, top_p: float, min_p: float, typical_p: float = 1.0) -> Tensor:
    """The token ids that may be drawn, int64 [num_candidates], at least one; the best first where top-p is on.

    logits: [vocab_size], already divided by the temperature. top_k 0, top_p 1, min_p 0 and typical_p 1 are off. Tokens
    that tie with the k-th are kept. top-p keeps the fewest most likely tokens whose probabilities reach top_p (Holtzman
    et al. 2020), of those that tie the first; min-p keeps those at least min_p times as likely as the best (Nguyen et
    al. 2024). Of what these leave, typical decoding keeps the tokens whose surprise, -log p, is nearest to the expected
    one, until their probabilities reach typical_p (Meister et al. 2023), and what ties with the last: it may leave out
    the best.
    """
    if 0 < top_k < len(logits):
        kth = logits.topk(top_k).values[-1]
        kept = (logits >= kth).nonzero().squeeze(1)
    else:
        kept = torch.arange(len(logits), device=logits.device)
    if top_p < 1.0:
        kept = _filter_top_p(logits, kept, top_p)
    if min_p > 0.0:
        values = logits[kept]
        kept = kept[values >= values.max() + math.log(min_p)]
    return _filter_typical(logits, kept, typical_p) if typical_p < 1.0 else kept


def _filter_top_p(logits: Tensor, kept: Tensor, top_p: float) -> Tensor:
    values = logits[kept]
    total = values.logsumexp(0)
    least = values.topk(min(_CANDIDATES_TRIED, len(kept))).values[-1]
    nearest = (values >= least).nonzero().squeeze(1)
    for tried in (nearest, torch.arange(len(kept), device=kept.device)):
        best = values[tried].sort(descending=True, stable=True)
        probabilities = (best.values - total).exp()
        more_likely = probabilities.cumsum(0) - probabilities
        if more_likely[-1] >= top_p:
            break
    num_kept = max(1, int((more_likely < top_p).sum()))
    return kept[tried[best.indices[:num_kept]]]


def _filter_typical(logits: Tensor, kept: Tensor, typical_p: float) -> Tensor:
    kept = kept[logits[kept] > -torch.inf]  # what can't be drawn surprises nobody
    values = logits[kept]
    probabilities = values.softmax(0)
    distances = (values - (probabilities * values).sum()).abs()  # surprise is a logit, but for its sign and a constant
    nearest = distances.sort()
    reached = probabilities[nearest.indices].cumsum(0)
    last = min(int((reached < typical_p).sum()), len(kept) - 1)
    return kept[distances <= nearest.values[last]]


def sample_reference(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    choice: int,
    position: int,
    typical_p: float = 1.0,
) -> int:
    """One token id. logits: [vocab_size] float32, bias and penalties applied; none is NaN or +inf, one is not -inf.

    temperature: 0, or too small for float32, takes the best token.
    position: how many tokens precede the one drawn.
    """
    if temperature < torch.finfo(torch.float32).tiny:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / temperature  # the best is 0: no temperature, however small, overflows it
    noise = uniform_noise(seed, choice, position, len(logits)).to(logits.device)
    if top_k == 0 and top_p == 1.0 and min_p == 0.0 and typical_p == 1.0:
        return int(_gumbel_argmax(scaled, noise))
    kept = filter_candidates(scaled, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p)
    return int(kept[_gumbel_argmax(scaled[kept], noise[kept])])


def _gumbel_argmax(logits: Tensor, noise: Tensor) -> Tensor:
    """argmax(logits + Gumbel noise): -log(-log(1 - u)) is Gumbel for uniform u."""
    return (logits - noise.neg().log1p().neg().log()).argmax()


def sampling_reference(
    logits: Tensor,
    temperatures: Tensor,
    top_ks: Tensor | None,
    top_ps: Tensor | None,
    min_ps: Tensor | None,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
    *,
    must_be_finite: bool = False,
    with_logprobs: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sample_reference` of each row, with what the kernel gives beside it.

    logits: [num_rows, vocab_size] float32; temperatures, top_ps, min_ps: [num_rows] float32; top_ks: int32 (all three
    filters None: none is on); seeds, choices, positions: int64. Returns token ids int64, their log-probabilities in
    softmax(logits) float32, is_valid bool: [num_rows] each. A row with NaN or +inf, or of -inf only, is not valid: its
    token id is 0, its log-probability NaN. `must_be_finite`: nor is one with any -inf. Not `with_logprobs`: all of them
    are NaN.
    """
    is_valid = ~(logits.isnan() | logits.isposinf()).any(-1) & logits.isfinite().any(-1)
    if must_be_finite:
        is_valid &= logits.isfinite().all(-1)
    token_ids = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    for row in is_valid.nonzero().squeeze(1).tolist():
        token_ids[row] = sample_reference(
            logits[row],
            temperature=float(temperatures[row]),
            top_k=0 if top_ks is None else int(top_ks[row]),
            top_p=1.0 if top_ps is None else float(top_ps[row]),
            min_p=0.0 if min_ps is None else float(min_ps[row]),
            seed=int(seeds[row]),
            choice=int(choices[row]),
            position=int(positions[row]),
        )
    logprobs = logits.log_softmax(-1).gather(1, token_ids[:, None]).squeeze(1)
    return token_ids, logprobs.masked_fill(~(is_valid & with_logprobs), torch.nan), is_valid
