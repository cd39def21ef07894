"""All of `tests/support/bad_input.py`: a documented 4xx in the surface's envelope, and the next request is right."""

from typing import Any

import pytest

from tests.support.bad_input import Case, all_cases, problem
from tests.support.raw_http import connect

CASES = all_cases()
NEXT = {"prompt": "after all that", "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def expected(server: Any) -> Any:
    server.wait_until_warm()
    return server.generate(**NEXT)["choices"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_answered_and_the_next_request_is_right(server: Any, expected: Any, case: Case) -> None:
    wrong, _ = problem(server.url, case)
    assert wrong is None
    assert server.generate(**NEXT)["choices"] == expected


def test_after_all_of_them_every_block_is_back_and_no_answer_was_a_failure(server: Any) -> None:
    server.wait_until_idle()
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "\x1b" not in log


def test_half_a_body_and_gone(server: Any) -> None:
    for path in ("/generate", "/tasks/translate", "/v1/completions", "/"):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        with connect(server.url) as connection:
            connection.sendall(head.encode() + b'{"prompt"')
    assert server.generate(**NEXT)["choices"]
    server.wait_until_idle()
    assert "Traceback" not in server.log.read_text()


def test_the_list_is_long() -> None:
    assert len(CASES) > 900
