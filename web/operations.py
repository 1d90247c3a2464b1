"""The operations of the page's four views, each for one guest: nothing is told of a picture that they may not see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from errors import ErrorCode, ServiceError
from search.indexing.redo import RedoRequest, RedoTask
from search.query.answers import Cursor, Hit, SearchAnswer, SearchRequest
from search.store.source import Source
from serving.exchange import Fields, started
from web.edits import hits_on_edited, lines_on_edited
from web.exchange import answer, asked, posted
from web.files import etag_of, unless_known
from web.guest import Guest
from web.immich import FacesAnswer
from web.library import (
    Library,
    PictureList,
    RetryRequest,
    failed_file,
    failed_pictures,
    library,
    lost_pictures,
    start_of,
)
from web.page import Page
from web.photo import RedonePhoto, faces_found_at, ownership, photo, similarity, stored_vector
from web.rights import redo_tasks, require_redo
from web.system import System, system
from web.thumbnails import MEDIA_TYPE

Operation: TypeAlias = "Callable[[Page, Guest, Request, Fields], Awaitable[Response]]"
"""Answers a request of a guest, and notes in the fields what its log line says."""

_MOST_LOOKS = 5
"""Pages of hits that are looked through for those that a visitor may see."""
_ALIKE = 24
"""Pictures that are shown as being like one."""
_READ = "asset.read"
"""Permission that an API key of Immich needs for whatever tells how many pictures there are: counts, and further pages
of a list.
"""


class PageSearch(BaseModel):
    """The query of a search of the page: as of ``GET /search``, without the owner, whom the visitor decides."""

    model_config = ConfigDict(extra="forbid")
    q: str
    mode: Literal["auto", "ocr", "clip", "hybrid"] = "auto"
    limit: int = Field(30, ge=1, le=100)
    cursor: Cursor | None = None


class PictureQuery(BaseModel):
    """The query that names a picture of an asset."""

    size: Literal["thumbnail", "preview"] = "thumbnail"
    v: int = 0
    """Tells two addresses of one picture apart, for browsers."""


class ListQuery(BaseModel):
    """The query that names a page of a list."""

    model_config = ConfigDict(extra="forbid")
    cursor: Cursor | None = None


async def find(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer a search with the hits that the guest may see."""
    query = asked(request, PageSearch)
    await page.guests.require_permission(guest, _READ)
    found = await _found(page, guest, query)
    async with page.search.database() as database:
        hits = await hits_on_edited(page.immich, guest, database, found.hits)
    found = found.model_copy(update={"hits": hits})
    fields |= {"mode": found.mode.value, "hits": len(found.hits)}
    return answer(found)


async def _found(page: Page, guest: Guest, query: PageSearch) -> SearchAnswer:
    cursor = query.cursor
    hits: list[Hit] = []
    for _ in range(_MOST_LOOKS):
        looked = SearchRequest.model_validate(query.model_dump() | {"cursor": cursor})
        found = await page.search.find(looked, timeline=guest.timeline)
        seen = await page.guests.seen(guest, [hit.id for hit in found.hits])
        hits += [hit for hit in found.hits if hit.id in seen]
        cursor = found.next_cursor
        if cursor is None or len(hits) >= query.limit:
            break
    return found.model_copy(update={"hits": hits, "next_cursor": cursor})


