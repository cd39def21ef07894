"""Requests one after the other, and what became of each: nothing may be lost silently."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

TOKENS = 60


@dataclass(frozen=True)
class Outcome:
    """`text` of a full answer, `error`'s code of an explicit one; `lost`: what else came, which must never be."""

    number: int
    is_stream: bool
    text: str | None = None
    error: str | None = None
    lost: str | None = None
    model: str | None = None


class Load:
    """`num_threads` clients, every second request of which is a stream; `outcomes` once the block has ended."""

    def __init__(self, url: str, num_threads: int, pause_s: float) -> None:
        self.outcomes: list[Outcome] = []
        self._url, self._pause_s = url, pause_s
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(num_threads)
        self._workers = [self._pool.submit(self._run, thread) for thread in range(num_threads)]

    def stop(self) -> None:
        self._is_over.set()
        self._pool.shutdown()
        for worker in self._workers:
            worker.result()

    def wait_for(self, number: int, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.outcomes) < number:
            assert time.monotonic() < deadline, f"{len(self.outcomes)} of {number} requests in {timeout_s} s"
            time.sleep(0.02)

    def _run(self, thread: int) -> None:
        number = thread
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._is_over.is_set():
                number += 1
                self.outcomes.append(send(client, number % 20, is_stream=number % 2 == 0))
                time.sleep(self._pause_s)


@contextmanager
def load_on(url: str, num_threads: int = 8, pause_s: float = 0.0) -> Iterator[Load]:
    load = Load(url, num_threads, pause_s)
    try:
        yield load
    finally:
        load.stop()


def body_of(number: int) -> dict[str, Any]:
    return {"prompt": f"Number {number}: once upon a time", "max_tokens": TOKENS, "seed": number, "ignore_eos": True}


def send(client: httpx.Client, number: int, *, is_stream: bool) -> Outcome:
    try:
        response = client.post("/generate", json=body_of(number) | {"stream": is_stream})
    except httpx.HTTPError as error:
        return Outcome(number, is_stream, lost=repr(error))
    try:
        if response.status_code != 200:
            return Outcome(number, is_stream, error=response.json()["error"]["code"])
        if is_stream:
            return _of_stream(number, response.text)
        answer = response.json()
        if answer["usage"]["completion_tokens"] != TOKENS:
            return Outcome(number, is_stream, lost=response.text)
        return Outcome(number, is_stream, text=answer["choices"][0]["text"], model=answer["model"])
    except (ValueError, KeyError):
        return Outcome(number, is_stream, lost=f"{response.status_code}: {response.text}")


def _of_stream(number: int, content: str) -> Outcome:
    lines = [line.removeprefix("data: ") for line in content.split("\n") if line]
    if lines[-1] != "[DONE]":
        return Outcome(number, True, lost=content)
    events = [json.loads(line) for line in lines[:-1]]
    if "error" in events[-1]:
        return Outcome(number, True, error=events[-1]["error"]["code"])
    if events[-1]["usage"]["completion_tokens"] != TOKENS:
        return Outcome(number, True, lost=content)
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    return Outcome(number, True, text=text, model=events[-1]["model"])
