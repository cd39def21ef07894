"""Perplexity of books: plain prose, as people wrote it. Not in the paper."""

from zeroshot.evaluation.corpora import DataFile
from zeroshot.evaluation.perplexity import WINDOWS, text_metrics, text_perplexity
from zeroshot.evaluation.protocol import Evaluation, Measurement, Run

FILE = DataFile(
    ("books_heldout.jsonl",),
    'JSONL, one book a line: {"text": ...}',
    "any text that the model has not seen; no de-tokenising is done",
)


async def measure(run: Run) -> list[Measurement]:
    _ = run.scorer  # before reading: without one there is nothing to do
    texts = [str(record["text"]) for record in run.data.records(FILE, "text")]
    num_words = sum(len(text.split()) for text in texts)
    return await text_perplexity(run, texts, num_words, notes=(f"{len(texts)} books, {num_words:,} words",))


EVALUATIONS = (
    Evaluation(
        name="books",
        title="Books",
        section="",
        files=(FILE,),
        protocol=(
            "Each book after an end-of-text token; log-probability divided by the number of words between spaces. "
            f"{WINDOWS}"
        ),
        metrics=text_metrics("word", None, "no de-tokeniser"),
        run=measure,
        needs_scores=True,
        shows="completion",
    ),
)
