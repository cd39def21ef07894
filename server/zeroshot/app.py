"""Builds the FastAPI app: routers, lifespan, error handlers. No logic."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

import zeroshot
from zeroshot.api import errors, generate, health
from zeroshot.api.limits import BodyLimitMiddleware
from zeroshot.client import EngineClient
from zeroshot.settings import Settings


def create_app(settings: Settings, model_folder: Path) -> FastAPI:
    """The app for one checkpoint. The engine process starts with the app and ends with it."""
    client = EngineClient(
        settings.engine_settings(model_folder),
        max_queued_seqs=settings.max_queued_seqs,
        hang_timeout_s=settings.engine_hang_timeout_s,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        app.state.client = client
        await client.start()
        try:
            yield
        finally:
            await client.stop()

    app = FastAPI(
        title="Zeroshot",
        version=zeroshot.__version__,
        summary="GPT-2, with prompt templates as typed endpoints.",
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    errors.install(app)
    app.include_router(health.router)
    app.include_router(generate.router)
    return app
