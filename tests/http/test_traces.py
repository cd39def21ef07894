"""Traces of a real server, received as OTLP by a server of the test's own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.protobuf.message import Message

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the otel extra is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

StartServer = Callable[..., AbstractContextManager[Any]]
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def otlp_receiver() -> Iterator[tuple[str, list[Any]]]:
    """(endpoint, spans): the spans that have come so far."""
    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource_spans in request.resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    spans.extend(scope_spans.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attributes(span: Message) -> dict[str, Any]:
    def value_of(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [value_of(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {item.key: value_of(item.value) for item in span.attributes}


def test_a_request_is_a_span_with_the_engines_phases_under_it(start_server: StartServer) -> None:
    traceparent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    with otlp_receiver() as (endpoint, spans), start_server(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as server:
        model = server.health()["model"]
        headers = {"traceparent": traceparent, "X-Request-Id": "traced"}
        task = server.http.post("/tasks/complete", json={"text": "On", "max_tokens": 5}, headers=headers).json()
        server.http.post("/generate", json={"prompt": ""}, headers={"traceparent": "nonsense"})
        unsampled = traceparent[:-2] + "00"
        server.http.post("/score", json={"text": "a b c"}, headers={"traceparent": unsampled})
        # The server has ended: what was waiting has been sent.
    (root,) = [span for span in spans if span.name == "POST /tasks/{name}"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/tasks/{name}",
        "http.response.status_code": 200,
        "zeroshot.request_id": "traced",
        "zeroshot.task": "complete",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": task["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": task["usage"]["completion_tokens"],
        "gen_ai.response.finish_reasons": ["length"],
        "zeroshot.cached_tokens": task["usage"]["cached_tokens"],
    }
    phases = {span.name: span for span in spans if span.parent_span_id == root.span_id}
    assert list(phases) == ["queue", "prefill", "decode"]
    times = [root.start_time_unix_nano, phases["queue"].start_time_unix_nano]
    for phase in phases.values():
        assert abs(phase.start_time_unix_nano - times[-1]) < 1000  # each begins where the one before ended
        times.append(phase.end_time_unix_nano)
    assert [*times, root.end_time_unix_nano] == sorted([*times, root.end_time_unix_nano])
    (refused,) = [span for span in spans if span.name == "POST /generate"]
    assert attributes(refused)["error.type"] == "invalid_request"
    assert refused.trace_id.hex() != TRACE_ID
    assert not refused.parent_span_id
    assert "POST /score" not in {span.name for span in spans}  # its caller had decided against a trace


def test_a_collector_that_is_away_harms_nobody(start_server: StartServer) -> None:
    with start_server(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as server:
        assert server.generate(prompt="a", max_tokens=2)["choices"]
