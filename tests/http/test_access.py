"""API keys, their limits, and what one key's holder can find out about another's: over real sockets."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.support.raw_http import exchange

FIRST, SECOND, THIRD = (f"sk-{which}-0123456789abcdef" for which in ("first", "second", "third"))
BODY = {"prompt": "a", "max_tokens": 2}
StartServer = Callable[..., AbstractContextManager[Any]]

EVERY_ROUTE = [
    ("POST", "/generate"),
    ("POST", "/tasks/translate"),
    ("POST", "/tasks/translate/batch"),
    ("GET", "/tasks"),
    ("GET", "/tasks/translate"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/tokenizer_info"),
    ("POST", "/score"),
    ("POST", "/"),
    ("POST", "/generate_stream"),
    ("GET", "/info"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/nowhere"),
    ("POST", "/health/live"),
    ("POST", "/playground/"),
    ("GET", "//v1/models"),
    ("GET", "/health/live/"),
    ("GET", "/health/live/../../v1/models"),
    ("GET", "/v1/models?path=/health/live"),
    ("GET", "/v1/models;/health/live"),
    ("OPTIONS", "/generate"),
]


@pytest.fixture(scope="module")
def locked(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.support.server import run_server

    folder = tmp_path_factory.mktemp("locked")
    keys = folder / "keys.txt"
    keys.write_text(f"# those of the second team\n\n  {SECOND}\n")
    environment = {"ZEROSHOT_API_KEYS": FIRST, "ZEROSHOT_API_KEYS_FILE": str(keys)}
    with run_server(gpt2_checkpoint.folder, folder, "--api-key", THIRD, **environment) as server:
        server.http.headers["authorization"] = f"Bearer {FIRST}"
        server.wait_until_warm()
        yield server


def bearer(key: str | bytes) -> dict[str, bytes]:
    return {"authorization": b"Bearer " + (key.encode() if isinstance(key, str) else key)}


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
def test_nothing_without_a_key(locked: Any, method: str, path: str) -> None:
    answer = exchange(locked.url, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="zeroshot"'
    error = answer.json()["error"]
    if path.startswith("/v1"):
        assert error["code"] == "invalid_api_key"
        assert error["type"] == "invalid_request_error"
    elif path in ("/generate_stream", "/info") or (method, path) == ("POST", "/"):
        assert answer.json()["error_type"] == "authentication"
    else:
        assert error["code"] == "invalid_api_key"


def test_the_page_says_what_is_answered_without_a_key(locked: Any) -> None:
    page = locked.http.get("/openapi.json").json()
    operations = [(method, path) for path, methods in page["paths"].items() for method in methods]
    assert len(operations) > 40
    for method, path in operations:
        if path in ("/health/live", "/health/ready"):
            continue
        answer = httpx.request(method, locked.url + path)
        assert answer.status_code == 401
        content = page["paths"][path][method]["responses"]["401"]["content"]
        schema = content["application/json"]["schema"] | {"components": page["components"]}
        jsonschema.validate(answer.json(), schema)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_needs_none(locked: Any, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert httpx.request(method, locked.url + path).status_code in (200, 405)
    assert httpx.get(locked.url + path).status_code == 200


@pytest.mark.parametrize("host", ["x/health/live?", "127.0.0.1/health/ready#", "evil.example", "x/playground/"])
def test_the_host_header_opens_nothing(locked: Any, host: str) -> None:
    answer = exchange(locked.url, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": b"Bearer"},
        {"authorization": b"Bearer "},
        bearer(""),
        bearer(FIRST[:-1]),
        bearer(FIRST + "x"),
        bearer(FIRST.upper()),
        bearer("schl\u00fcssel"),
        bearer(b"\xff\xfe"),
        bearer("x" * 10_000),
        bearer(f"{FIRST} {SECOND}"),
        bearer(f"{FIRST},{SECOND}"),
        {"authorization": b"Basic " + FIRST.encode()},
        {"authorization": FIRST.encode()},
        {"authorization": b""},
        {"x-api-key": FIRST.encode()},
        {"cookie": b"authorization=Bearer " + FIRST.encode()},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_wrong_credentials(locked: Any, headers: dict[str, bytes]) -> None:
    (name, value), *_ = headers.items()
    answer = exchange(locked.url, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%s: %s\r\n\r\n" % (name.encode(), value))
    assert answer.status == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert FIRST.encode() not in answer.body


def test_a_key_sent_twice_or_in_the_address(locked: Any) -> None:
    twice = [("Authorization", f"Bearer {FIRST}"), ("Authorization", f"Bearer {FIRST}")]
    assert httpx.get(locked.url + "/v1/models", headers=twice).status_code == 401
    for query in (f"api_key={FIRST}", f"key={FIRST}", f"access_token={FIRST}", f"Authorization=Bearer {FIRST}"):
        assert httpx.get(f"{locked.url}/v1/models?{query}").status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
@pytest.mark.parametrize("key", [FIRST, SECOND, THIRD], ids=["of the environment", "of the file", "of a flag"])
def test_a_right_key(locked: Any, scheme: str, key: str) -> None:
    headers = {"authorization": f"{scheme} {key}"}
    assert httpx.post(locked.url + "/generate", json=BODY, headers=headers).status_code == 200


def test_no_key_is_in_the_log(locked: Any) -> None:
    httpx.post(locked.url + "/generate", json=BODY, headers=bearer(SECOND))
    httpx.post(locked.url + "/generate", json=BODY, headers=bearer(SECOND[:-1]))
    log = locked.log.read_text()
    assert FIRST not in log
    assert SECOND[:-1] not in log


def cached(server: Any, key: str, prompt: str) -> int:
    answer = httpx.post(f"{server.url}/generate", json={"prompt": prompt, "max_tokens": 1}, headers=bearer(key))
    return int(answer.json()["usage"]["cached_tokens"])


def test_one_key_finds_nothing_of_another_in_the_cache(locked: Any) -> None:
    prompt = "The merger will be announced on the third of May, and until then nobody may know of it. " * 3
    assert cached(locked, FIRST, prompt) == 0
    assert cached(locked, FIRST, prompt) >= 48
    assert cached(locked, SECOND, prompt) == 0
    assert cached(locked, SECOND, prompt) >= 48


def test_the_prompts_of_tasks_are_shared_by_all_keys(locked: Any) -> None:
    for key, question in ((FIRST, "Who wrote it?"), (SECOND, "What was it?")):
        answer = httpx.post(
            f"{locked.url}/tasks/answer", json={"question": question, "explain": True}, headers=bearer(key)
        )
        assert answer.json()["explain"]["cached_tokens"] >= 16


def test_every_answer_has_the_headers_for_browsers(locked: Any) -> None:
    for response in (
        httpx.get(locked.url + "/health/live"),
        httpx.get(locked.url + "/v1/models"),
        locked.http.post("/generate", json=BODY),
        locked.http.post("/generate", json=BODY | {"stream": True}),
        locked.http.get("/nowhere"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-frame-options"] == "DENY"
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers


def test_requests_a_minute_and_at_once(start_server: StartServer) -> None:
    environment = {"ZEROSHOT_REQUESTS_PER_MINUTE": "6", "ZEROSHOT_MAX_CONCURRENT_REQUESTS": "2"}
    with start_server("--api-key", FIRST, "--api-key", SECOND, **environment) as server, ThreadPoolExecutor(2) as pool:
        long = BODY | {"max_tokens": 500, "ignore_eos": True}
        post = httpx.Client(base_url=server.url, timeout=60).post
        running = [pool.submit(post, "/generate", json=long, headers=bearer(FIRST)) for _ in range(2)]
        server.http.headers["authorization"] = f"Bearer {SECOND}"
        server.wait_until(lambda health: health["engine"]["num_running"] == 2)
        refused = post("/v1/completions", json=BODY, headers=bearer(FIRST))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limited"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.headers["retry-after"] == "1"
        assert [future.result().status_code for future in running] == [200, 200]
        answers = [post("/generate", json=BODY, headers=bearer(FIRST)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200]
        while answers[-1].status_code == 200 and len(answers) < 60:  # one more is allowed every ten seconds
            answers.append(post("/generate", json=BODY, headers=bearer(FIRST)))
        assert answers[-1].status_code == 429
        assert answers[-1].json()["error"]["code"] == "rate_limited"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        assert httpx.get(server.url + "/health/live").status_code == 200


def test_pages_of_listed_sites_only(start_server: StartServer) -> None:
    with start_server(
        "--api-key", FIRST, ZEROSHOT_ALLOWED_ORIGINS="https://app.example, http://localhost:3000"
    ) as server:
        # The last two as openai's client sends them from a page.
        headers = "authorization,content-type,x-request-id,x-stainless-arch,x-stainless-retry-count"
        ask = {"access-control-request-method": "POST", "access-control-request-headers": headers}
        for origin in ("https://app.example", "http://localhost:3000"):
            preflight = httpx.options(server.url + "/generate", headers=ask | {"origin": origin})
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == origin
            answer = httpx.post(
                server.url + "/generate", json=BODY, headers=bearer(FIRST) | {"origin": origin.encode()}
            )
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            refused = httpx.post(server.url + "/generate", json=BODY, headers={"origin": origin})
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)
        for origin in ("https://evil.example", "https://app.example.evil.example", "null"):
            preflight = httpx.options(server.url + "/generate", headers=ask | {"origin": origin})
            assert preflight.status_code == 400
            assert "access-control-allow-origin" not in preflight.headers


def test_a_key_file_without_a_key_does_not_open_the_door(start_server: StartServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# only a comment\n")
    with pytest.raises(AssertionError, match="no key"), start_server(ZEROSHOT_API_KEYS_FILE=str(keys)):
        pass


def test_without_keys_an_authorization_header_is_ignored(server: Any) -> None:
    for value in ("", "Bearer ", "Bearer x", "Basic eA=="):
        head = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: {value}\r\n\r\n"
        assert exchange(server.url, head.encode()).status == 200


@pytest.mark.parametrize("path", ["/generate", "/tasks/translate", "/v1/completions", "/", "/score"])
def test_a_page_that_points_its_name_here(server: Any, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: evil.example:8000\r\nOrigin: http://evil.example:8000\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    answer = exchange(server.url, head.encode() + b"{}")
    assert answer.status == 403
    assert b"ZEROSHOT_ALLOWED_HOSTS" in answer.body


def test_liveness_has_no_names(server: Any) -> None:
    for path, status in (("/health/live", 200), ("/health/ready", 200), ("/health", 403), ("/openapi.json", 403)):
        assert exchange(server.url, f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode()).status == status


def test_one_key_can_hold_half_of_the_server(start_server: StartServer) -> None:
    limits = {"ZEROSHOT_API_KEYS": f"{FIRST},{SECOND}", "ZEROSHOT_MAX_QUEUED_SEQS": "64"}
    with start_server(**limits) as server:
        first, second = ({"authorization": f"Bearer {key}"} for key in (FIRST, SECOND))
        answer = server.http.post("/generate", json={"prompt": "a", "n": 33, "max_tokens": 2}, headers=first)
        assert answer.status_code == 400
        assert "at most 32 sequences" in answer.json()["error"]["message"]
        body = {"prompt": "a", "n": 32, "max_tokens": 300, "ignore_eos": True}
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(server.http.post, "/generate", json=body, headers=first)
            while server.http.get("/health", headers=first).json()["engine"]["num_running"] == 0:
                assert not held.done()
            mine = server.http.post("/generate", json=BODY, headers=first)
            theirs = server.http.post("/generate", json=BODY, headers=second)
            assert (mine.status_code, theirs.status_code) == (429, 200), mine.text + theirs.text
            assert "for you" in mine.json()["error"]["message"]
            assert held.result().status_code == 200
