"""Perplexity of running text: sliding windows over its tokens, exact log-probabilities, the paper's normalisation.

Radford et al. 2019, section 3.1: the log-probability of the whole data set divided by the number of *canonical* units,
the words of the original corpus, so that another tokenisation changes nothing about what is compared.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import sample
from zeroshot.evaluation.protocol import Measurement, Metric, PaperNumbers, Run

WINDOWS = "Windows as long as the model's context, each --stride tokens further on than the last (default: half of it)."
_MAX_EXPONENT = 700.0  # exp of more overflows


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start:` of `token_ids` are scored, each given all tokens before it in the window."""

    token_ids: Sequence[int]
    start: int


def windows(token_ids: Sequence[int], first: int, max_len: int, stride: int) -> Iterator[Window]:
    """Cover a document: every token is scored exactly once.

    `first` is put before the document, so that its first token is scored too. The first window scores all it holds;
    each later one begins `stride` tokens further on and scores its last `stride`: Hugging Face's "Perplexity of
    fixed-length models". Raises ValueError for a stride that would leave tokens out.
    """
    if not 0 < stride < max_len:
        raise ValueError(f"stride is {stride}, the window {max_len}")
    ids = [first, *token_ids]
    begin, scored_to = 0, 1
    while scored_to < len(ids):
        end = min(begin + max_len, len(ids))
        yield Window(ids[begin:end], scored_to - begin)
        begin, scored_to = begin + stride, end


def exponential(nats: float) -> float:
    """exp, but never an overflow: a random model's perplexity per word can be any number."""
    return math.exp(min(nats, _MAX_EXPONENT))


def text_metrics(unit: str, paper: PaperNumbers | None, detokenizer: str, *, differs: str = "") -> tuple[Metric, ...]:
    """The metrics that `text_perplexity` measures. `unit`: what is counted as one canonical unit."""
    per_unit = Metric("perplexity", f"perplexity per {unit}", detokenizer, "lower", paper, differs)
    return per_unit, Metric("perplexity_gpt2_token", "perplexity per GPT-2 token", detokenizer, "lower")


async def text_perplexity(
    run: Run, documents: Sequence[str], num_units: int, notes: tuple[str, ...] = ()
) -> list[Measurement]:
    """documents: as the model reads them; `num_units`: canonical units in all of them together.

    With a limit, that many windows drawn at random are scored, and the ratio of tokens to units is that of all text.
    """
    scorer = run.scorer
    max_len = scorer.max_model_len
    stride = min(run.stride or max_len // 2, max_len - 1)
    encoded = [scorer.tokenizer.encode(document) for document in documents]
    everything = [window for ids in encoded for window in windows(ids, scorer.eos_token_id, max_len, stride)]
    if not everything:
        raise InvalidRequest("There is no text in the documents.")
    chosen = sample(everything, run.limit, run.seed)

    async def nats(window: Window) -> tuple[float, int]:
        scores = await scorer.score(window.token_ids, window.start)
        return -math.fsum(token.logprob for token in scores), len(scores)

    results = await for_each(run, chosen, nats)
    num_scored = sum(count for _, count in results)
    per_token = math.fsum(loss for loss, _ in results) / num_scored
    tokens_per_unit = sum(map(len, encoded)) / num_units
    about = (f"stride {stride} of {max_len}", f"{tokens_per_unit:.3f} GPT-2 tokens a unit", *notes)
    return [
        Measurement(key, exponential(value), len(chosen), len(everything), notes=about)
        for key, value in (
            ("perplexity", per_token * tokens_per_unit),
            ("perplexity_gpt2_token", per_token),
        )
    ]
