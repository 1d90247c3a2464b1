"""All that the page tells of one photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from search.answers import Answer
from search.indexing.redo import Redone, RedoTask
from search.query.answers import TextLine
from search.query.timeline import Timeline, owner_parameters
from search.store.asset_text import asset_text
from search.store.source import Source
from web.guest import unknown

if TYPE_CHECKING:
    from search.store.database import Database
    from search.store.records import Vector


class Trouble(Answer):
    """A failure with a picture that is remembered."""

    task: str
    """read, ocr, clip or faces."""
    code: str
    message: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owner of a picture, and whether partners have it in their timeline."""

    owner: str
    on_timeline: bool
    """False: it is archived."""


class Photo(Answer):
    """One photo, with its text."""

    id: UUID
    name: str
    owner: str
    taken_at: datetime | None
    place: str | None
    """Address of the file; null for Immich's, which are told of there."""
    read: bool
    read_at: datetime | None
    model: str | None
    text: str
    lines: Sequence[TextLine]
    embedded: bool
    """True where there is a vector of it."""
    failures: Sequence[Trouble]
    tasks: Sequence[RedoTask]
    """Tasks that whoever asks may have done again."""
    previous: UUID | None
    """The owner's next newer picture, of those that whoever asks finds by a search."""
    next: UUID | None
    """The next older one."""


class RedonePhoto(Redone):
    """The result of doing a photo again."""

    similarity: float | None
    """Cosine of the new vector and the one before; null where there is no such pair."""


async def photo(database: Database, asset: UUID, *, timeline: Timeline | None, tasks: Sequence[RedoTask]) -> Photo:
    """Return what is known of the asset. ``timeline``: whose pictures may be told of beside it; None: everybody's.
    ``tasks``: that may be done again. Raises ``ServiceError`` UNKNOWN_ASSET.
    """
    text = await asset_text(database, asset)
    standalone = database.source is Source.STANDALONE
    async with database.connection() as connection:
        facts = await (await connection.execute(_FACTS, {"id": asset, **owner_parameters(timeline)})).fetchone()
        if facts is None:
            raise unknown(asset)
        troubles = await (await connection.execute(_TROUBLES, {"id": asset})).fetchall()
        place = await _place(connection, asset) if standalone else None
    return Photo.model_validate(
        {
            **text.model_dump(),
            **facts,
            "place": place,
            "failures": troubles,
            "tasks": tasks,
        }
    )


async def ownership(database: Database, asset: UUID) -> Ownership:
    """Return whose picture it is. Raises ``ServiceError`` UNKNOWN_ASSET unless it can be found."""
    async with database.connection() as connection:
        row = await (await connection.execute(_OWNER, (asset,))).fetchone()
    if row is None:
        raise unknown(asset)
    return Ownership(str(row["owner"]), row["on_timeline"])


async def faces_found_at(database: Database, asset: UUID) -> datetime | None:
    """Return when Immich last looked for faces in the asset; None where it did not, or does not tell."""
    if database.source is not Source.IMMICH:
        return None
    async with database.connection() as connection:
        row = await (await connection.execute(_FACES, (asset,))).fetchone()
    return row["found_at"] if row is not None else None


async def stored_vector(database: Database, asset: UUID, model: str | None) -> Vector | None:
    """Return the asset's vector, of ``model`` where there are several."""
    from search.store.records import Vector

    async with database.connection() as connection:
        row = await (await connection.execute(_VECTOR, (asset, model or ""))).fetchone()
    return Vector(row["model"], row["vector"].to_numpy()) if row is not None else None


def similarity(before: Vector | None, after: Vector | None) -> float | None:
    """Return the cosine of two vectors of one model and size; None where they cannot be compared."""
    if before is None or after is None or before.model != after.model or len(before.numbers) != len(after.numbers):
        return None
    lengths = float(np.linalg.norm(before.numbers) * np.linalg.norm(after.numbers))
    return float(np.dot(before.numbers, after.numbers)) / lengths if lengths else None


async def _place(connection: Any, asset: UUID) -> str | None:
    from search.indexing.places import shown_uri

    row = await (await connection.execute("select uri from immich_ai.asset where id = %s", (asset,))).fetchone()
    return shown_uri(row["uri"]) if row is not None else None


_FACTS = """
select a.owner, a.taken_at,
       exists (select from immich_ai.source_embedding e where e.asset_id = a.id) as embedded,
       (select b.id from immich_ai.source_asset b where b.owner = a.owner
        and (b.on_timeline and w.timeline_only or b.visible and not w.timeline_only)
        and (b.taken_at, b.id) > (a.taken_at, a.id) order by b.taken_at, b.id limit 1) as previous,
       (select b.id from immich_ai.source_asset b where b.owner = a.owner
        and (b.on_timeline and w.timeline_only or b.visible and not w.timeline_only)
        and (b.taken_at, b.id) < (a.taken_at, a.id) order by b.taken_at desc, b.id desc limit 1) as next
from immich_ai.source_asset a
left join immich_ai.whose(%(owners)s::text[], %(partners)s::text[]) w on w.owner is null or w.owner = a.owner
where a.id = %(id)s and a.visible
"""
_TROUBLES = """
select task, code, message, attempts, failed_at from immich_ai.failure where asset_id = %(id)s order by task
"""
_FACES = 'select "facesRecognizedAt" as found_at from public.asset_job_status where "assetId" = %s'
_OWNER = "select owner, on_timeline from immich_ai.source_asset where id = %s and visible"
_VECTOR = """
select model, vector from immich_ai.source_embedding where asset_id = %s order by model = %s desc limit 1
"""
