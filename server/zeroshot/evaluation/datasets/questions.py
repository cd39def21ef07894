"""Factual questions without a text to look in: exact match with the task `answer`."""

from functools import partial

from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.metrics import accuracy, is_exact_match
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, PaperNumbers, Run

NATURAL_QUESTIONS = DataFile(
    ("nq_open_dev.jsonl",),
    'JSONL: {"question": ..., "answer": [...]}, any of the answers is right',
    "the development set of NQ-open, the open-domain part of Natural Questions",
)
WEB_QUESTIONS = DataFile(
    ("webquestions_test.jsonl",),
    'JSONL: {"question": ..., "answers": [...]}, any of the answers is right',
    "the test set of WebQuestions",
)


async def measure(run: Run, file: DataFile, field: str) -> list[Measurement]:
    records = run.data.records(file, "question", field)

    async def is_right(record: dict[str, object]) -> bool:
        result = await run.backend.task("answer", {"question": record["question"]})
        golds = record[field]
        return is_exact_match(str(result["output"]), golds if isinstance(golds, list) else [str(golds)])

    hits = await for_each(run, sample(records, run.limit, run.seed), is_right)
    return [accuracy("exact_match", hits, len(records))]


def _evaluation(
    name: str, title: str, section: str, file: DataFile, field: str, paper: PaperNumbers | None, differs: str
) -> Evaluation:
    return Evaluation(
        name=name,
        title=title,
        section=section,
        files=(file,),
        protocol=(
            "The task `answer`: three example questions with answers, then the question; greedy, up to the line's end. "
            "Exact match after SQuAD's normalisation (case, punctuation, articles)."
        ),
        metrics=(Metric("exact_match", "exact match %", "any gold answer", paper=paper, differs=differs),),
        run=partial(measure, file=file, field=field),
        shows="answers",
    )


EVALUATIONS = (
    _evaluation(
        "natural-questions",
        "Natural Questions",
        "3.8",
        NATURAL_QUESTIONS,
        "answer",
        (None, None, None, 4.1),
        "the paper's examples are not published; of its smallest model it says that it stays below 1.0",
    ),
    _evaluation("webquestions", "WebQuestions", "", WEB_QUESTIONS, "answers", None, ""),
)
