"""What an error's answer says."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect

from tests.conftest import DEMO
from zeroshot.api import errors
from zeroshot.app import create_app
from zeroshot.client import EngineClient
from zeroshot.errors import ClientDisconnected
from zeroshot.settings import load_settings


def test_a_client_that_leaves_has_one_name_whenever_it_leaves() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/in-its-body")
    async def in_its_body() -> None:
        raise ClientDisconnect

    @app.get("/before-its-answer")
    async def before_its_answer() -> None:
        raise ClientDisconnected

    for path in ("/in-its-body", "/before-its-answer"):
        answer = TestClient(app).get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (499, "client_disconnected")


def test_a_mistake_of_ours_is_answered_with_the_headers_of_every_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A page that may call the server could not even read the status otherwise."""
    settings = load_settings(allowed_origins=["https://app.example"])
    app = create_app(settings, EngineClient(settings, DEMO))  # no engine runs before the app starts

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    client = TestClient(app, base_url="http://127.0.0.1")
    answer = client.get("/broken", headers={"Origin": "https://app.example", "X-Request-Id": "mine"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["GET /broken failed"]
