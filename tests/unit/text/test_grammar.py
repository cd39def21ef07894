"""What is accepted as a grammar, and that texts made from small expressions match them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import DEMO, GPT2_VOCAB_SIZE
from zeroshot.caller import CALLER, Caller
from zeroshot.engine.guide import GuideCompiler
from zeroshot.errors import InvalidRequest, Overloaded
from zeroshot.model.config import GPT2Config
from zeroshot.text import grammar_check
from zeroshot.text.grammar import expanded_size, json_grammar, regex_grammar
from zeroshot.text.grammar_check import GrammarChecker, mistake_in

EOS = GPT2_VOCAB_SIZE - 1

atoms = st.sampled_from(["a", "b", "é", "日", r"\.", "[a-c]", "[^a]", " ", r"\d"])
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def guides() -> GuideCompiler:
    return GuideCompiler(DEMO, GPT2Config(eos_token_id=EOS))


@settings(max_examples=60)
@given(expression=expressions, seed=st.integers(0, 1000))
def test_any_text_that_a_guide_lets_through_matches(guides: Any, expression: str, seed: int) -> None:
    grammar = regex_grammar(expression, field="regex")
    assert mistake_in(grammar) is None
    guide, rng, raw = guides.compile(grammar), np.random.default_rng(seed), b""
    tokens = guides._tokenizer
    for step in range(60):
        guide.compute_mask()
        allowed = np.flatnonzero(guide.mask)
        assert guide.mask[EOS] == bool(_matches(expression, raw))
        asked = [EOS, int(rng.choice(allowed)), *rng.integers(0, GPT2_VOCAB_SIZE, 20).tolist()]
        assert [guide.allows(token_id) for token_id in asked] == guide.mask[asked].tolist()
        token_id = EOS if step > 20 and guide.mask[EOS] else int(rng.choice(allowed))
        if token_id == EOS:
            break
        guide.accept(token_id)
        raw += tokens.decode_bytes([token_id])
        if guide.is_complete:
            break
    else:
        return  # an expression without a short end
    assert _matches(expression, raw)


def _matches(expression: str, raw: bytes) -> bool:
    try:
        return re.fullmatch(expression, raw.decode("utf-8")) is not None
    except UnicodeDecodeError:
        return False


def test_guides_of_one_grammar_go_their_own_ways(guides: Any) -> None:
    first, second = (guides.compile(regex_grammar("ab|ac", field="regex")) for _ in range(2))
    first.compute_mask()
    first.accept(int(np.flatnonzero(first.mask)[0]))
    second.compute_mask()
    first.compute_mask()
    assert (first.mask != second.mask).any()


def test_nobody_waits_while_another_grammar_is_compiled(guides: Any) -> None:
    known, slow = regex_grammar("ab|ac", field="regex"), json_grammar({"multipleOf": 300007}, field="json")
    guides.compile(known)
    thread = threading.Thread(target=guides.compile, args=[slow])
    thread.start()
    time.sleep(0.1)
    guides.compile(known)
    assert thread.is_alive(), "a second and more"
    thread.join()


def test_all_who_wait_for_a_grammar_wait_for_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    check = grammar_check._mistake_found_elsewhere

    async def count(grammar: Any) -> str | None:
        checked.append(grammar.source)
        return await check(grammar)

    monkeypatch.setattr(grammar_check, "_mistake_found_elsewhere", count)

    async def all_at_once() -> list[Any]:
        checker = GrammarChecker()
        good, bad = (regex_grammar(source, field="regex") for source in ("[a-c]+", "("))
        leaving = asyncio.create_task(checker.check(good))
        await asyncio.sleep(0)
        leaving.cancel()
        return await asyncio.gather(*[checker.check(g) for g in [good, bad] * 20], return_exceptions=True)

    results = asyncio.run(all_at_once())
    assert sorted(checked) == ["(", "[a-c]+"]
    assert results[::2] == [None] * 20
    assert all(isinstance(error, InvalidRequest) for error in results[1::2])


def test_more_new_grammars_than_can_be_read_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take_long(_: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(grammar_check, "_mistake_found_elsewhere", take_long)

    async def all_at_once() -> list[Any]:
        checker = GrammarChecker()
        wanted = [regex_grammar(f"a{{{i}}}", field="regex") for i in range(1, grammar_check._MAX_CHECKS_WAITING + 4)]
        tasks = [asyncio.create_task(checker.check(grammar)) for grammar in wanted]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return [task.exception() for task in done]

    errors = asyncio.run(all_at_once())
    assert len(errors) == 3
    assert all(isinstance(error, Overloaded) for error in errors)


def test_one_caller_leaves_room_for_anothers_grammars(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take_long(grammar: Any) -> None:
        await asyncio.sleep(3600 if "slow" in grammar.source else 0)

    monkeypatch.setattr(grammar_check, "_mistake_found_elsewhere", take_long)

    async def both() -> tuple[int, list[Any]]:
        checker = GrammarChecker()
        checker.share_among(2)

        def ask(caller: bytes, source: str) -> asyncio.Task[None]:
            CALLER.set(Caller(caller))  # the task has what is set now
            return asyncio.create_task(checker.check(regex_grammar(source, field="regex")))

        greedy = [ask(b"greedy", f"slow{i}") for i in range(grammar_check._MAX_CHECKS_WAITING)]
        await asyncio.sleep(0)
        modest = [ask(b"modest", source) for source in ("quick", "slow0x?")]
        await asyncio.wait(modest, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        return sum(task.done() for task in greedy), [task.done() and task.exception() for task in modest]

    num_refused, modest = asyncio.run(both())
    assert num_refused == grammar_check._MAX_CHECKS_WAITING // 2
    assert modest == [None, False]


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("exit 1", Overloaded),  # a broken installation
        ("kill -KILL $$", Overloaded),
        ("echo begun; kill -KILL $$", Overloaded),  # the system is short of memory
        ("echo begun; kill -TERM $$", Overloaded),  # it stops the server, and this with it
        ("echo begun; kill -XCPU $$", InvalidRequest),
        ("echo begun; kill -ABRT $$", InvalidRequest),  # memory again, but within its own limit
    ],
)
def test_only_what_the_grammar_is_to_blame_for_is_remembered_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, error: type[Exception]
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{program}\n")
    broken.chmod(0o755)

    async def ask() -> None:
        checker, grammar = GrammarChecker(), regex_grammar("a+", field="regex")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(broken))
            with pytest.raises(error):
                await checker.check(grammar)
        if error is InvalidRequest:
            with pytest.raises(InvalidRequest, match="too much to read"):
                await checker.check(grammar)
        else:
            await checker.check(grammar)

    asyncio.run(ask())


def test_a_check_that_is_ended_leaves_no_memory_on_the_disk_and_ctrl_c_does_not_end_it(tmp_path: Path) -> None:
    """The shell of a container allows core files of any size, and whoever sends grammars chooses when there is one."""
    program = (
        "import time; from zeroshot.text import grammar_check; "
        "grammar_check.mistake_in = lambda _: time.sleep(60); grammar_check.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process, ExitStack() as at_the_end:
        at_the_end.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'["regex", "a"]')
        process.stdin.close()
        assert process.stdout.readline() == grammar_check._BEGUN
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGXCPU)
        assert process.wait() == -signal.SIGXCPU
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_room_for_another_process_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    with pytest.raises(Overloaded):
        asyncio.run(GrammarChecker().check(regex_grammar("[a-c]+", field="regex")))


@pytest.mark.parametrize("expression", ["[" * 2000, "[" * 1000 + "\\", "[a\\]" * 400])
def test_a_class_that_is_never_closed_goes_on_to_the_end(expression: str) -> None:
    assert expanded_size(expression) == 1


def test_a_schema_is_measured_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest, match="bytes, at most"):
        json_grammar({"anyOf": [{"pattern": "a{3000}"}] * 2000}, field="json")
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"not": nested}
    with pytest.raises(InvalidRequest, match=r"nested deeper|bytes, at most"):
        json_grammar(nested, field="json")


@pytest.mark.parametrize(
    ("expression", "size"),
    [
        *[("abc", 3), ("a{3}", 3), ("(ab){3}", 6), ("((a{2}){3}b){4}", 28), ("[abc]{5}", 5), (r"\{1000}", 6)],
        *[("a+b*", 2), ("a{ 3 }", 3), ("a{\t1 , 3\n}", 3), ("a{0000000000003}", 3)],  # a parser takes these, too
        *[("(a{3}b[a[b])]c){4}", 24), ("([[:alpha:])]{2}x){3}", 9), ("[^]a]]{2}", 3), ("[]a]{3}", 3), ("a]{3}", 4)],
        *[(r"[\](]{3}b", 4), (r"\[(a]{3}){2}", 9), ("[a&&[^(]]{2}", 2)],
    ],
)
def test_the_size_of_what_repetitions_stand_for(expression: str, size: int) -> None:
    assert expanded_size(expression) == size


@pytest.mark.parametrize("expression", ["a{2001}", "(a{50}){50}", "x" * 2001, "((a{0,99}){0,99}){0,99}"])
def test_expressions_that_are_too_large(expression: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        regex_grammar(expression, field="regex")
    assert raised.value.field == "regex"


@pytest.mark.parametrize(
    ("expression", "is_verbose"),
    [
        *[("(?x)(a{900}b) {900}", True), ("((?ix: a ))", True), ("a(?sx-i)", True)],
        *[(r"\(?x", False), ("[(?x)]", False), ("(?-x)a", False), ("(?P<x>a)", False), ("(?i:x)", False)],
    ],
)
def test_verbose_mode_is_refused(expression: str, is_verbose: bool) -> None:
    """Where white space is ignored, it can be put between a group and its count."""
    if not is_verbose:
        assert mistake_in(regex_grammar(expression, field="regex")) is None
        return
    with pytest.raises(InvalidRequest, match="verbose mode"):
        regex_grammar(expression, field="regex")


def test_a_mistake_names_no_option_that_a_request_does_not_have() -> None:
    message = mistake_in(json_grammar({"oneOf": [{"type": "integer"}, {"type": "number"}]}, field="json"))
    assert message == "oneOf constraints are not supported. Use anyOf."


def test_a_rule_that_asks_for_nothing_is_left_out() -> None:
    """Where it is a rule, not the name of a property or a part of a value."""
    numbers = {"type": "array", "items": {"type": "integer"}}
    free = numbers | {"uniqueItems": False}
    named = {"uniqueItems": False}
    left = {"const": named, "enum": [named]}
    for schema, expected in [
        (free, numbers),
        ({"anyOf": [free, {"items": free}]}, {"anyOf": [numbers, {"items": numbers}]}),
        ({"properties": named | {"const": free}}, {"properties": named | {"const": numbers}}),
        ({"$defs": {"a": left | named}}, {"$defs": {"a": left}}),
    ]:
        assert json.loads(json_grammar(schema, field="json").source) == expected
    assert mistake_in(json_grammar(free, field="json")) is None
    assert "uniqueItems" in str(mistake_in(json_grammar(numbers | {"uniqueItems": True}, field="json")))


def test_schemas_that_are_too_large() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"items": deep}
    for schema in (
        deep,
        {"const": "x" * 1001},
        {"enum": ["x" * 900] * 20},
        {"pattern": "a{9999}"},
        [],
        {"x-guidance": 1},
    ):
        with pytest.raises(InvalidRequest) as raised:
            json_grammar(schema, field="json")
        assert raised.value.field == "json"
