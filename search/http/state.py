"""The parts that search's operations work with: loaded at the start of every process, so it imports nothing large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from models.catalog import Catalog
from runners.contract import Runners
from runners.tasks import CLIP_TEXT
from search.http.life import SearchLife
from search.store.errors import database_errors
from serving.exchange import started
from serving.guesses import Guesses
from settings import Settings

# What these modules import is large (PostgreSQL's client, dictionaries), so they are imported by the first request that
# needs them.
if TYPE_CHECKING:
    from search.immich.visitor import Credentials
    from search.indexing.redo import Redone, RedoTask
    from search.query.answers import SearchAnswer, SearchRequest
    from search.query.timeline import Timeline
    from search.store.database import Database
    from search.store.models_in_use import ModelsInUse
    from search.store.records import Vector

_REDOS_AT_ONCE = 2
"""Pictures done again at the same time: each holds a picture in memory."""
_MODELS_KEPT = 30.0
"""Seconds that searches believe what they know of the stored vectors."""


@dataclass(slots=True)
class SearchApi:
    """The parts that the operations work with. ``runners`` is set when the service has started."""

    catalog: Catalog
    settings: Settings
    life: SearchLife
    runners: Runners | None = None
    redos: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_REDOS_AT_ONCE))
    guesses: Guesses = field(default_factory=Guesses)
    """Wrong keys, of all protocols together."""
    _models: tuple[float, ModelsInUse] | None = None

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Give the open database; its troubles within the block are SEARCH_UNAVAILABLE."""
        database = self.life.database()
        with database_errors():
            yield database

    async def embed(self, database: Database, text: str) -> Vector:
        """Return the vector of a query's text. Raises ``ServiceError`` where no model fits what is stored, or it cannot
        be had.
        """
        from search.store.records import Vector

        if self._models is None or time.monotonic() - self._models[0] > _MODELS_KEPT:
            self._models = time.monotonic(), await self.models_in_use(database)
        model = self._models[1].clip_or_refuse()
        return Vector(model, (await CLIP_TEXT.of_text(started(self.runners), text, model)).vector)

    async def find(self, request: SearchRequest, *, timeline: Timeline | None = None) -> SearchAnswer:
        """Answer a search as ``search.query.find.find`` does. Raises SEARCH_UNAVAILABLE too."""
        from search.query.find import find

        async with self.database() as database:
            return await find(
                database, request, lambda text: self.embed(database, text), self.settings, timeline=timeline
            )

    async def redo(self, asset: UUID, tasks: Collection[RedoTask], *, visitor: Credentials | None = None) -> Redone:
        """Do tasks of one picture again. ``visitor``: in whose name Immich is asked; None: by the keys of the settings.

        Raises as ``search.indexing.reprocess.reprocess`` does.
        """
        from search.indexing.recompute import RunnersRecompute
        from search.indexing.reprocess import reprocess

        recompute = RunnersRecompute(started(self.runners), max_pixels=self.settings.max_picture_pixels)
        async with self.redos, self.database() as database:
            models = await self.models_in_use(database)
            return await reprocess(database, asset, tasks, recompute, models, self.settings, visitor=visitor)

    async def models_in_use(self, database: Database) -> ModelsInUse:
        """Return the models that fit what is stored now."""
        from search.store.models_in_use import models_in_use

        async with database.connection() as connection:
            return await models_in_use(connection, database.source.value, self.catalog, self.settings)
