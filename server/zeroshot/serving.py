"""Runs the app in uvicorn, and how it stops."""

import logging
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from zeroshot.api.drain import Drain
from zeroshot.client import EngineClient
from zeroshot.errors import Draining
from zeroshot.http_protocol import protocol
from zeroshot.settings import Settings

logger = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
"""Longer than load balancers and clients keep an idle connection (60 s for most). With uvicorn's 5 s a client's next
request often went out on a connection that was just being closed, and got no answer."""
_LAST_WORDS_S = 3.0
"""How long clients have to read the error that ends their request when draining took too long."""


def serve(app: FastAPI, settings: Settings, listeners: list[socket.socket]) -> int:
    """On these sockets, until a signal ends it, or the engine refuses its settings.

    Returns the exit code: 0 once drained, 1 if refused, 128 + the signal when ended at once.
    """
    config = uvicorn.Config(
        app,
        http=protocol(settings.receive_timeout_s, settings.send_timeout_s),
        ws="none",
        log_config=None,  # ours
        access_log=False,  # ours says more
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(_LAST_WORDS_S),
    )
    server = DrainingServer(config, app.state.drain, app.state.client, settings.drain_timeout_s)
    server.run(sockets=listeners)
    return server.exit_code if server.started else 1


class DrainingServer(uvicorn.Server):
    """The first SIGTERM or Ctrl-C drains: the socket stays open, to tell new requests so. The second ends at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, client: EngineClient, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._drain, self._client = drain, client
        self._drain_timeout_s = drain_timeout_s
        self._deadline = 0.0
        self.exit_code = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        if not self._drain.is_draining:
            logger.info("%s: draining, for %g s at most", signal.Signals(sig).name, self._drain_timeout_s)
            self._deadline = time.monotonic() + self._drain_timeout_s
            self._drain.begin()
            return
        self.exit_code = 128 + sig
        self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._client.status == "refused":
            self.exit_code = 1
            self.should_exit = True
        if self._drain.is_draining and not self.should_exit:
            is_late = time.monotonic() >= self._deadline
            if is_late and self._drain.num_requests:
                message = f"The server is stopping, and the request did not finish within {self._drain_timeout_s:g} s."
                self._client.refuse_all(Draining(message))
            self.should_exit = is_late or not self._drain.num_requests
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """uvicorn skips the lifespan's end when forced; the engine process must end all the same."""
        if self.force_exit:
            self._client.refuse_all(Draining("The server was stopped."))
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()
