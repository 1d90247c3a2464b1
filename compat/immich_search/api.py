"""``POST /api/search/smart`` and ``POST /api/search/metadata``, where a reverse proxy sends them here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import metrics
from compat.immich_search.bar import LARGE_BODIES, SearchBar
from compat.immich_search.page_order import Listings
from compat.immich_search.replies import as_it_came
from compat.immich_search.wish import METADATA, SMART, read_wish
from errors import ErrorCode, ServiceError
from runners.cancellation import unless_gone
from search.http.life import SearchLife
from search.immich.exchange import HOP_HEADER, Headers, ImmichHttp, Reply, passed_on, with_headers, without
from search.immich.visitor import Visitors, credentials_of
from serving.body import PassedBody, read_start
from serving.exchange import Fields, answered
from settings import Settings

_LARGEST_WISH = 64 * 1024
"""Bytes of a body that is looked into; a larger one is passed on while it comes."""
_LARGEST_ANSWER = 64 * 2**20
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SHARED_LINK = ("key=", "slug=")
_SHARED_LINK_HEADERS = ("x-immich-share-key", "x-immich-share-slug")


def open_bar(settings: Settings, life: SearchLife, visitors: Visitors | None) -> SearchBar:
    """Return the search bar of this service. ``visitors``: of Immich; None without an IMMICH_URL, when nobody is
    asked.
    """
    return SearchBar(settings, life, visitors or Visitors(ImmichHttp("")), Listings())


def routes(bar: SearchBar) -> Sequence[BaseRoute]:
    """Return the two routes, for all methods: what is not a search is Immich's."""

    async def endpoint(request: Request) -> Response:
        path = request.url.path
        return await answered(
            request,
            lambda request, fields: _respond(bar, request, fields),
            line=f"{request.method if request.method in _METHODS else 'request'} {path}",
            timeout=bar.settings.request_timeout,
            error_body=error_body,
            task="search.bar",
        )

    return [Route(path, endpoint, methods=list(_METHODS)) for path in (SMART, METADATA)]


def error_body(error: ServiceError) -> dict[str, Any]:
    """Return the JSON of an error: ``message``, as in Immich's own, and our ``code``."""
    return {"message": error.message, "code": error.code.value}


async def _respond(bar: SearchBar, request: Request, fields: Fields) -> Response:
    _check_way(bar.settings, request)
    headers = without(passed_on(request.headers.raw), ("host", "expect"))
    async with aclosing(request.stream()) as pieces:
        head, is_whole = await read_start(pieces, largest=_LARGEST_WISH, seconds=bar.settings.body_timeout)
        if not is_whole:
            response = as_it_came(await _pass_large(bar, request, headers, head), "passed")
            fields["done"] = "passed"
        else:
            response = await unless_gone(request.receive, _answer(bar, request, headers, head, fields))
    metrics.SEARCH_BAR.labels(fields["done"]).inc()
    return response


async def _answer(bar: SearchBar, request: Request, headers: Headers, body: bytes, fields: Fields) -> Response:
    headers = without(headers, ("content-length",))
    wish = read_wish(request.url.path, body, bar.settings.search_bar) if _may_be_wish(request) else None
    if wish is None:
        fields["done"] = "passed"
        return as_it_came(await _pass(bar, request, headers, body or None), "passed")

    async def ask(other_body: bytes | None) -> Reply:
        sent = with_headers(headers, {"accept-encoding": "identity"})  # it may have to be read
        return await _pass(bar, request, sent, body if other_body is None else other_body)

    return await bar.answer(wish, credentials_of(request), ask, fields)


def _check_way(settings: Settings, request: Request) -> None:
    """Raise ``ServiceError`` IMMICH_UNAVAILABLE where there is no Immich to ask, or the way to it leads here."""
    if not settings.immich_url:
        raise ServiceError(
            ErrorCode.IMMICH_UNAVAILABLE,
            "The search bar's requests come here, and IMMICH_URL is not set: set it to the address of Immich itself, "
            "such as http://immich-server:2283.",
        )
    if HOP_HEADER in request.headers:
        raise ServiceError(
            ErrorCode.IMMICH_UNAVAILABLE,
            "IMMICH_URL leads back to this service: it must be the address of Immich itself, not of the reverse proxy "
            "before it.",
        )


def _may_be_wish(request: Request) -> bool:
    """Return whether the request is one whose body is to be looked into: JSON, of a user rather than a shared link."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    return (
        request.method == "POST"
        and kind.strip().lower() == "application/json"
        and parameters.strip().lower().replace('"', "") in ("", "charset=utf-8")
        and request.headers.get("content-encoding", "identity") == "identity"
        and not any(part.startswith(_SHARED_LINK) for part in request.url.query.split("&"))
        and not any(name in request.headers for name in _SHARED_LINK_HEADERS)
    )


async def _pass(bar: SearchBar, request: Request, headers: Headers, body: bytes | AsyncIterator[bytes] | None) -> Reply:
    """Send the request to Immich with this body, and return its answer."""
    query = request.scope["query_string"].decode("latin-1")
    target = f"{request.url.path}?{query}" if query else request.url.path
    return await bar.visitors.http.ask(request.method, target, headers, body=body, most=_LARGEST_ANSWER)


async def _pass_large(bar: SearchBar, request: Request, headers: Headers, head: bytes) -> Reply:
    """Send the request to Immich while its body comes, of which ``head`` was read, and return Immich's answer.

    Raises ``ServiceError``: BODY_TIMEOUT; QUEUE_FULL where as many such bodies are on their way as may be;
    IMMICH_UNAVAILABLE. Raises ``ClientDisconnect``.
    """
    if bar.large_bodies.locked():
        raise ServiceError(
            ErrorCode.QUEUE_FULL,
            f"{LARGE_BODIES} requests with a body of more than {_LARGEST_WISH:,} bytes are being passed on to Immich "
            "already. Send it again shortly.",
        )
    async with bar.large_bodies:
        body = PassedBody(head, request, bar.settings.body_timeout, bar.settings.body_min_rate)
        try:
            return await _pass(bar, request, headers, body.pieces())
        except ServiceError:
            if body.error is not None:
                raise body.error from None
            raise
