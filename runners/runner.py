"""A runner: one task's models, loaded when needed, each with its own queue; and the runners of a process. Imports no
BentoML.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import psutil

import metrics
from errors import ErrorCode, ServiceError
from runners.arrivals import Arrivals
from runners.batching import Batcher, Unfinished
from runners.cancellation import gather_first_error
from runners.contract import Failure, ImageJob, LoadedModel, ModelState, PictureJob, Result, TextJob
from runners.engine.lanes import working
from runners.engine.session_notes import noted_sessions
from runners.model_cache import ModelCache
from runners.pictures.pixels import shared_pixels
from runners.turns import CoreTurns

log = logging.getLogger(__name__)

J_contra = TypeVar("J_contra", ImageJob, TextJob, contravariant=True)
J = TypeVar("J", ImageJob, TextJob)
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Model(Protocol[J_contra, R_co]):
    """A loaded model: a batch of jobs in, one result or failure each out, or what is left of a long job."""

    def run(self, jobs: Sequence[J_contra]) -> Sequence[R_co | Failure | Unfinished[Any]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """The limits of one runner."""

    max_batch: int
    model_ttl: float
    """Seconds without use after which a model is unloaded; 0: never."""
    retry_after: float
    """Seconds after which a model that could not be loaded is tried again."""
    turns: CoreTurns
    """Shared by the runners of a process: how many of their batches may compute at the same time."""


class Runner(Generic[J, R]):
    """Answers the jobs of one task. One batcher and one thread per model, so that a model that loads holds up no
    other.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[str], Model[J, R]],
        limits: RunnerLimits,
        *,
        lanes: int = 1,
        decodes_whole: bool = True,
        arrivals: Arrivals | None = None,
    ) -> None:
        """``name``: for logs and metrics. ``load``: a model by its catalog name; raises ``ServiceError``.

        ``lanes``: batches of one model that compute at the same time. ``decodes_whole``: as of ``runners.task.Task``.
        ``arrivals``: of the files that ``load`` needs; None where it fetches whatever it does.
        """
        self.name = name
        self.decodes_whole = decodes_whole
        self.arrivals = arrivals
        self._lanes = lanes
        self._limits = limits
        self._load: Callable[[str], Model[J, R]] = load
        self._facts: dict[str, LoadedModel] = {}
        self._cache: ModelCache[Model[J, R]] = ModelCache(
            self._noted_load, lambda model: model.close(), ttl=limits.model_ttl, retry_after=limits.retry_after
        )
        self._batchers: dict[str, Batcher[J, R | Failure]] = {}
        self._threads: list[ThreadPoolExecutor] = []

    async def submit(self, job: J) -> R | Failure:
        """Return what becomes of one job. Never raises for the job's sake: all that goes wrong is a ``Failure``."""
        lack = await self.lack(job.model)
        if lack is not None:
            return lack
        try:
            return await self._batcher(job.model).submit(job)
        except ServiceError as error:
            return Failure(error.code, error.message)
        except Exception:
            log.exception("%s: a job under %s failed", self.name, job.model)
            return Failure(
                ErrorCode.INTERNAL,
                f"{self.name} failed on this input under {job.model}. This is a fault of the service; its log has the "
                "details.",
            )

    def is_ready(self, model: str) -> bool:
        """Return whether jobs of ``model`` need no look for its files: it is in memory, or ``load`` gets them."""
        return self.arrivals is None or self._cache.holds(model)

    async def lack(self, model: str) -> Failure | None:
        """Return None if jobs of ``model`` can be run as far as its files go, else why not (``Arrivals.lack``)."""
        if self.arrivals is None or self.is_ready(model):
            return None
        return await self.arrivals.lack(model)

    def _batcher(self, model: str) -> Batcher[J, R | Failure]:
        batcher = self._batchers.get(model)
        if batcher is None:
            thread = ThreadPoolExecutor(max_workers=self._lanes, thread_name_prefix=f"{self.name}-{model}")
            self._threads.append(thread)
            batcher = self._batchers[model] = Batcher(
                lambda jobs: self._run(model, jobs),
                max_batch=self._limits.max_batch,
                executor=thread,
                lanes=self._lanes,
                cost=lambda job: job.cost if isinstance(job, ImageJob) else 1.0,
                on_batch=lambda size: metrics.BATCH_SIZE.labels(self.name).observe(size),
            )
        return batcher

    def _run(self, name: str, jobs: Sequence[J]) -> Sequence[R | Failure | Unfinished[J]]:
        with ExitStack() as lease:
            try:
                model = lease.enter_context(self._cache.lease(name))
            except ServiceError as error:  # the model cannot be had: each of its jobs is told so
                return [Failure(error.code, error.message)] * len(jobs)
            self._count()
            with self._limits.turns, working():
                return model.run(jobs)

    async def bring(self, name: str) -> None:
        """Have the files of ``name``, which a setting names, on this machine, however long that takes."""
        if self.arrivals is not None:
            await self.arrivals.bring(name)

    async def preload(self, name: str) -> None:
        """Load ``name`` once its files are here, and keep it however idle it is. A failure is logged; the next request
        tries again.
        """
        await self.bring(name)
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._cache.pin, name)
            log.info("%s: %s is loaded.", self.name, name)
        except ServiceError as error:
            log.error("%s: %s could not be loaded at start: %s", self.name, name, error.message)
        except Exception:  # a fault of ours; it must end neither the start nor, later, the stop of the other runners
            log.exception("%s: %s could not be loaded at start", self.name, name)
        self._count()

    def states(self) -> list[ModelState]:
        """Return the models that were named or asked for, with whether their files are here."""
        return self.arrivals.states() if self.arrivals is not None else []

    def loaded(self) -> tuple[str, ...]:
        """Return the names of the models in memory."""
        return self._cache.loaded()

    def in_memory(self) -> list[LoadedModel]:
        """Return the models in memory, with what computes them and how much memory they took."""
        return [self._facts[name] for name in self._cache.loaded() if name in self._facts]

    def _noted_load(self, name: str) -> Model[J, R]:
        before = _memory()
        with noted_sessions() as sessions:
            model = self._load(name)
        engines, precisions = (
            " + ".join(dict.fromkeys(part)) for part in (zip(*sessions, strict=True) if sessions else ("", ""))
        )
        self._facts[name] = LoadedModel(self.name, name, engines, precisions, max(0, _memory() - before))
        return model

    def unload_idle(self) -> list[str]:
        """Unload what was not used for ``model_ttl`` seconds."""
        return self._after_unloading(self._cache.unload_idle())

    def unload_all(self) -> list[str]:
        """Unload everything, what is in use as soon as it is free."""
        return self._after_unloading(self._cache.unload_all())

    def _after_unloading(self, names: list[str]) -> list[str]:
        if names:
            log.info("%s: unloaded %s.", self.name, ", ".join(names))
            self._count()
        return names

    def _count(self) -> None:
        metrics.MODELS_LOADED.labels(self.name).set(len(self._cache.loaded()))

    def close(self) -> None:
        """Stop the threads (what runs is finished) and free the models."""
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)
        self.unload_all()


