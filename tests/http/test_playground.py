"""The page at `/` as files: what is sent, what may be kept, what a browser may do with it. Its use: tests/browser."""

import gzip
import re
from typing import Any

import pytest


@pytest.fixture(scope="module")
def assets(server: Any) -> list[str]:
    """Addresses of the files that the page names."""
    found = re.findall(r'(?:src|href)="\./([^"]+)"', server.http.get("/").text)
    assert len(found) >= 3
    return found


def test_the_page_is_asked_for_anew_and_its_files_are_kept(server: Any, assets: list[str]) -> None:
    page = server.http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    hashed = [address for address in assets if address.startswith("playground/")]
    assert {address.rsplit(".", 1)[1] for address in hashed} == {"js", "css", "svg"}
    for address in hashed:
        answer = server.http.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_an_unchanged_page_is_not_sent_again(server: Any) -> None:
    first = server.http.get("/")
    again = server.http.get("/", headers={"If-None-Match": f'"old", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert server.http.get("/", headers={"If-None-Match": '"old"'}).status_code == 200


def test_head_says_the_same_without_a_body(server: Any) -> None:
    head, get = server.http.head("/"), server.http.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]


def test_files_are_compressed_for_those_who_can_read_it(server: Any, assets: list[str]) -> None:
    script = next(address for address in assets if address.endswith(".js"))
    plain = server.http.get(f"/{script}", headers={"Accept-Encoding": "identity"})
    small = server.http.get(f"/{script}", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert small.content == plain.content
    assert int(small.headers["content-length"]) < len(plain.content) / 2
    assert plain.headers["etag"] != small.headers["etag"]
    assert plain.headers["vary"] == small.headers["vary"] == "Accept-Encoding"


def test_the_policy_allows_nothing_inline_and_no_other_host(server: Any, assets: list[str]) -> None:
    page = server.http.get("/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert all(sources in ("'none'", "'self'") for sources in policy.values())
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text)
    assert "://" not in page.text
    for address in assets:
        assert server.http.get(f"/{address}").headers["content-security-policy"]


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2findex.html", "..%2f..%2fpage.py", "%2e%2e%2f%2e%2e%2fpage.py", "\u00e9", ""]
)
def test_there_is_nothing_else(server: Any, name: str) -> None:
    answer = server.http.get(f"/playground/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_script_is_small(server: Any, assets: list[str]) -> None:
    script = next(address for address in assets if address.endswith(".js"))
    assert len(gzip.compress(server.http.get(f"/{script}").content)) < 80_000
