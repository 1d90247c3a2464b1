"""The entry service as a process: its BentoML options, its signals, and what it says once it listens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from bentoml import server_context
from starlette.types import ASGIApp

from models.catalog import Catalog, ModelKind
from models.succession import record, succession
from runners.allocator import configure_allocator
from runners.bento.announce import announcement
from runners.bento.http_limits import bound_heads, put_before_all
from runners.bento.stop import retire_predecessors, stop_promptly
from runners.bento.transport import untraced
from runners.tasks import CLIP_IMAGE
from settings import Settings

log = logging.getLogger("service")

_LONGEST_WAIT = 3600.0
"""Seconds that a gateway whose successor is there stays for requests that wait for a model."""


def entry_options(config: Settings, *, head_after: float) -> dict[str, Any]:
    """Return the options of ``@bentoml.service`` for the service that speaks HTTP.

    ``head_after``: seconds after which the head is sent of an answer that waits for a model.
    """
    return {
        "name": "immich_bento",
        "workers": config.workers,
        "http": {"host": config.host, "port": config.listen_port},
        # BentoML's limit ends with the head of the answer: later than REQUEST_TIMEOUT, which does not count the time
        # that a request waits for a model, and than the head that is sent after some of that.
        "traffic": {"timeout": config.request_timeout + head_after + 30},
        "logging": {"access": {"enabled": False}},
        # BentoML's own look at the runners waits without end while one is away; __is_ready__ does not.
        "runner_probe": {"enabled": False},
        **untraced(),
    }


def set_up_server(config: Settings, *, before_all: Callable[[ASGIApp], ASGIApp]) -> None:
    """Have this process give back the memory of bodies, bound the heads of requests, finish what it has at SIGTERM, and
    hand over to its successor at SIGHUP.

    ``before_all``: wraps the app that all requests come to first.
    """
    configure_allocator()
    bound_heads()
    put_before_all(before_all)
    longest = max(config.request_timeout + 30, _LONGEST_WAIT)
    stop_promptly(config.shutdown_timeout, keep_alive=config.keep_alive, longest_request=longest)


def take_over(config: Settings, catalog: Catalog, address: str) -> None:
    """Say what answers, and that the service listens at ``address``; retire the gateways that this one replaces."""
    if server_context.worker_index == 1:
        for line in announcement(config, catalog, address):
            log.info("%s", line)
        if CLIP_IMAGE.route(config) != "upstream":
            _tell_succession(config, catalog)
    retire_predecessors()


def _tell_succession(config: Settings, catalog: Catalog) -> None:
    """Say what has to be done again where another CLIP model answers than at the last start, and keep which it is."""
    chosen = CLIP_IMAGE.override(config)
    entry = catalog.find(ModelKind.CLIP, chosen) if chosen else None
    told = succession(entry, catalog, config)
    if told is not None:
        log.warning("%s", told)
    record(entry, config)
