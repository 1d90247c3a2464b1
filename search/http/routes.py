"""Search's routes. What answers them (FastAPI, the models of its answers) takes 20 MB and half a second to import, so
it is imported by the first request, in the process that answers it, and by no runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from search.http.state import SearchApi
from serving.exchange import Fields, answered

if TYPE_CHECKING:
    from fastapi import FastAPI

PATHS = ("/search", "/assets/{id}/ocr", "/assets/{id}/reprocess", "/stats")
"""Paths of the operations in ``search.http.api``."""


class _Operations:
    """The operations as an ASGI app that is made when the first request comes."""

    def __init__(self, api: SearchApi) -> None:
        self._api = api
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = await asyncio.to_thread(self._make)
        await self._app(scope, receive, send)

    def _make(self) -> FastAPI:
        from search.http.api import create_app

        app = create_app()
        app.state.api, app.state.settings = self._api, self._api.settings
        return app


async def _describe(request: Request) -> Response:
    from search.http.api import openapi_json

    return Response(await asyncio.to_thread(openapi_json), media_type="application/json")


def routes(api: SearchApi) -> Sequence[BaseRoute]:
    """Return every route of search, and the description of them all, which needs no key."""
    operations = _Operations(api)
    return [
        *(Route(path, operations) for path in PATHS),
        Route("/openapi.json", _describe, methods=["GET"]),
        Route("/immich/new-asset", partial(_new_asset, api), methods=["POST", "PUT"]),
    ]


async def _new_asset(api: SearchApi, request: Request) -> Response:
    """Answer Immich's webhook, by which it tells of a new picture: its texts are looked for soon. The body is not
    read.
    """

    async def note(request: Request, fields: Fields) -> Response:
        api.guesses.require_key(request, api.settings.api_auth_key)
        api.life.pace.look_soon()
        return Response(status_code=202)

    return await answered(
        request,
        note,
        line=f"{request.method} /immich/new-asset",
        timeout=api.settings.request_timeout,
        task="search.new_asset",
    )
