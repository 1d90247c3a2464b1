"""Counts of the pictures and of what was done with them: ``GET /stats`` and ``python -m search stats``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import metrics
from models.catalog import Catalog
from search.answers import Answer, Note
from search.immich.lost_assets import count_lost_texts
from search.immich.sync_status import SyncStatus
from search.store.models_in_use import StoredVectors, models_in_use, stored_vectors
from settings import Settings

if TYPE_CHECKING:
    from search.store.database import Database


class ModelNames(Answer):
    """The models in use, by the catalog's names."""

    clip: str | None
    """Embeds queries and pictures; null: none is chosen or it is unknown. ``notes`` says more."""
    ocr: str | None
    """Reads pictures that are done again; null: unknown, and ``notes`` says more."""


class Thinned(Answer):
    """Pictures with more regions of text than OCR_MAX_BOXES that this service has read since it started; in the command
    line, none.
    """

    pictures: int
    regions_left_out: int


class Statistics(Answer):
    """The answer of ``GET /stats``."""

    source: Literal["standalone", "immich", "immich-1.134"]
    cutter: Literal["jieba", "zhparser"]
    """The cutter of Chinese text to words."""
    assets: int
    """Pictures and videos that can be found."""
    read: int
    """Of these, read with some text found."""
    empty: int
    """Of these, read with no text found."""
    failed: int
    """Pictures with a failure that is remembered, whether they became assets or not."""
    waiting: int
    """Of the assets, neither read nor failed."""
    embedded: int
    """Of the assets, with a CLIP vector, of whichever model."""
    lost: int | None
    """Of the empty, those that Immich may have lost the text of: it counts them as read and has no row of them.
    ``search reprocess --lost`` reads them again. null: not Immich, or its tables do not tell."""
    models: ModelNames
    stored_models: Sequence[StoredVectors]
    notes: Sequence[Note]
    """Faults of the models in use."""
    thinned: Thinned
    sync: SyncStatus | None = None
    """null where the service does not follow Immich."""


async def statistics(
    database: Database, catalog: Catalog, config: Settings, sync: SyncStatus | None = None
) -> Statistics:
    """Count now; this takes some tenths of a second at 100,000 pictures."""
    source = database.source.value
    async with database.connection() as connection:
        [row] = await (await connection.execute(_COUNT)).fetchall()
        lost = await count_lost_texts(connection, source)
        models = await models_in_use(connection, source, catalog, config)
        stored = await stored_vectors(connection, source)
    thinned, regions = metrics.left_out()
    refusals = [error for error in (models.clip_refusal, models.ocr_refusal) if error is not None]
    return Statistics(
        source=source,
        cutter=database.cutter,
        **row,
        lost=lost,
        models=ModelNames(clip=models.clip, ocr=models.ocr),
        stored_models=stored,
        thinned=Thinned(pictures=thinned, regions_left_out=regions),
        notes=[Note(code=error.code.value, message=error.message) for error in refusals],
        sync=sync if source != "standalone" else None,
    )


_COUNT = """
select c.assets, c.read, c.empty, c.waiting,
       (select count(distinct subject) from immich_ai.failure) as failed,
       (select count(distinct e.asset_id) from immich_ai.source_embedding e
        join immich_ai.source_asset a on a.id = e.asset_id where a.visible) as embedded
from immich_ai.count_documents() c
"""
