"""The runners as the gateway sees them: their processes behind the ``Runners`` protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, cast

import aiohttp
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from errors import ErrorCode, ServiceError
from models.catalog import Task
from runners.bento.transport import JobClient
from runners.contract import Embedding, Faces, Failure, ImageJob, TextJob, TextLines

log = logging.getLogger(__name__)

R = TypeVar("R")

_READY_WITHIN = 2.0
_TASKS = {"clip_image": Task.CLIP, "clip_text": Task.CLIP, "faces": Task.FACES, "ocr": Task.OCR}


class RemoteRunners:
    """``Runners`` over the runner processes: jobs by our own clients, what concerns a whole process by BentoML's."""

    def __init__(self, proxies: Mapping[str, Any], clients: Mapping[str, JobClient]) -> None:
        """BentoML's proxy, and the client for jobs, by runner name (``clip_image``, ``clip_text``, ``faces``,
        ``ocr``).
        """
        self._proxies = proxies
        self._clients = clients

    async def clip_image(self, job: ImageJob) -> Embedding:
        return cast(Embedding, await self._ask("clip_image", job))

    async def clip_text(self, job: TextJob) -> Embedding:
        return cast(Embedding, await self._ask("clip_text", job))

    async def faces(self, job: ImageJob) -> Faces:
        return cast(Faces, await self._ask("faces", job))

    async def ocr(self, job: ImageJob) -> TextLines:
        return cast(TextLines, await self._ask("ocr", job))

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        return await self._models_of_all("loaded")

    async def unload_models(self) -> Mapping[str, tuple[str, ...]]:
        return await self._models_of_all("unload")

    async def device(self) -> str:
        devices = await asyncio.gather(*(self._call(name, proxy.device()) for name, proxy in self._processes().items()))
        return ", ".join(dict.fromkeys(devices))

    async def are_ready(self) -> bool:
        """Whether every runner process answers within two seconds."""
        try:
            await asyncio.wait_for(
                asyncio.gather(*(proxy.loaded() for proxy in self._processes().values())), _READY_WITHIN
            )
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError, BentoMLException):
            return False
        return True

    async def close(self) -> None:
        """Close the connections to the runners."""
        for client in set(self._clients.values()):
            await client.close()

    def _processes(self) -> dict[str, Any]:
        """One proxy per process, by the names of its runners: those that share a process share theirs."""
        names: dict[int, list[str]] = {}
        for runner, proxy in self._proxies.items():
            names.setdefault(id(proxy), []).append(runner)
        return {", ".join(runners): self._proxies[runners[0]] for runners in names.values()}

    async def _models_of_all(self, method: str) -> Mapping[str, tuple[str, ...]]:
        """What ``method`` of every runner process answers: names of models, by task."""
        answers = await asyncio.gather(
            *(self._call(name, getattr(proxy, method)()) for name, proxy in self._processes().items())
        )
        found: dict[str, tuple[str, ...]] = {}
        for answer in answers:
            for runner, models in answer.items():
                task = _TASKS[runner].value
                found[task] = tuple(dict.fromkeys((*found.get(task, ()), *models)))
        return found

    async def _call(self, name: str, call: Awaitable[Any]) -> Any:
        """What a runner process answers to ``call``. ``name``: the process, for messages. Raises ``ServiceError``."""
        try:
            return await call
        except asyncio.TimeoutError as error:  # first, because aiohttp's own timeouts are ClientErrors too
            raise ServiceError(ErrorCode.TIMEOUT, f"The process that runs {name} did not answer in time.") from error
        except (aiohttp.ClientError, ConnectionError, ServiceUnavailable) as error:
            log.warning("The process of %s did not answer: %r", name, error)
            raise ServiceError(
                ErrorCode.RUNNER_UNAVAILABLE,
                f"The process that runs {name} went away while it worked on this request; it is being started again. "
                "Try again shortly.",
            ) from error
        except BentoMLException as error:
            raise ServiceError(
                ErrorCode.INTERNAL, f"The process that runs {name} failed; its log has the details."
            ) from error

    async def _ask(self, runner: str, job: ImageJob | TextJob) -> Any:
        result = await self._call(runner, self._clients[runner].submit(runner, job))
        if isinstance(result, Failure):
            result.raise_()
        return result
