"""Winograd Schema Challenge (Levesque et al. 2012), 273 schemas: partial and full scoring (Trinh and Le 2018).

In process the sentences are scored exactly as they are written. Over HTTP the task `coreference` does the same, except
that its template has a space after the option: where a schema ends with the pronoun, "saved him ." for "saved him.".
"""

import re
from dataclasses import dataclass

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.metrics import accuracy
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, Run, Scorer

FILE = DataFile(
    ("wsc273.jsonl",),
    'JSONL: {"sentence": "... _ ...", "option1": ..., "option2": ..., "answer": "1" or "2"}',
    "the 273 schemas of the Winograd Schema Challenge in the form of WinoGrande",
)
_BLANK = "_"
_SCORINGS = ("partial", "full")
# Words that open a noun phrase: capitals at the beginning of a sentence only.
_OPENERS = frozenset({"The", "A", "An", "My", "His", "Her", "Its", "Our", "Your", "Their", "This", "That"})
_SENTENCE_END = re.compile(r"[.!?][\"']?\s*$")


@dataclass(frozen=True, slots=True)
class Schema:
    before: str
    """Without the space before the pronoun."""
    after: str
    """With the space after it, where there is one."""
    options: tuple[str, str]
    """As they read in the pronoun's place."""
    answer: int


def parse(record: dict[str, str]) -> Schema:
    """Raises InvalidRequest for a sentence without exactly one blank."""
    before, blank, after = record["sentence"].partition(_BLANK)
    if not blank or _BLANK in after or str(record["answer"]) not in ("1", "2"):
        raise InvalidRequest(f"Winograd: expected {FILE.format}: {str(record)[:120]}")
    starts = not before.strip() or bool(_SENTENCE_END.search(before))
    options = (in_place(record["option1"], starts=starts), in_place(record["option2"], starts=starts))
    return Schema(before.rstrip(), after, options, int(record["answer"]) - 1)


def in_place(option: str, *, starts: bool) -> str:
    """ "The trophy" in the middle of a sentence is "the trophy"; at its start "the trophy" is "The trophy"."""
    if starts:
        return option[:1].upper() + option[1:]
    return option[:1].lower() + option[1:] if option.split()[0] in _OPENERS else option


async def measure(run: Run) -> list[Measurement]:
    records = run.data.records(FILE, "sentence", "option1", "option2", "answer")
    schemas = sample([parse(record) for record in records], run.limit, run.seed)

    async def is_right(schema: Schema) -> dict[str, bool]:
        return {scoring: await _choice(run, schema, scoring) == schema.answer for scoring in _SCORINGS}

    rows = await for_each(run, schemas, is_right)
    num_spaced = sum(not schema.after[:1].isspace() for schema in schemas)
    notes = () if run.backend.scorer or not num_spaced else (f"{num_spaced} read 'pronoun .' with a space",)
    return [accuracy(scoring, [row[scoring] for row in rows], len(records), notes) for scoring in _SCORINGS]


async def _choice(run: Run, schema: Schema, scoring: str) -> int:
    """The index of the option that the model finds more probable."""
    if run.backend.scorer is not None:
        logprobs = [await _score(run.backend.scorer, schema, option, scoring) for option in schema.options]
        return logprobs.index(max(logprobs))
    body = {"before": schema.before, "after": schema.after.lstrip(), "options": list(schema.options)}
    result = await run.backend.task("coreference", {**body, "scoring": scoring})
    return schema.options.index(result["output"])


async def _score(scorer: Scorer, schema: Schema, option: str, scoring: str) -> float:
    filled = f"{schema.before} {option}".lstrip()
    before, after = scorer.tokenizer.encode(filled), scorer.tokenizer.encode(schema.after)
    if scoring == "full":  # after an end of text: so the first token has a probability too
        tokens = await scorer.score([scorer.eos_token_id, *before, *after], 1)
    else:
        tokens = await scorer.score([*before, *after], len(before))
    return sum(token.logprob for token in tokens)


EVALUATIONS = (
    Evaluation(
        name="winograd",
        title="Winograd Schema Challenge",
        section="3.4, figure 3",
        files=(FILE,),
        protocol=(
            "Both options are put in the pronoun's place, with a small letter where that is the middle of a sentence; "
            "the more probable text wins. Partial: log P(text after the option | text up to it). Full: log P(all)."
        ),
        metrics=(
            Metric(
                "partial",
                "accuracy %",
                "partial scoring",
                paper=(None, None, None, 70.70),
                differs="the paper's text doesn't say which scoring its 70.70 is",
            ),
            Metric("full", "accuracy %", "full scoring"),
        ),
        run=measure,
    ),
)
