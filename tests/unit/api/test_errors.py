"""What an error's answer says."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect

from zeroshot.api import errors
from zeroshot.errors import ClientDisconnected


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
