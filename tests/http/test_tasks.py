"""Tasks over a real socket: from a prompt file to an answer, and from an edit to a new endpoint."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.support.server import Server, run_server

PROMPTS = Path(__file__).parents[2] / "prompts"

SHOUT = """
name: shout
summary: Say it loudly.
inputs:
  text: {type: string, description: What to say.}
template: "Say {text} loudly:"
decoding: {temperature: 0, max_tokens: 4}
output: {kind: text}
"""


@pytest.fixture(scope="module")
def server_with_prompts(
    gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    root = tmp_path_factory.mktemp("with_prompts")
    folder = shutil.copytree(PROMPTS, root / "prompts")
    with run_server(gpt2_checkpoint.folder, root, "--prompts", str(folder)) as server:
        yield server, folder


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_task_is_its_prompt(server: Any) -> None:
    answer = server.http.post(
        "/tasks/translate", json={"text": "I am hungry.", "explain": True, "max_tokens": 6}
    ).json()
    prompt = "translate English to French: I am hungry. ="
    assert answer["explain"]["prompt"] == prompt
    completion = server.generate(prompt=prompt, temperature=0, max_tokens=6, stop=["\n"])["choices"][0]
    assert answer["explain"]["completion"] == completion["text"]
    assert answer["task"] == "translate"
    assert answer["usage"]["prompt_tokens"] == 11


def test_a_label_is_the_one_the_model_finds_more_probable(server: Any, gpt2_checkpoint: Any) -> None:
    answer = server.http.post("/tasks/sentiment", json={"text": "A warm, funny film."}).json()
    prompt = [14832, 25, 317, 5814, 11, 8258, 2646, 13, 198, 31837, 3681, 25]
    with torch.inference_mode():
        logprobs = gpt2_checkpoint.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    expected = {"positive": float(logprobs[3967]), "negative": float(logprobs[4633])}
    assert answer["output"] == max(expected, key=expected.__getitem__)
    for score in answer["scores"]:
        assert score["logprob"] == pytest.approx(expected[score["label"]], abs=1e-4)
    assert sum(score["probability"] for score in answer["scores"]) == pytest.approx(1)


def test_json_cut_by_the_callers_max_tokens(server: Any) -> None:
    body = {"story": "It was a dark night.", "seed": 3}
    refused = server.http.post("/tasks/character", json=body | {"max_tokens": 5})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["field"]) == (422, "output_incomplete", "max_tokens")
    whole = server.http.post("/tasks/character", json=body)
    assert whole.status_code == 200
    assert whole.json()["output"].keys() == {"name", "age", "mood"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "text"),
        ({"text": "Hi.", "style": "pairs", "target": "German"}, 422, "target"),
        ({"text": 1}, 422, "text"),
        ({"text": "a", "texts": "b"}, 422, "texts"),
        ({"text": "a", "temperature": True}, 422, "temperature"),
        ({"text": "a" * 4001}, 422, "text"),
        ({"text": "word " * 800, "max_tokens": 500}, 400, "text"),
        ({"text": "a", "style": "rude"}, 422, "style"),
    ],
)
def test_bad_inputs_name_the_field(server: Any, body: dict[str, Any], status: int, field: str) -> None:
    response = server.http.post("/tasks/translate", json=body)
    assert (response.status_code, response.json()["error"]["field"]) == (status, field)


def test_unknown_task(server: Any) -> None:
    response = server.http.post("/tasks/nothing", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_task")
    assert server.http.post("/tasks/..%2fetc", json={}).status_code == 404


def test_a_batch_keeps_order_and_errors_stay_in_their_place(server: Any) -> None:
    inputs = [{"text": f"Sentence {i}."} if i % 3 else {"txt": i} for i in range(9)]
    answer = server.http.post("/tasks/sentiment/batch", json={"inputs": inputs}).json()
    assert ["error" in result for result in answer["results"]] == [i % 3 == 0 for i in range(9)]
    alone = server.http.post("/tasks/sentiment", json=inputs[4]).json()
    assert answer["results"][4]["scores"] == alone["scores"]


def test_a_file_dropped_in_is_an_endpoint_and_a_broken_edit_keeps_the_last_good_one(
    server_with_prompts: tuple[Any, Path],
) -> None:
    server, folder = server_with_prompts
    assert server.http.post("/tasks/shout", json={"text": "hello"}).status_code == 404
    (folder / "shout.yaml").write_text(SHOUT)
    until(lambda: server.http.post("/tasks/shout", json={"text": "hello"}).status_code == 200)
    first = server.http.post("/tasks/shout", json={"text": "hello", "explain": True}).json()
    assert first["explain"]["prompt"] == "Say hello loudly:"
    assert "/tasks/shout" in server.http.get("/openapi.json").json()["paths"]

    (folder / "shout.yaml").write_text(SHOUT.replace("{text} loudly", "{txet} loudly"))
    until(lambda: bool(server.http.get("/tasks").json()["errors"]))
    (error,) = server.http.get("/tasks").json()["errors"]
    assert error["file"] == "shout.yaml"
    assert error["serving"] == "shout"
    assert "txet" in error["message"]
    again = server.http.post("/tasks/shout", json={"text": "hello"}).json()
    assert (again["version"], again["output"]) == (first["version"], first["output"])

    (folder / "shout.yaml").write_text(SHOUT.replace("loudly:", "quietly:"))
    until(lambda: server.http.post("/tasks/shout", json={"text": "hello"}).json()["version"] != first["version"])
    assert server.http.get("/tasks").json()["errors"] == []

    (folder / "shout.yaml").unlink()
    until(lambda: server.http.post("/tasks/shout", json={"text": "hello"}).status_code == 404)


def test_few_shot_examples_are_in_the_cache_before_the_first_request(server_with_prompts: tuple[Any, Path]) -> None:
    server, _ = server_with_prompts
    server.wait_until(lambda health: health["engine"]["prompt_tokens_total"] > 60)
    server.wait_until_idle()
    answer = server.http.post("/tasks/answer", json={"question": "Who?", "explain": True}).json()
    assert answer["explain"]["cached_tokens"] >= 16


def test_a_client_that_leaves_a_task_frees_its_blocks(server: Any) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/tasks/complete", json={"text": "On", "max_tokens": 1000}, timeout=0.3)
    server.wait_until_idle()


@pytest.fixture(scope="module")
def narrow_server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with room for three sequences."""
    folder = tmp_path_factory.mktemp("narrow")
    with run_server(gpt2_checkpoint.folder, folder, ZEROSHOT_MAX_QUEUED_SEQS="3") as server:
        yield server


