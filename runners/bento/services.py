"""The runners as BentoML services: one thin class per runner, packed into processes as ``RUNNER_PROCESSES`` says."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

import bentoml
from bentoml import server_context

import metrics
from models.catalog import Catalog, load_catalog
from runners.allocator import configure_allocator
from runners.bento.empty_answers import AlwaysAnswered
from runners.bento.stop import stop_when_idle
from runners.bento.stuck import end_if_stuck
from runners.bento.transport import JOBS, JobApp, RunnerDoor, untraced
from runners.contract import Failure, LoadedModel, ModelState, PictureJob, Result, TextJob
from runners.engine import plan_engine, trim_idle_sessions
from runners.engine.threads import keep_opencv_to_the_calling_thread
from runners.local import make_runners
from runners.model_cache import give_memory_back
from runners.runner import run_picture
from runners.task import Loading, Task
from runners.tasks import tasks_by_name
from settings import Settings, settings

log = logging.getLogger(__name__)

_TRIM_AFTER = 10.0
"""Seconds without work after which a model's session is trimmed. Its next use then takes OCR 0.3 to 0.5 s longer and
faces or CLIP's image half 0.15 s, as much as a picture: too much for each of those that a phone uploads every few
seconds."""
_LOOK_EVERY = 1.0
"""Seconds between looks at what is idle."""


def _preloads(task: Task[Any], config: Settings, catalog: Catalog) -> tuple[str, ...]:
    """Return the models that ``task`` loads at the start, by the names that requests come under.

    A model that answers whatever is asked for (``CLIP_MODEL``, …) stands for the names given. All names are known: the
    service does not start otherwise.
    """
    wanted, override = task.preload(config), task.override(config)
    chosen = (override,) if override and wanted else wanted
    return tuple(dict.fromkeys(task.find(catalog, name) for name in chosen))


def _named(task: Task[Any], config: Settings, catalog: Catalog) -> str | None:
    """Return the model that the settings have answer whatever ``task`` is asked for; None where there is none, or where
    only an upstream is asked.
    """
    name = task.override(config)
    if not name or (task.route(config) == "upstream" and not config.upstream_fallback):
        return None
    return task.find(catalog, name)


def _log_failure(task: asyncio.Task[None]) -> None:
    """Log the exception that a background task ended with, when it does."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("%s failed: %r", task.get_name(), error, exc_info=error)


