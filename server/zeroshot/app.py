"""Builds the FastAPI app: routers, lifespan, error handlers. No logic."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi_swagger import patch_fastapi

import zeroshot
from zeroshot.api import chat, completions, errors, generate, health, metrics, models, score, tasks, tgi, tokens
from zeroshot.api.chat_template import ChatTemplate
from zeroshot.api.limits import BodyLimitMiddleware
from zeroshot.api.observe import ObserveMiddleware
from zeroshot.client import EngineClient
from zeroshot.settings import Settings
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.openapi import install_task_openapi
from zeroshot.tasks.prewarm import keep_warm


def create_app(settings: Settings, model_folder: Path) -> FastAPI:
    """The app for one checkpoint. The engine process starts with the app and ends with it.

    Raises WeightsError or PromptFileError where the checkpoint or a prompt file can't be served.
    """
    client = EngineClient(
        settings.engine_settings(model_folder),
        max_queued_seqs=settings.max_queued_seqs,
        hang_timeout_s=settings.engine_hang_timeout_s,
    )
    catalog = Catalog(settings.prompts, tokenizer=client.tokenizer, max_model_len=client.max_model_len)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        await client.start()
        background = [asyncio.create_task(catalog.watch()), asyncio.create_task(keep_warm(catalog, client))]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await client.stop()

    app = FastAPI(
        title="Zeroshot",
        version=zeroshot.__version__,
        summary="GPT-2, with prompt templates as typed endpoints.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.client = client
    app.state.catalog = catalog
    chat_file = settings.prompts / "chat" / "default.yaml"
    app.state.chat_template = ChatTemplate.from_file(chat_file) if chat_file.exists() else None
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    client.metrics.watch_prompt_files(lambda: len(catalog.errors))
    app.add_middleware(ObserveMiddleware, metrics=client.metrics)  # the last one added is the outermost
    errors.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(tasks.router)
    app.include_router(generate.router)
    app.include_router(completions.router)
    app.include_router(chat.router)
    app.include_router(models.router)
    app.include_router(tokens.router)
    app.include_router(score.router)
    app.include_router(tgi.router)
    patch_fastapi(app)  # FastAPI's own /docs page loads its scripts from another host; this one works offline
    install_task_openapi(app, catalog)
    return app
