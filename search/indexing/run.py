"""A run of indexing: places are walked, what needs work is computed by several at once, what is gone is removed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from search.indexing.places import Entry, Place, exists
from search.indexing.plan import Need, Options, Step, decide
from search.indexing.predictor import CannotGoOn
from search.indexing.removal import UriSet, remove_gone
from search.indexing.retries import RetryingDatabase
from search.indexing.worker import Done, FileWorker
from search.store.index import known
from search.store.records import Problem
from search.store.vector_indexes import index_owners

PAGE = 500
"""Files that the index is asked about at once."""
SHOWN_FAILURES = 100
LONGEST_URI = 2000
"""Bytes. PostgreSQL's indexes take some 2,700 with the owner's name; Linux allows paths of 4,096."""


@dataclass(slots=True)
class Tally:
    """The counts of a run, which grow as it goes."""

    seen: int = 0
    """Pictures and videos that the walk came across."""
    done: int = 0
    """Of these, those that are finished with, whatever was done."""
    unchanged: int = 0
    failed_before: int = 0
    """Not tried again."""
    touched: int = 0
    """Another date, the same content."""
    moved: int = 0
    computed: int = 0
    """Sent to the models, with some result."""
    failed: int = 0
    removed: int = 0
    long_names: int = 0
    """Left out, for being longer than ``LONGEST_URI``."""
    failures: deque[tuple[str, Problem]] = field(default_factory=lambda: deque(maxlen=SHOWN_FAILURES))
    """The last ones."""
    warnings: list[str] = field(default_factory=list)
    """What else the person should know, in sentences."""


class Run:
    """One run. ``stop`` lets it finish what is in flight; ``tally`` may be looked at at any time."""

    def __init__(self, database: RetryingDatabase, worker: FileWorker, options: Options) -> None:
        self.tally = Tally()
        self.stopped = asyncio.Event()
        self._trouble: CannotGoOn | None = None
        self._database = database
        self._worker = worker
        self._options = options

    def stop(self) -> None:
        """Begin nothing more."""
        self.stopped.set()

    async def index(self, places: Sequence[Place]) -> Tally:
        """Index all ``places``, one after the other. Raises ``CannotGoOn``, and what a programming error raises."""
        for place in places:
            seen, complete = await self._index(place)
            if self.stopped.is_set():
                break
            await self._remove(place, seen, complete)
        changed = self.tally.computed or self.tally.removed
        if "clip" in self._options.models and changed and not self.stopped.is_set():  # it may take minutes
            await self._database.run(index_owners, self._options.models["clip"])
        if self.tally.long_names:
            self.tally.warnings.append(
                f"{self.tally.long_names:,} files were left out: their paths are longer than {LONGEST_URI:,} bytes."
            )
        return self.tally

    async def _index(self, place: Place) -> tuple[UriSet, bool]:
        """Walk and work. Return the uris seen, and whether those are all there are."""
        queue: asyncio.Queue[Step | None] = asyncio.Queue(maxsize=2 * self._options.jobs)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(self._options.jobs)]
        walk = asyncio.create_task(self._walk(place, queue))
        try:
            await _all_or_first_error([walk, *workers])
        except BaseException:
            self.stop()
            raise
        if self._trouble is not None:
            raise self._trouble
        return walk.result()

    async def _walk(self, place: Place, queue: asyncio.Queue[Step | None]) -> tuple[UriSet, bool]:
        seen, unlisted = UriSet(), deque[str](maxlen=5)

        def failed(folder: str, why: str) -> None:
            unlisted.append(f"{folder} could not be listed: {why}.")

        entries = place.walk(failed)
        while not self.stopped.is_set() and (page := await asyncio.to_thread(_page, entries)):
            self.tally.long_names += sum(_is_long(entry) for entry in page)
            files = [entry for entry in page if not _is_long(entry)]
            self.tally.seen += len(files)
            for entry in files:
                seen.add(entry.uri)
            for step in await self._steps(files):
                await self._take(step, queue)
        for _ in range(self._options.jobs):
            await queue.put(None)
        if unlisted:
            self.tally.warnings.extend(unlisted)
        return seen, not unlisted and not self.stopped.is_set()

    async def _steps(self, entries: Sequence[Entry]) -> list[Step]:
        options = self._options
        uris = [entry.uri for entry in entries]
        found = await self._database.run(known, options.owner, uris, options.models)
        return [decide(entry, found.get(entry.uri), options) for entry in entries]

    async def _take(self, step: Step, queue: asyncio.Queue[Step | None]) -> None:
        if step.need in (Need.NOTHING, Need.NOTHING_FAILED):
            self.tally.unchanged += step.need is Need.NOTHING
            self.tally.failed_before += step.need is Need.NOTHING_FAILED
            self.tally.done += 1
        else:
            await queue.put(step)

    async def _work(self, queue: asyncio.Queue[Step | None]) -> None:
        while (step := await queue.get()) is not None:
            if self.stopped.is_set():
                continue
            try:
                self._count(step, await self._worker.do(step))
            except CannotGoOn as error:  # the others finish what they have in hand
                self._trouble = self._trouble or error
                self.stop()

    def _count(self, step: Step, done: Done) -> None:
        self.tally.done += 1
        self.tally.touched += done.touched
        self.tally.moved += done.moved
        self.tally.computed += done.computed
        self.tally.failed += bool(done.problems)
        self.tally.failures.extend((step.entry.uri, problem) for problem in done.problems)

    async def _remove(self, place: Place, seen: UriSet, complete: bool) -> None:
        if not complete and not (
            self._options.prune and not len(seen) and not await asyncio.to_thread(exists, place.uri)
        ):
            self.tally.warnings.append(f"{place.uri} was not read completely, so nothing was removed from the index.")
            return
        removal = await remove_gone(self._database, self._options.owner, place.uri, seen, prune=self._options.prune)
        self.tally.removed += removal.removed
        if removal.refusal:
            self.tally.warnings.append(removal.refusal)


def _is_long(entry: Entry) -> bool:
    return len(entry.uri) > LONGEST_URI // 4 and len(entry.uri.encode()) > LONGEST_URI


def _page(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, PAGE))


async def _all_or_first_error(tasks: Sequence[asyncio.Task[object]]) -> None:
    """Wait for all; when one fails, the others are cancelled and waited for, and its error is raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
