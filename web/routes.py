"""The routes of the page: its files, who is there, and its operations, which are imported by the first request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from errors import ErrorCode, ServiceError
from serving.client_address import client_address
from serving.exchange import Fields, answered
from settings.version import VERSION
from web import files, session
from web.exchange import answer, posted, quietly
from web.guest import Guest
from web.page import Page

if TYPE_CHECKING:
    from web.operations import Operation

_ADDRESS_KEPT = 300.0
"""Seconds that Immich's public address is believed."""


class _Login(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    key: SecretStr = Field(max_length=1000)


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def routes(page: Page) -> Sequence[BaseRoute]:
    """Return every route of the page; none where ``PAGE_ENABLED`` is false."""
    if not page.settings.page_enabled:
        return ()
    shells = ("/ai", "/ai/", "/ai/assets/{id}", "/ai/library", "/ai/system")
    return [
        *(Route(path, files.shell, methods=["GET"]) for path in shells),
        Route("/ai/static/{name:path}", files.static, methods=["GET"]),
        Route("/ai/immich.js", files.immich_script, methods=["GET"]),
        _open(page, "GET", "me", _Me(page)),
        _open(page, "POST", "login", partial(_log_in, page)),
        _open(page, "POST", "logout", partial(_log_out, page)),
        _guarded(page, "GET", "search", "search"),
        _guarded(page, "GET", "assets/{id}", "photo"),
        _guarded(page, "GET", "assets/{id}/similar", "alike"),
        _guarded(page, "GET", "assets/{id}/faces", "faces"),
        _guarded(page, "POST", "assets/{id}/redo", "redo"),
        _guarded(page, "GET", "library", "library"),
        _guarded(page, "GET", "failures", "failures"),
        _guarded(page, "GET", "lost", "lost"),
        _guarded(page, "POST", "retry", "retry"),
        _guarded(page, "GET", "system", "system"),
        Route("/ai/api/assets/{id}/picture", partial(_picture, page), methods=["GET"]),
    ]


def _guarded(page: Page, method: str, path: str, name: str) -> Route:
    """Return the route of the operation called ``name``, for whoever is known."""

    async def work(request: Request, fields: Fields) -> Response:
        return await _operated(page, name, request, fields)

    return _open(page, method, path, work)


async def _operated(page: Page, name: str, request: Request, fields: Fields) -> Response:
    guest = await page.guests.require(request)
    operations = await asyncio.to_thread(_operations)
    return await operations[name](page, guest, request, fields)


def _operations() -> Mapping[str, Operation]:
    """Return the operations. They import image libraries and PostgreSQL's client, which most starts never need."""
    from web.operations import OPERATIONS

    return OPERATIONS


def _open(page: Page, method: str, path: str, work: Callable[[Request, Fields], Awaitable[Response]]) -> Route:
    """Return the route of an operation for everybody."""
    name = path.replace("{id}/", "").replace("/{id}", "").replace("/", ".")

    async def endpoint(request: Request) -> Response:
        response = await answered(
            request,
            work,
            line=f"{method} /ai/api/{path}",
            timeout=page.settings.request_timeout,
            task=f"page.{name}",
        )
        for header, value in files.HEADERS.items():
            response.headers.setdefault(header, value)
        response.headers.setdefault("cache-control", "no-store")
        return response

    return Route(f"/ai/api/{path}", endpoint, methods=[method])


async def _picture(page: Page, request: Request) -> Response:
    limit = page.settings.request_timeout
    return await quietly(lambda: _operated(page, "picture", request, {}), seconds=limit)


class _Me:
    """Tells who the guest is, and what the page needs to know before anything else."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._address: tuple[float, str] | None = None

    async def __call__(self, request: Request, fields: Fields) -> Response:
        """Answer with the guest, or null for nobody: then the page shows its login."""
        page = self._page
        guest = await page.guests.who(request)
        told: dict[str, object] = {
            "visitor": None,
            "login": page.settings.api_auth_key is not None,
            "immich": page.visitors is not None,
        }
        if guest is not None:
            told |= {
                "visitor": {
                    "kind": "key" if guest.user is None else "immich",
                    "name": "" if guest.user is None else guest.user.name,
                    "admin": guest.may_see_system,
                    "cookie": guest.by_cookie,
                },
                "source": await self._source(),
                "immich_address": await self._immich_address(guest),
                "version": VERSION,
            }
        return answer(told)

    async def _source(self) -> str | None:
        try:
            async with self._page.search.database() as database:
                return database.source.value
        except ServiceError:
            return None

    async def _immich_address(self, guest: Guest) -> str | None:
        """Return where Immich's page is, '' for this very origin, None where nobody knows: a visitor with a session of
        Immich looks at this page within Immich's origin; others go where Immich says that it is.
        """
        if guest.user is not None:
            return ""
        if self._page.visitors is None:
            return None
        if self._address is None or time.monotonic() - self._address[0] > _ADDRESS_KEPT:
            try:
                address = await self._page.immich.address()
            except ServiceError:
                address = ""
            self._address = time.monotonic(), address or self._page.settings.immich_url
        return self._address[1]


async def _log_in(page: Page, request: Request, fields: Fields) -> Response:
    address = client_address(request)
    sent = (await posted(request, _Login, seconds=page.settings.body_timeout)).key.get_secret_value()
    key = page.settings.api_auth_key
    if key is None:
        raise ServiceError(ErrorCode.KEY_NOT_SET, "The service has no key: set API_AUTH_KEY and start it again.")
    if not page.search.guesses.look(address, [sent.strip().encode()], key):
        raise ServiceError(ErrorCode.UNAUTHORIZED, "This key is wrong.")
    page.search.guesses.forget(address)
    response = answer({})
    session.give(response, request, key)
    return response


async def _log_out(page: Page, request: Request, fields: Fields) -> Response:
    await posted(request, _Nothing, seconds=page.settings.body_timeout)
    response = answer({})
    session.take(response)
    return response
