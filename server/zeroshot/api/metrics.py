"""`GET /metrics` for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from zeroshot.api.errors import documented
from zeroshot.model_client import ModelClient

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters and latencies for Prometheus.",
    response_class=Response,
    responses=documented(401, 403)
    | {200: {"content": {"text/plain": {}}, "description": "Prometheus text format 0.0.4."}},
)
def metrics(request: Request) -> Response:  # not async: rendering takes a few milliseconds, in a thread
    client: ModelClient = request.app.state.client
    return Response(client.metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
