"""The settings a task generates with, and what is kept of the text it gets."""

import re

from zeroshot.tasks.prompt_file import Decoding, JSONOutput, Keep, PromptFile, TextOutput
from zeroshot.text.grammar import json_grammar, regex_grammar
from zeroshot.types import BeamParams, Grammar, SamplingParams

# Escaped are the curly quotes and the CJK sentence marks, which need no space after them.
_SENTENCE_END = re.compile(r"[.!?]+[\"'\u201d\u2019\u00bb)\]]*(?=\s|$)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*")
_NO_SENTENCE_END = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mme|Mlle|No|vs|etc|e\.g|i\.e))\.$")
_WORD = re.compile(r"\w+(?:[-'\u2019.]\w+)*")


def grammar_of(file: PromptFile) -> Grammar | None:
    """What the text of a task must be. Raises InvalidRequest for a grammar that is too large."""
    if isinstance(file.output, JSONOutput):
        return json_grammar(file.output.schema_, field="output.schema")
    if file.decoding.regex is not None:
        return regex_grammar(file.decoding.regex, field="decoding.regex")
    return None


def sampling_params(
    decoding: Decoding, *, max_tokens: int, temperature: float, seed: int, grammar: Grammar | None = None
) -> SamplingParams:
    """The file's settings, with what the request may say otherwise."""
    beams = BeamParams(
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty,
        early_stopping=decoding.early_stopping,
    )
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        min_p=decoding.min_p,
        repetition_penalty=decoding.repetition_penalty,
        presence_penalty=decoding.presence_penalty,
        frequency_penalty=decoding.frequency_penalty,
        stop=decoding.stop,
        grammar=grammar,
        beams=beams if decoding.num_beams > 1 else None,
    )


def kept_text(text: str, output: TextOutput) -> str:
    """What of the generated text the task answers with."""
    kept = _keep(text, output.keep)
    return kept.strip() if output.strip else kept


def _keep(text: str, keep: Keep) -> str:
    match keep:
        case "all":
            return text
        case "first_word":
            word = _WORD.search(text)
            return word.group() if word else ""
        case "first_line":
            return next((line for line in text.splitlines() if line.strip()), "")
        case "first_sentence":
            return first_sentences(text, 1)
        case "three_sentences":
            return first_sentences(text, 3)


def first_sentences(text: str, count: int) -> str:
    """Up to the end of the count-th sentence; all of the text if it has fewer. Initials and "Mr." end none."""
    for match in _SENTENCE_END.finditer(text):
        if _NO_SENTENCE_END.search(text, 0, match.end()):
            continue
        count -= 1
        if count == 0:
            return text[: match.end()]
    return text
