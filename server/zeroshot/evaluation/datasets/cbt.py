"""Children's Book Test (Hill et al. 2016): which of ten words was left out of the 21st sentence?"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.detokenize import Detokenizer
from zeroshot.evaluation.metrics import accuracy
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, PaperNumbers, Run

_BLANK = "XXXXX"
_SPELLING = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "``": '"', "''": '"', "`": "'"}
_FORMAT = (
    "blocks of 21 numbered lines with an empty line after each; the 21st is `21 question with XXXXX<TAB>answer<TAB>"
    "<TAB>choice|choice|...`"
)


@dataclass(frozen=True, slots=True)
class Question:
    context: str
    """The twenty sentences."""
    before: str
    after: str
    answer: str
    choices: tuple[str, ...]


def parse(text: str) -> Iterator[Question]:
    """Questions of a file, de-tokenised. Raises InvalidRequest with the number of the block that doesn't fit."""
    detokenizer = Detokenizer(_spelled(text).split())
    for number, block in enumerate(filter(None, text.strip().split("\n\n")), start=1):
        lines = [line.strip().partition(" ")[2] for line in block.strip().split("\n")]
        fields = lines[-1].split("\t")
        if len(lines) < 2 or len(fields) != 4 or fields[0].split().count(_BLANK) != 1:
            raise InvalidRequest(f"CBT: block {number} has another format. Expected {_FORMAT}.")
        query, answer, _, choices = fields
        context = " ".join(detokenizer.detokenize(_spelled(line)) for line in lines[:-1])
        before, _, after = detokenizer.detokenize(_spelled(query)).partition(_BLANK)
        yield Question(context, before.rstrip(" "), after, answer, tuple(choices.strip("|").split("|")))


def _spelled(line: str) -> str:
    return "\n".join(" ".join(_SPELLING.get(word, word) for word in part.split(" ")) for part in line.split("\n"))


async def measure(run: Run, file: DataFile) -> list[Measurement]:
    scorer = run.scorer
    questions = list(parse(run.data.text(file)))
    chosen = sample(questions, run.limit, run.seed)

    async def is_right(question: Question) -> bool:
        # A quotation mark or bracket before the blank has no space after it, and neither has the choice then.
        space = "" if question.before[-1:] in ('"', "(", "[", "'") else " "
        context = scorer.tokenizer.encode(f"{question.context} {question.before}".strip())
        scores = {}
        for choice in question.choices:
            target = scorer.tokenizer.encode(f"{space}{choice}{question.after}")
            token_ids = (context + target)[-scorer.max_model_len :]
            tokens = await scorer.score(token_ids, len(token_ids) - len(target))
            scores[choice] = sum(token.logprob for token in tokens)
        return max(scores, key=scores.__getitem__) == question.answer

    hits = await for_each(run, chosen, is_right)
    return [accuracy("accuracy", hits, len(questions))]


def _evaluation(name: str, title: str, kind: str, paper: PaperNumbers) -> Evaluation:
    file = DataFile(
        (f"cbtest_{kind}_valid_2000ex.txt",),
        _FORMAT,
        f"the validation set of the Children's Book Test, {title.lower()}, as Hill et al. 2016 published it",
    )
    return Evaluation(
        name=name,
        title=f"Children's Book Test, {title.lower()}",
        section="3.2, table 3",
        files=(file,),
        protocol=(
            "Validation set, as in the paper. Each choice is put into the question; log P(choice and the rest of the "
            "sentence | twenty sentences, the question up to the blank); the highest wins. PTB-style tokens are "
            "de-tokenised; a context too long loses its beginning."
        ),
        metrics=(
            Metric(
                "accuracy",
                "accuracy %",
                "choice and rest of the sentence",
                paper=paper,
                differs="the paper's de-tokeniser is not published",
            ),
        ),
        run=partial(measure, file=file),
        needs_scores=True,
    )


EVALUATIONS = (
    _evaluation("cbt-cn", "Common nouns", "CN", (87.65, 92.35, 93.45, 93.30)),
    _evaluation("cbt-ne", "Named entities", "NE", (83.4, 87.1, 88.0, 89.05)),
)
