"""Routes: the tasks of a request that are answered here, and those that another Immich ML server answers
(``ROUTE_CLIP``, ``ROUTE_FACES``, ``ROUTE_OCR``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from compat.upstream.client import HOP_HEADER
from compat.upstream.members import Numbers
from compat.upstream.pool import UpstreamPool
from compat.upstream.pools import Upstreams
from errors import ErrorCode, ServiceError
from runners.tasks import tasks_by_name
from settings import Settings
from settings.gateway import Route, Servers


@dataclass(frozen=True, slots=True)
class Part:
    """The entries of one request that the same servers answer: as the client wrote them, and not understood here."""

    servers: Servers
    entries: dict[str, Any]
    json: bytes
    """``entries`` as the part of that name of a request."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The entries of one request, by who answers them."""

    here: dict[str, Any]
    upstream: tuple[Part, ...]


def routes(settings: Settings) -> dict[str, Route]:
    """Return who answers each key of ``entries``."""
    return {task.entry: task.route(settings) for task in tasks_by_name(settings.extra_tasks).values()}


def split(entries: Mapping[str, Any], text: bytes, headers: Headers, settings: Settings) -> Routed:
    """Return who answers what of ``entries``, with one part for all that the same servers answer; ``text`` is the JSON
    that the entries were read from.

    Raises ``ServiceError``: INVALID_REQUEST for a task that is no JSON object; UPSTREAM_UNAVAILABLE for a request that
    another gateway has passed on and this one would pass on again.
    """
    route = routes(settings)
    upstream = {name: task for name, task in entries.items() if route.get(name) == "upstream"}
    for name, task in upstream.items():
        if not isinstance(task, dict):
            raise ServiceError(ErrorCode.INVALID_REQUEST, f"Invalid request format: {name}: it must be a JSON object.")
    if upstream and HOP_HEADER in headers:
        raise ServiceError(
            ErrorCode.UPSTREAM_UNAVAILABLE,
            f"Another gateway has passed this request on, and this one would pass {', '.join(upstream)} on again. "
            "Set ROUTE_… to local on one of them, so that they do not go round.",
        )
    here = {name: task for name, task in entries.items() if name not in upstream}
    by_servers: dict[Servers, dict[str, Any]] = {}
    for name, task in upstream.items():
        by_servers.setdefault(_servers(name, settings), {})[name] = task
    try:
        parts = [
            Part(servers, some, text if len(some) == len(entries) else json.dumps(some).encode())
            for servers, some in by_servers.items()
        ]
    except RecursionError as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, "Invalid request format: the entries are nested too deeply."
        ) from error
    return Routed(here, tuple(parts))


def _servers(entry: str, settings: Settings) -> Servers:
    """Return the servers that answer ``entry``, a key of Immich's entries."""
    return next(task.servers(settings) for task in tasks_by_name(settings.extra_tasks).values() if task.entry == entry)


def labels(upstream: Iterable[Part], settings: Settings) -> set[str]:
    """Return what is asked of upstream, for logs and metrics, in the words used for what is answered here."""
    found: set[str] = set()
    for key, types in (item for part in upstream for item in part.entries.items()):
        known = {task.label for task in tasks_by_name(settings.extra_tasks).values() if task.entry == key}
        found |= {label for label in known if label == key or label.partition(".")[2] in types} or {key}
    return found


def open_upstreams(settings: Settings) -> Upstreams | None:
    """Return the servers that ``IMMICH_API`` and its like name, or None if nothing is routed to them.

    Call it in the event loop that will use them.
    """
    entries: dict[Servers, list[str]] = {}
    for entry, route in routes(settings).items():
        if route == "upstream":
            entries.setdefault(_servers(entry, settings), []).append(entry)
    numbers = Numbers()
    pools = {
        servers: UpstreamPool(
            servers,
            task="+".join(sorted(some)),
            timeout=settings.upstream_timeout,
            concurrency=settings.upstream_concurrency,
            retry_after=settings.upstream_retry_after,
            header=settings.upstream_header_pair,
            numbers=numbers,
        )
        for servers, some in entries.items()
    }
    return Upstreams(pools) if pools else None


def can_answer(upstreams: Upstreams | None, settings: Settings) -> bool:
    """Return whether any task can be answered as far as upstreams go: no if all are routed to upstreams, which all are
    down.
    """
    local = settings.upstream_fallback or "local" in routes(settings).values()
    return local or upstreams is None or upstreams.any_up
