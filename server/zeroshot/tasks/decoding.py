"""The settings a task generates with, and what is kept of the text it gets."""

from zeroshot.tasks.prompt_file import Decoding, JSONOutput, PromptFile, TextOutput
from zeroshot.text.grammar import json_grammar, regex_grammar
from zeroshot.text.keep import kept
from zeroshot.types import BeamParams, Grammar, Keep, SamplingParams


def grammar_of(file: PromptFile) -> Grammar | None:
    """What the text of a task must be. Raises InvalidRequest for a grammar that is too large."""
    if isinstance(file.output, JSONOutput):
        return json_grammar(file.output.schema_, field="output.schema")
    if file.decoding.regex is not None:
        return regex_grammar(file.decoding.regex, field="decoding.regex")
    return None


def sampling_params(
    decoding: Decoding,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    grammar: Grammar | None = None,
    keep: Keep = "all",
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
        typical_p=decoding.typical_p,
        repetition_penalty=decoding.repetition_penalty,
        presence_penalty=decoding.presence_penalty,
        frequency_penalty=decoding.frequency_penalty,
        stop=decoding.stop,
        keep=keep,
        grammar=grammar,
        beams=beams if decoding.num_beams > 1 else None,
    )


def kept_text(text: str, output: TextOutput) -> str:
    """The part of the generated text that the task answers with. More text never shortens it."""
    part = kept(text, output.keep)
    return part.strip() if output.strip else part
