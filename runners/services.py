"""The runners as BentoML services: one thin class per runner, packed into processes as ``RUNNER_PROCESSES`` says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import bentoml
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import metrics
from errors import ServiceError
from graceful_stop import stop_when_idle
from models.catalog import Catalog, Task, load_catalog
from models.locate import locate
from runners.contract import Embedding, Faces, ImageJob, TextJob, TextLines
from runners.engine import EnginePlan, Session, open_session, plan_engine
from runners.engine.threads import available_cores
from runners.runner import Model, Runner, RunnerLimits
from settings import Settings, names, settings

log = logging.getLogger(__name__)


class Parcel:
    """One job, result or answer on its way between processes. Opaque to pydantic, which would take a dataclass apart."""

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object", "description": "A pickled job or result of runners/contract.py"}


class CloseEachConnection:
    """Ends a runner's connection after each answer.

    BentoML's client keeps connections for 15 s and its server for 5 s, so a request can be sent into a connection that is just
    being closed, and a POST is not repeated. A new connection to a Unix socket costs some tenths of a millisecond.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)


@dataclass(frozen=True)
class Loading:
    """What loading a model takes, whichever it is."""

    catalog: Catalog
    settings: Settings
    plan: EnginePlan

    def open(self, path: Path) -> Session:
        return open_session(path, self.plan)


def _load_clip_image(name: str, using: Loading) -> Model[ImageJob, Embedding]:
    from runners.clip import load_clip_image

    entry = using.catalog.find(Task.CLIP, name)
    files = locate(entry, using.settings, "visual")
    return load_clip_image(entry.family, files, using.open, max_pixels=using.settings.max_picture_pixels)


def _load_clip_text(name: str, using: Loading) -> Model[TextJob, Embedding]:
    from runners.clip import load_clip_text

    entry = using.catalog.find(Task.CLIP, name)
    return load_clip_text(entry.name, entry.family, locate(entry, using.settings, "textual"), using.open)


def _load_faces(name: str, using: Loading) -> Model[ImageJob, Faces]:
    from runners.faces import load_faces

    files = locate(using.catalog.find(Task.FACES, name), using.settings)
    return load_faces(files, using.open, max_pixels=using.settings.max_picture_pixels)


def _load_ocr(name: str, using: Loading) -> Model[ImageJob, TextLines]:
    from runners.ocr import load_ocr

    files = locate(using.catalog.find(Task.OCR, name), using.settings)
    return load_ocr(files, using.open, max_pixels=using.settings.max_picture_pixels)


# The libraries that a family needs are imported when its first model is loaded: an idle process stays small.
_LOADERS: dict[str, Callable[..., Model[Any, Any]]] = {
    "clip_image": _load_clip_image,
    "clip_text": _load_clip_text,
    "faces": _load_faces,
    "ocr": _load_ocr,
}


def _preloads(config: Settings, catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Which models each runner loads at start, by the names that requests come under: the catalog's, not its aliases.

    A CLIP_MODEL, RECOGNITION_MODEL or OCR_MODEL stands for the name given. Names that the catalog does not know are logged and left out.
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


class RunnerService:
    """What every runner process has: its runners, the clock that unloads idle models, and a graceful end."""

    runner_names: ClassVar[tuple[str, ...]] = ()
    position: ClassVar[int] = 0
    """Number of the process among the runner processes: GPUs are dealt out by it."""
    nice: ClassVar[bool] = True

    def __init__(self) -> None:
        config = settings()
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
            name: Runner(name, partial(_LOADERS[name], using=using), limits) for name in self.runner_names
        }
        self._background: list[asyncio.Task[None]] = []
        if self.nice and config.runner_nice:
            os.nice(config.runner_nice)
        self._device = plan.device
        metrics.forget_dead_processes()
        log.info("%s computes on %s with %d threads.", ", ".join(self.runner_names), plan.device, plan.threads)

    @bentoml.on_startup
    async def begin(self) -> None:
        config = settings()
        stop_when_idle(config.shutdown_timeout)
        preloads = _preloads(config, self._catalog)
        self._background = [asyncio.create_task(runner.preload(model)) for name, runner in self.runners.items() for model in preloads[name]]
        if config.model_ttl:
            self._background.append(asyncio.create_task(self._unload_idle(config.model_ttl_poll_s)))

    async def _unload_idle(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for runner in self.runners.values():
                await asyncio.to_thread(runner.unload_idle)

    @bentoml.on_shutdown
    async def end(self) -> None:
        for task in self._background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
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


class ClipImageApi:
    runners: dict[str, Runner[Any, Any]]

    @bentoml.api
    async def clip_image(self, job: Parcel) -> Parcel:
        return Parcel(await self.runners["clip_image"].submit(job.content))


class ClipTextApi:
    runners: dict[str, Runner[Any, Any]]

    @bentoml.api
    async def clip_text(self, job: Parcel) -> Parcel:
        return Parcel(await self.runners["clip_text"].submit(job.content))


class FacesApi:
    runners: dict[str, Runner[Any, Any]]

    @bentoml.api
    async def faces(self, job: Parcel) -> Parcel:
        return Parcel(await self.runners["faces"].submit(job.content))


class OcrApi:
    runners: dict[str, Runner[Any, Any]]

    @bentoml.api
    async def ocr(self, job: Parcel) -> Parcel:
        return Parcel(await self.runners["ocr"].submit(job.content))


_APIS: dict[str, type] = {"clip_image": ClipImageApi, "clip_text": ClipTextApi, "faces": FacesApi, "ocr": OcrApi}


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
    inner = type(
        name,
        (*(_APIS[runner] for runner in runner_names), RunnerService),
        {"runner_names": runner_names, "position": position, "nice": runner_names != ("clip_text",), "__module__": __name__},
    )
    # BentoML's client would close its session, with requests in flight, after 100 requests or 300 s.
    never = 2**31
    service = bentoml.service(
        name=name,
        workers=1,
        traffic={"timeout": config.request_timeout + 60},
        runner_connection={"max_requests": never, "max_age": float(never)},
        logging={"access": {"enabled": False}},
    )(inner)
    service.add_asgi_middleware(CloseEachConnection)
    return service
