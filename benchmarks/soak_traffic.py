"""What the soak sends: every surface, at random, each request with a check that its answer is whole.

A seeded answer has an essence, which the same request sent alone must give again: texts and labels exactly, numbers
within a tolerance, streamed or not.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

MAX_SEED = 2**31
STREAMED_TASKS = {"answer", "complete", "summarize", "translate"}
"""Of those that answer with a text."""
EXPECTED_ERRORS = {"overloaded": "full", "engine_restarting": "restarting", "engine_unavailable": "restarting"}
"""What a server with a full queue or a dead engine may answer: {code: the outcome it is counted as}."""

_WORDS = [
    "the",
    "a",
    "river",
    "house",
    "of",
    "and",
    "night",
    "was",
    "old",
    "man",
    "said",
    "that",
    "rain",
    "never",
    "1984",
]


class Incomplete(Exception):
    """An answer that is neither whole nor an error that says so."""


class ExplicitError(Exception):
    """The server said that it could not; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Call:
    kind: str
    path: str
    body: dict[str, Any]
    essence: Callable[[dict[str, Any]], Any] | None
    """What of the answer the same body gives again; None if nothing is promised."""

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))

    def alone(self) -> "Call":
        """The same without streaming, to compare with."""
        body = {name: value for name, value in self.body.items() if name not in ("stream", "stream_options")}
        return Call(self.kind, self.path, body, self.essence)


class Traffic:
    """Draws calls from a seed. `examples`: {task: body}, as GET /tasks/<name> gives them."""

    def __init__(self, seed: int, examples: dict[str, dict[str, Any]]) -> None:
        self._random = random.Random(seed)
        self._examples = examples
        self._kinds = [
            *(self._generate,) * 3, *(self._stream,) * 3, *(self._task,) * 3,
            self._task_stream, self._batch, self._completions, self._completions_stream, self._chat, self._score,
        ]  # fmt: skip

    def draw(self) -> Call:
        return self._random.choice(self._kinds)()

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def seconds(self, most: float) -> float:
        return self._random.uniform(0, most)

    def _text(self, most_words: int = 60) -> str:
        return " ".join(self._random.choices(_WORDS, k=self._random.randint(1, most_words)))

    def _sampling(self) -> dict[str, Any]:
        pick = self._random.choice
        body: dict[str, Any] = {
            "max_tokens": self._random.randint(1, 48),
            "temperature": pick([0, 0.7, 1.0, 1.3]),
            "top_k": pick([0, 40]),
            "top_p": pick([1.0, 0.9]),
            "seed": self._random.randrange(MAX_SEED),
            "n": pick([1, 1, 1, 2, 4]),
        }
        if self.chance(0.2):
            body["stop"] = [pick([" the", ".", "\n"])]
        if self.chance(0.2):
            body |= {"repetition_penalty": 1.2, "frequency_penalty": 0.5}
        return body

    def _generate(self) -> Call:
        logprobs = {"logprobs": 3} if self.chance(0.2) else {}
        prompt = [self._text() for _ in range(self._random.choice([1, 1, 3]))]
        return Call("generate", "/generate", {"prompt": prompt} | self._sampling() | logprobs, choice_texts)

    def _stream(self) -> Call:
        body = {"prompt": self._text(), "stream": True} | self._sampling()
        return Call("stream", "/generate", body, choice_texts)

    def _completions(self) -> Call:
        body = {"prompt": self._text()} | self._sampling() | {"logprobs": 2, "echo": self.chance(0.3)}
        return Call("/v1/completions", "/v1/completions", body, choice_texts)

    def _completions_stream(self) -> Call:
        body = {"prompt": self._text(), "stream": True, "stream_options": {"include_usage": True}} | self._sampling()
        return Call("/v1/completions stream", "/v1/completions", body, choice_texts)

    def _chat(self) -> Call:
        body = {"messages": [{"role": "user", "content": self._text(20)}], "seed": 7, "max_tokens": 24}
        return Call("/v1/chat/completions", "/v1/chat/completions", body, chat_texts)

    def _score(self) -> Call:
        return Call("score", "/score", {"text": [self._text(), "A " + self._text(5)]}, text_scores)

    def _task(self) -> Call:
        name = self._random.choice(sorted(self._examples))
        return Call("task", f"/tasks/{name}", self._inputs(name), task_output)

    def _task_stream(self) -> Call:
        name = self._random.choice(sorted(STREAMED_TASKS & self._examples.keys()))
        return Call("task stream", f"/tasks/{name}", self._inputs(name) | {"stream": True, "seed": 7}, task_output)

    def _batch(self) -> Call:
        name = self._random.choice(sorted(self._examples))
        inputs = [self._inputs(name) for _ in range(self._random.randint(2, 8))]
        return Call("task batch", f"/tasks/{name}/batch", {"inputs": inputs}, batch_outputs)

    def _inputs(self, name: str) -> dict[str, Any]:
        body = dict(self._examples[name])
        if isinstance(body.get("text"), str) and self.chance(0.7):
            body["text"] = self._text()
        return body


