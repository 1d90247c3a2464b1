"""One picture done again: read or embedded anew, and everything that is stored of it replaced in one transaction, or
nothing at all.

Our own index is done again from the file. Immich's pictures are done again from their preview, and written as Immich
writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg
from psycopg import AsyncConnection, sql

from errors import ErrorCode, ServiceError
from runners.pictures.header import read_header
from search.immich import rows as immich_rows
from search.immich.client import immich_users, immich_visitor
from search.immich.sync import copy_document
from search.immich.visitor import Credentials
from search.indexing import file_contents
from search.indexing.formats import Kind
from search.indexing.recompute import Recompute
from search.indexing.redo import Redone, RedoTask
from search.store import index as store
from search.store.database import Database
from search.store.models_in_use import ModelsInUse
from search.store.records import Asset, Problem, Text, Vector
from search.store.source import Source
from settings import Settings

Connection: TypeAlias = "AsyncConnection[dict[str, Any]]"

_PICTURES_OWN = frozenset(
    {
        ErrorCode.UNREADABLE_PICTURE,
        ErrorCode.PICTURE_TOO_LARGE,
        ErrorCode.BODY_TOO_LARGE,
        ErrorCode.TIMEOUT,
        ErrorCode.INTERNAL,
    }
)
"""Errors that are remembered with a picture: the next one need not meet them."""
_MOST_ATTEMPTS = 3
"""How often a file is computed on that is indexed anew meanwhile."""


async def reprocess(
    database: Database,
    asset_id: UUID,
    tasks: Collection[RedoTask],
    recompute: Recompute,
    models: ModelsInUse,
    config: Settings,
    *,
    visitor: Credentials | None = None,
) -> Redone:
    """Do ``tasks`` of one picture again. Requests of this process for the same picture take turns.

    ``visitor``: in whose name Immich is asked for its picture and its job; None: by the keys of the settings.

    No connection to the database is held while anything is computed or fetched: what the result depends on is looked
    at again, under a lock, before it is written.

    Raises ``ServiceError``: UNKNOWN_ASSET; INVALID_REQUEST for faces of our own index; STORED_MODEL_DIFFERS; FORBIDDEN
    where Immich refuses a visitor; IMMICH_UNAVAILABLE; SEARCH_UNAVAILABLE; what reading the picture and ``recompute``
    raise. Nothing is written then.
    """
    standalone = database.source is Source.STANDALONE
    if standalone and RedoTask.FACES in tasks:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, "There are no faces to do again: our own index keeps none, only Immich does."
        )
    clip = models.clip_or_refuse() if RedoTask.CLIP in tasks else None
    ocr = models.ocr_or_refuse() if RedoTask.OCR in tasks else None
    job = _Job(database, asset_id, clip, ocr, RedoTask.FACES in tasks, recompute, models, config, visitor)
    async with _turns.setdefault(asset_id, asyncio.Lock()):
        if standalone:
            return await _from_file(job)
        try:
            return await _from_immich(job)
        except ServiceError as error:
            if error.code in _PICTURES_OWN:
                await _remember(job, tasks, error)
            raise


async def _remember(job: _Job, tasks: Collection[RedoTask], error: ServiceError) -> None:
    """Write why a picture of Immich could not be done, for ``search failed`` and ``reprocess --failed``."""
    with suppress(psycopg.errors.InsufficientPrivilege):  # then only whoever asked is told
        await _put_problems(job, [Problem(task.value, error.code.value, error.message) for task in tasks])


async def _put_problems(job: _Job, problems: Sequence[Problem]) -> None:
    async with job.database.connection() as connection:
        for problem in problems:
            await store.put_problem(connection, "", None, problem, job.asset_id)


_turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
"""A lock for each picture that is being done again."""


async def failed_assets(database: Database) -> list[UUID]:
    """Return the pictures with a failure that is remembered."""
    return await _ids(
        database,
        sql.SQL("select distinct asset_id as id from immich_ai.failure where asset_id is not null order by id"),
    )


async def all_assets(database: Database) -> list[UUID]:
    """Return every picture that can be found."""
    return await _ids(database, sql.SQL("select id from immich_ai.source_asset where visible order by id"))


@dataclass(frozen=True, slots=True)
class _Job:
    database: Database
    asset_id: UUID
    clip: str | None
    """The model; None: not asked for."""
    ocr: str | None
    faces: bool
    recompute: Recompute
    models: ModelsInUse
    config: Settings
    visitor: Credentials | None

    async def compute(self, picture: bytes) -> tuple[Vector | None, Text | None]:
        vector = await self.recompute.embed(picture, self.clip) if self.clip else None
        text = await self.recompute.read(picture, self.ocr, self.models.ocr_options) if self.ocr else None
        return vector, text

    def redone(self, vector: Vector | None, text: Text | None) -> Redone:
        used = {task: result.model for task, result in (("ocr", text), ("clip", vector)) if result is not None}
        done = [*map(RedoTask, used), *([RedoTask.FACES] if self.faces else [])]
        return Redone(id=self.asset_id, done=done, models=used, lines=None if text is None else len(text.lines))


@asynccontextmanager
async def _locked(job: _Job) -> AsyncIterator[Connection]:
    """Open one transaction in which no other process writes the same picture's results."""
    async with job.database.connection() as connection:
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('immich_ai.reprocess ' || %s, 0))", (str(job.asset_id),)
        )
        yield connection


