"""The service as the page tells of it: models in memory, queue, load, upstreams, versions; a report without secrets."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import psutil

from errors import ServiceError
from runners.contract import LoadedModel, ModelState, Runners
from search.answers import Answer
from serving.deadline import timeout
from settings import Settings
from settings.version import VERSION
from web.history import STEP, Course, History
from web.immich import ImmichPictures

if TYPE_CHECKING:
    from search.http.state import SearchApi

_WITHIN = 3.0
"""Seconds that each part has to tell of itself."""
_PACKAGES = ("bentoml", "onnxruntime", "openvino", "psycopg", "starlette")


class ShownModel(Answer):
    """A model that was named, asked for, or is in memory."""

    task: str
    model: str
    state: str
    """here, on its way or unavailable."""
    percent: int | None
    loaded: bool
    engine: str | None
    precision: str | None
    memory: int | None
    """Bytes by which its process grew while it was loaded."""


class Queue(Answer):
    """Bodies of requests in memory, and requests that wait for room."""

    bytes: int
    waiting: int


class Hour(Answer):
    """The last hour, the latest last; null where nothing is known."""

    seconds: float
    """Between two figures."""
    requests: Sequence[float | None]
    median: Sequence[float | None]
    p95: Sequence[float | None]
    errors: int


class System(Answer):
    """Everything that the page tells of the service."""

    models: Sequence[ShownModel]
    queue: Queue
    history: Hour
    memory: int | None
    """Bytes of all processes, shared ones counted once; null where the system does not tell."""
    upstreams: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str | None]
    report: str


async def system(
    runners: Runners | None,
    history: History,
    search: SearchApi,
    immich: ImmichPictures,
    upstreams: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> System:
    """Return how the service does now. A part that does not answer in time is left out."""
    models, versions, look, memory = await asyncio.gather(
        _models(runners), _versions(runners, search, immich), history.now(), asyncio.to_thread(_memory)
    )
    course = history.course()
    queue = Queue(bytes=int(look.queue_bytes), waiting=int(look.queue_waiting))
    hour = Hour(seconds=STEP, requests=course.requests, median=course.median, p95=course.p95, errors=course.errors)
    report = _report(models, queue, course, upstreams, versions, settings)
    return System(
        models=models,
        queue=queue,
        history=hour,
        memory=memory,
        upstreams=upstreams,
        versions=versions,
        report=report,
    )


async def _models(runners: Runners | None) -> Sequence[ShownModel]:
    if runners is None:
        return ()
    try:
        async with timeout(_WITHIN):
            states, loaded = await asyncio.gather(runners.models(), runners.in_memory())
    except (ServiceError, asyncio.TimeoutError):
        return ()
    return shown_models(states, loaded)


def shown_models(states: Sequence[ModelState], loaded: Sequence[LoadedModel]) -> list[ShownModel]:
    """Return one entry for each task and model: those in memory first, then those that are only known."""
    in_memory = {(one.task, one.model): one for one in loaded}
    known = {(one.task, one.model): one for one in states}
    entries = []
    for task, model in sorted(dict.fromkeys((*in_memory, *known)), key=lambda key: (key not in in_memory, key)):
        held, state = in_memory.get((task, model)), known.get((task, model))
        entries.append(
            ShownModel(
                task=task,
                model=model,
                state=state.state if state is not None else "here",
                percent=state.percent if state is not None else None,
                loaded=held is not None,
                engine=held.engine or None if held is not None else None,
                precision=held.precision or None if held is not None else None,
                memory=held.memory if held is not None else None,
            )
        )
    return entries


async def _versions(runners: Runners | None, search: SearchApi, immich: ImmichPictures) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "immich-bento": VERSION,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.release()} {platform.machine()}",
        **{name: _package(name) for name in _PACKAGES},
    }
    if runners is not None:
        found["Device"] = await _or_none(runners.device())
    found["PostgreSQL"] = await _or_none(_database(search))
    if immich.visitors is not None:
        found["Immich"] = await _or_none(immich.version())
    return found


async def _database(search: SearchApi) -> str:
    async with search.database() as database, database.connection() as connection:
        row = await (await connection.execute(_DATABASE)).fetchone()
    assert row is not None  # noqa: S101 - a select of constants has a row
    return f"{row['server']}, pgvector {row['pgvector']}, {database.source.value}, {database.cutter}"


async def _or_none(asked: Any) -> str | None:
    try:
        async with timeout(_WITHIN):
            return str(await asked)
    except (ServiceError, asyncio.TimeoutError):
        return None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Return the proportional memory of this service's processes. Blocks for some milliseconds each."""
    try:
        watcher = psutil.Process().parent() or psutil.Process()
        processes = [watcher, *watcher.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes if process.is_running())
    except (psutil.Error, AttributeError):
        return None


_DATABASE = """
select current_setting('server_version') as server,
       (select extversion from pg_extension where extname = 'vector') as pgvector
"""

_TOLD = (
    *("clip_model", "recognition_model", "ocr_model", "device", "engine", "precision", "runner_processes"),
    *("fork_processes", "max_batch", "workers", "model_ttl", "request_threads", "intra_op_threads", "inter_op_threads"),
    *("runner_nice", "queue_bytes", "queue_requests", "route_clip", "route_faces", "route_ocr", "upstream_fallback"),
    *("auth_required", "offline", "model_hub", "search_enabled", "search_source", "search_fusion"),
)
"""Settings of the report: switches, names of models and limits; never keys, addresses or paths."""


def _report(
    models: Sequence[ShownModel],
    queue: Queue,
    course: Course,
    upstreams: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str | None],
    settings: Settings,
) -> str:
    lines = ["immich-bento report", "", *(f"{name}: {value or 'unknown'}" for name, value in versions.items())]
    lines += ["", "Models"]
    lines += [
        f"  {one.task} {one.model}: {'in memory' if one.loaded else one.state}, {one.engine or '-'}, "
        f"{one.precision or '-'}, {_megabytes(one.memory)}"
        for one in models
    ] or ["  none"]
    asked = [value for value in course.requests if value is not None]
    slowest = [value for value in course.p95 if value is not None]
    lines += [
        "",
        f"Queue: {queue.bytes} bytes, {queue.waiting} waiting",
        f"Last hour: {sum(asked) * STEP:.0f} requests, {course.errors} errors, 95 of 100 within at most "
        f"{max(slowest, default=0):.3g} s in each half minute",
        f"Upstreams: {len(upstreams)}, {sum(bool(one.get('up')) for one in upstreams)} up",
        "",
        "Settings",
    ]
    chosen = settings.model_dump(include=set(_TOLD))
    lines += [f"  {name}: {chosen[name]!r}" for name in _TOLD if name in chosen]
    cores, memory = psutil.cpu_count(), psutil.virtual_memory()
    lines += ["", f"Machine: {cores} cores, {memory.total >> 20} MiB of memory, {memory.available >> 20} available"]
    return "\n".join(lines) + "\n"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f} MB"
