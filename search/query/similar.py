"""Pictures like one: those whose vectors are nearest to its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from search.query.answers import ClipPart, Hit
from search.query.timeline import Timeline, owner_parameters

if TYPE_CHECKING:
    from search.store.database import Database

_NEAREST = """
SELECT c.asset_id, c.similarity, a.name
FROM (SELECT e.vector, e.model FROM immich_ai.source_embedding e WHERE e.asset_id = %(id)s
      ORDER BY e.model = %(model)s DESC LIMIT 1) AS own,
immich_ai.whose(%(owners)s::text[], %(partners)s::text[]) who,
LATERAL immich_ai.clip_search(own.vector, own.model, who.owner, %(most)s, who.timeline_only) c
JOIN immich_ai.source_asset a ON a.id = c.asset_id
WHERE c.asset_id <> %(id)s
ORDER BY c.similarity DESC, c.rank, c.asset_id LIMIT %(most)s
"""


async def similar(
    database: Database, asset_id: UUID, *, model: str | None, timeline: Timeline | None, most: int
) -> Sequence[Hit]:
    """Return the visible pictures whose vectors are nearest to that of ``asset_id``, nearest first; none where it has
    no vector.

    ``model``: whose vector is taken where there are several. ``timeline``: whose pictures; None:
    everybody's. ``most``: how many, at most 200. Raises what psycopg raises.
    """
    parameters = {"id": asset_id, "model": model or "", **owner_parameters(timeline), "most": most + 1}
    rows = await database.rows(_NEAREST, parameters)
    return [_hit(row, rank) for rank, row in enumerate(rows[:most], start=1)]


def _hit(row: dict[str, Any], rank: int) -> Hit:
    similarity = float(row["similarity"])
    clip = ClipPart(rank=rank, similarity=similarity)
    return Hit(id=row["asset_id"], name=row["name"], score=similarity, ocr=None, clip=clip, lines=())
