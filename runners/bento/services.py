"""The runners as BentoML services: one thin class per runner, packed into processes as ``RUNNER_PROCESSES`` says."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import bentoml
from bentoml import server_context

import metrics
from errors import ServiceError
from models.catalog import Catalog, Task, load_catalog
from models.resolve import resolve
from runners.bento.stop import stop_when_idle
from runners.bento.transport import JOBS, CloseEachConnection, JobApp, untraced
from runners.contract import Embedding, Faces, ImageJob, TextJob, TextLines
from runners.engine import EnginePlan, Exactness, Session, open_session, plan_engine, trim_idle_sessions
from runners.engine.allocator import configure_allocator
from runners.engine.lanes import lanes_of
from runners.engine.threads import available_cores
from runners.model_cache import give_memory_back
from runners.runner import Model, Runner, RunnerLimits
from settings import Settings, names, settings

log = logging.getLogger(__name__)

_REST_AFTER = 10.0
"""Seconds without work after which a model rests. Waking takes OCR 0.3 to 0.5 s and faces 0.15 s, as much as a picture:
too much for each of those that a phone uploads every few seconds."""
_LOOK_EVERY = 1.0
"""Seconds between looks at what is idle."""


@dataclass(frozen=True)
class Loading:
    """What loading a model takes, whichever it is."""

    catalog: Catalog
    settings: Settings
    plan: EnginePlan

    def open(
        self, path: Path, *, exact: Exactness = "as planned", laned: bool = False, best_class: bool = False
    ) -> Session:
        return open_session(path, self.plan, exact=exact, laned=laned, best_class=best_class)


def _load_clip_image(name: str, using: Loading) -> Model[ImageJob, Embedding]:
    from runners.clip import load_clip_image

    entry = using.catalog.find(Task.CLIP, name)
    files = resolve(entry, using.settings, "visual")
    return load_clip_image(entry.family, files, using.open, max_pixels=using.settings.max_picture_pixels)


def _load_clip_text(name: str, using: Loading) -> Model[TextJob, Embedding]:
    from runners.clip import load_clip_text

    entry = using.catalog.find(Task.CLIP, name)
    return load_clip_text(entry.name, entry.family, resolve(entry, using.settings, "textual"), using.open)


def _load_faces(name: str, using: Loading) -> Model[ImageJob, Faces]:
    from runners.faces import load_faces

    files = resolve(using.catalog.find(Task.FACES, name), using.settings)

    def open_exactly(path: Path) -> Session:
        # In bf16 the detector's landmarks move by tenths of a pixel, and the vectors of faces cut out by them to a
        # cosine of 0.989.
        return using.open(path, exact="all" if path == files["detection/model.onnx"] else "start", laned=True)

    return load_faces(files, open_exactly, max_pixels=using.settings.max_picture_pixels)


def _load_ocr(name: str, using: Loading) -> Model[ImageJob, TextLines]:
    from runners.ocr import load_ocr

    files = resolve(using.catalog.find(Task.OCR, name), using.settings)
    return load_ocr(files, partial(using.open, laned=True), max_pixels=using.settings.max_picture_pixels)


# What a family needs is imported when its first model is loaded: an idle process stays small.
_LOADERS: dict[str, Callable[..., Model[Any, Any]]] = {
    "clip_image": _load_clip_image,
    "clip_text": _load_clip_text,
    "faces": _load_faces,
    "ocr": _load_ocr,
}


_LANED = ("faces", "ocr")
"""Runners of small graphs, of which each batch gets a thread where there are several."""


def _lanes(runner: str, plan: EnginePlan) -> int:
    return lanes_of(plan.threads) if runner in _LANED and plan.device == "cpu" else 1


def _preloads(config: Settings, catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Which models each runner loads at start, by the names that requests come under: the catalog's, not its aliases.

    A CLIP_MODEL, RECOGNITION_MODEL or OCR_MODEL stands for the name given. Names that the catalog does not know are
    logged and left out.
    """
    preload = config.preload
    asked = {
        "clip_image": (Task.CLIP, names(preload.clip.visual), config.clip_model),
        "clip_text": (Task.CLIP, names(preload.clip.textual), config.clip_model),
        "faces": (
            Task.FACES,
            names(preload.facial_recognition.detection, preload.facial_recognition.recognition),
            config.recognition_model,
        ),
        "ocr": (Task.OCR, names(preload.ocr.detection, preload.ocr.recognition), config.ocr_model),
    }
    found: dict[str, dict[str, None]] = {runner: {} for runner in asked}
    for runner, (task, wanted, override) in asked.items():
        for name in (override,) if override and wanted else wanted:
            try:
                found[runner][catalog.find(task, name).name] = None
            except ServiceError as error:
                log.error("%s: %s could not be loaded at start: %s", runner, name, error.message)
    return {runner: tuple(models) for runner, models in found.items()}


