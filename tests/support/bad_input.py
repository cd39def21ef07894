"""The list of bad input that every surface must survive, each with the answer it gets.

A case is bytes on a socket: what HTTP libraries refuse to send is on the list too. `tests/http/test_hostile_input.py`
runs it, and `benchmarks/hold.py` counts it.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.raw_http import Answer, NoAnswer, exchange

OK = frozenset({200})
OWN, OPENAI, TGI = "own", "openai", "tgi"
BAD = {OWN: frozenset({400, 422}), OPENAI: frozenset({400}), TGI: frozenset({422})}


@dataclass(frozen=True)
class Surface:
    path: str
    envelope: str
    body: dict[str, Any]
    """Answered with 200."""
    text: str
    """The field with the text."""


CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
SURFACES = [
    Surface("/generate", OWN, {"prompt": "a", "max_tokens": 1}, "prompt"),
    Surface("/tasks/translate", OWN, {"text": "a", "max_tokens": 1}, "text"),
    Surface("/tasks/sentiment", OWN, {"text": "a"}, "text"),
    Surface("/tasks/translate/batch", OWN, {"inputs": [{"text": "a", "max_tokens": 1}]}, ""),
    Surface("/tokenize", OWN, {"prompt": "a"}, "prompt"),
    Surface("/detokenize", OWN, {"tokens": [64]}, ""),
    Surface("/score", OWN, {"text": "a"}, "text"),
    Surface("/v1/completions", OPENAI, {"prompt": "a", "max_tokens": 1}, "prompt"),
    Surface("/v1/chat/completions", OPENAI, CHAT, ""),
    Surface("/", TGI, {"inputs": "a", "parameters": {"max_new_tokens": 1}}, "inputs"),
    Surface("/generate_stream", TGI, {"inputs": "a", "parameters": {"max_new_tokens": 1}}, "inputs"),
]
BY_PATH = {surface.path: surface for surface in SURFACES}
SAMPLING = [BY_PATH["/generate"], BY_PATH["/v1/completions"], BY_PATH["/v1/chat/completions"]]
PROMPTS = [BY_PATH["/generate"], BY_PATH["/v1/completions"]]


@dataclass(frozen=True)
class Case:
    name: str
    envelope: str
    expected: frozenset[int]
    pieces: tuple[bytes, ...]


def all_cases() -> list[Case]:
    cases = [*_bodies(), *_framing(), *_methods_and_paths(), *_strings(), *_numbers(), *_ids(), *_combinations()]
    names = [case.name for case in cases]
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise ValueError(f"cases with the same name: {sorted(duplicates)}")
    return cases


def problem(url: str, case: Case, timeout_s: float = 60.0) -> tuple[str | None, int | None]:
    """(what is wrong with the answer, or None; its status, or None if there was no answer)."""
    try:
        answer = exchange(url, *case.pieces, timeout_s=timeout_s)
    except NoAnswer as error:
        return f"no answer: {error}", None
    if answer.status not in case.expected:
        return f"{answer.status} instead of {sorted(case.expected)}: {answer.body[:200]!r}", answer.status
    if answer.status >= 400 and not (case.name.startswith("HEAD") or _is_envelope(answer, case.envelope)):
        return f"not the {case.envelope} envelope: {answer.body[:200]!r}", answer.status
    if b"Traceback" in answer.body:
        return "a traceback", answer.status
    return None, answer.status


def _is_envelope(answer: Answer, envelope: str) -> bool:
    try:
        body = answer.json()
    except ValueError:
        return False
    if envelope == TGI:
        return bool(body.keys() == {"error", "error_type"} and body["error"] and body["error_type"])
    keys = {"message", "type", "param", "code"} if envelope == OPENAI else {"code", "message", "field"}
    return bool(body.keys() == {"error"} and body["error"].keys() == keys and body["error"]["message"])


def request(
    path: str, content: bytes, *, method: str = "POST", headers: str = "Content-Type: application/json\r\n"
) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(content)}\r\n\r\n"
    return head.encode("latin-1") + content


def _case(name: str, surface: Surface, expected: frozenset[int], content: bytes | str | Any) -> Case:
    """`content`: bytes as they are, otherwise as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Case(f"{surface.path} {name}", surface.envelope, expected, (request(surface.path, raw),))


