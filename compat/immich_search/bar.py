"""A search as Immich's search bar asks for it: Immich's own answer and the ranking of texts, fused to one list.

Immich's own answer to the same request is asked for in any case: it says whether the request is right and who may see
what, it is the list by meaning, and it is what the searcher gets if anything of ours fails or takes longer than
``PATIENCE``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import UUID

import orjson
from starlette.responses import Response

from compat.immich_search.assets import Assets, UnexpectedAnswer, items_of, read_answer
from compat.immich_search.fusion import fuse
from compat.immich_search.page_order import Listing, Listings, PassedOn
from compat.immich_search.replies import EMPTY, as_it_came, page_of, skeleton_of
from compat.immich_search.wish import SMART, Wish
from errors import ServiceError, forget_frames
from search.http.life import SearchLife
from search.immich.exchange import Reply
from search.immich.version import VERSION_PATH, KnownVersion, Version
from search.immich.visitor import Credentials, Visitors
from serving.deadline import timeout
from serving.exchange import Fields
from settings import Settings

if TYPE_CHECKING:
    from search.query.text_rank import RankedText

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE = 1.5
"""Seconds that ours may take longer than Immich's own answer."""
_MOST_TEXTS = 1000
_WORTH_A_PAGE = 8
"""Pictures from which on a page of Immich's own is asked for again, rather than each of them."""
_LARGEST = 2**20
LARGE_BODIES = 16
"""Bodies passed on to Immich while they come, at once: each holds a connection of the 100 for as long as its sender
takes."""

AskImmich: TypeAlias = "Callable[[bytes | None], Awaitable[Reply]]"
"""Sends the searcher's own request, or the same with another body, to Immich. Raises ``ServiceError``."""


class _NotOurs(Exception):
    """Nothing is wrong, and yet Immich's own answer is the right one. The message says why."""


@dataclass(slots=True)
class SearchBar:
    """The parts that all searches share."""

    settings: Settings
    life: SearchLife
    visitors: Visitors
    listings: Listings = field(default_factory=Listings)
    large_bodies: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_BODIES))
    """Turns of bodies that are passed on while they come."""
    _version: KnownVersion = field(default_factory=KnownVersion)
    _ending: set[asyncio.Future[Any]] = field(default_factory=set)
    """Searches of texts that nobody waits for any more; an event loop keeps no reference to them."""

    async def answer(self, wish: Wish, credentials: Credentials, ask: AskImmich, fields: Fields) -> Response:
        """Answer one search. ``fields``: of the log line; ``done`` and ``reason`` are noted there.

        Raises ``ServiceError`` IMMICH_UNAVAILABLE where Immich cannot be asked.
        """
        key = _key(wish, credentials)
        kept = self.listings.find(key) if wish.page > 1 else None
        search = _Search(self, wish, credentials, ask)
        if isinstance(kept, PassedOn):
            return _passed(await ask(None), "passed", fields)
        if kept is not None:
            return await self._go_on(search, key, kept, fields)
        return await self._begin(search, key, fields)

    async def _begin(self, search: _Search, key: bytes, fields: Fields) -> Response:
        """Return a page of a search whose list is not kept: ours, or Immich's own, as all its other pages are then."""
        wish = search.wish
        texts = asyncio.ensure_future(search.texts())
        try:
            own = await search.ask(None if wish.page == 1 else wish.page_body(1))
            begun, done = None, "passed"
            if _can_go_on(own, wish):
                begun, done = await _in_time(search.begin(texts, own), fields)
                self.listings.keep(key, begun[0] if begun is not None else PassedOn())
            if begun is not None and begun[1] is not None:
                return _ours(begun[1], search, fields)
            return _passed(own if wish.page == 1 else await search.ask(None), done, fields)
        finally:
            self._give_up(texts)

    async def _go_on(self, search: _Search, key: bytes, listing: Listing, fields: Fields) -> Response:
        """Return a page of a list that is kept; Immich's own page of this number where ours cannot be had."""
        response, done = await _in_time(search.page(listing), fields)
        self.listings.keep(key, listing)
        return _passed(await search.ask(None), done, fields) if response is None else _ours(response, search, fields)

    def _give_up(self, texts: asyncio.Future[Any]) -> None:
        """Cancel a search of texts and let it end by itself: a database that hangs takes seconds for that."""
        if texts.cancel():
            self._ending.add(texts)
            texts.add_done_callback(self._ended)
        elif (error := None if texts.cancelled() else texts.exception()) is not None:  # or asyncio would log it
            forget_frames(error)

    def _ended(self, texts: asyncio.Future[Any]) -> None:
        self._ending.discard(texts)
        error = None if texts.cancelled() else texts.exception()
        if error is not None:
            reason = str(error) if isinstance(error, ServiceError) else type(error).__name__  # others may name the text
            log.warning("A search of texts that nobody waited for any more failed: %s", reason)
            forget_frames(error)

    async def version(self) -> Version:
        """Return Immich's version, major and minor; (0, 0) where it cannot be found out."""
        try:
            return await self._version.read(self._ask_version) or (0, 0)
        except ServiceError:
            return 0, 0

    async def _ask_version(self) -> bytes:
        return (await self.visitors.http.ask("GET", VERSION_PATH, (), most=_LARGEST, seconds=5)).body