async def send(http: httpx.AsyncClient, call: Call) -> dict[str, Any]:
    """The whole answer; a stream's put together. Raises ExplicitError, or Incomplete for anything less."""
    if call.is_stream:
        return await _send_stream(http, call)
    response = await http.post(call.path, json=call.body)
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        raise Incomplete(f"{call.path}: {response.status_code}, not JSON: {response.text[:200]!r}") from None
    if response.status_code != 200:
        raise _explicit(answer)
    _check_whole(call, answer)
    return answer


async def _send_stream(http: httpx.AsyncClient, call: Call) -> dict[str, Any]:
    async with http.stream("POST", call.path, json=call.body) as response:
        if response.status_code != 200:
            raise _explicit(json.loads(await response.aread()))
        events = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    if not events or events[-1] != "[DONE]":
        raise Incomplete(f"{call.path}: a stream without its end, after {events[-1:]}")
    parsed = [json.loads(event) for event in events[:-1]]
    for event in parsed:
        if "error" in event:
            raise _explicit(event)
    answer = _joined_output(call, parsed) if "choices" not in parsed[0] else _joined_choices(parsed)
    _check_whole(call, answer)
    return answer


def _joined_choices(events: list[dict[str, Any]]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    for piece in (piece for event in events for piece in event["choices"]):
        choice = choices.setdefault(piece["index"], {"index": piece["index"], "text": ""})
        choice["text"] += piece["text"]
        choice["finish_reason"] = piece["finish_reason"]
    return {"choices": [choices[index] for index in sorted(choices)]}


def _joined_output(call: Call, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a task: the last event has its usage."""
    if "usage" not in events[-1]:
        raise Incomplete(f"{call.path}: a stream without its usage, after {events[-1:]}")
    return events[-1] | {"output": "".join(event["output"] for event in events)}


def _explicit(answer: dict[str, Any]) -> ExplicitError:
    error = answer.get("error")
    if not isinstance(error, dict) or not error.get("code") or not error.get("message"):
        raise Incomplete(f"an error that says nothing: {answer}")
    return ExplicitError(str(error["code"]))


def _check_whole(call: Call, answer: dict[str, Any]) -> None:
    if "choices" in answer:
        prompts = call.body.get("prompt")
        expected = call.body.get("n", 1) * (len(prompts) if isinstance(prompts, list) else 1)
        reasons = [choice["finish_reason"] for choice in answer["choices"]]
        if len(reasons) != expected or not set(reasons) <= {"stop", "length"}:
            raise Incomplete(f"{call.path}: {expected} choices wanted, finish reasons {reasons}")
    elif "results" in answer:
        wanted = len(call.body.get("inputs", call.body.get("text", ())))
        if len(answer["results"]) != wanted:
            raise Incomplete(f"{call.path}: {wanted} results wanted, got {len(answer['results'])}")
        for result in answer["results"]:
            if "error" in result:
                raise _explicit(result)
    elif "output" not in answer:
        raise Incomplete(f"{call.path}: {sorted(answer)}")


def choice_texts(answer: dict[str, Any]) -> Any:
    return [(choice["text"], choice["finish_reason"]) for choice in answer["choices"]]


def chat_texts(answer: dict[str, Any]) -> Any:
    return [(choice["message"]["content"], choice["finish_reason"]) for choice in answer["choices"]]


def text_scores(answer: dict[str, Any]) -> Any:
    return [result["logprob"] for result in answer["results"]]


def task_output(answer: dict[str, Any]) -> Any:
    """With the labels' log-probabilities in the order of their names, as equal ones have no order of their own."""
    scores = sorted((score["label"], score["logprob"]) for score in answer.get("scores", ()))
    return [answer["output"] if not scores else None, scores]


def batch_outputs(answer: dict[str, Any]) -> Any:
    return [task_output(result) for result in answer["results"]]


def is_same(one: Any, other: Any, *, tolerance: float = 1e-3) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance * max(1.0, abs(one))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(
            is_same(a, b, tolerance=tolerance) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key], tolerance=tolerance) for key in one)
    return bool(one == other)
