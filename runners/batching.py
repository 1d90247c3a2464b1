"""Adaptive batching without waiting: an idle model starts at once, and what arrives while it runs is its next batch.

BentoML's own batcher holds a lone request back in proportion to how long requests had to wait lately, since it takes queueing for a
wish for company; after a busy minute of OCR that is more than a second (``python -m bench batching`` shows both). Where one batch fills
all cores, nothing is won by waiting: the batch that gathers meanwhile is as large as the load asks for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")


class Batcher(Generic[J, R]):
    """Gathers the jobs of many callers into calls of one function.

    ``run`` is called in ``executor`` with 1 to ``max_batch`` jobs, oldest first, never twice at the same time, and returns one
    result per job. If it raises for a batch, each job is tried alone, so that only the one at fault fails. Not thread-safe:
    belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R]],
        *,
        max_batch: int,
        executor: Executor,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._executor = executor
        self._on_batch = on_batch
        self._queue: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Jobs that no call has taken yet."""
        return len(self._queue)

    async def submit(self, job: J) -> R:
        """The result of ``job``. Raises what ``run`` raises for it. Cancelled before its turn, it is never run."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((job, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._answer(batch)
        finally:
            self._worker = None

    def _take(self) -> list[tuple[J, asyncio.Future[R]]]:
        batch: list[tuple[J, asyncio.Future[R]]] = []
        while self._queue and len(batch) < self._max_batch:
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