def _bodies() -> Iterator[Case]:
    for surface in SURFACES:
        bad, good = BAD[surface.envelope], json.dumps(surface.body).encode()
        for name, content in (
            ("empty body", b""),
            ("null", b"null"),
            ("a list", b"[]"),
            ("a string", b'"x"'),
            ("a number", b"7"),
            ("an empty object", b"{}"),
            ("no JSON", b"{"),
            ("text after it", good + b"x"),
            ("single quotes", b"{'prompt': 'a'}"),
            ("invalid UTF-8", b'{"prompt": "\xff\xfe", "text": "\xff\xfe", "inputs": "\xff"}'),
            ("gzip", gzip.compress(good)),
            ("a number of 5000 digits", b'{"seed": ' + b"1" * 5000 + b"}"),
            ("100,000 open lists", b"[" * 100_000),
            ("100,000 nested objects", b'{"a":' * 100_000),
        ):
            yield _case(name, surface, bad, content)
        yield _case("UTF-16", surface, bad | OK, good.decode().encode("utf-16"))
        yield _case("a byte order mark", surface, bad | OK, b"\xef\xbb\xbf" + good)
        yield _case("a key twice", surface, bad | OK, good[:-1] + b"," + good[1:])
        no_json = frozenset({415}) if surface.path.startswith("/tasks") else bad
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"):
            pieces = (request(surface.path, good, headers=f"Content-Type: {kind}\r\n"),)
            yield Case(f"{surface.path} as {kind}", surface.envelope, no_json, pieces)
        yield Case(f"{surface.path} undeclared", surface.envelope, no_json, (request(surface.path, good, headers=""),))
        encoded = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
        pieces = (request(surface.path, gzip.compress(good), headers=encoded),)
        yield Case(f"{surface.path} declared as gzip", surface.envelope, bad, pieces)


def _framing() -> Iterator[Case]:
    large = b"a" * (5 * 2**20)
    for surface in SURFACES:
        good = json.dumps(surface.body).encode()
        start = f"POST {surface.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        chunk = b"%x\r\n" % len(good) + good + b"\r\n0\r\n\r\n"
        length = b"Content-Length: %d\r\n" % len(good)
        too_large = frozenset({413})
        invalid = frozenset({400})
        chunked_large = [b"Transfer-Encoding: chunked\r\n\r\n"]
        chunked_large += [b"%x\r\n" % 2**20 + large[: 2**20] + b"\r\n" for _ in range(5)]
        for name, expected, pieces in (
            ("too large, declared", too_large, (start + b"Content-Length: 5242880\r\n\r\n", large)),
            ("too large, in chunks", too_large, (start, *chunked_large)),
            ("in chunks", OK, (start + b"Transfer-Encoding: chunked\r\n\r\n", chunk)),
        ):
            yield Case(f"{surface.path} {name}", surface.envelope, expected, pieces)
        for name, pieces in (
            ("a length of 20 digits", (start + b"Content-Length: 99999999999999999999\r\n\r\n",)),
            ("negative length", (start + b"Content-Length: -1\r\n\r\n" + good,)),
            ("a length that is no number", (start + b"Content-Length: ten\r\n\r\n" + good,)),
            ("two lengths", (start + length + b"Content-Length: 1\r\n\r\n" + good,)),
            ("a length and chunks", (start + length + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,)),
            ("chunks and a length", (start + b"Transfer-Encoding: chunked\r\n" + length + b"\r\n" + chunk,)),
            ("two transfer encodings", (start + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunk,)),
            ("a chunk size that is no number", (start + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + good,)),
            ("a NUL in a header", (start + b"X-A: a\x00b\r\n" + length + b"\r\n" + good,)),
            ("a header with no name", (start + b": a\r\n" + length + b"\r\n" + good,)),
            ("a space before a colon", (start + b"X-A : a\r\n" + length + b"\r\n" + good,)),
        ):
            yield Case(f"{surface.path} {name}", OWN, invalid, pieces)
        head_too_large = frozenset({431})
        yield Case(
            f"{surface.path} a 70 kB header",
            OWN,
            head_too_large,
            (start + b"X-A: " + b"a" * 70_000 + b"\r\n" + length + b"\r\n" + good,),
        )
        many = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(1000))
        yield Case(f"{surface.path} 1000 headers", OWN, head_too_large, (start + many + length + b"\r\n" + good,))
        not_ours = frozenset({403})
        for host in ("x/health?", "x/health/live#", "[", "evil.example:99999"):
            other = start.replace(b"Host: localhost", f"Host: {host}".encode())
            yield Case(f"{surface.path} Host: {host}", surface.envelope, not_ours, (other + length + b"\r\n" + good,))
        hostless = start.replace(b"Host: localhost\r\n", b"")
        yield Case(f"{surface.path} no Host", surface.envelope, OK, (hostless + length + b"\r\n" + good,))


