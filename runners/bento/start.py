"""The steps before the service listens: settings and catalog are read, what would fail in every worker is found out
once, and the process that watches the workers is prepared.

BentoML runs ``@bentoml.on_deployment`` hooks once, in the process that the user started, before any socket is opened
(``server_on_deployment`` in ``_bentoml_impl/server/serving.py``), with ``--development`` and ``--reload`` too.
``bentoml build`` imports the service and runs no hook.
"""

from __future__ import annotations

import logging
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from bentoml import server_context
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError
from pydantic_settings import SettingsError

import logs
from errors import ServiceError
from models.catalog import Catalog, CatalogError, load_catalog
from runners.bento.arbiter import watch_workers
from runners.bento.fork import fork_workers
from runners.bento.http_limits import believe_proxies
from runners.bento.listen import address_problem
from runners.bento.parent import end_with_parent, name_arbiter
from runners.bento.transport import make_secret
from runners.bento.usage_reports import send_no_usage_reports
from runners.engine.threads import available_cores
from runners.task import Task
from runners.tasks import ExtraTaskError, tasks_by_name
from settings import Settings, names, settings
from settings.problems import settings_that_name, what_is_wrong
from settings.variables import names_in_file, setting_names, warnings_of
from settings.version import VERSION

log = logging.getLogger(__name__)


class StartError(BentoMLException):  # type: ignore[misc] # BentoML has no types here
    """The reason why the service does not start, in one sentence. BentoML's command line prints it and exits with 1."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"immich-bento does not start: {reason}")
        self.reason = reason


def read_settings() -> Settings:
    """Return the settings of this process; in a worker also send its log where they say, and end it with its arbiter.

    Raises ``StartError`` that names every setting that is wrong, without its value.
    """
    send_no_usage_reports()
    try:
        config = settings()
    except (SettingsError, ValidationError) as error:
        raise StartError(what_is_wrong(error)) from None
    if server_context.worker_index is not None:
        logs.configure(config)  # BentoML has configured its own just before it imports the service
        end_with_parent()
        believe_proxies(config.trusted_proxies)
    return config


def read_catalog(config: Settings) -> Catalog:
    """Return the catalog of models.

    Raises ``StartError`` where a file or a model that the settings name is unknown.
    """
    try:
        catalog = load_catalog(config.model_catalog)
        for task in tasks_by_name(config.extra_tasks).values():
            for name in filter(None, (task.override(config), *task.preload(config))):
                _check_model(task, name, catalog, config)
            if task.route(config) == "upstream" and not task.servers(config):
                raise ExtraTaskError(f"{task.label} is routed upstream, which needs IMMICH_API, the address to ask.")
    except (CatalogError, ExtraTaskError) as error:
        raise StartError(str(error)) from error
    return catalog


def _check_model(task: Task[Any], name: str, catalog: Catalog, config: Settings) -> None:
    try:
        task.find(catalog, name)
    except ServiceError as error:
        variables = ", ".join(settings_that_name(name, config)) or f"the task {task.name}"
        raise StartError(f"{variables}: {error.message}") from error


def shares_process(config: Settings) -> bool:
    """Return whether all picture runners live in one process."""
    if config.runner_processes == "auto":
        return available_cores() <= 4
    return config.runner_processes == "shared"


def prepare(config: Settings) -> None:
    """Check what would fail in every worker, and prepare this process to watch them: the ``on_deployment`` hook.

    Raises ``StartError``.
    """
    logs.configure(config)
    flags = click.get_current_context(silent=True)
    given = flags.params if flags is not None else {}
    problem = (
        _unusable_device(config) if sys.platform != "linux" else _unusable_device_apart(config)
    ) or address_problem(
        given.get("host") or config.host,
        given.get("port") or config.listen_port,
        "--port" if given.get("port") else "IMMICH_PORT" if config.port else "HTTP_PORT",
    )
    if problem is not None:
        raise StartError(problem)
    log.info("immich-bento %s starts.", VERSION)
    misspelt = warnings_of(os.environ, names_in_file(Path(".env")), setting_names(Settings))
    for sentence in (*misspelt, *config.unused_servers()):
        log.warning("%s", sentence)
    # Workers read .env anew: what decides which of them there are must stay as it is now.
    os.environ["RUNNER_PROCESSES"] = "shared" if shares_process(config) else "split"
    name_arbiter()
    make_secret()
    watch_workers(_wrong_settings)
    if config.fork_processes:
        fork_workers(also_own=names(config.extra_tasks))


def _wrong_settings() -> str | None:
    """Return what is wrong in the settings as they are now, or None."""
    try:
        read_catalog(Settings())
    except (SettingsError, ValidationError) as error:
        return what_is_wrong(error)
    except StartError as error:
        return error.reason
    return None


def _unusable_device(config: Settings) -> str | None:
    """Return why the device or engine that the settings ask for cannot be used, or None. Loads the engine."""
    from runners.engine import DeviceUnusable, check_engine, plan_engine

    try:
        check_engine(plan_engine(config))
    except DeviceUnusable as error:
        return str(error)
    return None


def _unusable_device_apart(config: Settings) -> str | None:
    """Return what ``_unusable_device`` does, found out by a process that ends: this one is to be forked later."""
    if config.device in ("auto", "cpu") and config.engine == "auto" and config.precision in ("auto", "fp32"):
        return None  # nothing that could fail
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(_unusable_device(config)))
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
