"""``python -m search index``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import httpx
from rich.console import Console

from search.command.service_client import models_to_ask, running_service
from search.indexing.places import Place, PlaceError, exists, place, shown_uri
from search.indexing.plan import Options
from search.indexing.predictor import CannotGoOn, Predictor
from search.indexing.progress import progress_bar, report
from search.indexing.retries import RetryingDatabase
from search.indexing.run import Run, Tally
from search.indexing.worker import FileWorker, Worker
from search.store.database import Database, open_database
from search.store.source import Source
from settings import Settings

_GOES_ON = "The same command goes on from here."


async def index(options: argparse.Namespace, config: Settings) -> int:
    """Index what ``options`` names; returns the exit code. Raises ``CannotGoOn``, ``ServiceError``."""
    results, told = Console(), Console(stderr=True)
    places = _places(options.places, prune=options.prune)
    async with _service(options, config) as client, await open_database(config) as database:
        _own_index(database)
        async with _workers(client, options, places, database, config, told) as (worker, how):
            run = Run(RetryingDatabase(database), worker, how)
            began = time.monotonic()
            try:
                with _stopped_by_signals(run, told):
                    await _watched(run, worker, places, told, bar=not options.no_progress and told.is_terminal)
            except CannotGoOn as error:
                report(run.tally, results, seconds=time.monotonic() - began)
                raise CannotGoOn(f"{error} {_GOES_ON}") from error
            report(run.tally, results, seconds=time.monotonic() - began)
    if run.stopped.is_set():
        told.print(f"Stopped. {_GOES_ON}", highlight=False, soft_wrap=True)
        return 130
    return 0


@contextlib.asynccontextmanager
async def _service(options: argparse.Namespace, config: Settings) -> AsyncIterator[httpx.AsyncClient | None]:
    """Open a client of the running service; None where a Ray cluster computes."""
    if options.ray is not None:
        yield None
        return
    async with running_service(options.url, config, connections=options.jobs) as client:
        yield client


@contextlib.asynccontextmanager
async def _workers(
    client: httpx.AsyncClient | None,
    options: argparse.Namespace,
    places: Sequence[Place],
    database: Database,
    config: Settings,
    told: Console,
) -> AsyncIterator[tuple[FileWorker, Options]]:
    """Yield what does files, by the service of ``client`` or by a Ray cluster, and how."""
    models, notes = await models_to_ask(client, database, config, options.tasks)
    for note in notes:
        told.print(note, highlight=False, soft_wrap=True)
    roots = tuple(place.uri for place in places)
    how = Options(options.owner, options.jobs, models, retry_failed=options.retry_failed, prune=options.prune)
    if client is not None:
        yield Worker(RetryingDatabase(database), Predictor(client), config, how, roots), how
        return
    from search.indexing.ray_actors import ray_workers  # not at the top: most do without

    async with ray_workers(options.ray, options.ray_cpus, database, config, how, roots) as (workers, at_once):
        yield workers, replace(how, jobs=at_once)


def _places(addresses: Sequence[str], *, prune: bool) -> list[Place]:
    """Return the places of ``addresses``. Raises ``CannotGoOn`` for the first that cannot be indexed."""
    found = []
    for address in addresses:
        try:
            one = place(address)
            there = exists(one.uri)
        except PlaceError as error:
            raise CannotGoOn(str(error)) from error
        except Exception as error:  # each of fsspec's systems raises errors of its own
            raise CannotGoOn(f"{shown_uri(address)} cannot be looked at: {error or type(error).__name__}.") from error
        if not there and not prune:
            raise CannotGoOn(
                f"{shown_uri(address)} is not there. Nothing was done; if it is gone for good, --prune removes it from "
                "the index."
            )
        found.append(one)
    return found


def _own_index(database: Database) -> None:
    if database.source is not Source.STANDALONE:
        raise CannotGoOn(
            "This database is Immich's: Immich reads and embeds its pictures itself, and `python -m search sync` "
            "takes over their texts. "
            "For an index of your own set SEARCH_SOURCE=standalone."
        )


async def _watched(run: Run, worker: FileWorker, places: Sequence[Place], console: Console, *, bar: bool) -> Tally:
    if not bar:
        return await run.index(places)
    async with progress_bar(run.tally, worker, places, console):
        return await run.index(places)


@contextlib.contextmanager
def _stopped_by_signals(run: Run, console: Console) -> Iterator[None]:
    """Have SIGINT and SIGTERM let the run finish what is in flight; the second one ends it at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if run.stopped.is_set() and task is not None:
            task.cancel()
            return
        run.stop()
        console.print("Finishing what is in flight. Once more ends it at once.", highlight=False, soft_wrap=True)

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # Windows, and any thread but the first
            loop.add_signal_handler(number, stop)
            handled.append(number)
    try:
        yield
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
