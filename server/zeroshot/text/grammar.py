"""Regular expressions and JSON schemas as grammars that generated text can be held to: what is accepted, and checked.

llguidance reads them. What it makes of a hostile one can take hours, and nothing in its process can stop it: so an
unknown grammar is first tried in a process of its own, which may be killed (`GrammarChecker`, called by the client).
The engine compiles again what has passed (`engine/guide.py`).
"""

import asyncio
import json
import logging
import re
import resource
import sys
from collections import OrderedDict
from functools import partial
from typing import Any

import llguidance

from zeroshot.errors import InvalidRequest, Overloaded
from zeroshot.types import Grammar

logger = logging.getLogger(__name__)

MAX_REGEX_CHARS = 2000
MAX_EXPANDED_CHARS = 2000
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_STRING = 1000

PARSER_LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_lexer_states=10_000,
    max_grammar_size=50_000,
    verbose_errors=False,
)
"""A fifth to a quarter of llguidance's own: a step of the engine waits for the mask."""

_CHECK_CPU_S = 4  # of processor time, so that a busy machine refuses nothing that an idle one takes
_CHECK_TIMEOUT_S = 60
_CHECK_MEMORY_BYTES = 2 * 2**30
_MAX_CHECKS_AT_ONCE = 2
_MAX_CHECKS_WAITING = 64  # of different grammars, those at work included
_MAX_REMEMBERED = 256

_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes it. Where any white space may stand, a small model writes nothing else."""

# A class that is never closed goes on to the end: it is looked for once, not again from each of its characters.
_REGEX_PART = re.compile(
    r"\\(?:[xuUpP]\{[^}]*\}|.)|\[\^?\]?(?:\\.?|[^\]\\])*+(?:\]|\Z)|(?P<open>\()|(?P<close>\))"
    r"|\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\}|(?P<again>[*+?])|.",
    re.DOTALL,
)


def regex_grammar(expression: str, *, field: str) -> Grammar:
    """The whole text matches it. Raises InvalidRequest for one that is too large; see `GrammarChecker` for the rest."""
    _check_regex(expression, field)
    return Grammar(kind="regex", source=expression, field=field)


def json_grammar(schema: Any, *, field: str) -> Grammar:
    """The text is JSON that fits the schema. Raises InvalidRequest for a schema that is too large or too deep."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{field}: a JSON schema must be an object.", field=field)
    if _has_more_bytes(schema, MAX_SCHEMA_BYTES):
        raise schema_too_large(field)
    try:
        source = json.dumps(schema, allow_nan=False)
    except ValueError:
        raise InvalidRequest(f"{field}: the schema has a number that JSON doesn't have.", field=field) from None
    except RecursionError:
        raise _too_deep(field) from None
    if len(source) > MAX_SCHEMA_BYTES:
        raise schema_too_large(field)
    _check_schema(schema, field)
    return Grammar(kind="json_schema", source=source, field=field)


def compiled_form(grammar: Grammar) -> str:
    """The grammar in llguidance's own format."""
    if grammar.kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(grammar.source)
    return llguidance.LLMatcher.grammar_from_json_schema(grammar.source, overrides=_JSON_LAYOUT)  # type: ignore[arg-type]


def mistake_in(grammar: Grammar) -> str | None:
    """What is wrong with it, in one line; None if nothing is. Takes as long as it takes."""
    # Bytes as tokens: read in no time, and what is slow with GPT-2's tokens is slow with them.
    tokenizer = llguidance.LLTokenizer("byte")
    try:
        matcher = llguidance.LLMatcher(tokenizer, compiled_form(grammar), log_level=0, limits=PARSER_LIMITS)
    except ValueError as error:
        return one_line(str(error))
    if not matcher.is_error():
        matcher.compute_bitmask()
    return one_line(matcher.get_error()) if matcher.is_error() else None


def one_line(message: str) -> str:
    """llguidance's message: of a regular expression's mistake the last line of the parser's says what it is."""
    reason = re.search(r"^error: (.*)$", message, flags=re.MULTILINE)
    line = reason.group(1) if reason else message.split("\n")[0]
    return "no text fits it" if line == "NoExtensionBias" else line[:300]


def refusal(grammar: Grammar, message: str) -> InvalidRequest:
    what = "regular expression" if grammar.kind == "regex" else "JSON schema"
    return InvalidRequest(f"{grammar.field}: this {what} can't be used: {message}", field=grammar.field)


