"""Characters whose bytes lie in several tokens: streams cut anywhere, and stop strings at and inside tokens' edges.

The text and its split into tokens are forced on the random model, by an expression and a bias.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transformers import GPT2TokenizerFast

PATHS = ["/v1/completions", "/generate"]
PROMPTS = ["Grüße aus 東京:", "👩‍👩‍👧 🇯🇵 ✊🏽", "龍契士の時間ー"]
CUT_PROMPTS = [[8582, 239], [47249]]  # they end inside a character
MAX_TOKENS = 16
BYTE_IDS = {byte: token_id for token_id, byte in enumerate([*range(33, 127), *range(161, 173), *range(174, 256)])}
BYTE_IDS |= {byte: 188 + at for at, byte in enumerate([*range(33), *range(127, 161), 173])}
NOT_ASCII = {str(token_id): 100 for byte, token_id in BYTE_IDS.items() if byte > 127}
TEXTS = ["né好 👩‍👧x", "ース龍の", " 👋🏽é\n東。é"]
# Tokens that hold the end of one character and the beginning of the next.
STRADDLING = {
    "ード": [b"\xe3\x83\xbc\xe3\x83", b"\x89"],
    "の好": [b"\xe3\x81\xae\xe5", b"\xa5", b"\xbd"],
    "覚醒x": [b"\xe8", b"\xa6", b"\x9a\xe9\x86\x92", b"x"],
    "a 👩é": [b"a", b" \xf0\x9f\x91", b"\xa9", b"\xc3", b"\xa9"],
}


@pytest.fixture(scope="module")
def tokenizer(gpt2_checkpoint: Any) -> Any:
    return GPT2TokenizerFast.from_pretrained(gpt2_checkpoint.folder)


@pytest.fixture(scope="module")
def token_bytes(tokenizer: Any) -> Callable[[int], bytes]:
    byte_of = {tokenizer.convert_ids_to_tokens(token_id): byte for byte, token_id in BYTE_IDS.items()}
    return lambda token_id: bytes(byte_of[letter] for letter in tokenizer.convert_ids_to_tokens(token_id))


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def plain(server: Any, path: str, **body: Any) -> list[dict[str, Any]]:
    response = server.http.post(path, json=body | {"return_token_ids": True})
    assert response.status_code == 200, response.text
    return response.json()["choices"]


def streamed(server: Any, path: str, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream."""
    with server.http.stream("POST", path, json=body | {"stream": True}) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [choice for line in lines if line != "[DONE]" for choice in json.loads(line)["choices"]]


