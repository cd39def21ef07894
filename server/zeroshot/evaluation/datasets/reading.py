"""Reading comprehension on MCTest (Richardson et al. 2013). Not in the paper, which uses CoQA (section 3.5)."""

from typing import Any

from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.metrics import accuracy
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, Run

FILE = DataFile(
    ("mctest_test.jsonl",),
    'JSONL: {"story": ..., "questions": [{"question": ..., "choices": [...], "answer": the right choice}]}',
    "the test sets of MCTest, 160 and 500 stories together",
)
_VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"calibration": "none"},
    "length_norm": {"calibration": "none", "length_norm": True},
    "pmi_dc": {"calibration": "pmi_dc"},
}


async def measure(run: Run) -> list[Measurement]:
    items = [
        (str(record["story"]), question)
        for record in run.data.records(FILE, "story", "questions")
        for question in record["questions"]
    ]
    usable = [item for item in items if _are_options([choice.strip() for choice in item[1]["choices"]])]
    chosen = sample(usable, run.limit, run.seed)

    async def is_right(item: tuple[str, dict[str, Any]]) -> dict[str, bool]:
        story, question = item
        options = [choice.strip() for choice in question["choices"]]
        body = {"question": f"{story.strip()}\n\n{question['question']}", "options": options, "truncate": True}
        outputs = {name: await run.backend.task("choose", {**body, **extra}) for name, extra in _VARIANTS.items()}
        return {name: result["output"] == str(question["answer"]).strip() for name, result in outputs.items()}

    rows = await for_each(run, chosen, is_right)
    num_choices = sum(len(question["choices"]) for _, question in chosen)
    notes = (f"guessing gives {100 * len(chosen) / num_choices:.0f} %",)
    return [accuracy(name, [row[name] for row in rows], len(usable), notes) for name in _VARIANTS]


def _are_options(choices: list[str]) -> bool:
    """The same text twice, or none, is nothing to choose."""
    return len(set(choices)) == len(choices) > 1 and all(choices)


EVALUATIONS = (
    Evaluation(
        name="mctest",
        title="MCTest",
        section="",
        files=(FILE,),
        protocol=(
            "The task `choose` with the story before the question: the answer whose text is the most probable after "
            "`Answer:` wins."
        ),
        metrics=(
            Metric("none", "accuracy %", "log P(answer)"),
            Metric("length_norm", "accuracy %", "log P(answer) divided by its number of tokens"),
            Metric("pmi_dc", "accuracy %", "log P(answer | question) - log P(answer) (Holtzman et al. 2021)"),
        ),
        run=measure,
    ),
)