def _memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(psutil.Process().memory_info().rss)


async def run_picture(runners: Mapping[str, Runner[ImageJob, Any]], job: PictureJob) -> dict[str, Result | Failure]:
    """Run all tasks of ``job`` at the same time on the runners of their names, which share one decoded picture.

    Returns what became of each, by the name of its task. Where models of some are on their way, none is run, and only
    those are returned. Cancelled, it runs no task whose batch has not begun.
    """
    asked = [runners[ask.task] for ask in job.asks]
    away = [(runner, ask.model) for runner, ask in zip(asked, job.asks, strict=True) if not runner.is_ready(ask.model)]
    lacks = await gather_first_error([runner.lack(model) for runner, model in away])
    missing = {
        runner.name: lack
        for (runner, _), lack in zip(away, lacks, strict=True)
        if lack is not None and lack.code is ErrorCode.MODEL_ON_ITS_WAY
    }
    if missing:
        return missing
    readers = sum(runner.decodes_whole for runner in asked)
    with shared_pixels(job.data, upright=job.upright, readers=readers) as shared:
        jobs = [ImageJob(job.data, ask.model, ask.options, job.upright, shared, ask.cost) for ask in job.asks]
        results = await gather_first_error([runner.submit(one) for runner, one in zip(asked, jobs, strict=True)])
    return {runner.name: result for runner, result in zip(asked, results, strict=True)}
