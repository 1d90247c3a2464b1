"""Files done by processes elsewhere (actors), one of which may end at any time: another one does its files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from errors import ErrorCode
from search.indexing.plan import Options, Step
from search.indexing.predictor import CannotGoOn
from search.indexing.retries import RetryingDatabase
from search.indexing.worker import Done
from search.store.index import put_problem
from search.store.records import Problem

TRIES = 2
"""Actors that may end while they do a file among others; then it is done alone, and is at fault after as many more."""
GIVE_UP_AFTER = 600.0
"""Seconds without any actor after which the run ends."""
_LOOK_EVERY = 2.0
"""Seconds between looks whether an actor that ended is back."""


class ActorEnded(Exception):
    """The actor, or its machine, ended before it answered; the message says why, as far as that is known."""


class Actor(Protocol):
    """A process that does files, and is started again where it ends."""

    async def do(self, step: Step) -> Done:
        """Do one step and return what was done. Raises ``ActorEnded``, ``CannotGoOn``."""
        ...

    async def is_ready(self) -> bool:
        """Return whether the process runs."""
        ...


class ClusterWorkers:
    """Several actors as one ``worker.FileWorker``. Belongs to one event loop."""

    def __init__(self, actors: Sequence[Actor], spare: Actor, database: RetryingDatabase, options: Options) -> None:
        """``actors``: each is sent ``options.jobs`` files at a time. ``spare``: does, one at a time, what others ended
        at. ``database``: where a file at which it ends too is noted.
        """
        self._spare, self._alone = spare, asyncio.Lock()
        self._database, self._owner = database, options.owner
        self._free: asyncio.Queue[Actor] = asyncio.Queue()
        for _ in range(options.jobs):
            for actor in actors:
                self._free.put_nowait(actor)
        self._places, self._lost = self._free.qsize(), 0
        self._returns: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> str:
        """Return what is waited for, for a person; empty while some actor runs."""
        return "no actor of the cluster runs; waiting for one" if self._lost == self._places else ""

    async def do(self, step: Step) -> Done:
        """Have an actor do ``step``, and another one where it ends meanwhile. Raises ``CannotGoOn``."""
        for _ in range(TRIES):
            actor = await self._next()
            try:
                done = await actor.do(step)
            except ActorEnded:
                self._await_return(actor)
                continue
            except BaseException:
                self._free.put_nowait(actor)
                raise
            self._free.put_nowait(actor)
            return done
        async with self._alone:
            return await self._do_alone(step)

    async def _next(self) -> Actor:
        waited = 0.0
        while True:
            getting = asyncio.ensure_future(self._free.get())
            try:
                done, _ = await asyncio.wait((getting,), timeout=_LOOK_EVERY)
            finally:
                if not getting.done():
                    getting.cancel()
            if done:
                return getting.result()
            waited = waited + _LOOK_EVERY if self.waiting else 0.0
            if waited > GIVE_UP_AFTER:
                raise CannotGoOn(f"No actor of the cluster has run for {GIVE_UP_AFTER:g} s.")

    def _await_return(self, actor: Actor) -> None:
        """Use ``actor`` again once it runs again."""
        self._lost += 1
        task = asyncio.create_task(self._return(actor))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _return(self, actor: Actor) -> None:
        await _until_ready(actor)
        self._lost -= 1
        self._free.put_nowait(actor)

    async def _do_alone(self, step: Step) -> Done:
        why = ""
        for _ in range(TRIES):
            try:
                return await self._spare.do(step)
            except ActorEnded as error:
                why = str(error)
                await _until_ready(self._spare)
        message = f"Each of the {2 * TRIES} processes that worked on this file ended, the last one alone with it: {why}"
        problem = Problem("read", ErrorCode.INTERNAL.value, message)
        await self._database.run(put_problem, self._owner, step.entry.uri, problem)
        return Done(problems=(problem,))

    async def close(self) -> None:
        """Stop waiting for actors."""
        for task in self._returns:
            task.cancel()
        await asyncio.gather(*self._returns, return_exceptions=True)


async def _until_ready(actor: Actor) -> None:
    while not await actor.is_ready():
        await asyncio.sleep(_LOOK_EVERY)
