"""OpenTelemetry traces: a span a request, with the engine's phases under it. An extra, `otel`.

OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, ...), which its SDK
reads, say where the spans go and which are sampled.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeroshot.errors import SettingsError
from zeroshot.telemetry.record import Phases, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE_NAME = "zeroshot"


class Tracer:
    """Makes the spans of HTTP requests. `close` sends what is still waiting."""

    def __init__(self, provider: "TracerProvider", model_name: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("zeroshot")
        self._propagator = TraceContextTextMapPropagator()
        self._model_name = model_name

    @classmethod
    def over_otlp(cls, model_name: str) -> "Tracer":
        """Sends spans in the background, over OTLP/HTTP. Raises SettingsError if the extra is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise SettingsError(
                "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces; they need, in a checkout, "
                "`pip install -c constraints.txt -e '.[otel]'`."
            ) from None
        # Only what the variables say goes before our name: `create` has a name of its own for a service without one.
        resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, model_name)

    def start(self, headers: Mapping[str, str], method: str) -> "Span":
        """`headers` may bring a `traceparent`, whose trace the span then belongs to, and its decision to sample."""
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(headers)
        return self._tracer.start_span(method, context, SpanKind.SERVER, {"http.request.method": method})

    def end(self, span: "Span", route: str, status: int, record: RequestRecord) -> None:
        """Names follow OpenTelemetry's conventions for HTTP servers and for generative models."""
        from opentelemetry.trace import Status, StatusCode

        if span.is_recording():
            span.update_name(f"{record.method} {route}")
            span.set_attributes(self._attributes(route, status, record))
            if status >= 500 or "error" in record.finish_reasons:
                span.set_status(Status(StatusCode.ERROR))
            for phases in record.phases:
                self._add_phases(span, phases)
        span.end()

    def close(self) -> None:
        self._provider.shutdown()

    def _attributes(self, route: str, status: int, record: RequestRecord) -> dict[str, Any]:
        attributes = {
            "http.route": route,
            "http.response.status_code": status,
            "error.type": record.error_code,
            "zeroshot.request_id": record.request_id,
            "zeroshot.task": record.task,
        }
        if record.prompt_tokens:
            attributes |= {
                "gen_ai.request.model": self._model_name,
                "gen_ai.usage.input_tokens": record.prompt_tokens,
                "gen_ai.usage.output_tokens": record.completion_tokens,
                "gen_ai.response.finish_reasons": sorted(record.finish_reasons),
                "zeroshot.cached_tokens": record.cached_tokens,
            }
        return {name: value for name, value in attributes.items() if value is not None}

    def _add_phases(self, parent: "Span", phases: Phases) -> None:
        """Child spans `queue`, `prefill`, `decode` of one choice, each from one of its times to the next."""
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(parent)
        to_unix_ns = time.time_ns() - time.monotonic_ns()
        for name, begin, end in phases.spans():
            span = self._tracer.start_span(name, context, start_time=to_unix_ns + int(1e9 * begin))
            span.end(to_unix_ns + int(1e9 * end))
