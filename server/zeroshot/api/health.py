"""Is it up, and can it generate? `/health/live` says the first, `/health/ready` the second."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

import zeroshot
from zeroshot.api.errors import documented
from zeroshot.model_client import ModelClient

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="The HTTP server answers.")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get(
    "/health/ready",
    summary="The engine has generated a token and its heartbeat is fresh.",
    responses={503: {"description": "Loading, restarting or draining."}},
)
async def ready(request: Request) -> JSONResponse:
    status = _status(request)
    return JSONResponse({"status": status}, status_code=200 if status == "ready" else 503)


@router.get(
    "/health",
    summary="The engine's state and load.",
    responses=documented(401, 403) | {503: {"description": "Not ready."}},
)
async def health(request: Request) -> JSONResponse:
    client: ModelClient = request.app.state.client
    status = _status(request)
    body: dict[str, Any] = {
        "status": status,
        "version": zeroshot.__version__,
        "model": client.model_name,
        "max_model_len": client.max_model_len,
        "engine_restarts": client.num_restarts,
        "engine": msgspec.to_builtins(client.stats),
    }
    body["kernels"] = body["engine"].pop("kernels")
    return JSONResponse(body, status_code=200 if status == "ready" else 503)


def _status(request: Request) -> str:
    """`draining` once the server was told to stop, else the engine's."""
    client: ModelClient = request.app.state.client
    return "draining" if request.app.state.drain.is_draining else client.status
