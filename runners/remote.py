"""The runners as the gateway sees them: BentoML's proxies behind the ``Runners`` protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import aiohttp
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from errors import ErrorCode, ServiceError
from models.catalog import Task
from runners.contract import Embedding, Faces, Failure, ImageJob, TextJob, TextLines
from runners.services import Parcel

log = logging.getLogger(__name__)

R = TypeVar("R")

_READY_WITHIN = 2.0
_TASKS = {"clip_image": Task.CLIP, "clip_text": Task.CLIP, "faces": Task.FACES, "ocr": Task.OCR}


class RemoteRunners:
    """``Runners`` over BentoML's clients, one per runner process."""

    def __init__(self, proxies: Mapping[str, Any]) -> None:
        """``proxies``: BentoML's proxy by runner name (``clip_image``, ``clip_text``, ``faces``, ``ocr``)."""
        self._proxies = proxies

    async def clip_image(self, job: ImageJob) -> Embedding:
        return cast(Embedding, await self._ask("clip_image", job))

    async def clip_text(self, job: TextJob) -> Embedding:
        return cast(Embedding, await self._ask("clip_text", job))

    async def faces(self, job: ImageJob) -> Faces:
        return cast(Faces, await self._ask("faces", job))

    async def ocr(self, job: ImageJob) -> TextLines:
        return cast(TextLines, await self._ask("ocr", job))

    async def loaded_models(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for proxy in self._processes():
            for runner, models in (await proxy.loaded()).items():
                task = _TASKS[runner].value
                found[task] = tuple(dict.fromkeys((*found.get(task, ()), *models)))
        return found

    async def are_ready(self) -> bool:
        """Whether every runner process answers within two seconds."""
        try:
            await asyncio.wait_for(asyncio.gather(*(proxy.loaded() for proxy in self._processes())), _READY_WITHIN)
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError, BentoMLException):
            return False
        return True

    def _processes(self) -> list[Any]:
        """One proxy per process: runners that share a process share theirs."""
        return list({id(proxy): proxy for proxy in self._proxies.values()}.values())

    async def _ask(self, runner: str, job: ImageJob | TextJob) -> Any:
        try:
            parcel = await getattr(self._proxies[runner], runner)(Parcel(job))
        except (aiohttp.ClientError, ConnectionError, ServiceUnavailable) as error:
            log.warning("The %s runner did not answer: %r", runner, error)
            raise ServiceError(
                ErrorCode.RUNNER_UNAVAILABLE,
                f"The process that runs {runner} went away while it worked on this request; it is being started again. Try again shortly.",
            ) from error
        except asyncio.TimeoutError as error:
            raise ServiceError(ErrorCode.TIMEOUT, f"The {runner} runner did not answer in time.") from error
        except BentoMLException as error:
            raise ServiceError(ErrorCode.INTERNAL, f"The {runner} runner failed; its log has the details.") from error
        result = parcel.content
        if isinstance(result, Failure):
            result.raise_()
        return result
