"""What is deployed: engine replicas and ingresses, with how much of everything each gets.

`app` is what `serve run zeroshot.cluster.application:app model=gpt2 num_gpus=1`, a config file's `import_path` and
`zeroshot deploy` build the application from.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig

from zeroshot.cluster.ingress import Ingress
from zeroshot.cluster.prompts import pack
from zeroshot.cluster.replica import EngineReplica
from zeroshot.cluster.routing import SLACK
from zeroshot.errors import SettingsError
from zeroshot.settings import Settings, load_settings

_ROUTER = "zeroshot.cluster.router.PrefixRouter"
_MAX_REQUESTS_PER_INGRESS = 4096
_STAYS_HERE = {"api_keys", "prompts", "port"}
"""Secrets have no business in a deployment's config, the prompts go as bytes, and the port is the proxies'."""


class Scale(BaseModel):
    """How much of everything. Any other argument is a setting of the server, by its name in `Settings`."""

    model_config = ConfigDict(extra="allow")

    min_replicas: int = Field(default=1, ge=1, description="Engines, at least.")
    max_replicas: int = Field(default=1, ge=1, description="Engines, at most: as many as the requests need.")
    target_ongoing_requests: float = Field(default=32, gt=0, description="Requests an engine; more add replicas.")
    num_cpus: float = Field(default=1, ge=0, description="CPU cores of each engine.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs of each engine.")
    ingress_replicas: int = Field(default=1, ge=1, description="HTTP front ends, a CPU core each.")
    max_surge_percent: int = Field(
        default=25,
        ge=0,
        le=100,
        description="Replicas that an update adds before it takes old ones away; 0 needs no spare capacity.",
    )
    prefix_routing: bool = Field(
        default=True, description="Prompts that begin alike to the same replica; false: Serve's own two random choices."
    )
    spill_slack: int = Field(
        default=SLACK, ge=0, description="How many more requests a prompt's own replica may have than the least loaded."
    )


def app(arguments: dict[str, Any]) -> serve.Application:
    """The application. Raises SettingsError for an argument that is unknown or can't be."""
    try:
        scale = Scale(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    given = scale.model_extra or {}
    unknown = given.keys() - Settings.model_fields.keys()
    if unknown:
        raise SettingsError(f"There is no setting {min(unknown)!r}.")
    if "port" in given:
        raise SettingsError(
            "The port is the proxies', not a part's: `zeroshot deploy --port`, `serve start --http-port`."
        )
    settings = load_settings(**given)
    if settings.num_threads is None and not scale.num_gpus:
        settings.num_threads = max(1, int(scale.num_cpus))
    travelling = settings.model_dump(mode="json", include=settings.model_fields_set - _STAYS_HERE)
    replicas = _engines(scale, settings).bind(travelling)
    needs_keys = bool(settings.api_keys or settings.api_keys_file)
    return _ingresses(scale, settings).bind(replicas, travelling, pack(settings.prompts), needs_keys)


def _engines(scale: Scale, settings: Settings) -> Any:
    room = settings.max_queued_seqs
    return serve.deployment(
        EngineReplica,
        name="engine",
        ray_actor_options={"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=max(scale.min_replicas, scale.max_replicas),
            target_ongoing_requests=scale.target_ongoing_requests,
        ),
        max_ongoing_requests=2 * room,  # more than the engine admits: it is the engine that says 429, and for how long
        max_queued_requests=room,  # beyond that they are not even sent
        request_router_config=_router(scale),
        max_surge_percent=scale.max_surge_percent,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=10,
    )


def _router(scale: Scale) -> Any:
    if not scale.prefix_routing:
        return RequestRouterConfig()
    return RequestRouterConfig(request_router_class=_ROUTER, request_router_kwargs={"slack": scale.spill_slack})


def _ingresses(scale: Scale, settings: Settings) -> Any:
    return serve.deployment(
        Ingress,
        name="ingress",
        num_replicas=scale.ingress_replicas,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=_MAX_REQUESTS_PER_INGRESS,
        max_queued_requests=_MAX_REQUESTS_PER_INGRESS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        max_surge_percent=100,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        graceful_shutdown_wait_loop_s=0.5,
    )
