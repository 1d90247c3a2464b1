"""How many pictures there are and what was done with them: ``GET /stats`` and ``python -m search stats``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errors import ServiceError
from models.catalog import Catalog
from search.store.models_in_use import ModelsInUse, StoredModel, models_in_use, stored_models
from settings import Settings

if TYPE_CHECKING:
    from search.store.database import Database


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of pictures, but for ``stored_models`` and ``models``."""

    source: str
    cutter: str
    assets: int
    """That can be found."""
    read: int
    """Of the assets: with text."""
    empty: int
    """Of the assets: read, and without text."""
    failed: int
    """Files with a problem that is not mended, whether they became assets or not."""
    waiting: int
    """Of the assets: neither read nor failed."""
    embedded: int
    """Of the assets: with a CLIP vector, of whichever model."""
    stored_models: Sequence[StoredModel]
    models: ModelsInUse

    @property
    def refusals(self) -> tuple[ServiceError, ...]:
        """What is wrong with the models in use."""
        return tuple(error for error in (self.models.clip_refusal, self.models.ocr_refusal) if error is not None)


async def statistics(database: Database, catalog: Catalog, config: Settings) -> Statistics:
    """Counted now; some tenths of a second at 100,000 pictures."""
    source = database.source.value
    async with database.connection() as connection:
        rows = await connection.execute(_COUNT)
        [row] = await rows.fetchall()
        return Statistics(
            source=source,
            cutter=database.cutter,
            **row,
            stored_models=await stored_models(connection, source),
            models=await models_in_use(connection, source, catalog, config),
        )


_COUNT = """
select c.assets, c.read, c.empty, c.waiting,
       (select count(distinct subject) from immich_ai.failure) as failed,
       (select count(distinct e.asset_id) from immich_ai.source_embedding e
        join immich_ai.source_asset a on a.id = e.asset_id where a.visible) as embedded
from immich_ai.count_documents() c
"""
