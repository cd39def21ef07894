"""ROUGE-1, ROUGE-2 and ROUGE-L as the summarization literature reports them, by Google's `rouge-score`.

F1, Porter stemming, and ROUGE-L over the sentences of a summary: what ROUGE-1.5.5 (Lin 2004) gives with `-m` for
summaries with one sentence a line, which is how CNN / Daily Mail numbers are made.
"""

from collections.abc import Sequence
from statistics import fmean

from zeroshot.evaluation.metrics import library
from zeroshot.text.keep import first_sentences

_TYPES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeLsum"}


def sentences(text: str) -> list[str]:
    """Sentences of a text; a line's end ends one too."""
    found = []
    for line in text.splitlines():
        rest = line.strip()
        while rest:
            sentence = first_sentences(rest, 1)
            found.append(sentence)
            rest = rest[len(sentence) :].strip()
    return found


def rouge(summaries: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F1 in percent: rouge1, rouge2, rougeL, and their mean as rouge_avg. Raises Skipped without rouge-score."""
    scorer = library("rouge_score.rouge_scorer", "rouge-score").RougeScorer(list(_TYPES.values()), use_stemmer=True)
    rows = [
        scorer.score("\n".join(sentences(reference)), "\n".join(sentences(summary)))
        for summary, reference in zip(summaries, references, strict=True)
    ]
    means = {name: 100 * fmean(row[kind].fmeasure for row in rows) for name, kind in _TYPES.items()}
    return {**means, "rouge_avg": fmean(means.values())}