def _methods_and_paths() -> Iterator[Case]:
    not_found, not_allowed = frozenset({404}), frozenset({405})
    for surface in SURFACES:
        has_get = surface.path in ("/", "/tasks/translate", "/tasks/sentiment")
        for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"):
            allowed = OK if has_get and method == "HEAD" else not_allowed
            pieces = (request(surface.path, b"", method=method),)
            yield Case(f"{method} {surface.path}", surface.envelope, allowed, pieces)
        if surface.path == "/":
            continue
        good = json.dumps(surface.body).encode()
        for name, path, envelope in (
            ("slash after it", f"{surface.path}/", surface.envelope),
            ("two slashes before it", f"/{surface.path}", OWN),
            ("dots before it", f"/v1/%2e%2e{surface.path}", OPENAI),
            ("NUL after it", f"{surface.path}%00", OWN),
            ("bytes that are no UTF-8 after it", f"{surface.path}%ff", OWN),
        ):
            if surface.envelope == OPENAI:
                envelope = OPENAI if path.startswith("/v1/") else OWN
            elif envelope == TGI or path.startswith("//"):
                envelope = OWN
            yield Case(f"{surface.path} {name}", envelope, not_found, (request(path, good),))
    for name in ("..%2f..%2fetc%2fpasswd", "translate.yaml", "%7b0.__class__%7d", "x" * 5000, "TRANSLATE", "%0d%0ax"):
        pieces = (request(f"/tasks/{name}", b'{"text": "a"}'),)
        yield Case(f"task {name[:40]}", OWN, not_found, pieces)
    for line in (
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"x" * 100_000,
    ):
        expected = frozenset({431, 400})
        yield Case(f"no HTTP: {line[:20]!r}", OWN, expected, (line,))


STRINGS = {
    "NUL": "a\x00b",
    "U+FFFD": "a\ufffdb",
    "right to left and joiners": "\u202e\u200f\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "end of text": "<|endoftext|>",
    "field": "{text}",
    "attribute": "{0.__class__.__init__.__globals__}",
    "jinja": "{{7*7}}{% for x in y %}",
    "dollar": "${x}$(id)`id`",
    "percent": "%s%n%d",
    "control characters": "a\r\nSet-Cookie: x=1\r\n\x1b[31mred\x1b[0m",
    "white space": " \t\n ",
}


def _strings() -> Iterator[Case]:
    for surface in SURFACES:
        if not surface.text:
            continue
        bad = BAD[surface.envelope]
        for name, text in STRINGS.items():
            yield _case(name, surface, OK, surface.body | {surface.text: text})
        yield _case("a lone surrogate", surface, bad, surface.body | {surface.text: "a\ud800b"})
        is_tokenize = surface.path == "/tokenize"
        yield _case("an empty text", surface, OK if is_tokenize else bad, surface.body | {surface.text: ""})
        for name, text in (("a megabyte of a", "a" * 2**20), ("a megabyte of spaces", " " * 2**20)):
            yield _case(name, surface, bad, surface.body | {surface.text: text})
        for name, value in (("a number", 7), ("true", True), ("null", None), ("an object", {"a": 1})):
            yield _case(f"{name} for a text", surface, bad, surface.body | {surface.text: value})
    for surface in SAMPLING:
        for name, text in (
            ("control characters", "x\r\nX-A: b\x1b[31m"),
            ("a surrogate", "\ud800"),
            ("10 kB", "x" * 10_000),
        ):
            expected = frozenset({404, *BAD[surface.envelope]})
            yield _case(f"{name} in the model's name", surface, expected, surface.body | {"model": text})


NAN, INFINITY = float("nan"), float("inf")
NUMBERS: dict[str, tuple[list[Any], list[Any]]] = {
    # field: (values that are refused, values that are fine)
    "temperature": ([-1, 1e9, NAN, INFINITY, -INFINITY, True, "0.5", [], 101], [0, -0.0, 1e-9, 1, 100]),
    "top_p": ([0, -0.1, 1.1, NAN, True, "1"], [1, 1e-9]),
    "min_p": ([-0.1, 1.1, NAN, True], [0, 1]),
    "typical_p": ([0, -0.1, 1.1, NAN, True, "1"], [1, 0.5]),
    "top_k": ([-2, 2**63, 1.5, True, "5"], [0, 1, 50257]),
    "max_tokens": ([-1, 2**31, 2**63, 1.5, True, "5", 1024], [1, 200]),
    "n": ([0, -1, 10**9, 1.5, True, "2"], [1]),
    "seed": ([2**63, 10**26 - 1, 1.5, True, "7"], [0, 2**63 - 1]),
    "min_tokens": ([-1, 2, 2**63, 1.5, True], [0, 1]),
    "repetition_penalty": ([0, -1, NAN, INFINITY, True, 101], [1e-30, 1, 2]),
    "presence_penalty": ([-2.1, 1e9, -1e9, NAN, True], [-2, 2]),
    "frequency_penalty": ([-2.1, 1e9, -1e9, NAN, True], [-2, 2]),
    "timeout": ([0, -1, NAN, INFINITY, True, "5", 10**9], [60, 0.5e3]),
    "stream": ([1, 0, "true", [], 2**63], [False]),
    "ignore_eos": ([1, "yes"], [True]),
}