def test_a_batch_waits_for_room_in_a_full_queue(narrow_server: Server) -> None:
    inputs = [{"text": f"Once {i}", "max_tokens": 20} for i in range(30)]
    answer = narrow_server.http.post("/tasks/complete/batch", json={"inputs": inputs}).json()
    assert ["error" in result for result in answer["results"]] == [False] * 30
    too_many = narrow_server.http.post("/generate", json={"prompt": "a", "n": 4})
    assert too_many.status_code == 400, "more than would ever fit"


def test_an_item_of_a_batch_waits_for_room_no_longer_than_its_timeout(narrow_server: Server) -> None:
    narrow_server.wait_until_warm()
    long = {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True, "n": 3}
    with contextlib.closing(narrow_server.start_request("/generate", long)) as held:
        held.recv(1)
        body = {"inputs": [{"text": "Once", "max_tokens": 5}], "timeout": 0.05}
        (result,) = narrow_server.http.post("/tasks/complete/batch", json=body).json()["results"]
    assert result["error"]["code"] == "timeout"


def streamed(server: Any, task: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with server.http.stream("POST", f"/tasks/{task}", json=body | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("translate", {"text": "I am hungry.", "max_tokens": 20}),
        ("translate", {"text": "I am hungry.", "max_tokens": 20, "style": "pairs", "explain": True, "seed": 3}),
        ("summarize", {"text": "The well ran dry. A new one was drilled.", "max_tokens": 60, "seed": 5}),
        ("complete", {"text": "It was a dark", "max_tokens": 12, "temperature": 1.0, "seed": 7, "explain": True}),
        ("cloze", {"text": "She cut him a slice of the"}),
    ],
)
def test_the_pieces_of_a_stream_are_the_answer(server: Any, task: str, body: dict[str, Any]) -> None:
    whole = server.http.post(f"/tasks/{task}", json=body).json()
    events = streamed(server, task, body)
    assert "".join(event["output"] for event in events) == whole["output"]
    assert all(event["output"] for event in events[:-1])
    *pieces, last = events
    assert all(event.keys() == {"task", "version", "output"} for event in pieces)
    for answer in (whole, last):  # the second one finds the first one's prompt in the cache
        del answer["usage"]["cached_tokens"]
        answer.get("explain", {}).pop("cached_tokens", None)
    assert last == whole | {"output": ""}


