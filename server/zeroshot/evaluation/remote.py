"""The model behind a running server: what `POST /tasks/<name>` gives, and nothing else of the server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from zeroshot.errors import InvalidRequest, ZeroshotError
from zeroshot.evaluation.protocol import Scorer

_TIMEOUT_S = 600.0
_MAX_TRIES = 20
_TRY_AGAIN = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class HttpBackend:
    """`Backend` over HTTP. A server that is full (429) or has lost its engine (503) is asked again after a while."""

    mode = "over HTTP"
    max_in_flight = 32

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self._http = http
        self.model = model
        self.scorer: Scorer | None = None

    async def task(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        for _ in range(_MAX_TRIES):
            try:
                response = await self._http.post(f"/tasks/{name}", json=body)
            except httpx.HTTPError as error:
                raise ZeroshotError(f"task {name}: the server is gone: {error!r}") from None
            if response.status_code not in _TRY_AGAIN:
                break
            await asyncio.sleep(float(response.headers.get("retry-after", 1)))
        answer = _json_object(response)
        if response.status_code != httpx.codes.OK:
            message = answer.get("error", {}).get("message", response.text[:200])
            raise ZeroshotError(f"task {name}: status {response.status_code}: {message}")
        return answer


@asynccontextmanager
async def over_http(url: str) -> AsyncGenerator[HttpBackend, None]:
    """Raises InvalidRequest if no ready Zeroshot server answers at `url`."""
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as http:
        try:
            response = await http.get("/health")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InvalidRequest(f"No server answers at {url}: {error}") from None
        health = _json_object(response)
        if response.status_code != httpx.codes.OK or "model" not in health:
            raise InvalidRequest(f"{url} is not a Zeroshot server that is ready: /health says {response.status_code}.")
        yield HttpBackend(http, str(health["model"]))


def _json_object(response: httpx.Response) -> dict[str, Any]:
    """Empty if the body is something else."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
