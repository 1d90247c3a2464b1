"""The part of the exact order that ``immich_ai.clip_search`` keeps, as ``search-speed`` reports it."""

from __future__ import annotations

from uuid import UUID

import psycopg
from pgvector.psycopg import register_vector

from runners.contract import Float32
from tools.bench.search.library import FEW, OWNERS

_FIRST = 10
_MOST = 60

# The union of the owners' nearest holds everybody's. Without LIMIT no index is used.
_EXACT = """
SELECT owner, id FROM (
    SELECT a.owner, a.id, d.distance, row_number() OVER (PARTITION BY a.owner ORDER BY d.distance) AS place
    FROM immich_ai.source_asset a
    JOIN (
        SELECT asset_id, vector <=> %s::vector AS distance FROM immich_ai.source_embedding WHERE model = %s OFFSET 0
    ) d ON d.asset_id = a.id
) ranked WHERE place <= %s ORDER BY distance
"""

_SEARCH = "SELECT asset_id FROM clip_search(%s::vector, %s, %s, %s)"


def recall(conninfo: str, queries: Float32, model: str) -> dict[str, float]:
    """Return the share of the ten pictures nearest to each of ``queries`` (n, size) that is among the first ten found.

    By whose pictures are searched: everybody's, and each owner's.
    """
    found: dict[str, list[float]] = {}
    with psycopg.connect(conninfo) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        register_vector(connection)
        for query in queries:
            nearest = connection.execute(_EXACT, (query, model, _FIRST)).fetchall()
            for owner in (None, *OWNERS, FEW):
                exact: list[UUID] = [asset for whose, asset in nearest if owner in (None, whose)][:_FIRST]
                rows = connection.execute(_SEARCH, (query, model, owner, _MOST)).fetchall()
                share = len({asset for (asset,) in rows[:_FIRST]} & set(exact)) / max(1, len(exact))
                found.setdefault(owner or "everybody", []).append(share)
    return {owner: sum(shares) / len(shares) for owner, shares in found.items()}
