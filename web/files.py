"""The page's own files: read once, sent with a digest and a policy that lets nothing but them run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).resolve().parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer of the page."""
_SHELL = "index.html"
_SCRIPT = "immich.js"


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


async def shell(request: Request) -> Response:
    """Answer with the page itself, whichever of its views the address names. There is nobody's data in it."""
    return _answer(request, _SHELL)


async def static(request: Request) -> Response:
    """Answer with one of the page's files; 404 for any other name."""
    return _answer(request, request.path_params["name"])


async def immich_script(request: Request) -> Response:
    """Answer with the script for Immich's page."""
    return _answer(request, _SCRIPT)


def _answer(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        return Response("There is no such file.", 404, HEADERS, "text/plain")
    return unless_known(request, file.content, file.media_type, file.etag)


def etag_of(content: bytes) -> str:
    """Return the tag of some content, by which a browser asks whether it is still the same."""
    return f'"{hashlib.sha256(content).hexdigest()[:20]}"'


def unless_known(
    request: Request, content: bytes, media_type: str, etag: str, *, cache_control: str = "no-cache"
) -> Response:
    """Return ``content``, which the browser may keep as long as it asks each time whether it is still the same; or a
    304 where that is what this request asks.
    """
    headers = {**HEADERS, "cache-control": cache_control, "etag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


@lru_cache(maxsize=1)
def _files() -> Mapping[str, _File]:
    found = {}
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            found[path.relative_to(STATIC).as_posix()] = _File(content, _TYPES[path.suffix], etag_of(content))
    return found
