"""A search bar before a fake Immich, with texts that a test gives, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette

from compat.immich_search.api import open_bar, routes
from compat.immich_search.bar import SearchBar
from search.http.life import SearchLife
from search.immich.exchange import ImmichHttp
from search.immich.visitor import Visitors
from search.query.parse import ParsedQuery
from search.query.text_rank import RankedText
from search.query.timeline import Timeline
from settings import Settings
from tests.fake_immich_search import FakeSearchImmich, Picture, User

T = TypeVar("T")


class Texts:
    """What the text search finds, by owner, best first; and how it misbehaves."""

    def __init__(self) -> None:
        self.found: list[tuple[UUID, UUID]] = []
        """Owner and picture."""
        self.exact: set[UUID] = set()
        self.error: Exception | None = None
        self.seconds = 0.0
        self.asked: list[tuple[ParsedQuery, Sequence[UUID] | None]] = []
        """Query, and the pictures to search alone."""

    async def rank(
        self,
        database: Any,
        parsed: ParsedQuery,
        timeline: Timeline,
        *,
        within: Sequence[UUID] | None,
        most: int,
        seconds: float,
    ) -> list[RankedText]:
        self.asked.append((parsed, within))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        if within is None:
            found = [one for owner, one in self.found if str(owner) in (timeline.own, *timeline.partners)]
        else:
            found = [one for _, one in self.found if one in within]
        return [RankedText(one, one in self.exact) for one in found][:most]


class Home:
    """The bar, the texts and the Immich of one test."""

    def __init__(self, immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.immich = immich
        self.texts = Texts()
        monkeypatch.setattr("search.query.text_rank.rank_texts", self.texts.rank)
        self.settings = Settings(_env_file=None, **({"immich_url": immich.url} | settings))
        self.source = "immich"

    def run(self, work: Callable[[Visit], Awaitable[T]]) -> T:
        """Run ``work`` with one bar, in one event loop."""

        async def visit() -> T:
            life = SimpleNamespace(database=lambda: SimpleNamespace(source=SimpleNamespace(value=self.source)))
            visitors = Visitors(ImmichHttp(self.settings.immich_url))
            bar = open_bar(self.settings, cast(SearchLife, life), visitors)
            transport = httpx.ASGITransport(app=Starlette(routes=routes(bar)))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                try:
                    return await work(Visit(client, bar))
                finally:
                    await visitors.close()

        return asyncio.run(visit())

    def ask(self, route: str, body: Any, user: User | None = None, **options: Any) -> httpx.Response:
        """Send one search. ``route``: ``smart`` or ``metadata``."""
        return self.run(lambda visit: visit.ask(route, body, user, **options))


class Visit:
    """Requests to one bar."""

    def __init__(self, client: httpx.AsyncClient, bar: SearchBar) -> None:
        self.client = client
        self.bar = bar

    async def ask(
        self,
        route: str,
        body: Any,
        user: User | None = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> httpx.Response:
        sent = {"content-type": "application/json"}
        sent |= {"cookie": f"immich_access_token={user.token}"} if user else {}
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        path = f"/api/search/{route}{query}"
        return await self.client.request(method, path, headers={**sent, **(headers or {})}, **content)


def ids(response: httpx.Response) -> list[UUID]:
    """Return the assets of an answer, in order."""
    assert response.status_code == 200, response.text
    return [UUID(item["id"]) for item in response.json()["assets"]["items"]]


def done(response: httpx.Response) -> str:
    return response.headers["x-immich-bento"]


def pictures(home: Home, owner: User, count: int, **properties: Any) -> list[Picture]:
    made = [Picture(owner.id, **properties) for _ in range(count)]
    home.immich.pictures += made
    return made


def finds(home: Home, *found: Picture) -> None:
    home.texts.found += [(one.owner, one.id) for one in found]


def smart(query: str, **more: Any) -> dict[str, Any]:
    return {"query": query, "language": "en", "visibility": "timeline", "withExif": True, **more}
