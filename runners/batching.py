"""Adaptive batching without waiting: an idle model starts at once, and what arrives while it runs is its next batch.

BentoML's own batcher holds a lone request back in proportion to how long requests had to wait lately, since it takes
queueing for a wish for company; after a busy minute of OCR that is more than a second (``make bench ARGS=batching``
shows both). Where one batch fills all cores, nothing is won by waiting: the batch that gathers meanwhile is as large as
the load asks for.

With one exception. Callers who wait for their answers come back together, right after a batch: the first of them would
go alone and split the others off for good (4 callers: batches of 1 and 3 for ever). So for a moment after a batch of
several, the next is held until as many are there again. Who comes later than that moment never waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")

_MOMENT = 0.025
_SHARE = 0.1
"""A batch of several is followed by a moment of at most 25 ms, and at most a tenth of the time that it took."""
_IN_VAIN = 8
"""If they did not come back in that moment, so many batches are followed by none."""


class Batcher(Generic[J, R]):
    """Gathers the jobs of many callers into calls of one function.

    ``run`` is called in ``executor`` with 1 to ``max_batch`` jobs, oldest first, at most ``lanes`` times at the same
    time, and returns one result per job. If it raises for a batch, each job is tried alone, so that only the one at
    fault fails. Not thread-safe: belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R]],
        *,
        max_batch: int,
        executor: Executor,
        lanes: int = 1,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._executor = executor
        self._lanes = lanes
        self._on_batch = on_batch
        self._queue: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._working = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._enough = 0
        self._enough_are_here = asyncio.Event()
        self._in_vain = 0

    @property
    def waiting(self) -> int:
        """Jobs that no call has taken yet."""
        return len(self._queue)

    async def submit(self, job: J) -> R:
        """The result of ``job``. Raises what ``run`` raises for it. Cancelled before its turn, it is never run, and
        forgotten at once.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((job, future))
        if self._enough and len(self._queue) >= self._enough:
            self._enough_are_here.set()
        if self._working < self._lanes:
            self._working += 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        try:
            return await future
        except asyncio.CancelledError:
            self._queue = deque(waiting for waiting in self._queue if waiting[1] is not future)
            raise

    async def _work(self) -> None:
        try:
            while batch := self._take():
                began = time.monotonic()
                await self._answer(batch)
                if len(batch) > 1 and self._lanes == 1:
                    await self._hold(len(batch), time.monotonic() - began)
        finally:
            self._working -= 1

    async def _hold(self, answered: int, seconds: float) -> None:
        """Wait for the callers of a batch that took so many ``seconds`` to come back, beside those who wait already;
        but not for long.
        """
        if self._in_vain:
            self._in_vain -= 1
            return
        self._enough = min(self._max_batch, answered + len(self._queue))
        if len(self._queue) < self._enough:
            self._enough_are_here.clear()
            try:
                await asyncio.wait_for(self._enough_are_here.wait(), min(_MOMENT, _SHARE * seconds))
            except asyncio.TimeoutError:
                self._in_vain = _IN_VAIN
        self._enough = 0

    def _take(self) -> list[tuple[J, asyncio.Future[R]]]:
        batch: list[tuple[J, asyncio.Future[R]]] = []
        most = min(self._max_batch, -(-len(self._queue) // self._lanes))  # some for the other lanes
        while self._queue and len(batch) < most:
            job, future = self._queue.popleft()
            if not future.done():  # its caller is gone
                batch.append((job, future))
        return batch

    async def _answer(self, batch: Sequence[tuple[J, asyncio.Future[R]]]) -> None:
        loop = asyncio.get_running_loop()
        self._on_batch(len(batch))
        try:
            results = await loop.run_in_executor(self._executor, self._run, [job for job, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} jobs")
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers
            if len(batch) > 1:
                log.warning("A batch of %d failed (%r); each of its jobs is tried alone.", len(batch), error)
                for one in batch:
                    await self._answer([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