def _numbers() -> Iterator[Case]:
    for surface in SAMPLING:
        bad = BAD[surface.envelope]
        for field, (refused, fine) in NUMBERS.items():
            for value in refused:
                body = surface.body | {field: value}
                yield _case(f"{field} = {value!r}", surface, bad, body)
            for value in fine:
                yield _case(f"{field} = {value!r}", surface, OK, surface.body | {field: value})
        huge = json.dumps(surface.body)[:-1].encode() + b', "temperature": 1e400}'
        yield _case("temperature = 1e400", surface, bad, huge)
    for surface in PROMPTS:
        bad = BAD[surface.envelope]
        for value in (-1, 21, True, 1.5, "5", 2**63):
            yield _case(f"logprobs = {value!r}", surface, bad, surface.body | {"logprobs": value})
        for value in (0, 5, 20):
            yield _case(f"logprobs = {value!r}", surface, OK, surface.body | {"logprobs": value})
    completions, generate, chat = BY_PATH["/v1/completions"], BY_PATH["/generate"], BY_PATH["/v1/chat/completions"]
    yield _case("seed = -1", generate, BAD[OWN], generate.body | {"seed": -1})
    yield _case("top_k = -1", generate, BAD[OWN], generate.body | {"top_k": -1})
    yield _case("top_k = -1", completions, OK, completions.body | {"top_k": -1})
    yield _case("max_tokens = 0", generate, BAD[OWN], generate.body | {"max_tokens": 0})
    yield _case("max_tokens = 0", completions, OK, completions.body | {"max_tokens": 0})
    yield _case("top_logprobs alone", chat, BAD[OPENAI], chat.body | {"top_logprobs": 5})
    yield _case("top_logprobs = 21", chat, BAD[OPENAI], chat.body | {"top_logprobs": 21, "logprobs": True})
    for field, values in (("max_new_tokens", (0, -1, 1.5, True, 2**63)), ("temperature", (-1, NAN, True, "1")),
                          ("seed", (-1, 2**64, 1.5)), ("best_of", (0, 129, True)), ("top_n_tokens", (-1, 21)),
                          ("truncate", (0, -1, True)), ("stop", ([""], ["x"] * 17, 7))):  # fmt: skip
        for value in values:
            surface = BY_PATH["/"]
            body = {"inputs": "a", "parameters": {"max_new_tokens": 1, field: value}}
            yield _case(f"{field} = {str(value)[:40]}", surface, BAD[TGI], body)
    task = BY_PATH["/tasks/translate"]
    for field in ("temperature", "max_tokens", "seed", "timeout"):
        for value in (-1, NAN, True, "1", 2**63):
            yield _case(f"{field} = {value!r}", task, BAD[OWN], task.body | {field: value})
    for field, value in (("nothing", 1), ("truncate", 1), ("explain", "yes"), ("style", "none")):
        yield _case(f"{field} = {value!r}", task, BAD[OWN], task.body | {field: value})