def _log_failure(task: asyncio.Task[None]) -> None:
    """Log the exception that a background task ended with, when it does."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("%s failed: %r", task.get_name(), error, exc_info=error)


class RunnerService:
    """What every runner process has: its runners, the clock that unloads idle models, and a graceful end."""

    runner_names: ClassVar[tuple[str, ...]] = ()
    position: ClassVar[int] = 0
    """Number of the process among the runner processes: GPUs are dealt out by it."""
    nice: ClassVar[bool] = True
    jobs: ClassVar[JobApp]

    def __init__(self) -> None:
        config = settings()
        configure_allocator()
        plan = plan_engine(config, position=self.position)
        limits = RunnerLimits(
            max_batch=config.max_batch,
            model_ttl=config.model_ttl,
            retry_after=config.model_retry_after,
            turns=threading.Semaphore(config.request_threads or available_cores()),
        )
        self._catalog = load_catalog(config.model_catalog)
        using = Loading(self._catalog, config, plan)
        self.runners: dict[str, Runner[Any, Any]] = {
            name: Runner(name, partial(_LOADERS[name], using=using), limits, lanes=_lanes(name, plan))
            for name in self.runner_names
        }
        self.jobs.runners = self.runners
        self._background: list[asyncio.Task[None]] = []
        # With `bentoml serve --development` this is not a process of its own, and the gateway is not to be nice.
        if self.nice and config.runner_nice and server_context.service_name == type(self).__name__:
            os.nice(config.runner_nice)
        self._device = plan.device
        metrics.forget_dead_processes()
        log.info("%s computes on %s with %d threads.", ", ".join(self.runner_names), plan.device, plan.threads)

    @bentoml.on_startup
    async def begin(self) -> None:
        """Begin as a process of its own, which obeys signals."""
        config = settings()
        await self.begin_inside(stop_when_idle(config.shutdown_timeout, longest_request=config.request_timeout + 60))

    async def begin_inside(self, end_if_idle: Callable[[], bool] = lambda: False) -> None:
        """Begin loading and unloading models. ``end_if_idle`` ends the process if it can, and says whether it will."""
        config = settings()
        preloads = _preloads(config, self._catalog)
        for name, runner in self.runners.items():
            for model in preloads[name]:
                self._in_background(runner.preload(model), f"{name}: loading {model} at the start")
        self._in_background(self._be_small(end_if_idle), "making room")
        if config.model_ttl:
            self._in_background(self._unload_idle(config.model_ttl_poll_s), "unloading idle models")

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_failure)
        self._background.append(task)

    async def _be_small(self, end_if_idle: Callable[[], bool]) -> None:
        """Let idle models rest; and make room for a fresh process once all are unloaded.

        Libraries keep 40 to 80 MB for as long as their process lives.
        """
        had_models = False
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if await asyncio.to_thread(trim_idle_sessions, _REST_AFTER):
                await asyncio.to_thread(give_memory_back, cycles=False)
            has_models = any(runner.loaded() for runner in self.runners.values())
            if had_models and not has_models and end_if_idle():
                log.info("%s: nothing is loaded any more; a fresh process takes over.", ", ".join(self.runner_names))
                return
            had_models = had_models or has_models

    async def _unload_idle(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for runner in self.runners.values():
                await asyncio.to_thread(runner.unload_idle)

    @bentoml.on_shutdown
    async def end(self) -> None:
        """End what runs in the background, whatever became of it, and close the models."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for runner in self.runners.values():
            await asyncio.to_thread(runner.close)

    @bentoml.api
    async def loaded(self) -> dict[str, list[str]]:
        return {name: list(runner.loaded()) for name, runner in self.runners.items()}

    @bentoml.api
    async def device(self) -> str:
        return self._device

    @bentoml.api
    async def unload(self) -> dict[str, list[str]]:
        return {name: await asyncio.to_thread(runner.unload_all) for name, runner in self.runners.items()}


def runner_services(config: Settings, *, shared: bool) -> dict[str, Any]:
    """The BentoML services to run, by runner name; runners that share a process share a service.

    ``shared``: all picture runners in one process and text in another, so that a search never waits behind pictures.
    """
    pictures: dict[str, tuple[str, ...]] = (
        {"PictureRunner": ("clip_image", "faces", "ocr")}
        if shared
        else {"ClipImageRunner": ("clip_image",), "FaceRunner": ("faces",), "OcrRunner": ("ocr",)}
    )
    layout = {**pictures, "ClipTextRunner": ("clip_text",)}
    services = {}
    for position, (service_name, runner_names) in enumerate(layout.items()):
        service = _service(service_name, runner_names, position, config)
        services.update(dict.fromkeys(runner_names, service))
    return services


def _service(name: str, runner_names: Iterable[str], position: int, config: Settings) -> Any:
    runner_names = tuple(runner_names)
    inner: type[RunnerService] = type(
        name,
        (RunnerService,),
        {
            "runner_names": runner_names,
            "position": position,
            "nice": runner_names != ("clip_text",),
            "jobs": JobApp(),
            "__module__": __name__,
        },
    )
    # BentoML's client would close its session, with requests in flight, after 100 requests or 300 s.
    never = 2**31
    service = bentoml.service(
        name=name,
        workers=1,
        traffic={"timeout": config.request_timeout + 60},
        runner_connection={"max_requests": never, "max_age": float(never)},
        logging={"access": {"enabled": False}},
        metrics={"enabled": False},  # BentoML's own, of what the gateway counts already; ours are not its business
        **untraced(),
    )(bentoml.asgi_app(inner.jobs, path=JOBS)(inner))
    service.add_asgi_middleware(CloseEachConnection)
    return service
