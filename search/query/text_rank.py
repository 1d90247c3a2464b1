"""Pictures by the text in them, as ids in order: for callers who have the pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from search.query.alternatives import alternatives_json
from search.query.parse import ParsedQuery
from search.store.database import Database

_RANKED = """
SELECT f.asset_id, f.exact
FROM unnest(%(owners)s::text[]) AS o (id), LATERAL immich_ai.ocr_search(%(alternatives)s::jsonb, o.id, %(most)s) f
ORDER BY f.score DESC, f.asset_id LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class RankedText:
    """One picture whose text matches."""

    id: UUID
    exact: bool
    """True: the text holds the query as it was typed, once both are folded."""


async def rank_texts(
    database: Database, parsed: ParsedQuery, owners: Sequence[str], *, most: int, seconds: float
) -> list[RankedText]:
    """Return the visible pictures of ``owners`` whose text matches, best first, each once.

    ``most``: how many. ``seconds``: how long the database may take. Raises what psycopg raises, and ``ServiceError``
    SEARCH_UNAVAILABLE where no connection is free.
    """
    parameters = {
        "owners": list(dict.fromkeys(owners)),
        "alternatives": alternatives_json(parsed, database.cutter),
        "most": most,
    }
    async with database.connection() as connection:
        await connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        cursor = await connection.execute(_RANKED, parameters)
        return [RankedText(row["asset_id"], row["exact"]) for row in await cursor.fetchall()]