def _ids() -> Iterator[Case]:
    refused: list[Any] = [[], [[]], [-1], [50257], [999_999], [2**63], [1.5], [True], ["a", 1], [[1], []], [1] * 1025,
                          [1] * 500_000, ["a"] * 10**5, [[1]] * 129, [None], {"a": 1}]  # fmt: skip
    for surface in PROMPTS:
        bad = BAD[surface.envelope]
        for prompt in refused:
            yield _case(f"prompt {str(prompt)[:30]} ({len(prompt)})", surface, bad, surface.body | {"prompt": prompt})
        yield _case("prompt of 1024 ids", surface, bad, surface.body | {"prompt": [1] * 1024})
        yield _case("prompt of 1023 ids", surface, OK, surface.body | {"prompt": [1] * 1023})
        yield _case("prompt [50256]", surface, OK, surface.body | {"prompt": [50256]})
    for surface in SAMPLING:
        bad = BAD[surface.envelope]
        for name, bias in (
            ("abc", {"abc": 1}), ("-1", {"-1": 1}), ("50257", {"50257": 1}), ("20 digits", {"9" * 20: 1}),
            ("NaN", {"1": NAN}), ("1e9", {"1": 1e9}), ("true", {"1": True}), ("a list", [1]),
            ("every id", {str(i): -100 for i in range(50257)}),
        ):  # fmt: skip
            yield _case(f"logit_bias {name}", surface, bad, surface.body | {"logit_bias": bias})
        yield _case("logit_bias +-100", surface, OK, surface.body | {"logit_bias": {"1": 100, "2": -100}})
        for name, stop in (("empty", ""), ("[empty]", [""]), ("1000 of them", ["x"] * 1000), ("1 MB", "x" * 2**20),
                           ("a number", 7), ("a surrogate", "\ud800")):  # fmt: skip
            yield _case(f"stop {name}", surface, bad, surface.body | {"stop": stop})
        yield _case("stop fine", surface, OK, surface.body | {"stop": ["the", "a\u20ac", "\U0001f469\u200d"]})
        for ids in ([-1], [50257], [2**63], [True], ["a"], [1] * 17):
            yield _case(f"stop_token_ids {str(ids)[:30]}", surface, bad, surface.body | {"stop_token_ids": ids})
    score, detokenize = BY_PATH["/score"], BY_PATH["/detokenize"]
    for ids in ([], [[]], [-1], [50257], [2**63], [1.5], [True], [1] * 1024, [[1, 2]] * 129):
        yield _case(f"token_ids {str(ids)[:30]} ({len(ids)})", score, BAD[OWN], {"token_ids": ids})
    for ids in ([-1], [50257], [2**63], [1.5], [True], ["a"], [[1]], 7):
        yield _case(f"tokens {str(ids)[:30]}", detokenize, BAD[OWN], {"tokens": ids})
    yield _case("no tokens", detokenize, OK, {"tokens": []})
    yield _case("a million tokens", detokenize, frozenset({413}), {"tokens": [1] * 10**6})


def _combinations() -> Iterator[Case]:
    completions, generate = BY_PATH["/v1/completions"], BY_PATH["/generate"]
    body = completions.body
    for name, expected, more in (
        ("echo + stream + logprobs + n", OK, {"echo": True, "stream": True, "logprobs": 2, "n": 4}),
        ("echo + max_tokens 0", OK, {"echo": True, "max_tokens": 0, "logprobs": 1}),
        ("ignore_eos + stop", OK, {"ignore_eos": True, "stop": ["a"]}),
        ("best_of < n", BAD[OPENAI], {"n": 3, "best_of": 2}),
        ("best_of in a stream", BAD[OPENAI], {"best_of": 2, "stream": True}),
        ("stream_options without stream", BAD[OPENAI], {"stream_options": {"include_usage": True}}),
        ("min_tokens > max_tokens", BAD[OPENAI], {"min_tokens": 5}),
        ("129 prompts", BAD[OPENAI], {"prompt": ["a"] * 129}),
        ("3 prompts x 128", BAD[OPENAI], {"prompt": ["a"] * 3, "n": 128}),
        ("prompt + max_tokens = 1025", BAD[OPENAI], {"prompt": [1] * 1000, "max_tokens": 25}),
        ("prompt + max_tokens = 1024", OK, {"prompt": [1] * 1000, "max_tokens": 24}),
        ("too many log-probabilities", BAD[OPENAI], {"prompt": ["a"] * 128, "max_tokens": 900, "logprobs": 20}),
    ):
        yield _case(name, completions, expected, body | more)
    yield _case("an unknown field", generate, BAD[OWN], generate.body | {"max_token": 5})
    yield _case("both schemas", generate, BAD[OWN], generate.body | {"prompt_": "a"})
    yield from _batches(["/tasks/translate/batch"])


def _batches(paths: Iterable[str]) -> Iterator[Case]:
    for path in paths:
        surface = BY_PATH[path]
        for name, inputs in (("no items", []), ("257 items", [{"text": "a"}] * 257), ("an object", {}), ("null", None)):
            yield _case(f"batch of {name}", surface, BAD[OWN], {"inputs": inputs})
        bad_items = [{}, None, 7, {"text": ""}, {"text": 1}, {"text": "a", "x": 1}]
        yield _case("batch of bad items", surface, OK, {"inputs": bad_items})
        yield _case("batch with a lone surrogate", surface, BAD[OWN], {"inputs": [{"text": "\ud800"}]})
