"""The state of a library: counts, pace, what failed, and what Immich may have lost; of some owners' pictures or of all.

The population is that of Immich's own job page: what is in the timeline and the archive. Pictures in the trash, hidden
halves of live photos and locked ones are left out, the last since nobody but their owner may know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from search.answers import Answer, Note
from search.immich.lost_assets import lost_assets
from search.immich.sync_status import SyncStatus
from search.indexing.redo import RedoTask
from search.query.answers import StorableText
from search.store.models_in_use import models_in_use
from settings import Settings
from web.photo import Trouble

if TYPE_CHECKING:
    from search.store.database import Database

PAGE = 20
"""Pictures of one page of a list."""
_WINDOW = 600
"""Seconds over which the pace is measured."""


class Library(Answer):
    """Counts of pictures and videos."""

    assets: int
    read: int
    """Read, with text."""
    empty: int
    """Read, without text."""
    waiting: int
    """Neither read nor failed."""
    failed: int
    """With a failure that is remembered."""
    embedded: int
    """With a vector."""
    rate: float
    """Pictures read in a second, over the window."""
    window_seconds: int
    notes: Sequence[Note]
    """Stored vectors and models that do not fit, with what to do."""
    sync: SyncStatus | None


class RetryRequest(Answer):
    """Something to try again: an asset with its tasks, or a file that never became an asset."""

    id: UUID | None = None
    tasks: Sequence[RedoTask] = ()
    subject: StorableText | None = None
    """The key of a failure without an asset."""


class ListedPicture(Answer):
    """A picture with something to do again."""

    id: UUID | None
    """null: its file was never read, so that it is no asset."""
    name: str
    problems: Sequence[Trouble]
    retry: RetryRequest
    """Body of the request that tries it again."""


class PictureList(Answer):
    """A page of pictures."""

    pictures: Sequence[ListedPicture]
    next_cursor: str | None


async def library(
    database: Database, catalog: Catalog, config: Settings, *, owners: Sequence[str] | None, sync: SyncStatus | None
) -> Library:
    """Count the pictures of ``owners`` (None: everybody's) now."""
    async with database.connection() as connection:
        [row] = await (await connection.execute(_COUNT, {"owners": _listed(owners), "window": _WINDOW})).fetchall()
        models = await models_in_use(connection, database.source.value, catalog, config)
    recent = row.pop("recent")
    refusals = [error for error in (models.clip_refusal, models.ocr_refusal) if error is not None]
    return Library(
        **row,
        rate=recent / _WINDOW,
        window_seconds=_WINDOW,
        notes=[Note(code=error.code.value, message=error.message) for error in refusals],
        sync=sync if database.source.value != "standalone" else None,
    )


async def failed_pictures(database: Database, *, owners: Sequence[str] | None, start: int) -> PictureList:
    """Return a page of what failed, the latest first. ``start``: how many come before."""
    async with database.connection() as connection:
        values = {"owners": _listed(owners), "start": start, "count": PAGE + 1}
        rows = await (await connection.execute(_FAILED, values)).fetchall()
    pictures = []
    for row in rows[:PAGE]:
        problems = [Trouble.model_validate(one) for one in row["problems"]]
        name = row["name"] or str(row["uri"] or row["id"]).rpartition("/")[2]
        subject = row["subject"] if row["id"] is None else None
        again = RetryRequest(id=row["id"], tasks=_tasks(problems) if row["id"] else (), subject=subject)
        pictures.append(ListedPicture(id=row["id"], name=name, problems=problems, retry=again))
    return PictureList(pictures=pictures, next_cursor=_following(start, len(rows)))


async def lost_pictures(database: Database, *, owners: Sequence[str] | None, start: int) -> PictureList:
    """Return a page of the pictures whose text Immich may have lost, by id; none of our own index."""
    ids = await lost_assets(database, ("ocr",))
    if not ids:
        return PictureList(pictures=(), next_cursor=None)
    async with database.connection() as connection:
        values = {"ids": ids, "owners": _listed(owners), "start": start, "count": PAGE + 1}
        rows = await (await connection.execute(_NAMED, values)).fetchall()
    again = [
        ListedPicture(
            id=row["id"], name=row["name"], problems=(), retry=RetryRequest(id=row["id"], tasks=[RedoTask.OCR])
        )
        for row in rows[:PAGE]
    ]
    return PictureList(pictures=again, next_cursor=_following(start, len(rows)))


async def failed_file(database: Database, subject: str) -> tuple[str, str]:
    """Return owner and uri of a failure without an asset. Raises ``ServiceError`` UNKNOWN_ASSET."""
    async with database.connection() as connection:
        row = await (await connection.execute(_FILE, (subject,))).fetchone()
    if row is None:
        raise ServiceError(ErrorCode.UNKNOWN_ASSET, "This file has no failure any more: it was tried again meanwhile.")
    return row["owner"], row["uri"]


def start_of(cursor: str | None) -> int:
    """Return how many pictures come before a page. Raises ``ServiceError`` INVALID_REQUEST."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The cursor is none of this list: leave it out.")
    return int(cursor)


def _following(start: int, found: int) -> str | None:
    return str(start + PAGE) if found > PAGE else None


def _listed(owners: Sequence[str] | None) -> list[str] | None:
    return None if owners is None else list(owners)


def _tasks(problems: Sequence[Trouble]) -> list[RedoTask]:
    """Return what to do again: what failed, or everything that is computed here where the file could not be read."""
    failed = {problem.task for problem in problems}
    if "read" in failed:
        return [RedoTask.OCR, RedoTask.CLIP]
    return [task for task in RedoTask if task.value in failed]


_COUNT = """
with failed as (
    select f.subject, f.asset_id, bool_or(f.task in ('read', 'ocr')) as unread from immich_ai.failure f
    group by f.subject, f.asset_id
)
select count(*) as assets,
       count(*) filter (where d.text <> '') as read,
       count(*) filter (where d.text = '') as empty,
       count(*) filter (where d.asset_id is null and f.unread is not true) as waiting,
       count(*) filter (where d.read_at > now() - make_interval(secs => %(window)s)) as recent,
       count(*) filter (where exists (select from immich_ai.source_embedding e where e.asset_id = a.id)) as embedded,
       count(f.subject) + case when %(owners)s::text[] is null
           then (select count(*) from failed where asset_id is null) else 0 end as failed
from immich_ai.source_asset a
left join immich_ai.ocr_document d on d.asset_id = a.id
left join failed f on f.asset_id = a.id
where a.visible and (%(owners)s::text[] is null or a.owner = any(%(owners)s))
"""
_FAILED = """
select f.subject, (array_agg(f.asset_id))[1] as id, max(f.uri) as uri, max(a.name) as name,
       json_agg(json_build_object('task', f.task, 'code', f.code, 'message', f.message, 'attempts', f.attempts,
                                  'failed_at', f.failed_at) order by f.task) as problems
from immich_ai.failure f left join immich_ai.source_asset a on a.id = f.asset_id
where a.visible and (%(owners)s::text[] is null or a.owner = any(%(owners)s))
   or f.asset_id is null and %(owners)s::text[] is null
group by f.subject order by max(f.failed_at) desc, f.subject offset %(start)s limit %(count)s
"""
_NAMED = """
select id, name from immich_ai.source_asset
where id = any(%(ids)s) and (%(owners)s::text[] is null or owner = any(%(owners)s))
order by id offset %(start)s limit %(count)s
"""
_FILE = "select owner, uri from immich_ai.failure where subject = %s and asset_id is null and uri is not null limit 1"
