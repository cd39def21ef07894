"""HTTP in the cluster: the app of `create_app`, over a `ReplicaClient`, in a Ray Serve deployment."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.app import create_app
from zeroshot.cluster.client import ReplicaClient
from zeroshot.cluster.prompts import unpack
from zeroshot.errors import SettingsError
from zeroshot.model.hub import fetch_model
from zeroshot.settings import load_settings
from zeroshot.telemetry import logs
from zeroshot.telemetry.record import REQUEST_ID_HEADER


@serve.ingress()
class Ingress:
    """Serve runs the app's lifespan, and gives it the requests that its proxies receive.

    Raises SettingsError if there were API keys where the deployment was made and here are none: they don't travel.
    """

    def __init__(self, replicas: DeploymentHandle, given: dict[str, Any], prompts: bytes, needs_keys: bool) -> None:
        self._prompts = Path(tempfile.mkdtemp(prefix="zeroshot-prompts-"))
        unpack(prompts, self._prompts)
        settings = load_settings(**given, prompts=self._prompts)
        if needs_keys and not (settings.api_keys or settings.api_keys_file):
            raise SettingsError(
                "This deployment is to have API keys, but its ingress finds none: set ZEROSHOT_API_KEYS or "
                "ZEROSHOT_API_KEYS_FILE on every node, or in the deployment's runtime_env."
            )
        logs.configure(settings.log_format, settings.log_level, "ingress")
        model = fetch_model(settings.model, settings.weights_dir)
        client = ReplicaClient(replicas, model, max_queued_seqs=settings.max_queued_seqs)
        self._zeroshot = _OneRequestId(create_app(settings, client))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._zeroshot

    def __del__(self) -> None:
        shutil.rmtree(self._prompts, ignore_errors=True)


class _OneRequestId:
    """Plain ASGI. Serve's proxy gives each request an id, which the app takes over, and says it in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._name = REQUEST_ID_HEADER.lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [item for item in message["headers"] if item[0].lower() != self._name]
            await send(message)

        await self._app(scope, receive, send_without_id)
