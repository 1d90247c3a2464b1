"""The Bento: one entry service that speaks HTTP, over one runner service per model (or per process, see
``RUNNER_PROCESSES``).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from functools import partial
from multiprocessing import get_context

# BentoML reports usage home by default. People who host their own photos expect silence.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml._internal.utils import circus
from bentoml._internal.utils.analytics import usage_stats
from pydantic import ValidationError
from pydantic_settings import SettingsError

import logs
from compat.immich.api import ImmichApi, create_app
from compat.mtphotos.api import MtPhotosApi, routes
from compat.upstream.routing import can_answer, open_upstreams
from errors import ServiceError
from models.catalog import Catalog, CatalogError, Task, load_catalog
from runners.bento.forked_workers import fork_workers
from runners.bento.graceful_stop import stop_although_busy, stop_promptly
from runners.bento.remote import RemoteRunners
from runners.bento.services import runner_services
from runners.bento.transport import JobClient, untraced
from runners.engine.threads import available_cores
from search.http.api import SearchApi
from search.http.api import routes as search_routes
from search.http.life import SearchLife
from serving.multipart import ByteBudget
from settings import Settings, settings

# A plain `bentoml serve` has looked at the variable, and remembered it, before it reads this file.
usage_stats.do_not_track.cache_clear()


log = logging.getLogger("service")

_IS_ARBITER = (
    "BENTOML_RUNNER_MAP" not in os.environ
)  # set in every worker process, not in the one that starts and watches them
_CHECK_DELAY = 3.0
"""Seconds between looks for processes that died. BentoML's own 10 would leave a slow machine without a runner for too
long.
"""


def _settings_or_exit() -> Settings:
    try:
        return settings()
    except SettingsError as error:
        sys.exit(f"immich-bento does not start: {error} (docs/settings.md lists all settings).")
    except ValidationError as error:
        problems = "\n".join(f"  {'__'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        sys.exit(
            f"immich-bento does not start: these settings are wrong (docs/settings.md lists them all).\n{problems}"
        )


def _device_problem(config: Settings) -> str | None:
    """Why the device or engine that the settings ask for cannot be used, or None. Loads the engine."""
    from runners.engine import DeviceUnusable, check_engine, plan_engine

    try:
        check_engine(plan_engine(config))
    except DeviceUnusable as error:
        return str(error)
    return None


def _device_problem_apart(config: Settings) -> str | None:
    """``_device_problem``, found out by a process that ends: this one is to stay small, and to be forked."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(_device_problem(config)))
    process.start()
    sender.close()
    try:
        problem: str | None = receiver.recv()
    except EOFError:
        process.join()
        return (
            f"the engine crashed as it was looked at (exit status {process.exitcode}). Unset DEVICE, ENGINE and "
            "PRECISION."
        )
    process.join()
    return problem


def _check_before_start(config: Settings) -> None:
    """Fail in the process that the user started, with one sentence, rather than in every worker for ever."""
    # The others cannot fail.
    if (
        config.device not in ("cuda", "openvino")
        and config.engine == "auto"
        and config.precision not in ("bf16", "int8")
    ):
        return
    problem = _device_problem_apart(config) if sys.platform == "linux" else _device_problem(config)
    if problem is not None:
        sys.exit(f"immich-bento does not start: {problem}")


def _catalog_or_exit(config: Settings) -> Catalog:
    """The catalog, once it knows the models that the settings name. The process that the user started says what those
    are good for.
    """
    try:
        catalog = load_catalog(config.model_catalog)
        for task, name in (
            (Task.CLIP, config.clip_model),
            (Task.FACES, config.recognition_model),
            (Task.OCR, config.ocr_model),
        ):
            if name:
                entry = catalog.find(task, name)
                if _IS_ARBITER:
                    log.info("Every %s request is answered by %s: %s", task.value, entry.name, entry.advice)
    except (CatalogError, ServiceError) as error:
        sys.exit(f"immich-bento does not start: {error}")
    return catalog


def _addresses() -> dict[str, str]:
    """Where the processes of this service listen, by the names of their BentoML services."""
    addresses: dict[str, str] = json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}"))
    return addresses


def _job_clients() -> dict[str, JobClient]:
    """A client for each runner process, by the names of its runners."""
    addresses = _addresses()
    clients = {name: JobClient(addresses[name], timeout=config.request_timeout + 60) for name in _dependencies}
    return {runner: clients[service.name] for runner, service in _services.items()}


config = _settings_or_exit()
logs.configure(config)
if _IS_ARBITER:
    _check_before_start(config)
    os.environ.pop(
        "BENTOML_CONTAINERIZED", None
    )  # with it BentoML ends everything when one process dies, rather than start it again
    stop_although_busy()
    if config.fork_processes:
        fork_workers()
    circus.create_standalone_arbiter = partial(circus.create_standalone_arbiter, check_delay=_CHECK_DELAY)
catalog = _catalog_or_exit(config)

_shared = config.runner_processes == "shared" or (config.runner_processes == "auto" and available_cores() <= 4)
# One proxy per process, whichever of its runners is asked.
_services = runner_services(config, shared=_shared)
_dependencies = {service.name: bentoml.depends(service) for service in _services.values()}
_runners = {name: _dependencies[service.name] for name, service in _services.items()}
immich = ImmichApi(catalog=catalog, settings=config, budget=ByteBudget(config.queue_bytes, config.queue_requests))
mtphotos = MtPhotosApi(catalog=catalog, settings=config, budget=immich.budget)
search = SearchApi(catalog=catalog, settings=config, life=SearchLife(config))


@bentoml.service(
    name="immich_bento",
    workers=config.workers,
    http={"host": config.host, "port": config.listen_port},
    traffic={"timeout": config.request_timeout + 30},
    logging={"access": {"enabled": False}},
    # BentoML's own look at the runners waits without end while one is away; __is_ready__ below does not.
    runner_probe={"enabled": False},
    **untraced(),
)
@bentoml.asgi_app(create_app(immich, [*routes(mtphotos), *search_routes(search)]), path="/")
class ImmichBento:
    """Answers Immich's machine-learning protocol, mt-photos-ai's, and searches; computes nothing itself."""

    _clip_image = _runners["clip_image"]
    _clip_text = _runners["clip_text"]
    _faces = _runners["faces"]
    _ocr = _runners["ocr"]

    @bentoml.on_startup
    async def begin(self) -> None:
        stop_promptly(config.shutdown_timeout, keep_alive=config.keep_alive)
        immich.upstreams = open_upstreams(config)
        proxies = {"clip_image": self._clip_image, "clip_text": self._clip_text, "faces": self._faces, "ocr": self._ocr}
        immich.runners = mtphotos.runners = search.runners = RemoteRunners(proxies, _job_clients())
        search.life.start()
        # Where BentoML listens, flags included.
        log.info(
            "Listening on %s. Immich's machine learning URL is the same, with this machine's name or address.",
            _addresses().get("immich_bento"),
        )

    @bentoml.on_shutdown
    async def end(self) -> None:
        if immich.upstreams is not None:
            await immich.upstreams.close()
        if isinstance(immich.runners, RemoteRunners):
            await immich.runners.close()
        await search.life.close()

    async def __is_ready__(self) -> bool:
        """What ``/readyz`` says: whether every runner process answers, and upstreams too if nothing can be answered
        without them.
        """
        if not isinstance(immich.runners, RemoteRunners) or not can_answer(immich.upstreams, config):
            return False
        return await immich.runners.are_ready()
