"""The entry service's connections to its runners: what it depends on, and the clients that it asks by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import bentoml
import orjson

from runners.bento.remote import RemoteRunners
from runners.bento.transport import JobClient
from runners.tasks import tasks_by_name
from settings import Settings

T = TypeVar("T")


def depends_on(services: Mapping[str, Any]) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that makes a BentoML service depend on ``services`` (by task).

    Those that share a process share one dependency, under the name of their service.
    """

    def add(inner: type[T]) -> type[T]:
        for service in {service.name: service for service in services.values()}.values():
            setattr(inner, service.name, bentoml.depends(service))
        return inner

    return add


async def connect_runners(entry: object, services: Mapping[str, Any], config: Settings) -> RemoteRunners:
    """Return the runners that the instance ``entry`` of the entry service depends on. ``services``: by task.

    Each listens where BentoML says (``Service.url``). With ``bentoml serve --development`` it says nothing, since all
    run in one process: there the runners are begun here, and asked directly.
    """
    tasks = tasks_by_name(config.extra_tasks)
    clients: dict[str, Any] = {}
    for service in {service.name: service for service in services.values()}.values():
        if service.url is not None:
            clients[service.name] = JobClient(service.url, tasks, timeout=config.request_timeout + 60)
        else:
            clients[service.name] = LocalJobs(getattr(entry, service.name))
            await clients[service.name].begin()
    return RemoteRunners({task: clients[service.name] for task, service in services.items()}, tasks)


class LocalJobs:
    """Stands in for a ``JobClient`` where the runner lives in this process."""

    def __init__(self, runner_service: Any) -> None:
        self._service = runner_service
        self.picture = runner_service.picture
        self.text = runner_service.text

    async def begin(self) -> None:
        """Begin what BentoML begins in a runner's own process."""
        await self._service.begin_inside()

    async def order(self, name: str) -> Any:
        """Return the answer to an order of ``transport.Process``, as JSON would bring it."""
        return orjson.loads(orjson.dumps(await getattr(self._service, name)()))

    async def close(self) -> None:
        """End the runner."""
        await self._service.end()
