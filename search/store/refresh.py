"""Documents that an earlier version made, made anew: in small pieces, while everything else goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from search.store.documents import FORM, searched
from search.store.lexicon import add_words
from search.store.source import SYNC_LOCK

if TYPE_CHECKING:
    from search.store.database import Database

log = logging.getLogger("service")

_BATCH = 100
"""Documents in one transaction."""

_OLD = """
SELECT d.asset_id, d.text, l.boxes
FROM (
    SELECT * FROM immich_ai.ocr_document WHERE asset_id > %s AND form < %s ORDER BY asset_id LIMIT %s
) d, LATERAL (
    SELECT array_agg(ARRAY[s.x1, s.y1, s.x2, s.y2, s.x3, s.y3, s.x4, s.y4] ORDER BY s.n) AS boxes
    FROM immich_ai.source_line s WHERE s.asset_id = d.asset_id
) l ORDER BY d.asset_id
"""
_RENEW = """
UPDATE immich_ai.ocr_document SET folded = %s, pieces = %s, cut = %s, form = %s WHERE asset_id = %s AND form < %s
"""


async def refresh(database: Database) -> int:
    """Make all documents anew that are older than ``FORM``, and return how many. May be interrupted anywhere.

    Until it is done, such documents are found as they were before.
    """
    made, after = 0, UUID(int=0)
    while True:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SYNC_LOCK,))
            rows = await (await connection.execute(_OLD, (after, FORM, _BATCH))).fetchall()
            words: set[str] = set()
            for row in rows:
                words.update(await _renew(connection, row))
            await add_words(connection, words)
        made += len(rows)
        if len(rows) < _BATCH:
            break
        after = rows[-1]["asset_id"]
    if made:
        log.info("Texts of %d pictures made anew for this version of search.", made)
    return made


async def _renew(connection: Any, row: dict[str, Any]) -> tuple[str, ...]:
    lines = row["text"].split("\n") if row["text"] else []
    boxes = row["boxes"] or ()
    new = searched(lines, boxes if len(boxes) == len(lines) else ())
    values = (new.folded, list(new.pieces), " ".join(new.words), FORM, row["asset_id"], FORM)
    await connection.execute(_RENEW, values)
    return new.words
