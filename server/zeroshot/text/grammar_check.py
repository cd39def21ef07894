"""Can llguidance read a grammar, and in how much time? Asked before the engine compiles it (`engine/guide.py`).

A hostile grammar can keep llguidance busy for hours, and nothing in the same process can stop it. So an unknown one is
first tried in a process of its own, which may be killed: `GrammarChecker`, called by the client.
"""

import asyncio
import json
import logging
import re
import resource
import signal
import sys
from collections import Counter, OrderedDict, defaultdict
from contextlib import nullcontext
from functools import partial

import llguidance

from zeroshot.caller import CALLER
from zeroshot.errors import InvalidRequest, Overloaded
from zeroshot.types import Grammar

logger = logging.getLogger(__name__)

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

_BEGUN = b"begun\n"
"""The process's first words. One that ends without them could not even start, which says nothing about the grammar."""

_ENDED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""SIGKILL comes from a system that is short of memory, SIGTERM from one that stops the server and all of its processes.
The process's own limits end it with other signals."""

_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes it. Where any white space may stand, a small model writes nothing else."""


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
    """llguidance's message, shortened: for a mistake in a regular expression, the last line that its parser wrote."""
    reason = re.search(r"^error: (.*)$", message, flags=re.MULTILINE)
    line = reason.group(1) if reason else message.split("\n")[0]
    if line == "NoExtensionBias":
        return "no text fits it"
    return re.sub(r" Enable '\w+' option.*", " Use anyOf.", line)[:300]  # an option of llguidance's, not of a request


def refusal(grammar: Grammar, message: str) -> InvalidRequest:
    what = "regular expression" if grammar.kind == "regex" else "JSON schema"
    return InvalidRequest(f"{grammar.field}: this {what} can't be used: {message}", field=grammar.field)


class GrammarChecker:
    """Remembers its answers, good and bad. An asyncio façade."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], str | None] = OrderedDict()
        self._checks: dict[tuple[bytes, str, str], asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_MAX_CHECKS_AT_ONCE)
        self._turns: defaultdict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._has_several_callers = False

    def share_among(self, num_callers: int) -> None:
        """Of several callers, one has one check at work, and half of those that wait: others would wait for minutes."""
        self._has_several_callers = num_callers > 1

    async def check(self, grammar: Grammar) -> None:
        """Raises InvalidRequest for a grammar with a mistake in it, or that takes too much to read, and Overloaded."""
        key = (grammar.kind, grammar.source)
        if key not in self._answers:
            caller = CALLER.get().cache_salt if self._has_several_callers else b""
            # All of a caller's that wait for the same one wait for the same check, which outlives those who leave.
            await asyncio.shield(self._checks.get((caller, *key)) or self._begin(caller, grammar))
        self._answers.move_to_end(key)
        message = self._answers[key]
        while len(self._answers) > _MAX_REMEMBERED:
            self._answers.popitem(last=False)
        if message is not None:
            raise refusal(grammar, message)

    def _begin(self, caller: bytes, grammar: Grammar) -> "asyncio.Task[None]":
        num_of_caller = Counter(other for other, *_ in self._checks)[caller]
        if len(self._checks) >= _MAX_CHECKS_WAITING or (caller and num_of_caller >= _MAX_CHECKS_WAITING // 2):
            raise Overloaded("The server has many new grammars to read. Try again.", retry_after_s=5)
        key = (caller, grammar.kind, grammar.source)
        task = self._checks[key] = asyncio.create_task(self._answer(caller, grammar))
        task.add_done_callback(partial(self._end, key))
        return task

    def _end(self, key: tuple[bytes, str, str], task: "asyncio.Task[None]") -> None:
        del self._checks[key]
        if not task.cancelled():
            task.exception()  # or asyncio would log it as never retrieved when all who waited have left

    async def _answer(self, caller: bytes, grammar: Grammar) -> None:
        key = (grammar.kind, grammar.source)
        async with self._turns[caller] if caller else nullcontext(), self._slots:
            if key not in self._answers:  # another caller may have asked meanwhile
                self._answers[key] = await _mistake_found_elsewhere(grammar)


async def _mistake_found_elsewhere(grammar: Grammar) -> str | None:
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zeroshot.text.grammar_check"),
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
    if process.returncode == 0:
        message: str | None = json.loads(answer.removeprefix(_BEGUN))
        return message
    if answer.startswith(_BEGUN) and process.returncode not in _ENDED_FROM_OUTSIDE:
        return f"it takes too much to read: more than {_CHECK_CPU_S} s, or {_CHECK_MEMORY_BYTES >> 30} GiB"
    logger.error("a grammar could not be checked: its process ended with exit code %d", process.returncode)
    raise _no_time()


def _no_time() -> Overloaded:
    return Overloaded("The server had no time to read the grammar. Try again.", retry_after_s=5)


def main() -> None:
    """[kind, source] on standard input -> the mistake, or null, on standard output, after `_BEGUN`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; running requests are still answered
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGXCPU and SIGABRT would leave a file of all the memory
    resource.setrlimit(resource.RLIMIT_AS, (_CHECK_MEMORY_BYTES, _CHECK_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CHECK_CPU_S, _CHECK_CPU_S + 1))  # SIGXCPU first, then SIGKILL
    kind, source = json.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(_BEGUN)
    sys.stdout.flush()
    sys.stdout.write(json.dumps(mistake_in(Grammar(kind=kind, source=source))))


if __name__ == "__main__":
    main()
