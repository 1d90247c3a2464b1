"""What was read in one picture, as it is searched: the lines put together, folded and cut to words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from search.query.folding import fold_lines
from search.query.words import cut

_PUT = """
INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut, read_at, model, source_read_at, source_digest)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (asset_id) DO UPDATE SET
    (text, folded, cut, read_at, model, source_read_at, source_digest)
    = (excluded.text, excluded.folded, excluded.cut, excluded.read_at, excluded.model, excluded.source_read_at,
    excluded.source_digest)
"""


async def put_document(
    connection: AsyncConnection[Any],
    asset_id: UUID,
    lines: Sequence[str],
    *,
    model: str | None,
    read_at: datetime,
    source_read_at: datetime | None = None,
    source_digest: str | None = None,
) -> None:
    """Write what was read in a picture, in place of what was there. No lines: it was read, and there was no text.

    ``lines`` in reading order. ``source_read_at``, ``source_digest``: Immich's, as ``search.immich.sync`` found them.
    NUL, which PostgreSQL's text cannot hold, becomes a blank.
    """
    text = "\n".join(line.replace("\0", " ") for line in lines)
    folded = fold_lines(lines)
    values = (asset_id, text, folded, " ".join(cut(folded)), read_at, model, source_read_at, source_digest)
    await connection.execute(_PUT, values)
