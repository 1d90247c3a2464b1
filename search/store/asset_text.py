"""The text that was read in one picture: the answer of ``GET /assets/{id}/ocr``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from errors import ErrorCode, ServiceError
from search.answers import Answer
from search.query.answers import TextLine

if TYPE_CHECKING:
    from search.store.database import Database


class AssetText(Answer):
    """The answer of ``GET /assets/{id}/ocr``."""

    id: UUID
    name: str
    """The file's name."""
    read: bool
    """false: not read yet. true without lines: read, and there was no text."""
    read_at: datetime | None
    model: str | None
    """The model that read it, where that is known."""
    text: str
    """The lines, joined by newlines."""
    lines: Sequence[TextLine]


async def asset_text(database: Database, asset_id: UUID) -> AssetText:
    """Return the text of one picture that may be seen. Raises ``ServiceError`` UNKNOWN_ASSET."""
    async with database.connection() as connection:
        document = await (await connection.execute(_DOCUMENT, (asset_id,))).fetchone()
        if document is None:
            raise ServiceError(ErrorCode.UNKNOWN_ASSET, f"There is no asset {asset_id} that can be found.")
        rows = await (await connection.execute(_LINES, (asset_id,))).fetchall() if document["read"] else []
    lines = [TextLine.model_validate(row | {"box": None if None in row["box"] else row["box"]}) for row in rows]
    return AssetText.model_validate(document | {"lines": lines})


_DOCUMENT = """
select a.id, a.name, d.asset_id is not null as read, d.read_at, d.model, coalesce(d.text, '') as text
from immich_ai.source_asset a left join immich_ai.ocr_document d on d.asset_id = a.id
where a.id = %s and a.visible
"""
_LINES = """
select n, text, array[x1, y1, x2, y2, x3, y3, x4, y4] as box, box_score, text_score
from immich_ai.source_line where asset_id = %s order by n
"""
