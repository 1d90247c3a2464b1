"""Hits whose text is gone: an edit in Immich has cropped it away, and the next sync has not come yet."""

from __future__ import annotations

from collections.abc import Sequence

from search.query.answers import Hit
from search.store.database import Database
from search.store.source import Source

# Where Immich has no row of a picture at all it reads it anew, and the text that was read before still holds.
_CHANGED = """
SELECT d.asset_id FROM immich_ai.ocr_document d
WHERE d.asset_id = ANY (%s)
  AND cardinality(string_to_array(split_part(d.folded, E'\\n\\f\\n', 1), E'\\n'))
      <> (SELECT count(*) FROM immich_ai.source_line l WHERE l.asset_id = d.asset_id)
  AND EXISTS (SELECT FROM public.asset_ocr o WHERE o."assetId" = d.asset_id)
"""


async def without_cropped_text(database: Database, hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """Return ``hits`` without those that were found by lines which the picture has no more.

    One that was found by its meaning too stays, with ``ocr`` None. The database is asked only where a hit by text shows
    no line.
    """
    doubtful = [hit.id for hit in hits if hit.ocr is not None and not hit.lines]
    if not doubtful or database.source is not Source.IMMICH:
        return tuple(hits)
    async with database.connection() as connection:
        cursor = await connection.execute(_CHANGED, (doubtful,))
        gone = {row["asset_id"] for row in await cursor.fetchall()}
    return tuple(
        hit.model_copy(update={"ocr": None}) if hit.id in gone else hit
        for hit in hits
        if hit.id not in gone or hit.clip is not None
    )
