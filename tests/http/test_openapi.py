"""The OpenAPI page: served by us alone, and true."""

import re
from typing import Any


def test_docs_page_needs_no_other_host(server: Any) -> None:
    page = server.http.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith((server.url, "/")), address
        assert server.http.get(address).status_code == 200


def test_every_task_is_there_with_its_own_schema(server: Any) -> None:
    page = server.http.get("/openapi.json").json()
    for task in server.http.get("/tasks").json()["tasks"]:
        operation = page["paths"][task["url"]]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = page["components"]["schemas"][reference.rsplit("/", 1)[1]]
        assert schema["additionalProperties"] is False
        assert operation["summary"] == task["summary"]


def test_references_all_lead_somewhere(server: Any) -> None:
    page = server.http.get("/openapi.json")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', page.text))
    assert names <= page.json()["components"]["schemas"].keys()
    assert "GenerateBody" in names


def test_head_is_taken_wherever_get_is(server: Any) -> None:
    """And each answer has the headers that GET's has; the page itself shows only GET."""
    paths = server.http.get("/openapi.json").json()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]
    names = {"/tasks/{name}": "sentiment", "/v1/models/{name}": server.health()["model"]}
    taken = [path.replace("{name}", names.get(path, "")) for path, operations in paths.items() if "get" in operations]
    assert len(taken) > 8
    for path in [*taken, "/", "/docs", "/openapi.json"]:
        get, head = server.http.get(path), server.http.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"], path
        assert head.headers.keys() == get.headers.keys(), path
    refused = server.http.head("/generate")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
