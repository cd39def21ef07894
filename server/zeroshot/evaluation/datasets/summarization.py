"""Summaries after `TL;DR:`: ROUGE on CNN / Daily Mail (Nallapati et al. 2016) and XSum (Narayan et al. 2018)."""

from collections.abc import Sequence
from functools import partial

from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.metrics import library
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, PaperNumbers, Run
from zeroshot.evaluation.rouge import rouge, sentences

CNN_DAILY_MAIL = DataFile(
    ("cnn_dailymail_test.jsonl", "cnn_dailymail_100.jsonl"),
    'JSONL: {"article": ..., "highlights": ...}, one highlight a line',
    "CNN / Daily Mail, version 3.0.0, test split (the paper's), or 100 articles of its training split",
)
XSUM = DataFile(
    ("xsum_test.jsonl", "xsum_test_1000.jsonl"), 'JSONL: {"document": ..., "summary": ...}', "the test split of XSum"
)
_MAX_CHARS = 20_000  # what the task accepts; far more than the context holds
_LEAD = 3
_NAMES = {"rouge1": "ROUGE-1 F1", "rouge2": "ROUGE-2 F1", "rougeL": "ROUGE-L F1", "rouge_avg": "mean of the three"}
_PAPER = {"rouge1": 29.34, "rouge2": 8.27, "rougeL": 26.58, "rouge_avg": 21.40}
_PAPER_LEAD = {"rouge1": 40.38, "rouge2": 17.66, "rougeL": 36.62, "rouge_avg": 31.55}


async def measure(run: Run, file: DataFile, fields: tuple[str, str], lead: dict[str, float]) -> list[Measurement]:
    library("rouge_score.rouge_scorer", "rouge-score")  # before minutes of generating
    text_field, summary_field = fields
    records = run.data.records(file, *fields)
    chosen = sample(list(enumerate(records)), run.limit, run.seed)

    async def summarize(item: tuple[int, dict[str, str]]) -> tuple[str, bool]:
        index, record = item
        body = {"text": record[text_field].strip()[:_MAX_CHARS], "truncate": True, "explain": True}
        result = await run.backend.task("summarize", {**body, "seed": run.seed + index})
        return str(result["output"]), result["explain"]["truncated"] is not None

    results = await for_each(run, chosen, summarize)
    references = [record[summary_field] for _, record in chosen]
    measured = rouge([summary for summary, _ in results], references)
    baseline = rouge([_first_sentences(record[text_field]) for _, record in chosen], references)
    notes = (
        f"read from {run.data.path(file).name}",
        f"{sum(is_cut for _, is_cut in results)} articles cut at the end to fit the context",
        f"{sum(not summary for summary, _ in results)} empty summaries",
    )
    return [
        Measurement(key, value, len(chosen), len(records), notes=(*notes, _lead_note(key, baseline, lead)))
        for key, value in measured.items()
    ]


def _first_sentences(text: str) -> str:
    return "\n".join(sentences(text)[:_LEAD])


def _lead_note(key: str, baseline: dict[str, float], paper: dict[str, float]) -> str:
    """The baseline needs no model: it tells how far the data and the metric are the paper's."""
    known = f" (paper: {paper[key]:.2f})" if key in paper else ""
    return f"{_NAMES[key]} of the article's first {_LEAD} sentences: {baseline[key]:.2f}{known}"


def _metrics(paper: dict[str, float], differs: str) -> tuple[Metric, ...]:
    numbers: dict[str, PaperNumbers] = {key: (None, None, None, value) for key, value in paper.items()}
    how = "F1, Porter stemming; ROUGE-L over sentences"
    return tuple(Metric(key, name, how, paper=numbers.get(key), differs=differs) for key, name in _NAMES.items())


def _evaluation(
    name: str, title: str, section: str, file: DataFile, fields: tuple[str, str], paper: Sequence[dict[str, float]]
) -> Evaluation:
    own, lead = paper
    return Evaluation(
        name=name,
        title=title,
        section=section,
        files=(file,),
        protocol=(
            "The task `summarize`: the article, cut at its end to fit the context, then `TL;DR:`; 100 tokens, top-k 2, "
            "temperature 1, a seed for each article; the first three sentences. One sample an article."
        ),
        metrics=_metrics(own, "the paper's number is for the whole test split" if own else ""),
        run=partial(measure, file=file, fields=fields, lead=lead),
        shows="summaries",
    )


EVALUATIONS = (
    _evaluation(
        "cnn-dailymail",
        "CNN / Daily Mail",
        "3.6, table 4",
        CNN_DAILY_MAIL,
        ("article", "highlights"),
        (_PAPER, _PAPER_LEAD),
    ),
    _evaluation("xsum", "XSum", "", XSUM, ("document", "summary"), ({}, {})),
)
