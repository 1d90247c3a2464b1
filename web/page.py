"""The parts that the page's operations work with, from the start of the service to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runners.contract import Runners
from search.http.state import SearchApi
from search.immich.visitor import Visitors
from settings import Settings
from web.guest import Guests
from web.history import History
from web.immich import ImmichPictures

# It imports image libraries: the first picture does.
if TYPE_CHECKING:
    from web.thumbnails import Thumbnails


class Upstreams(Protocol):
    """The servers behind this one (``compat.upstream.pools``)."""

    def state(self, *, with_urls: bool) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class Page:
    """The page over search and runners. ``runners`` is set when the service has started."""

    settings: Settings
    search: SearchApi
    visitors: Visitors | None
    """Immich, asked in the name of visitors; None where there is no IMMICH_URL."""
    guests: Guests
    immich: ImmichPictures
    history: History = field(default_factory=History)
    runners: Runners | None = None
    _upstreams: Upstreams | None = None
    _thumbnails: Thumbnails | None = None

    def start(self, runners: Runners, upstreams: Upstreams | None) -> None:
        """Begin to keep the last hour's figures. ``upstreams``: the servers behind this one; None: there are none."""
        self.runners, self._upstreams = runners, upstreams
        if self.settings.page_enabled:
            self.history.start()

    def upstreams(self) -> Sequence[Mapping[str, Any]]:
        """Return how each of the servers behind this one does, with its address."""
        return () if self._upstreams is None else self._upstreams.state(with_urls=True)["upstreams"]

    def thumbnails(self) -> Thumbnails:
        """Return what makes and keeps the small pictures of our own index."""
        from web.thumbnails import ThumbnailFolder, Thumbnails

        if self._thumbnails is None:
            folder = ThumbnailFolder(self.settings.cache_folder / "thumbnails", self.settings.thumbnail_cache_bytes)
            self._thumbnails = Thumbnails(folder, self.settings)
        return self._thumbnails

    async def close(self) -> None:
        """End what runs in the background. ``visitors`` are whoever's that made them."""
        await self.history.close()


def open_page(settings: Settings, search: SearchApi, visitors: Visitors | None) -> Page:
    """Return the page as the settings ask for it."""
    return Page(
        settings=settings,
        search=search,
        visitors=visitors,
        guests=Guests(settings, visitors, search.guesses),
        immich=ImmichPictures(visitors, settings.max_body_bytes),
    )