async def alike(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with the pictures that are like one, by CLIP."""
    from search.query.similar import similar

    asset = await _asset(page, guest, request)
    async with page.search.database() as database:
        model = (await page.search.models_in_use(database)).clip
        hits = await similar(database, asset, model=model, timeline=guest.timeline, most=_ALIKE)
    seen = await page.guests.seen(guest, [hit.id for hit in hits])
    fields["hits"] = len(seen)
    return answer({"hits": [hit.model_dump(mode="json") for hit in hits if hit.id in seen]})


async def show(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with all that is known of one photo."""
    asset = await _asset(page, guest, request)
    async with page.search.database() as database:
        tasks = await redo_tasks(page.guests, guest, await ownership(database, asset), database.source)
        found = await photo(database, asset, timeline=guest.timeline, tasks=tasks)
        lines = await lines_on_edited(page.immich, guest, database, asset, found.lines)
    seen = await page.guests.seen(guest, [one for one in (found.previous, found.next) if one is not None])
    beside = {name: one if one in seen else None for name, one in (("previous", found.previous), ("next", found.next))}
    return answer(found.model_copy(update={"lines": lines, **beside}))


async def picture(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with the thumbnail or the preview of one asset: Immich's, or one that is made here."""
    size = asked(request, PictureQuery).size
    asset = _id(request)
    async with page.search.database() as database:
        owner = (await ownership(database, asset)).owner
        if database.source is Source.STANDALONE:
            from search.store.index import get_asset

            async with database.connection() as connection:
                file = await get_asset(connection, asset)
    if database.source is Source.STANDALONE:
        await page.guests.require_seen(guest, asset)  # Immich refuses its own pictures itself, and these nobody else
        content, kind = await page.thumbnails().get(file, size), MEDIA_TYPE
    else:
        content, kind = await page.immich.picture(guest, owner, asset, size)
    # Asked for each time: an edit in Immich changes the picture, and a logout who may see it.
    return unless_known(request, content, kind, etag_of(content), cache_control="private, no-cache")


async def faces(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with the faces of one asset; of our own index with none, which keeps no faces."""
    asset = await _asset(page, guest, request)
    async with page.search.database() as database:
        owner = (await ownership(database, asset)).owner
        found_at = await faces_found_at(database, asset)
    if database.source is Source.STANDALONE:
        return answer(FacesAnswer(faces=()))
    found = await page.immich.faces(guest, owner, asset)
    return answer(found.model_copy(update={"found_at": found_at}))


async def redo(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Do one photo again, and answer with what is different."""
    tasks = list(dict.fromkeys((await posted(request, RedoRequest, seconds=page.settings.body_timeout)).tasks))
    asset = await _asset(page, guest, request)
    return answer(await _redone(page, guest, asset, tasks, fields))


async def _redone(page: Page, guest: Guest, asset: UUID, tasks: list[RedoTask], fields: Fields) -> RedonePhoto:
    """Do ``tasks`` of the picture again. Raises ``ServiceError`` UNKNOWN_ASSET; FORBIDDEN where the guest may not have
    it done; and as ``SearchApi.redo`` does.
    """
    async with page.search.database() as database:
        await require_redo(page.guests, guest, await ownership(database, asset), database.source)
    fields["tasks"] = "+".join(task.value for task in tasks)
    with_vector = RedoTask.CLIP in tasks
    async with page.search.database() as database:
        model = (await page.search.models_in_use(database)).clip
        before = await stored_vector(database, asset, model) if with_vector else None
    done = await page.search.redo(asset, tasks, visitor=guest.credentials[0] if guest.user is not None else None)
    async with page.search.database() as database:
        after = await stored_vector(database, asset, model) if with_vector else None
    return RedonePhoto(**done.model_dump(), similarity=similarity(before, after))


async def count(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with how far the guest's library is."""
    await page.guests.require_permission(guest, _READ)
    async with page.search.database() as database:
        found: Library = await library(
            database,
            page.search.catalog,
            page.settings,
            owners=guest.owners,
            sync=page.search.life.sync,
        )
    return answer(found)


async def failures(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with a page of what failed."""
    await page.guests.require_permission(guest, _READ)
    start = start_of(asked(request, ListQuery).cursor)
    async with page.search.database() as database:
        found = await failed_pictures(database, owners=guest.owners, start=start)
    return answer(await _listed(page, guest, found))


async def lost(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with a page of the pictures whose text Immich may have lost."""
    await page.guests.require_permission(guest, _READ)
    start = start_of(asked(request, ListQuery).cursor)
    async with page.search.database() as database:
        found = await lost_pictures(database, owners=guest.owners, start=start)
    return answer(await _listed(page, guest, found))


async def _listed(page: Page, guest: Guest, found: PictureList) -> PictureList:
    """Return the list without the pictures that the guest may not see."""
    seen = await page.guests.seen(guest, [one.id for one in found.pictures if one.id is not None])
    shown = [one for one in found.pictures if one.id in seen or (one.id is None and guest.user is None)]
    return found.model_copy(update={"pictures": shown})


async def retry(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Try something again that failed: an asset, or a file that never became one."""
    wanted = await posted(request, RetryRequest, seconds=page.settings.body_timeout)
    if wanted.id is not None and wanted.tasks:
        await page.guests.require_seen(guest, wanted.id)
        return answer(await _redone(page, guest, wanted.id, list(dict.fromkeys(wanted.tasks)), fields))
    if wanted.subject is None or guest.user is not None:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "Say which asset is to be done again, and its tasks.")
    from search.indexing.recompute import RunnersRecompute
    from search.indexing.retry import retry_file

    recompute = RunnersRecompute(started(page.search.runners), max_pixels=page.settings.max_picture_pixels)
    async with page.search.redos, page.search.database() as database:
        owner, uri = await failed_file(database, wanted.subject)
        models = await page.search.models_in_use(database)
        asset = await retry_file(database, owner, uri, recompute, models, page.settings)
    return answer({"id": str(asset)})


async def tell_system(page: Page, guest: Guest, request: Request, fields: Fields) -> Response:
    """Answer with how the service does: for administrators of Immich, and whoever has the key."""
    if not guest.may_see_system:
        raise ServiceError(
            ErrorCode.FORBIDDEN, "Only an administrator of Immich, or whoever has the key, may see this."
        )
    await page.guests.require_permission(guest, "all")
    found: System = await system(page.runners, page.history, page.search, page.immich, page.upstreams(), page.settings)
    return answer(found)


async def _asset(page: Page, guest: Guest, request: Request) -> UUID:
    """Return the asset that the address names. Raises ``ServiceError`` UNKNOWN_ASSET unless the guest may see it."""
    asset = _id(request)
    await page.guests.require_seen(guest, asset)
    return asset


def _id(request: Request) -> UUID:
    given = request.path_params["id"]
    try:
        return UUID(given)
    except ValueError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The id of an asset is a UUID.") from error


OPERATIONS: Mapping[str, Operation] = {
    "search": find,
    "photo": show,
    "picture": picture,
    "alike": alike,
    "faces": faces,
    "redo": redo,
    "library": count,
    "failures": failures,
    "lost": lost,
    "retry": retry,
    "system": tell_system,
}
"""Name in ``web.routes`` -> operation."""
