"""The protocols that are answered, put together over the same parts: opened before the start, given the runners at the
start, closed at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from compat.immich.api import ImmichServer, create_app
from compat.immich_search import api as immich_search
from compat.mtphotos import api as mtphotos
from compat.upstream.pools import Upstreams
from compat.upstream.routing import can_answer, open_upstreams
from models.catalog import Catalog
from runners.contract import Runners
from search.http.life import SearchLife
from search.http.routes import routes as search_routes
from search.http.state import SearchApi
from search.immich.exchange import ImmichHttp
from search.immich.visitor import Visitors
from serving.body import open_intake
from serving.guesses import Guesses
from settings import Settings


@dataclass(frozen=True, slots=True)
class Gateway:
    """Immich's protocol, mt-photos-ai's, search's API, and the routes of Immich's search bar."""

    settings: Settings
    immich: ImmichServer
    mtphotos: mtphotos.MtPhotosServer
    search: SearchApi
    visitors: Visitors | None
    """Immich, asked in the name of visitors; None where there is no IMMICH_URL."""

    @property
    def upstreams(self) -> Upstreams | None:
        """Return the servers behind this one; None before the start, and where nothing is routed to any."""
        return self.immich.upstreams

    @property
    def can_answer(self) -> bool:
        """Return whether any task can be answered as far as upstreams go."""
        return can_answer(self.immich.upstreams, self.settings)

    def app(self, others: Sequence[BaseRoute]) -> Starlette:
        """Return the ASGI app to mount at ``/``. ``others``: routes of what is not among the protocols."""
        bar = immich_search.open_bar(self.settings, self.search.life, self.visitors)
        routes = [*mtphotos.routes(self.mtphotos), *search_routes(self.search), *immich_search.routes(bar)]
        return create_app(self.immich, [*routes, *others])

    def start(self, runners: Runners) -> None:
        """Begin to answer, in the event loop that requests come to; search's database is opened in the background."""
        self.immich.upstreams = open_upstreams(self.settings)
        self.immich.runners = self.mtphotos.runners = self.search.runners = runners
        self.search.life.start()

    async def close(self) -> None:
        """Close the database and the connections to others. One that fails keeps none of the rest from being closed."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self.search.life.close)
            if self.visitors is not None:
                closing.push_async_callback(self.visitors.close)
            if self.upstreams is not None:
                closing.push_async_callback(self.upstreams.close)


def open_gateway(settings: Settings, catalog: Catalog) -> Gateway:
    """Return the protocols as the settings ask for them. Nothing starts."""
    intake, guesses = open_intake(settings), Guesses()
    return Gateway(
        settings=settings,
        immich=ImmichServer(catalog, settings, intake, guesses),
        mtphotos=mtphotos.MtPhotosServer(catalog, settings, intake, guesses),
        search=SearchApi(catalog, settings, SearchLife(settings), guesses=guesses),
        visitors=Visitors(ImmichHttp(settings.immich_url)) if settings.immich_url else None,
    )
