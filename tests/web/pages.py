"""The page over a database, with or without an Immich, asked as a browser asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from search.http.life import SearchLife
from search.http.state import SearchApi
from search.immich.exchange import ImmichHttp
from search.immich.visitor import Visitors
from search.store.database import Database
from serving.guesses import Guesses
from settings import Settings
from tests.compat.fake_runners import FakeRunners
from tests.fake_immich_search import FakeSearchImmich, User
from tests.search.indexing.redoing import CATALOG, settings
from web.page import open_page
from web.routes import routes

KEY = {"api-key": "s3cret"}
FROM_PAGE = {"x-immich-bento": "page"}
NAME = "cn-clip-tiny"


class OpenLife(SearchLife):
    """Search over a database that is open already."""

    def __init__(self, config: Settings, database: Database) -> None:
        super().__init__(config)
        self._database = database


class Pages:
    """The routes as service.py mounts them. Every request has an event loop of its own."""

    def __init__(self, database: Database | None, immich: FakeSearchImmich | None = None, **overrides: Any) -> None:
        if immich is not None:
            overrides["immich_url"] = immich.url
        self.settings = settings(**({"clip_model": NAME} | overrides))
        self.runners = FakeRunners()
        self.guesses = Guesses(clock=lambda: 0.0)  # a wait is over when it is said to be, however busy the machine
        self.life = SearchLife(self.settings) if database is None else OpenLife(self.settings, database)

    def ask(self, method: str, path: str, headers: Mapping[str, str] = KEY, **content: Any) -> httpx.Response:
        """Send one request. A POST is one of the page itself, unless ``headers`` say otherwise."""
        sent = {**(FROM_PAGE if method == "POST" else {}), **headers}

        async def send() -> httpx.Response:
            visitors = Visitors(ImmichHttp(self.settings.immich_url)) if self.settings.immich_url else None
            search = SearchApi(CATALOG, self.settings, self.life, self.runners, guesses=self.guesses)
            page = open_page(self.settings, search, visitors)
            page.runners = self.runners
            app = Starlette(routes=routes(page))
            transport = httpx.ASGITransport(app=app, client=("10.0.0.7", 1234))
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    return await client.request(method, path, headers=sent, **content)
            finally:
                if visitors is not None:
                    await visitors.close()

        return asyncio.run(send())

    def get(self, path: str, headers: Mapping[str, str] = KEY) -> Any:
        """Return the JSON of an answer that must be one."""
        response = self.ask("GET", f"/ai/api/{path}", headers)
        assert response.status_code == 200, response.text
        return response.json()


def session_of(user: User) -> dict[str, str]:
    """Return the headers of a browser in which ``user`` is logged in to Immich."""
    return {"cookie": f"immich_access_token={user.token}"}


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def cache_in(folder: Path) -> dict[str, Any]:
    """Return settings that keep what is made in ``folder``."""
    return {"cache_folder": folder}
