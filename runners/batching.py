"""Adaptive batching without waiting: an idle model starts at once, and jobs that arrive meanwhile are its next batch.

BentoML's own batcher holds a lone request back in proportion to how long requests had to wait lately; after a busy
minute of OCR that is more than a second (``make bench ARGS=batching`` measures both). Where one batch fills all cores,
waiting gains nothing: the batch that gathers meanwhile is as large as the load asks for.

A job may take longer than its share of time (a picture full of text, which no header tells). It then comes back
``Unfinished``, and what is left of it waits for another turn, which it has after one of those that have had none.

One thing is waited for. Callers who wait for their answers come back together, right after a batch. The first of them
would go alone and split the others off for good (4 callers: batches of 1 and 3 for ever). So after a batch of several
the next is held for a moment until as many are there again. Jobs that arrive later than that never wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")

_MAX_HOLD = 0.025
_HOLD_SHARE = 0.1
"""After a batch of several the next is held for at most 25 ms, and at most a tenth of the time that the batch took."""
_BATCHES_WITHOUT_HOLD = 8
"""Batches that are followed by no hold after one in which the callers did not come back."""


@dataclass(frozen=True, slots=True)
class Unfinished(Generic[J]):
    """The value that a model returns in place of a result once a job has had its share of time."""

    rest: J
    """The job with which the model goes on."""


class Batcher(Generic[J, R]):
    """Gathers the jobs of many callers into calls of one function.

    ``run`` is called in ``executor`` with 1 to ``max_batch`` jobs, oldest first, at most ``lanes`` times at the same
    time, and returns one result per job. The costs of a batch's jobs add up to at most ``max_batch``, too: one that
    costs more goes alone, and so does what is left of one that came back ``Unfinished``. If ``run`` raises for a batch,
    each job is tried alone, so that only the one at fault fails. Not thread-safe: belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R | Unfinished[J]]],
        *,
        max_batch: int,
        executor: Executor,
        lanes: int = 1,
        cost: Callable[[J], float] = lambda job: 1.0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """``cost``: estimated work of a job, in ordinary jobs. ``on_batch``: called with the size of each batch."""
        self._run = run
        self._max_batch = max_batch
        self._executor = executor
        self._lanes = lanes
        self._cost = cost
        self._on_batch = on_batch
        self._queue: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._unfinished: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._unfinished_is_next = False
        self._working = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._enough = 0
        """Jobs in the queue that end a hold; 0 while nothing is held."""
        self._enough_are_here = asyncio.Event()
        """Set as soon as so many are there."""
        self._in_vain = 0
        """Batches still to be followed by no hold, since the last hold ended without enough jobs."""

    @property
    def waiting(self) -> int:
        """Return the number of jobs that wait for a call, their first or another."""
        return len(self._queue) + len(self._unfinished)

    async def submit(self, job: J) -> R:
        """Return the result of ``job``; raise what ``run`` raises for it.

        Cancelled before its turn, or between two, it is not run any more, and forgotten at once.
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
            self._unfinished = deque(waiting for waiting in self._unfinished if waiting[1] is not future)
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
        """Wait a moment for the callers of a batch of ``answered`` jobs, which took ``seconds``, to come back."""
        if self._in_vain:
            self._in_vain -= 1
            return
        self._enough = min(self._max_batch, answered + len(self._queue))
        if len(self._queue) < self._enough:
            self._enough_are_here.clear()
            try:
                await asyncio.wait_for(self._enough_are_here.wait(), min(_MAX_HOLD, _HOLD_SHARE * seconds))
            except asyncio.TimeoutError:
                self._in_vain = _BATCHES_WITHOUT_HOLD
        self._enough = 0

    def _take(self) -> list[tuple[J, asyncio.Future[R]]]:
        if self._unfinished and (self._unfinished_is_next or not self._queue):
            self._unfinished_is_next = False
            return [self._unfinished.popleft()]
        self._unfinished_is_next = True
        batch: list[tuple[J, asyncio.Future[R]]] = []
        most = min(self._max_batch, math.ceil(len(self._queue) / self._lanes))  # some for the other lanes
        cost = 0.0
        while self._queue and len(batch) < most:
            job, future = self._queue[0]
            if not future.done():  # else its caller is gone
                # Cheap jobs count as 1, so that batches of ordinary jobs do not grow.
                cost += max(1.0, self._cost(job))
                if batch and cost > self._max_batch:
                    break
                batch.append((job, future))
            self._queue.popleft()
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
            if future.done():
                continue
            if isinstance(result, Unfinished):
                self._unfinished.append((result.rest, future))
            else:
                future.set_result(result)