async def _from_file(job: _Job) -> Redone:
    for _ in range(_MOST_ATTEMPTS):
        async with job.database.connection() as connection:
            asset = await store.get_asset(connection, job.asset_id)
        contents, picture = await asyncio.to_thread(_read_file, asset, job.config)
        wanted = job
        if contents.hash != asset.content_hash:
            # What is stored was made of another picture, so none of it may stay.
            wanted = replace(job, clip=job.clip or job.models.clip, ocr=job.ocr or job.models.ocr)
        vector, text = await wanted.compute(picture)
        async with _locked(job) as connection:
            now = await store.get_asset(connection, job.asset_id, lock=True)
            if now.content_hash not in (asset.content_hash, contents.hash):
                continue  # indexed anew meanwhile, with other content than was computed on
            size = len(contents.data) if contents.data is not None else now.size
            now = replace(now, content_hash=contents.hash, size=size)
            await store.put_asset(connection, now, vector=vector, text=text)
        return wanted.redone(vector, text)
    raise ServiceError(
        ErrorCode.UNREADABLE_PICTURE,
        f"The file of the asset {job.asset_id} changed {_MOST_ATTEMPTS} times while it was computed on. Try again when "
        "it is complete.",
    )


def _read_file(asset: Asset, config: Settings) -> tuple[file_contents.Contents, bytes]:
    """Return the file's contents and the bytes to compute on.

    Raises ``ServiceError`` UNREADABLE_PICTURE if the file cannot be had, and what ``file_contents`` raises.
    """
    with file_contents.refusals_of_the_place(asset.uri):
        contents = file_contents.read(asset.uri, Kind(asset.kind), asset.size, config)
        return contents, file_contents.picture(asset.uri, contents, config)


async def _from_immich(job: _Job) -> Redone:
    async with job.database.connection() as connection:
        owner = await _owner_of_visible(connection, job.asset_id)
    immich = immich_users(job.config) if job.visitor is None else immich_visitor(job.config, job.visitor)
    vector, text = None, None
    size = (0, 0)
    if job.clip or job.ocr:
        picture = await immich.preview(job.asset_id, owner)
        header = read_header(picture, max_pixels=job.config.max_picture_pixels)
        size = header.width, header.height
        vector, text = await job.compute(picture)
    if job.faces:  # first, since it may be refused, and a job in Immich's queue does no harm
        await immich.refresh_faces(job.asset_id, owner)
    if vector is not None or text is not None:
        async with _locked(job) as connection:
            await _owner_of_visible(connection, job.asset_id)
            with _refusals_of_the_database(job):
                if vector is not None:
                    await immich_rows.write_embedding(connection, job.asset_id, vector.numbers)
                if text is not None:
                    await _write_text(connection, job.asset_id, text, job.database.source, size)
                await connection.execute(_FORGET, (str(job.asset_id), [*job.redone(vector, text).models]))
    return job.redone(vector, text)


_FORGET = "delete from immich_ai.failure where subject = %s and task = any(%s)"


async def _owner_of_visible(connection: Connection, asset_id: UUID) -> str:
    """Return whose picture it is. Raises ``ServiceError`` UNKNOWN_ASSET unless it may be seen."""
    found = await connection.execute("select owner from immich_ai.source_asset where id = %s and visible", (asset_id,))
    row = await found.fetchone()
    if row is None:
        raise ServiceError(
            ErrorCode.UNKNOWN_ASSET,
            f"Immich has no asset {asset_id} that is in the timeline or the archive, and not in the trash.",
        )
    return str(row["owner"])


async def _write_text(
    connection: Connection, asset_id: UUID, text: Text, source: Source, size: tuple[int, int]
) -> None:
    if source is Source.IMMICH_1_134:
        await immich_rows.write_text_1_134(connection, asset_id, text.lines, size)
    else:
        await immich_rows.write_text(connection, asset_id, text.lines, datetime.now(timezone.utc))
    await copy_document(connection, asset_id, model=text.model)


@contextmanager
def _refusals_of_the_database(job: _Job) -> Iterator[None]:
    """Raise what PostgreSQL may say against writing Immich's rows as ``ServiceError``."""
    try:
        yield
    except psycopg.errors.DataException as error:  # "expected 768 dimensions, not 512"
        raise ServiceError(
            ErrorCode.STORED_MODEL_DIFFERS,
            f"Immich does not take this result of {job.clip or job.ocr}: {error.diag.message_primary}. "
            "Its CLIP model was changed just now, or CLIP_MODEL makes vectors of another size than Immich keeps.",
        ) from error
    except psycopg.errors.ForeignKeyViolation as error:
        raise ServiceError(
            ErrorCode.UNKNOWN_ASSET, f"The asset {job.asset_id} was deleted in Immich meanwhile."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise ServiceError(
            ErrorCode.SEARCH_UNAVAILABLE,
            f"The role of DATABASE_URL may not write Immich's rows ({error.diag.message_primary}). `python -m search "
            "grants` prints the statements that let it.",
        ) from error


async def _ids(database: Database, query: sql.SQL) -> list[UUID]:
    async with database.connection() as connection:
        found = await connection.execute(query)
        return [row["id"] async for row in found]