class GrammarChecker:
    """Remembers its answers, good and bad. An asyncio façade."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], str | None] = OrderedDict()
        self._checks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_MAX_CHECKS_AT_ONCE)

    async def check(self, grammar: Grammar) -> None:
        """Raises InvalidRequest for a grammar with a mistake in it, or that takes too much to read, and Overloaded."""
        key = (grammar.kind, grammar.source)
        if key not in self._answers:
            # Everybody who waits for the same one waits for the same check, which outlives those who leave.
            await asyncio.shield(self._checks.get(key) or self._begin(key, grammar))
        self._answers.move_to_end(key)
        message = self._answers[key]
        while len(self._answers) > _MAX_REMEMBERED:
            self._answers.popitem(last=False)
        if message is not None:
            raise refusal(grammar, message)

    def _begin(self, key: tuple[str, str], grammar: Grammar) -> "asyncio.Task[None]":
        if len(self._checks) >= _MAX_CHECKS_WAITING:
            raise Overloaded("The server has many new grammars to read. Try again.", retry_after_s=5)
        task = self._checks[key] = asyncio.create_task(self._answer(key, grammar))
        task.add_done_callback(partial(self._end, key))
        return task

    def _end(self, key: tuple[str, str], task: "asyncio.Task[None]") -> None:
        del self._checks[key]
        if not task.cancelled():
            task.exception()  # whoever waited has been told; where nobody did, nobody need be

    async def _answer(self, key: tuple[str, str], grammar: Grammar) -> None:
        async with self._slots:
            self._answers[key] = await _mistake_found_elsewhere(grammar)


async def _mistake_found_elsewhere(grammar: Grammar) -> str | None:
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zeroshot.text.grammar"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    except OSError as error:  # too many processes or open files, or too little memory for one more
        logger.error("a grammar could not be checked: %s", error)
        raise _no_time() from None
    try:
        question = json.dumps([grammar.kind, grammar.source]).encode()
        answer, _ = await asyncio.wait_for(process.communicate(question), _CHECK_TIMEOUT_S)
    except TimeoutError:
        raise _no_time() from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        return f"it takes too much to read: more than {_CHECK_CPU_S} s, or {_CHECK_MEMORY_BYTES >> 30} GiB"
    message: str | None = json.loads(answer)
    return message


def _no_time() -> Overloaded:
    return Overloaded("The server had no time to read the grammar. Try again.", retry_after_s=5)


def main() -> None:
    """[kind, source] on standard input -> the mistake, or null, on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_CHECK_MEMORY_BYTES, _CHECK_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CHECK_CPU_S, _CHECK_CPU_S))
    kind, source = json.loads(sys.stdin.buffer.read())
    sys.stdout.write(json.dumps(mistake_in(Grammar(kind=kind, source=source))))


def _check_regex(expression: str, field: str) -> None:
    if len(expression) > MAX_REGEX_CHARS:
        raise InvalidRequest(
            f"{field}: the regular expression has {len(expression)} characters, at most {MAX_REGEX_CHARS} are read.",
            field=field,
        )
    size = expanded_size(expression)
    if size > MAX_EXPANDED_CHARS:
        raise InvalidRequest(
            f"{field}: with its repetitions written out this regular expression is {min(size, 10**9)} characters long, "
            f"at most {MAX_EXPANDED_CHARS} can be used. Lower the counts in braces.",
            field=field,
        )


def expanded_size(expression: str) -> int:
    """About how many characters the expression has with `x{3}` written as `xxx`, and so on inside out."""
    groups, last = [0], 0  # the sizes of the groups that are open, and of the last thing that can be repeated
    for part in _REGEX_PART.finditer(expression):
        if part["open"]:
            groups.append(0)
            last = 0
        elif part["close"] and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif part["least"]:
            count = max(int(part["least"]), int(part["most"] or 0), 1)
            groups[-1] += last * (count - 1)
            last *= count
        elif not part["again"]:
            last = 1
            groups[-1] += 1
    return sum(groups)


def schema_too_large(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: the schema has too many bytes, at most {MAX_SCHEMA_BYTES} are read.", field=field)


def _has_more_bytes(schema: dict[str, Any], limit: int) -> bool:
    """Whether it must have, once it is written: a quick look, where writing a body's 4 MB takes half a second."""
    left: list[Any] = [schema]
    num_bytes = 0
    while left and num_bytes <= limit:
        value = left.pop()
        num_bytes += len(value) if isinstance(value, str | list | dict) else 1
        if num_bytes <= limit and isinstance(value, list | dict):
            left += value
            left += value.values() if isinstance(value, dict) else ()
    return num_bytes > limit


def _too_deep(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels.", field=field)


def _check_schema(schema: dict[str, Any], field: str) -> None:
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if depth > MAX_SCHEMA_DEPTH:
            raise _too_deep(field)
        if isinstance(value, str):
            if len(value) > MAX_SCHEMA_STRING:
                raise InvalidRequest(
                    f"{field}: a string in it has {len(value)} characters, at most {MAX_SCHEMA_STRING} are read.",
                    field=field,
                )
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            if "x-guidance" in value:
                raise InvalidRequest(f"{field}: x-guidance is not supported.", field=field)
            patterns = value.get("patternProperties")
            for pattern in [value.get("pattern"), *(patterns if isinstance(patterns, dict) else ())]:
                if isinstance(pattern, str):
                    _check_regex(pattern, field)
            left += [(key, depth) for key in value]
            left += [(item, depth + 1) for item in value.values()]


if __name__ == "__main__":
    main()
