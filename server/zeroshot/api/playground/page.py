"""`GET /` and the files it needs. They are few and small, so they are read once and kept.

Files under `playground/` have a hash of their content in their names, so browsers may keep them for good; the page
itself is asked for anew each time and answered 304 where it is the same.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent / "static"

HEADERS = {
    # No inline script or style, nothing from another host, no form that leaves the page, no frame around it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
_KEEP = "public, max-age=31536000, immutable"
_ASK = "no-cache"
_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


@dataclass(frozen=True)
class BuiltFile:
    media_type: str
    etag: str
    body: bytes
    gzipped: bytes | None
    """None where it would not be smaller, as for fonts."""


@router.get("/")
async def page(request: Request) -> Response:
    return _answer(request, "index.html", _ASK)


@router.get("/playground/{name}")
async def asset(name: str, request: Request) -> Response:
    return _answer(request, f"playground/{name}", _KEEP)


@cache
def built_files() -> dict[str, BuiltFile]:
    """All of `static/` by path. A request can name only what is in here, so no path leads outside."""
    return {path.relative_to(STATIC).as_posix(): _read(path) for path in sorted(STATIC.rglob("*")) if path.is_file()}


def _read(path: Path) -> BuiltFile:
    body = path.read_bytes()
    gzipped = gzip.compress(body, mtime=0)
    return BuiltFile(
        media_type=_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        etag=hashlib.sha256(body).hexdigest()[:16],
        body=body,
        gzipped=gzipped if len(gzipped) < 0.9 * len(body) else None,
    )


def _answer(request: Request, path: str, cache_control: str) -> Response:
    built = built_files().get(path)
    if built is None:
        raise HTTPException(404, "Not Found")
    is_gzipped = built.gzipped is not None and "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{built.etag}-gzip"' if is_gzipped else f'"{built.etag}"'
    headers = HEADERS | {"Cache-Control": cache_control, "ETag": etag}
    if etag in _etags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if is_gzipped:
        headers["Content-Encoding"] = "gzip"
    body = built.gzipped if is_gzipped else built.body
    return Response(body, media_type=built.media_type, headers=headers)


def _etags(if_none_match: str) -> set[str]:
    return {etag.strip().removeprefix("W/") for etag in if_none_match.split(",")}
