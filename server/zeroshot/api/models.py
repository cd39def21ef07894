"""`GET /v1/models`: the one model that this server has."""

import time
from typing import Any

from fastapi import APIRouter, Request

from zeroshot.api.errors import OPENAI_ERRORS
from zeroshot.errors import UnknownModel
from zeroshot.model_client import ModelClient

router = APIRouter(prefix="/v1", tags=["openai"])

_STARTED = int(time.time())
_WHATEVER_IS_SERVED = frozenset({"dummy", "tgi"})
"""Names that huggingface_hub sends, and TGI's documentation uses, where the caller gave none."""


@router.get("/models", summary="The model served here.", responses=OPENAI_ERRORS)
async def list_models(request: Request) -> dict[str, Any]:
    return {"object": "list", "data": [_model(request.app.state.client)]}


@router.get("/models/{name:path}", summary="One model.", responses=OPENAI_ERRORS)
async def get_model(name: str, request: Request) -> dict[str, Any]:
    client: ModelClient = request.app.state.client
    if name != client.model_name:
        raise _unknown(name, client)
    return _model(client)


def check_model(name: str | None, client: ModelClient) -> None:
    """Raises UnknownModel for any name but the served one's; no name at all is fine."""
    if name not in (None, client.model_name) and name not in _WHATEVER_IS_SERVED:
        raise _unknown(str(name), client)


def _unknown(name: str, client: ModelClient) -> UnknownModel:
    return UnknownModel(f"There is no model {name[:64]!r} here, only {client.model_name!r}.", field="model")


def _model(client: ModelClient) -> dict[str, Any]:
    return {
        "id": client.model_name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "zeroshot",
        "root": client.model_name,
        "parent": None,
        "max_model_len": client.max_model_len,
    }
