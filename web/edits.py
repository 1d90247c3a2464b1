"""Boxes of lines on pictures that were cropped, turned or mirrored in Immich, which keeps where a line was before the
edit, and works out where it is now for whoever asks.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from errors import ServiceError
from runners.cancellation import gather_in_turns
from search.query.answers import Hit, TextLine
from search.store.source import Source
from web.guest import Guest
from web.immich import ImmichPictures, PlacedText

if TYPE_CHECKING:
    from search.store.database import Database

L = TypeVar("L", bound=TextLine)

_AT_ONCE = 8
"""Questions to Immich at the same time."""

# Read as JSON, since Immich has the column from 2.5 on.
_EDITED = """
SELECT a.id, a."ownerId"::text AS owner FROM public.asset a
WHERE a.id = ANY (%s) AND (to_jsonb(a) ->> 'isEdited')::boolean
"""


async def hits_on_edited(
    immich: ImmichPictures, guest: Guest, database: Database, hits: Sequence[Hit]
) -> Sequence[Hit]:
    """Return ``hits`` with the boxes of their lines as they are on the pictures that Immich shows."""
    placed = await _placed(immich, guest, database, [hit.id for hit in hits if hit.lines])
    return [
        hit.model_copy(update={"lines": on_edited(hit.lines, placed[hit.id])}) if hit.id in placed else hit
        for hit in hits
    ]


async def lines_on_edited(
    immich: ImmichPictures, guest: Guest, database: Database, asset: UUID, lines: Sequence[L]
) -> Sequence[L]:
    """Return ``lines`` of one asset with their boxes as they are on the picture that Immich shows."""
    placed = await _placed(immich, guest, database, [asset] if lines else [])
    return on_edited(lines, placed[asset]) if asset in placed else lines


def on_edited(lines: Sequence[L], placed: Iterable[PlacedText]) -> tuple[L, ...]:
    """Return ``lines`` with the boxes of ``placed``, found by their text; a line that is not there has no box."""
    boxes: defaultdict[str, deque[tuple[float, ...]]] = defaultdict(deque)
    for one in placed:
        boxes[one.text].append(tuple(one.box))
    return tuple(
        line.model_copy(update={"box": boxes[line.text].popleft() if boxes[line.text] else None}) for line in lines
    )


async def _placed(
    immich: ImmichPictures, guest: Guest, database: Database, ids: Sequence[UUID]
) -> Mapping[UUID, Sequence[PlacedText]]:
    """Return what Immich tells of those of ``ids`` that were edited; nothing of one that it does not tell of: no box is
    better than one in the wrong place.
    """
    if not ids or database.source is not Source.IMMICH:
        return {}
    async with database.connection() as connection:
        rows = await (await connection.execute(_EDITED, (list(ids),))).fetchall()
    calls = [partial(_told, immich, guest, row["owner"], row["id"]) for row in rows]
    told = await gather_in_turns(calls, at_once=_AT_ONCE)
    return {row["id"]: texts for row, texts in zip(rows, told, strict=True)}


async def _told(immich: ImmichPictures, guest: Guest, owner: str, asset: UUID) -> Sequence[PlacedText]:
    try:
        return await immich.texts(guest, owner, asset)
    except ServiceError:
        return ()