class RunnerService:
    """The parts of every runner process: its runners, the clock that unloads idle models, and a graceful end."""

    tasks: ClassVar[tuple[Task[Any], ...]] = ()
    position: ClassVar[int] = 0
    """Number of the process among the runner processes: GPUs are dealt out by it."""
    nice: ClassVar[bool] = True
    jobs: ClassVar[JobApp]

    def __init__(self) -> None:
        config = settings()
        configure_allocator()
        keep_opencv_to_the_calling_thread()
        plan = plan_engine(config, position=self.position)
        self._catalog = load_catalog(config.model_catalog)
        using = Loading(self._catalog, config, plan)
        self.runners = make_runners(self.tasks, using)
        self.jobs.process = self
        self._background: list[asyncio.Task[None]] = []
        self._stop_watching: Callable[[], None] = lambda: None
        # With `bentoml serve --development` this is not a process of its own, and the gateway must keep its priority.
        if self.nice and config.runner_nice and server_context.service_name == type(self).__name__:
            os.nice(config.runner_nice)
        self._device = plan.device
        metrics.forget_dead_processes()
        run = "runs" if len(self.runners) == 1 else "run"
        log.info("%s %s on %s with %d threads.", ", ".join(self.runners), run, plan.device, plan.threads)

    @bentoml.on_startup
    async def begin(self) -> None:
        """Begin as a process of its own, which obeys signals."""
        config = settings()
        self._stop_watching = end_if_stuck(config.stuck_after)
        await self.begin_inside(stop_when_idle(config.shutdown_timeout, longest_request=config.request_timeout + 60))

    async def begin_inside(self, end_if_idle: Callable[[], bool] = lambda: False) -> None:
        """Begin fetching, loading and unloading models.

        ``end_if_idle`` ends the process if it can, and says whether it will.
        """
        config = settings()
        for task in self.tasks:
            runner, preloads = self.runners[task.name], _preloads(task, config, self._catalog)
            for model in preloads:
                self._in_background(runner.preload(model), f"{task.name}: loading {model} at the start")
            named = _named(task, config, self._catalog)
            if named is not None and named not in preloads:
                self._in_background(runner.bring(named), f"{task.name}: fetching {named} at the start")
        self._in_background(self._trim(end_if_idle), "trimming idle models")
        if config.model_ttl:
            self._in_background(self._unload_idle(config.model_ttl_poll_s), "unloading idle models")

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_failure)
        self._background.append(task)

    async def _trim(self, end_if_idle: Callable[[], bool]) -> None:
        """Trim idle models, end the process for a fresh one once all are unloaded, and keep the metrics of files up to
        date.

        Libraries keep 40 to 80 MB for as long as their process lives.
        """
        had_models = False
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if await asyncio.to_thread(trim_idle_sessions, _TRIM_AFTER):
                await asyncio.to_thread(give_memory_back, cycles=False)
            states = await self.models()
            for state in states:
                metrics.tell_model(state.task, state.model, state.state, state.percent)
            has_models = any(runner.loaded() for runner in self.runners.values())
            if any(state.state == "on its way" for state in states):
                continue
            if had_models and not has_models and end_if_idle():
                log.info("%s: nothing is loaded any more; a fresh process takes over.", ", ".join(self.runners))
                return
            had_models = had_models or has_models

    async def _unload_idle(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for runner in self.runners.values():
                await asyncio.to_thread(runner.unload_idle)

    @bentoml.on_shutdown
    async def end(self) -> None:
        """End what runs in the background and close the models, each whatever became of the others."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for name, runner in self.runners.items():
            try:
                await asyncio.to_thread(runner.close)
            except Exception:  # the others are to be closed all the same
                log.exception("%s could not be closed.", name)
        self._stop_watching()

    async def picture(self, job: PictureJob) -> dict[str, Result | Failure]:
        """Run all tasks of ``job``. Returns what became of each, by its name."""
        return await run_picture(self.runners, job)

    async def text(self, task: str, job: TextJob) -> Result | Failure:
        """Run the task named ``task`` on a text."""
        return await self.runners[task].submit(job)

    async def models(self) -> list[ModelState]:
        """Return the models that settings name or that were asked for, with whether their files are here."""
        return [state for runner in self.runners.values() for state in runner.states()]

    async def loaded(self) -> dict[str, list[str]]:
        """Return the models in memory, by the names of their tasks."""
        return {name: list(runner.loaded()) for name, runner in self.runners.items()}

    async def in_memory(self) -> list[LoadedModel]:
        """Return the models in memory, with what computes them and how much memory they took."""
        return [model for runner in self.runners.values() for model in runner.in_memory()]

    async def device(self) -> str:
        """Return what the models run on: ``cpu``, ``cuda`` or ``openvino``."""
        return self._device

    async def unload(self) -> dict[str, list[str]]:
        """Unload all models that are free, the others as soon as they are. Returns them by the names of their tasks."""
        return {name: await asyncio.to_thread(runner.unload_all) for name, runner in self.runners.items()}


def runner_services(config: Settings, *, shared: bool) -> dict[str, Any]:
    """Return the BentoML services to run, by the names of their tasks; tasks that share a process share a service.

    ``shared``: all tasks on pictures in one process, so that only text, which has its own, never waits behind them.
    """
    layout: dict[str, list[Task[Any]]] = {}
    for task in tasks_by_name(config.extra_tasks).values():
        process = "PictureRunner" if shared and task.input == "picture" else task.process
        layout.setdefault(process, []).append(task)
    services = {}
    for position, (name, tasks) in enumerate(layout.items()):
        service = _service(name, tasks, position, config)
        services.update({task.name: service for task in tasks})
    return services


def _service(name: str, tasks: Iterable[Task[Any]], position: int, config: Settings) -> Any:
    tasks = tuple(tasks)
    inner: type[RunnerService] = type(
        name,
        (RunnerService,),
        {
            "tasks": tasks,
            "position": position,
            "nice": any(task.input == "picture" for task in tasks),
            "jobs": JobApp(tasks_by_name(config.extra_tasks)),
            "__module__": __name__,
        },
    )
    service = bentoml.service(
        name=name,
        workers=1,
        traffic={"timeout": config.request_timeout + 60},
        logging={"access": {"enabled": False}},
        metrics={"enabled": False},  # BentoML's own, of what the gateway counts already; ours are not its business
        **untraced(),
    )(bentoml.asgi_app(AlwaysAnswered(inner.jobs), path=JOBS)(inner))
    service.add_asgi_middleware(RunnerDoor)
    return service
