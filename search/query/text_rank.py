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
FROM unnest(%(owners)s::text[], %(timeline_only)s::boolean[]) AS o (id, timeline_only),
     LATERAL immich_ai.ocr_search(%(alternatives)s::jsonb, o.id, %(most)s, o.timeline_only, %(within)s::uuid[]) f
ORDER BY f.score DESC, f.asset_id LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class RankedText:
    """One picture whose text matches."""

    id: UUID
    exact: bool
    """True: the text holds the query as it was typed, once both are folded."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The pictures that a searcher can see: nothing is to tell of others, neither an order nor a number."""

    own: str
    """The searcher, all of whose visible pictures are searched."""
    partners: Sequence[str] = ()
    """Whose pictures are searched as far as they are on the timeline."""
    within: Sequence[UUID] | None = None
    """The pictures to search, whoever's they are, in place of those of ``own`` and ``partners``."""


async def rank_texts(
    database: Database, parsed: ParsedQuery, seen: Seen, *, most: int, seconds: float
) -> list[RankedText]:
    """Return the pictures of ``seen`` whose text matches, best first, each once.

    ``most``: how many. ``seconds``: how long the database may take. Raises what psycopg raises, and ``ServiceError``
    SEARCH_UNAVAILABLE where no connection is free.
    """
    partners = [one for one in dict.fromkeys(seen.partners) if one != seen.own]
    owners = [(seen.own, False), *((one, True) for one in partners)] if seen.within is None else [(None, False)]
    parameters = {
        "owners": [owner for owner, _ in owners],
        "timeline_only": [timeline_only for _, timeline_only in owners],
        "within": None if seen.within is None else list(seen.within),
        "alternatives": alternatives_json(parsed, database.cutter),
        "most": most,
    }
    async with database.connection() as connection:
        await connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        cursor = await connection.execute(_RANKED, parameters)
        return [RankedText(row["asset_id"], row["exact"]) for row in await cursor.fetchall()]