@dataclass(slots=True)
class _Search:
    """One request."""

    bar: SearchBar
    wish: Wish
    credentials: Credentials
    ask: AskImmich
    assets: Assets | None = None

    @property
    def done(self) -> str:
        """Return what an answer of ours is called."""
        return "text" if self.wish.by_text_alone else "hybrid"

    async def texts(self) -> list[RankedText]:
        """Return what the text search finds for this searcher. Raises ``_NotOurs`` where it is not for it."""
        from search.query.text_rank import rank_texts
        from search.store.errors import database_errors

        visitor = await self.bar.visitors.who(self.credentials)
        if visitor is None:
            raise _NotOurs("Immich does not tell who asks")
        within = await (await self._assets()).of_albums() if self.wish.albums else None
        database = self.bar.life.database()
        if database.source.value == "standalone":
            raise _NotOurs("the texts that are searched are not Immich's")
        with database_errors():
            return await rank_texts(
                database, self.wish.parsed, visitor.timeline, within=within, most=_MOST_TEXTS, seconds=PATIENCE
            )

    async def begin(
        self, texts: asyncio.Future[list[RankedText]], first: Reply
    ) -> tuple[Listing | PassedOn, Response | None]:
        """Return the list that begins with Immich's first page and ``texts``, and its page that is asked for; None
        where that is Immich's own. ``texts`` are left to run if nobody waits for this any more.
        """
        listing = await self._listing(await asyncio.shield(texts), first)
        return listing, await self.page(listing) if isinstance(listing, Listing) else None

    async def _listing(self, texts: Sequence[RankedText], first: Reply) -> Listing | PassedOn:
        answer = read_answer(first.body) if first.status == 200 else EMPTY
        assets = await self._assets()
        own = assets.learn(items_of(answer))
        skeleton = skeleton_of(answer)
        if self.wish.by_text_alone:
            # Texts of locked pictures are not searched here; Immich shows those to a session that has given the PIN.
            locked = [one for one in own if assets.known[one].get("visibility") == "locked"]
            if self.wish.path == SMART:  # Immich's own list is by the meaning of "ocr:"
                locked = []
            return Listing(deque([*(one.id for one in texts), *locked]), dict.fromkeys(locked, 1), 1, False, skeleton)
        if not texts:
            return PassedOn()
        config = self.bar.settings
        order = fuse(texts, own, text_weight=config.search_ocr_weight, clip_weight=config.search_clip_weight)
        more = answer["assets"]["nextPage"] is not None
        return Listing(deque(order), dict.fromkeys(own, 1), 1, more, skeleton)

    async def page(self, listing: Listing) -> Response:
        """Return the page that is asked for."""
        wish, assets = self.wish, await self._assets()
        ids, more = await listing.page(wish.page, wish.size, assets.ask_for, self._own_page)
        missing = Counter(listing.own.get(one) for one in ids if one not in assets.known)
        for own_page, pictures in missing.items():
            if own_page is not None and pictures >= _WORTH_A_PAGE:
                await self._own_page(own_page)
        await assets.ask_for(ids)
        items = [assets.known[one] for one in ids if one in assets.known]
        if not items and wish.page > 1:
            await self._check_credentials()
        return page_of(listing.skeleton, items, str(wish.page + 1) if more else None, self.done)

    async def _check_credentials(self) -> None:
        """Raise ``_NotOurs`` where Immich takes the credentials no more: a page without pictures asks it nothing."""
        reply = await self.bar.visitors.ask("GET", "/api/users/me", self.credentials, most=_LARGEST)
        if reply.status == 401:
            raise _NotOurs("Immich does not take these credentials any more")

    async def _own_page(self, number: int) -> tuple[list[UUID], bool]:
        reply = await self.ask(self.wish.page_body(number))
        if reply.status != 200:
            raise UnexpectedAnswer(f"Immich answered page {number} of its own search with status {reply.status}")
        answer = read_answer(reply.body)
        return (await self._assets()).learn(items_of(answer)), answer["assets"]["nextPage"] is not None

    async def _assets(self) -> Assets:
        if self.assets is None:
            self.assets = Assets(self.wish, self.credentials, self.bar.visitors, await self.bar.version())
        return self.assets


def _can_go_on(first: Reply, wish: Wish) -> bool:
    """Return whether there is something to add to Immich's own answer: texts are found without its CLIP too."""
    return first.status == 200 or (wish.by_text_alone and first.status >= 500)


async def _in_time(work: Awaitable[T], fields: Fields) -> tuple[T | None, str]:
    """Return what ``work`` returns, if it does within ``PATIENCE``; else None and what that is called, whatever it is:
    Immich's own answer is to be had.
    """
    try:
        async with timeout(PATIENCE):
            return await work, "passed"
    except Exception as error:  # noqa: BLE001 - nothing of ours may cost the searcher that answer
        done = _note(error, fields)
        forget_frames(error)
        return None, done


def _ours(response: Response, search: _Search, fields: Fields) -> Response:
    fields["done"] = search.done
    return response


def _passed(reply: Reply, done: str, fields: Fields) -> Response:
    fields["done"] = done
    return as_it_came(reply, done)


def _note(error: Exception, fields: Fields) -> str:
    """Note why Immich's own answer is given; return what that is called."""
    if isinstance(error, _NotOurs):
        fields["reason"] = str(error)
        return "passed"
    if isinstance(error, asyncio.TimeoutError):
        fields["reason"] = f"not done {PATIENCE:g} s after Immich's own answer"
        log.warning("A search of Immich's bar was too slow here; it got Immich's own answer.")
        return "late"
    if isinstance(error, ServiceError | UnexpectedAnswer):
        fields["reason"] = str(error)
        log.warning("A search of Immich's bar got Immich's own answer: %s", error)
    else:
        fields["reason"] = type(error).__name__
        log.exception("A search of Immich's bar failed here; it got Immich's own answer.", exc_info=error)
    return "failed"


def _key(wish: Wish, credentials: Credentials) -> bytes:
    """Return what a search of a searcher is found by: a hash, of which neither can be had back."""
    body = orjson.dumps({key: value for key, value in wish.body.items() if key != "page"}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(credentials.digest + wish.path.encode() + b"\0" + body).digest()
