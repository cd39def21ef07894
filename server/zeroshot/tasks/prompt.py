"""Values -> a prompt that fits the context. The instruction is never cut; an input only when the request says so."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from zeroshot.errors import ContextLengthExceeded
from zeroshot.tasks.inputs import StringInput
from zeroshot.tasks.prompt_file import JSONOutput, PromptFile, TextOutput
from zeroshot.tasks.results import PromptPart, Truncation
from zeroshot.tasks.template import Rendered, Template
from zeroshot.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    rendered: Rendered
    token_ids: list[int]
    values: Mapping[str, str]
    """What was rendered: after truncation."""
    truncated: Truncation | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the prompt shares the model's context with: `reserved` tokens to generate or to score after it."""

    tokenizer: Tokenizer
    max_model_len: int
    reserved: int


def fit_prompt(
    file: PromptFile, template: Template, values: Mapping[str, str], context: Context, *, truncate: bool
) -> Prompt:
    """Render and tokenise. Raises ContextLengthExceeded for what doesn't fit and may not, or can't, be shortened."""
    prompt = render_prompt(template, values, context.tokenizer)
    overflow = len(prompt.token_ids) + context.reserved - context.max_model_len
    if overflow <= 0:
        return prompt
    field = field_to_cut(file, template, values)
    if truncate and field is not None:
        shorter = _cut(file, template, values, context, field, overflow)
        if shorter is not None:
            cut_tokens = len(prompt.token_ids) - len(shorter.token_ids)
            return replace(shorter, truncated=Truncation(field=field, tokens=cut_tokens))
    generates = isinstance(file.output, TextOutput | JSONOutput)
    can_be_cut = field is not None and context.reserved < context.max_model_len
    if context.reserved >= context.max_model_len:
        field = "max_tokens" if generates else file.options_input
    num_tokens = len(prompt.token_ids) + (0 if generates else context.reserved)
    raise ContextLengthExceeded(
        num_tokens,
        context.reserved if generates else 0,
        context.max_model_len,
        field=field or "inputs",
        hint=" (`truncate: true` does it)" if can_be_cut and not truncate else "",
    )


def render_prompt(template: Template, values: Mapping[str, str], tokenizer: Tokenizer) -> Prompt:
    """Whatever its length."""
    rendered = template.render(values)
    return Prompt(rendered, tokenizer.encode(rendered.text), values)


def field_to_cut(file: PromptFile, template: Template, values: Mapping[str, str]) -> str | None:
    """The string input that declares `truncate`, else the longest one. None if the template uses no string."""
    strings = {name: field for name, field in file.inputs.items() if isinstance(field, StringInput)}
    candidates = [name for name in dict.fromkeys(template.fields) if name in strings]
    declared = [name for name in candidates if strings[name].truncate]
    return max(declared or candidates, key=lambda name: len(values[name]), default=None)


def prompt_parts(prompt: Prompt, tokenizer: Tokenizer) -> list[PromptPart]:
    """Which piece of the prompt came from where, with its tokens. A token counts where its last byte is."""
    token_ends = list(accumulate(len(tokenizer.token_bytes(token_id)) for token_id in prompt.token_ids))
    parts: list[PromptPart] = []
    end_byte = num_before = 0
    for span in prompt.rendered.spans:
        text = prompt.rendered.text[span.start : span.end]
        end_byte += len(text.encode())
        num_until = bisect_right(token_ends, end_byte)
        parts.append(PromptPart(field=span.field, text=text, tokens=num_until - num_before))
        num_before = num_until
    return parts


def _cut(
    file: PromptFile, template: Template, values: Mapping[str, str], context: Context, field: str, overflow: int
) -> Prompt | None:
    """The prompt with as many of the field's tokens as fit; None if not even one does.

    overflow: how many tokens the whole one is too long.
    """
    declared = file.inputs[field]
    keeps_end = isinstance(declared, StringInput) and declared.truncate == "left"
    token_ids = context.tokenizer.encode(values[field])
    keep = len(token_ids)
    uses = template.fields.count(field)
    while True:
        # The cut may join tokens at its edge differently, so the first try can be off by one or two.
        keep -= max(1, -(-overflow // uses))
        if keep <= 0:
            return None
        kept = token_ids[-keep:] if keeps_end else token_ids[:keep]
        # A token can hold part of a character: what is left of that at the cut is dropped.
        text = b"".join(map(context.tokenizer.token_bytes, kept)).decode("utf-8", errors="ignore")
        prompt = render_prompt(template, {**values, field: text}, context.tokenizer)
        overflow = len(prompt.token_ids) + context.reserved - context.max_model_len
        if overflow <= 0:
            return prompt
