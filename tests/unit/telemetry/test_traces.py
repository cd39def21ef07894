"""What a collector is told about the sender of the spans."""

from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the otel extra is not installed")
from zeroshot.telemetry.traces import Tracer


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "zeroshot"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ours,region=here"}, "ours"),
    ],
)
def test_the_name_of_the_service(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str) -> None:
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    tracer = Tracer.over_otlp("demo")
    span: Any = tracer.start({}, "GET")
    assert span.resource.attributes["service.name"] == name
    assert span.resource.attributes.get("region") == ("here" if name == "ours" else None)
    assert "telemetry.sdk.version" in span.resource.attributes
    tracer.close()
