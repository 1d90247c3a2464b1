"""``python -m search reprocess``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from rich.console import Console
from rich.progress import Progress

from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from search.command.service_client import running_service
from search.immich.lost_assets import lost_assets
from search.indexing.predictor import CannotGoOn, Predictor, PredictRecompute
from search.indexing.redo import RedoTask
from search.indexing.reprocess import all_assets, failed_assets, reprocess
from search.store.database import Database, open_database
from search.store.models_in_use import ModelsInUse, models_in_use
from settings import Settings

_EVERYONES = frozenset(
    {
        ErrorCode.SEARCH_UNAVAILABLE,
        ErrorCode.STORED_MODEL_DIFFERS,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.MODEL_UNAVAILABLE,
        ErrorCode.MODEL_ON_ITS_WAY,
        ErrorCode.UNKNOWN_MODEL,
    }
)
"""Errors that the next picture would meet as well."""


async def redo(options: argparse.Namespace, config: Settings) -> int:
    """Do what ``options`` names again; returns the exit code: 1 if any of it failed. Raises ``CannotGoOn``,
    ``ServiceError``.
    """
    names = options.tasks or (("ocr",) if options.lost else ("ocr", "clip"))
    tasks = [RedoTask(name) for name in names]
    async with (
        running_service(options.url, config, connections=options.jobs) as client,
        await open_database(config) as database,
    ):
        ids = await _ids(options, database, names)
        async with database.connection() as connection:
            models = await models_in_use(connection, database.source.value, load_catalog(config.model_catalog), config)
        job = _Job(database, tasks, PredictRecompute(Predictor(client)), models, config)
        failed = await _all(job, ids, options)
    print(f"{len(ids) - failed:,} done again, {failed:,} failed.")  # noqa: T201
    return 1 if failed else 0


@dataclass(frozen=True, slots=True)
class _Job:
    database: Database
    tasks: Sequence[RedoTask]
    recompute: PredictRecompute
    models: ModelsInUse
    config: Settings

    async def do(self, asset_id: UUID) -> str | None:
        """Return None, or why it failed. Raises ``CannotGoOn`` for what the next picture would meet as well."""
        try:
            await reprocess(self.database, asset_id, self.tasks, self.recompute, self.models, self.config)
        except ServiceError as error:
            if error.code in _EVERYONES:
                raise CannotGoOn(error.message) from error
            return error.message
        return None


async def _ids(options: argparse.Namespace, database: Database, tasks: Sequence[str]) -> Sequence[UUID]:
    if options.failed:
        return await failed_assets(database)
    if options.lost:
        return await lost_assets(database, tasks)
    return await all_assets(database) if options.all else list(dict.fromkeys(options.ids))


async def _all(job: _Job, ids: Sequence[UUID], options: argparse.Namespace) -> int:
    """Return how many failed."""
    console, failed = Console(stderr=True), 0
    quiet = options.no_progress or not console.is_terminal
    with Progress(console=console, transient=True, disable=quiet) as bars:
        bar = bars.add_task("Doing again", total=len(ids))
        async for asset_id, why in _results(job, ids, options.jobs):
            bars.advance(bar)
            if why is not None:
                failed += 1
                console.print(f"{asset_id}: {why}", highlight=False, markup=False, soft_wrap=True)
    return failed


async def _results(job: _Job, ids: Sequence[UUID], at_once: int) -> AsyncIterator[tuple[UUID, str | None]]:
    """Yield the id and failure of each, as they come, ``at_once`` at a time."""
    waiting, running = iter(ids), dict[asyncio.Task[str | None], UUID]()
    try:
        while True:
            while len(running) < at_once and (asset_id := next(waiting, None)) is not None:
                running[asyncio.create_task(job.do(asset_id))] = asset_id
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield running.pop(task), task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