def joined(events: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(event["text"] for event in events if event["index"] == index)


def forced(text: str, token_ids: list[int] | None = None) -> dict[str, Any]:
    """A request whose text is `text`, in these tokens; without them, in the usual ones.

    llguidance takes the usual tokens wherever only one text is possible. So every byte gets an alternative, which the
    bias keeps from being chosen.
    """
    body: dict[str, Any] = {"prompt": "It was", "max_tokens": 100, "temperature": 0}
    if token_ids is None:
        return body | {"structured_outputs": {"regex": re.escape(text)}}
    regex = "".join(f"(?:{'|'.join(map(re.escape, [character, *others(character, text)]))})" for character in text)
    return body | {
        "structured_outputs": {"regex": regex},
        "logit_bias": {str(token_id): 100 for token_id in token_ids},
    }


def others(character: str, text: str) -> Iterator[str]:
    """For each byte of the character, a character that differs in it and has a byte there that `text` hasn't."""
    encoded, taken = character.encode(), set(text.encode())
    for at in range(len(encoded)):
        for byte in sorted({*range(97, 123), *range(128, 256)} - taken):
            other = (encoded[:at] + bytes([byte]) + encoded[at + 1 :]).decode(errors="ignore")
            if len(other) == 1 and len(other.encode()) == len(encoded):
                yield other
                break


def byte_by_byte(text: str) -> list[int]:
    return [BYTE_IDS[byte] for byte in text.encode()]


def cut(text: str, stop: str) -> tuple[str, str, str]:
    return text[: text.index(stop)], "stop", stop


@pytest.mark.parametrize(("path", "bias"), [("/v1/completions", {}), ("/generate", NOT_ASCII)], ids=["any", "bytes"])
def test_a_stream_cut_at_every_length(
    server: Any, tokenizer: Any, pool: ThreadPoolExecutor, path: str, bias: dict[str, int]
) -> None:
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS] + CUT_PROMPTS
    body = {"prompt": prompts, "seed": 7, "ignore_eos": True, "logit_bias": bias}
    sizes = range(1, MAX_TOKENS + 1)
    answers = list(pool.map(lambda size: plain(server, path, max_tokens=size, **body), sizes))
    streams = list(pool.map(lambda size: streamed(server, path, max_tokens=size, **body), sizes))
    for size, choices, events in zip(sizes, answers, streams, strict=True):
        for whole, choice in zip(answers[-1], choices, strict=True):
            assert choice["token_ids"] == whole["token_ids"][:size]
            assert choice["text"] == tokenizer.decode(choice["token_ids"], skip_special_tokens=True)
            assert joined(events, choice["index"]) == choice["text"]
    assert {len(choice["token_ids"]) for choice in answers[-1]} == {MAX_TOKENS}
    assert not bias or all("\ufffd" in choice["text"] for choice in answers[-1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_forced_text_cut_at_every_byte(server: Any, pool: ThreadPoolExecutor, path: str, text: str) -> None:
    """The finished characters come at once, the bytes of one cut short as U+FFFD."""
    token_ids = byte_by_byte(text)
    bodies = [forced(text, token_ids) | {"max_tokens": size} for size in range(1, len(token_ids) + 1)]
    answers = pool.map(lambda body: plain(server, path, **body)[0], bodies)
    streams = pool.map(lambda body: streamed(server, path, **body), bodies)
    for size, choice, events in zip(range(1, len(token_ids) + 1), answers, streams, strict=True):
        assert choice["token_ids"] == token_ids[:size]
        assert choice["text"] == joined(events) == text.encode()[:size].decode(errors="replace")
        assert not any("\ufffd" in event["text"] for event in events[:-1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_by_bytes", [True, False], ids=["bytes", "usual tokens"])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_part_of_a_text_as_the_stop_string(
    server: Any, tokenizer: Any, pool: ThreadPoolExecutor, path: str, is_by_bytes: bool, text: str
) -> None:
    body = forced(text, byte_by_byte(text) if is_by_bytes else None)
    parts = sorted({text[i:j] for i in range(len(text)) for j in range(i + 1, min(i + 3, len(text)) + 1)})
    stops = [[part, text[:3] + "☃"] for part in parts]  # the second one begins, and never comes
    stops.append([f"{part}☃" for part in parts[:4]])
    answers = list(pool.map(lambda stop: plain(server, path, stop=stop, **body)[0], stops))
    streams = list(pool.map(lambda stop: streamed(server, path, stop=stop, **body), stops))
    assert [joined(events) for events in streams] == [choice["text"] for choice in answers]
    assert [events[-1]["stop_reason"] for events in streams] == [choice["stop_reason"] for choice in answers]
    found = [(choice["text"], choice["finish_reason"], choice["stop_reason"]) for choice in answers]
    assert found == [*(cut(text, part) for part in parts), (text, "stop", None)]
    assert answers[-1]["token_ids"] == (byte_by_byte(text) if is_by_bytes else tokenizer.encode(text))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", STRADDLING, ids=ascii)
def test_a_stop_that_begins_or_ends_inside_a_token(
    server: Any, token_bytes: Callable[[int], bytes], path: str, text: str
) -> None:
    id_of = {token_bytes(token_id): token_id for token_id in range(50256)}
    token_ids = [id_of[part] for part in STRADDLING[text]]
    body = forced(text, token_ids)
    assert plain(server, path, **body)[0]["token_ids"] == token_ids
    ends = [len(b"".join(STRADDLING[text][: at + 1])) for at in range(len(token_ids))]
    for character in text:
        choice = plain(server, path, stop=[character], **body)[0]
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == cut(text, character)
        assert joined(streamed(server, path, stop=[character], **body)) == choice["text"]
        # No token is drawn beyond the one that completes the stop string.
        last_byte = len(text[: text.index(character) + 1].encode())
        assert len(choice["token_ids"]) == 1 + next(at for at, end in enumerate(ends) if end >= last_byte)
