"""The runners as the gateway sees them: their processes behind the ``Runners`` protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from errors import ErrorCode, ServiceError
from runners.bento.codec import Tasks
from runners.bento.transport import JobClient, RunnerFault
from runners.cancellation import gather_first_error
from runners.contract import Failure, PictureJob, Result, TextJob

log = logging.getLogger(__name__)

R = TypeVar("R")

_READY_WITHIN = 2.0
_ONCE_MORE_AFTER = 0.2
"""Seconds between the loss of a connection and the second try."""


class RemoteRunners:
    """``Runners`` over the runner processes."""

    def __init__(self, clients: Mapping[str, JobClient], tasks: Tasks) -> None:
        """``clients``: by the names of the tasks that the process answers; tasks that share a process share one."""
        self._clients = clients
        self._tasks = tasks

    async def picture(self, job: PictureJob) -> Mapping[str, Result]:
        """Send ``job`` once to each process that has tasks of it. Returns the results by the names of the tasks.

        Raises ``ServiceError``: that of a task, or RUNNER_UNAVAILABLE, TIMEOUT, INTERNAL.
        """
        by_client: dict[JobClient, PictureJob] = {}
        for ask in job.asks:
            part = by_client.setdefault(self._clients[ask.task], replace(job, asks=()))
            by_client[self._clients[ask.task]] = replace(part, asks=(*part.asks, ask))
        answers = await gather_first_error([self._part(client, part) for client, part in by_client.items()])
        return {name: result for answer in answers for name, result in answer.items()}

    async def _part(self, client: JobClient, job: PictureJob) -> Mapping[str, Result]:
        tasks = [ask.task for ask in job.asks]
        results = await self._ask(tasks, partial(client.picture, job))
        for result in results.values():
            if isinstance(result, Failure):
                result.raise_()
        return results

    async def text(self, task: str, job: TextJob) -> Result:
        """Run the task named ``task`` on a text. Errors as of ``picture``."""
        client = self._clients[task]
        result = await self._ask([task], partial(client.text, task, job))
        if isinstance(result, Failure):
            result.raise_()
        return result

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the models in memory, by the tasks' names in the protocol."""
        return await self._models_of_all("loaded")

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        """Unload all models. Returns their names, by the tasks' names in the protocol."""
        return await self._models_of_all("unload")

    async def device(self) -> str:
        """Return what the models run on, each device once."""
        return ", ".join(dict.fromkeys(await self._order_all("device")))

    async def are_ready(self) -> bool:
        """Return whether every runner process answers within two seconds."""
        try:
            await asyncio.wait_for(
                asyncio.gather(*(client.order("loaded") for client in self._processes())), _READY_WITHIN
            )
        except (ConnectionError, asyncio.TimeoutError, RunnerFault):
            return False
        return True

    async def close(self) -> None:
        """Close the connections to the runners."""
        for client in self._processes():
            await client.close()

    def _processes(self) -> dict[JobClient, list[str]]:
        """Return the clients, each once, with the names of the tasks of their process."""
        found: dict[JobClient, list[str]] = {}
        for task, client in self._clients.items():
            found.setdefault(client, []).append(task)
        return found

    async def _order_all(self, order: str) -> Sequence[Any]:
        """Return what every process answers to ``order``."""
        processes = self._processes().items()
        return await asyncio.gather(*(self._ask(tasks, partial(client.order, order)) for client, tasks in processes))

    async def _models_of_all(self, order: str) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for answer in await self._order_all(order):
            for task, models in answer.items():
                entry = self._tasks[task].entry
                found[entry] = tuple(dict.fromkeys((*found.get(entry, ()), *models)))
        return found

    async def _ask(self, tasks: Sequence[str], call: Callable[[], Awaitable[R]]) -> R:
        """Return what a process answers to ``call``; call once more where its connection is lost, as jobs have no side
        effects: the process that was started in place of one that died takes the second.

        ``tasks``: those asked for, for messages. Raises ``ServiceError``.
        """
        who = f"The process that runs {', '.join(tasks)}"
        try:
            try:
                return await call()
            except ConnectionError as error:
                log.warning("%s did not answer (%s); it is asked once more.", who, error)
            await asyncio.sleep(_ONCE_MORE_AFTER)
            return await call()
        except asyncio.TimeoutError as error:
            raise ServiceError(ErrorCode.TIMEOUT, f"{who} did not answer in time.") from error
        except ConnectionError as error:
            log.warning("%s did not answer: %s", who, error)
            raise ServiceError(
                ErrorCode.RUNNER_UNAVAILABLE,
                f"{who} went away while it worked on this request, twice; it is being started again. "
                "Try again shortly.",
            ) from error
        except RunnerFault as error:
            log.error("%s failed: %s", who, error)
            raise ServiceError(ErrorCode.INTERNAL, f"{who} failed; its log has the details.") from error
