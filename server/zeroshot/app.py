"""Builds the FastAPI app: routers, lifespan, error handlers. No logic."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_swagger import patch_fastapi

import zeroshot
from zeroshot.api import chat, completions, errors, generate, health, metrics, models, score, tasks, tgi, tokens
from zeroshot.api.access.hosts import HostCheck
from zeroshot.api.access.keys import ApiKeys
from zeroshot.api.access.middleware import AccessMiddleware
from zeroshot.api.access.quota import Quotas
from zeroshot.api.chat_template import ChatTemplate
from zeroshot.api.drain import Drain, DrainMiddleware
from zeroshot.api.head import HeadMiddleware
from zeroshot.api.headers import SecurityHeadersMiddleware
from zeroshot.api.limits import BodyLimitMiddleware
from zeroshot.api.observe import ObserveMiddleware
from zeroshot.api.playground import page
from zeroshot.garbage_collection import freeze_loaded_objects
from zeroshot.model_client import ModelClient
from zeroshot.settings import Settings
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.openapi import install_task_openapi
from zeroshot.tasks.prewarm import keep_warm
from zeroshot.telemetry.traces import Tracer


def create_app(settings: Settings, client: ModelClient) -> FastAPI:
    """The app for one checkpoint. The client starts with the app and stops with it.

    Raises PromptFileError or SettingsError where a prompt file or a key can't be used.
    """
    catalog = Catalog(settings.prompts, tokenizer=client.tokenizer, max_model_len=client.max_model_len)
    tracer = Tracer.over_otlp(client.model_name) if settings.otlp_endpoint else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        await client.start()
        freeze_loaded_objects()
        background = [asyncio.create_task(catalog.watch()), asyncio.create_task(keep_warm(catalog, client))]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await client.stop()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="Zeroshot",
        version=zeroshot.__version__,
        summary="GPT-2, with prompt templates as typed endpoints.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # the redirect would go wherever the Host header says
    )
    app.state.client = client
    app.state.catalog = catalog
    app.state.drain = Drain()
    chat_file = settings.prompts / "chat" / "default.yaml"
    app.state.chat_template = ChatTemplate.from_file(chat_file) if chat_file.exists() else None
    client.metrics.watch_prompt_files(lambda: len(catalog.errors))
    keys = ApiKeys.load(settings)
    client.share_among(len(keys))
    _add_middleware(app, settings, keys, tracer)
    errors.install(app)
    app.include_router(page.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(tasks.router, responses=errors.ERRORS_EVERYWHERE)
    app.include_router(generate.router, responses=errors.ERRORS_EVERYWHERE)
    app.include_router(completions.router)
    app.include_router(chat.router)
    app.include_router(models.router)
    app.include_router(tokens.router, responses=errors.ERRORS_EVERYWHERE)
    app.include_router(score.router, responses=errors.ERRORS_EVERYWHERE)
    app.include_router(tgi.router, responses=errors.ERRORS_EVERYWHERE)
    # FastAPI's own /docs page loads its scripts from another host; this one works offline.
    patch_fastapi(app, redirect_from_root_to_docs=False)
    install_task_openapi(app, catalog)
    return app


def _add_middleware(app: FastAPI, settings: Settings, keys: ApiKeys, tracer: Tracer | None) -> None:
    """From the inside out: the last one added sees a request first."""
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        BodyLimitMiddleware,
        max_body_bytes=settings.max_body_bytes,
        timeout_s=settings.receive_timeout_s,
        num_callers=len(keys),
    )
    app.add_middleware(DrainMiddleware, drain=app.state.drain)
    quotas = Quotas(requests_per_minute=settings.requests_per_minute, max_concurrent=settings.max_concurrent_requests)
    hosts = HostCheck.wanted_by(settings, keys)
    app.add_middleware(
        AccessMiddleware, keys=keys, hosts=hosts, quotas=quotas, max_timeout_s=settings.request_timeout_s
    )
    app.add_middleware(errors.UnexpectedErrorMiddleware)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],  # openai's client sends a dozen of its own from a page
            expose_headers=["Retry-After", "X-Ignored-Fields", "X-Request-Id"],
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(ObserveMiddleware, metrics=app.state.client.metrics, tracer=tracer)
