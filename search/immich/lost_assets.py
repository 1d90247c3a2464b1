"""Pictures that Immich believes done although their rows are gone, so that its jobs for what is missing pass them over.

*OCR, All* and *Face Detection, Reset* empty the tables and leave the dates of ``asset_job_status`` set; what fails then
is not queued again. A picture without text looks the same, until it is done again here: that leaves the name of the
model in its document.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from search.store.source import Source

if TYPE_CHECKING:
    from search.store.database import Connection, Database

_TEXT = """
select s."assetId" as id from public.asset_job_status s
join immich_ai.source_asset a on a.id = s."assetId" and a.visible
left join immich_ai.ocr_document d on d.asset_id = s."assetId"
where s."ocrAt" is not null and d.model is null
  and not exists (select from public.asset_ocr o where o."assetId" = s."assetId")
"""
_FACES = """
select s."assetId" as id from public.asset_job_status s
join immich_ai.source_asset a on a.id = s."assetId" and a.visible
where s."facesRecognizedAt" is not null
  and not exists (select from public.asset_face f where f."assetId" = s."assetId")
"""
_QUERIES = {"ocr": _TEXT, "faces": _FACES}


async def lost_assets(database: Database, tasks: Collection[str]) -> list[UUID]:
    """Return the visible pictures whose rows of any of ``tasks`` (``ocr``, ``faces``) may be lost; none of other
    sources than Immich 2.2 and newer.
    """
    queries = [_QUERIES[task] for task in tasks if task in _QUERIES]
    if database.source is not Source.IMMICH or not queries:
        return []
    async with database.connection() as connection:
        found = await connection.execute(f"{' union '.join(queries)} order by id")
        return [row["id"] async for row in found]


async def count_lost_texts(connection: Connection, source: str) -> int | None:
    """Return how many pictures' texts may be lost, or None where the source does not tell."""
    if source != Source.IMMICH.value:
        return None
    row = await (await connection.execute(f"select count(*) as n from ({_TEXT}) as lost")).fetchone()  # noqa: S608
    return row["n"] if row else 0
