"""One picture done again: read or embedded anew, and everything that is stored of it replaced in one transaction, or
nothing at all.

Our own index is done again from the file. Immich's pictures are done again from their preview, and written as Immich
writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from errors import ErrorCode, ServiceError
from runners.pictures.decode import read_header
from search.immich import rows as immich_rows
from search.immich.client import immich_client
from search.immich.sync import copy_document
from search.indexing import file_contents
from search.indexing.formats import Kind
from search.indexing.recompute import Recompute
from search.store import index as store
from search.store.database import Database, Source
from search.store.models_in_use import ModelsInUse
from search.store.records import Asset, Text, Vector
from settings import Settings

Connection: TypeAlias = "AsyncConnection[dict[str, Any]]"


class RedoTask(str, Enum):
    """What can be done again."""

    OCR = "ocr"
    CLIP = "clip"
    FACES = "faces"


@dataclass(frozen=True, slots=True)
class Redone:
    """What was done, and is written."""

    asset_id: UUID
    vector: Vector | None
    text: Text | None
    faces: bool
    """Immich has queued its job."""


async def reprocess(
    database: Database,
    asset_id: UUID,
    tasks: Collection[RedoTask],
    recompute: Recompute,
    models: ModelsInUse,
    config: Settings,
) -> Redone:
    """Do ``tasks`` of one picture again. Whoever does the same picture again at the same time waits for his turn.

    Raises ``ServiceError``: UNKNOWN_ASSET; INVALID_REQUEST for faces of our own index; STORED_MODEL_DIFFERS;
    IMMICH_UNAVAILABLE; SEARCH_UNAVAILABLE; what reading the picture and ``recompute`` raise. Nothing is written then.
    """
    standalone = database.source is Source.STANDALONE
    if standalone and RedoTask.FACES in tasks:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, "There are no faces to do again: our own index keeps none, only Immich does."
        )
    clip = models.clip_or_refuse() if RedoTask.CLIP in tasks else None
    ocr = models.ocr_or_refuse() if RedoTask.OCR in tasks else None
    job = _Job(asset_id, clip, ocr, RedoTask.FACES in tasks, recompute, models, config)
    async with _alone_with(database, asset_id) as connection:
        return await (_from_file(connection, job) if standalone else _from_immich(connection, job, database.source))


async def failed_assets(database: Database) -> list[UUID]:
    """The pictures with a failure that is remembered."""
    return await _ids(
        database,
        sql.SQL("select distinct asset_id as id from immich_ai.failure where asset_id is not null order by id"),
    )


async def all_assets(database: Database) -> list[UUID]:
    """Every picture that can be found."""
    return await _ids(database, sql.SQL("select id from immich_ai.source_asset where visible order by id"))


@dataclass(frozen=True, slots=True)
class _Job:
    asset_id: UUID
    clip: str | None
    """The model; None: not asked for."""
    ocr: str | None
    faces: bool
    recompute: Recompute
    models: ModelsInUse
    config: Settings

    async def compute(self, picture: bytes) -> tuple[Vector | None, Text | None]:
        vector = await self.recompute.embed(picture, self.clip) if self.clip else None
        text = await self.recompute.read(picture, self.ocr, self.models.ocr_options) if self.ocr else None
        return vector, text


@asynccontextmanager
async def _alone_with(database: Database, asset_id: UUID) -> AsyncIterator[Connection]:
    """One transaction in which nobody else does the same picture again."""
    async with database.connection() as connection:
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('immich_ai.reprocess ' || %s, 0))", (str(asset_id),)
        )
        yield connection


async def _from_file(connection: Connection, job: _Job) -> Redone:
    asset = await store.get_asset(connection, job.asset_id, lock=True)
    contents, picture = await asyncio.to_thread(_read_file, asset, job.config)
    if contents.hash != asset.content_hash:
        # What is stored was made of another picture, so none of it may stay.
        job = replace(job, clip=job.clip or job.models.clip, ocr=job.ocr or job.models.ocr)
        asset = replace(
            asset, content_hash=contents.hash, size=len(contents.data) if contents.data is not None else asset.size
        )
    vector, text = await job.compute(picture)
    await store.put_asset(connection, asset, vector=vector, text=text)
    return Redone(job.asset_id, vector, text, faces=False)


def _read_file(asset: Asset, config: Settings) -> tuple[file_contents.Contents, bytes]:
    """Raises ``ServiceError`` UNREADABLE_PICTURE where the file cannot be had, and what ``file_contents`` raises."""
    try:
        contents = file_contents.read(asset.uri, Kind(asset.kind), asset.size, config)
        return contents, file_contents.picture(asset.uri, contents, config)
    except ServiceError:
        raise
    except Exception as error:  # fsspec's places raise what their libraries do
        raise ServiceError(
            ErrorCode.UNREADABLE_PICTURE, f"The file {asset.uri} cannot be read: {type(error).__name__}: {error}"
        ) from error


async def _from_immich(connection: Connection, job: _Job, source: Source) -> Redone:
    found = await connection.execute("select from immich_ai.source_asset where id = %s and visible", (job.asset_id,))
    if not found.rowcount:
        raise ServiceError(
            ErrorCode.UNKNOWN_ASSET,
            f"Immich has no asset {job.asset_id} that is in the timeline or the archive, and not in the trash.",
        )
    immich = immich_client(job.config)
    vector, text = None, None
    if job.clip or job.ocr:
        picture = await immich.preview(job.asset_id)
        header = read_header(picture, max_pixels=job.config.max_picture_pixels)
        vector, text = await job.compute(picture)
        with _refusals_of_the_database(job):
            if vector is not None:
                await immich_rows.write_embedding(connection, job.asset_id, vector.numbers)
            if text is not None:
                await _write_text(connection, job.asset_id, text, source, (header.width, header.height))
    if job.faces:
        await immich.refresh_faces(job.asset_id)
    return Redone(job.asset_id, vector, text, job.faces)


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
    """What PostgreSQL may say against writing Immich's rows, as ``ServiceError``."""
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
            f"The user of DATABASE_URL may not write Immich's rows ({error.diag.message_primary}). docs/search.md has "
            "the GRANT.",
        ) from error


async def _ids(database: Database, query: sql.SQL) -> list[UUID]:
    async with database.connection() as connection:
        found = await connection.execute(query)
        return [row["id"] async for row in found]
