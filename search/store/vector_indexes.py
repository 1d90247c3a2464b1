"""The indexes over the vectors of our own index: one for everybody's, and those of owners. The work is sql/'s."""

from __future__ import annotations

from search.store.index import Connection


async def index_embeddings(connection: Connection, model: str, size: int) -> None:
    """Make the index over the vectors of ``model`` (of ``size`` numbers), unless it is there."""
    await _wait_for_other_indexing(connection, model)
    await connection.execute("SELECT immich_ai.index_embeddings(%s, %s)", (model, size))


async def index_owners(connection: Connection, model: str) -> None:
    """Make the indexes of owners of some thousand pictures over the vectors of ``model``, and drop those not needed.

    Takes a millisecond for each of their pictures, once for each owner.
    """
    await _wait_for_other_indexing(connection, model)
    await connection.execute("SELECT immich_ai.index_owners(%s)", (model,))


async def _wait_for_other_indexing(connection: Connection, model: str) -> None:
    """Wait until nobody else makes indexes over the vectors of ``model``; others wait until this transaction ends.

    Several may ask at once: without it the second one fails where the first is not done.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('immich_ai.index ' || %s, 0))", (model,))