def test_pieces_come_as_they_are_written(server: Any) -> None:
    events = streamed(server, "complete", {"text": "It was a dark", "max_tokens": 30, "temperature": 1.0, "seed": 1})
    assert len(events) > 10


def test_a_text_ends_with_what_is_kept_of_it(server: Any) -> None:
    """Of the tokens generated before, none is missing; and none is generated after it is known what to keep."""
    body = {"text": "She cut him a slice of the", "max_tokens": 40, "explain": True}
    answer = server.http.post("/tasks/cloze", json=body).json()
    completion = answer["explain"]["completion"]
    rest = completion[completion.index(answer["output"]) + len(answer["output"]) :] if answer["output"] else ""
    whole = server.generate(prompt=body["text"], temperature=0, max_tokens=40, stop=["\n"])["choices"][0]["text"]
    assert whole.startswith(completion)
    assert answer["usage"]["completion_tokens"] < 40 or not rest.strip()
    assert answer["explain"]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("task", "body", "field"),
    [
        ("sentiment", {"text": "A warm, funny film.", "stream": True}, "stream"),
        ("translate", {"text": "I am hungry.", "stream": 1}, "stream"),
        ("translate", {"stream": True}, "text"),
        ("translate", {"text": "a " * 1999, "stream": True}, "text"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said_before_it_begins(
    server: Any, task: str, body: dict[str, Any], field: str
) -> None:
    response = server.http.post(f"/tasks/{task}", json=body)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["field"] == field


def test_an_item_of_a_batch_can_not_be_streamed(server: Any) -> None:
    items = [{"text": "I am hungry.", "stream": True}, {"text": "I am hungry.", "max_tokens": 2}]
    first, second = server.http.post("/tasks/translate/batch", json={"inputs": items}).json()["results"]
    assert first["error"]["field"] == "stream"
    assert "output" in second


def test_streams_are_counted_like_answers(server: Any) -> None:
    def answered(status: str) -> float:
        lines = server.http.get("/metrics").text.splitlines()
        name = f'zeroshot_task_requests_total{{status="{status}",task="title"}}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    refused = answered("invalid_request")
    too_long = {"text": "A boat.", "stream": True, "timeout": 80_000}
    assert server.http.post("/tasks/title", json=too_long).status_code == 400
    until(lambda: answered("invalid_request") == refused + 1)
    before = answered("ok"), answered("cancelled")
    streamed(server, "title", {"text": "A boat made of paper.", "max_tokens": 4})
    until(lambda: answered("ok") == before[0] + 1)
    with server.http.stream(
        "POST", "/tasks/title", json={"text": "A boat", "max_tokens": 400, "temperature": 5.0, "stream": True}
    ) as response:
        next(response.iter_lines())
    until(lambda: sum((answered("ok"), answered("cancelled"))) == sum(before) + 2)
