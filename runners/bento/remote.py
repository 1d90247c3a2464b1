"""The runners as the gateway sees them: their processes behind the ``Runners`` protocol."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from errors import ErrorCode, ModelOnItsWay, ServiceError
from runners.bento.codec import Tasks
from runners.bento.memory_kills import MemoryKills
from runners.bento.transport import JobClient, RunnerFault
from runners.cancellation import gather_first_error
from runners.contract import Failure, LoadedModel, ModelState, PictureJob, Result, TextJob

log = logging.getLogger(__name__)

R = TypeVar("R")

_READY_WITHIN = 2.0
_REPLACED_WITHIN = 30.0
"""Seconds for which a service that was ready still counts as such while a process of it does not answer or looks for
its models: as long as another takes to take its place. Requests wait for it meanwhile."""
_ONCE_MORE_AFTER = 0.2
"""Seconds between the loss of a connection and the second try."""
_LOOK_EVERY = 0.5
"""Seconds between looks at a model that is on its way."""
_SILENT_AT_MOST = 60.0
"""Seconds without an answer of a process after which nobody waits any longer for a model that it was fetching."""
_OUT_OF_MEMORY = (
    "The kernel has just killed a process here for lack of memory: give the container or machine more, or choose "
    "smaller models."
)


class RemoteRunners:
    """``Runners`` over the runner processes."""

    def __init__(self, clients: Mapping[str, JobClient], tasks: Tasks) -> None:
        """``clients``: by the names of the tasks that the process answers; tasks that share a process share one."""
        self._clients = clients
        self._tasks = tasks
        self._watches: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Of models that are on their way, by task and name."""
        self._memory_kills = MemoryKills()
        self._last_ready = -math.inf
        """When all were last seen ready, by the monotonic clock."""

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
        models = {ask.task: ask.model for ask in job.asks}
        results = await self._ask(list(models), partial(client.picture, job))
        for task, result in results.items():
            if isinstance(result, Failure):
                _raise(result, task, models[task])
        return results

    async def text(self, task: str, job: TextJob) -> Result:
        """Run the task named ``task`` on a text. Errors as of ``picture``."""
        client = self._clients[task]
        result = await self._ask([task], partial(client.text, task, job))
        if isinstance(result, Failure):
            _raise(result, task, job.model)
        return result

    async def arrival(self, task: str, model: str) -> None:
        """Return once the process of ``task`` says that ``model`` is on its way no more, or has not answered for a
        minute.
        """
        key = (task, model)
        watch = self._watches.get(key)
        if watch is None:  # one for all who wait for this model
            watch = self._watches[key] = asyncio.create_task(self._watch(task, model))
            watch.add_done_callback(lambda _: self._watches.pop(key, None))
        await asyncio.wait((watch,))

    async def _watch(self, task: str, model: str) -> None:
        client, silent_since = self._clients[task], time.monotonic()
        while time.monotonic() - silent_since < _SILENT_AT_MOST:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                states = _states(await asyncio.wait_for(client.order("models"), _SILENT_AT_MOST))
            except (ConnectionError, asyncio.TimeoutError, RunnerFault) as error:
                log.debug("The process that runs %s does not say where %s is: %r", task, model, error)
                continue
            silent_since = time.monotonic()
            if not any((one.task, one.model, one.state) == (task, model, "on its way") for one in states):
                return

    async def models(self) -> Sequence[ModelState]:
        """Return the models that settings name or that were asked for, with whether their files are here."""
        return [state for states in await self._order_all("models") for state in _states(states)]

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the models in memory, by the tasks' names in the protocol."""
        return await self._models_of_all("loaded")

    async def in_memory(self) -> Sequence[LoadedModel]:
        """Return the models in memory of all processes."""
        return [LoadedModel(**one) for answer in await self._order_all("in_memory") for one in answer]

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        """Unload all models. Returns their names, by the tasks' names in the protocol."""
        return await self._models_of_all("unload")

    async def device(self) -> str:
        """Return what the models run on, each device once."""
        return ", ".join(dict.fromkeys(await self._order_all("device")))

    async def are_ready(self) -> bool:
        """Return whether every runner process answers within two seconds, and has the files of all models that
        settings name; or did so in the last 30 seconds, so that a process that takes another's place is no outage.
        """
        if await self._are_ready_now():
            self._last_ready = time.monotonic()
        return time.monotonic() - self._last_ready < _REPLACED_WITHIN

    async def _are_ready_now(self) -> bool:
        try:
            answers = await asyncio.wait_for(
                asyncio.gather(*(client.order("models") for client in self._processes())), _READY_WITHIN
            )
        except (ConnectionError, asyncio.TimeoutError, RunnerFault):
            return False
        return all(one.state == "here" for answer in answers for one in _states(answer) if one.named)

    async def close(self) -> None:
        """Close the connections to the runners."""
        for watch in list(self._watches.values()):
            watch.cancel()
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
                f"{_OUT_OF_MEMORY if self._memory_kills.lately() else 'Try again shortly.'}",
            ) from error
        except RunnerFault as error:
            log.error("%s failed: %s", who, error)
            raise ServiceError(ErrorCode.INTERNAL, f"{who} failed; its log has the details.") from error


def _raise(failure: Failure, task: str, model: str) -> None:
    """Raise ``failure`` of ``task``, which was to be run by ``model``."""
    if failure.code is ErrorCode.MODEL_ON_ITS_WAY:
        raise ModelOnItsWay(task, model, failure.message)
    failure.raise_()


def _states(answer: Any) -> Sequence[ModelState]:
    return [ModelState(**state) for state in answer]
