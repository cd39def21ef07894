"""Runs what the prompts begin with through the engine once, so that the first request finds it in the prefix cache."""

import asyncio
import logging
import uuid
from collections.abc import Hashable

from zeroshot.errors import ZeroshotError
from zeroshot.model_client import ModelClient
from zeroshot.tasks.catalog import Catalog
from zeroshot.types import GenerateRequest, SamplingParams

logger = logging.getLogger(__name__)

MIN_PREFIX_TOKENS = 16
"""The prefix cache keeps whole blocks: of a shorter prefix nothing would stay."""

_CHECK_INTERVAL_S = 0.5
_RETRY_INTERVAL_S = 5.0


async def prewarm(catalog: Catalog, client: ModelClient) -> int:
    """Returns how many prefixes were run. Raises ZeroshotError for what the engine can't do now."""
    prefixes = [token_ids for token_ids in catalog.prefixes() if len(token_ids) >= MIN_PREFIX_TOKENS]
    for token_ids in prefixes:
        request = GenerateRequest(
            request_id=uuid.uuid4().hex,
            prompt_token_ids=token_ids[: client.max_model_len],
            sampling_params=SamplingParams(max_tokens=0),
            pin_prompt=True,
        )
        await client.complete(request)
    return len(prefixes)


async def keep_warm(catalog: Catalog, client: ModelClient) -> None:
    """Prewarm a new engine, and again whenever the catalog has changed. Runs until cancelled."""
    warmed: tuple[Hashable, int] | None = None
    while True:
        wanted = (client.engines, catalog.generation)
        pause_s = _CHECK_INTERVAL_S
        if client.status == "ready" and warmed != wanted:
            try:
                await prewarm(catalog, client)
                warmed = wanted
            except ZeroshotError as error:  # a full queue, or an engine that is being replaced
                logger.warning("prompt prefixes were not prefilled, trying again: %s", error.message)
                pause_s = _RETRY_INTERVAL_S
            except Exception:  # whatever it was: later prompts and engines are to be warmed all the same
                logger.exception("prompt prefixes were not prefilled, trying again")
                pause_s = _RETRY_INTERVAL_S
        await asyncio.sleep(pause_s)
