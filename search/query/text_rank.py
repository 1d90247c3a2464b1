"""Pictures by the text in them, as ids in order: for callers who have the pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from search.query.alternatives import alternatives_json
from search.query.parse import ParsedQuery
from search.query.timeline import Timeline, owner_parameters
from search.store.database import Database

_RANKED = """
SELECT f.asset_id, f.exact
FROM immich_ai.whose(%(owners)s::text[], %(partners)s::text[]) w,
     LATERAL immich_ai.ocr_search(%(alternatives)s::jsonb, w.owner, %(most)s, w.timeline_only, %(within)s::uuid[]) f
ORDER BY f.score DESC, f.asset_id LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class RankedText:
    """One picture whose text matches."""

    id: UUID
    exact: bool
    """True: the text holds the query as it was typed, once both are folded."""


async def rank_texts(
    database: Database,
    parsed: ParsedQuery,
    timeline: Timeline,
    *,
    within: Sequence[UUID] | None = None,
    most: int,
    seconds: float,
) -> list[RankedText]:
    """Return the pictures of ``timeline`` whose text matches, best first, each once.

    ``within``: the pictures to search in place of those, whoever's they are. ``most``: how many. ``seconds``: how long
    the database may take. Raises what psycopg raises, and ``ServiceError`` SEARCH_UNAVAILABLE where no connection is
    free.
    """
    parameters = {
        **owner_parameters(timeline if within is None else None),
        "within": None if within is None else list(within),
        "alternatives": alternatives_json(parsed, database.cutter),
        "most": most,
    }
    async with database.connection() as connection:
        await connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        cursor = await connection.execute(_RANKED, parameters)
        return [RankedText(row["asset_id"], row["exact"]) for row in await cursor.fetchall()]
