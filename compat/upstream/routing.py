"""Which tasks of a request are answered here, and which by another Immich ML server (``ROUTE_CLIP``, ``ROUTE_FACES``,
``ROUTE_OCR``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from compat.upstream.client import HOP_HEADER
from compat.upstream.pool import UpstreamPool
from errors import ErrorCode, ServiceError
from runners.tasks import tasks_by_name
from settings import Settings
from settings.gateway import Route


@dataclass(frozen=True, slots=True)
class Routed:
    """The entries of one request, by who answers them. Those for upstream are as the client wrote them, and not
    understood here.
    """

    here: dict[str, Any]
    upstream: dict[str, Any]
    upstream_json: bytes
    """``upstream`` as the ``entries`` part of a request."""


def routes(settings: Settings) -> dict[str, Route]:
    """Return who answers each key of ``entries``."""
    return {task.entry: task.route(settings) for task in tasks_by_name(settings.extra_tasks).values()}


def split(entries: Mapping[str, Any], text: bytes, headers: Headers, settings: Settings) -> Routed:
    """Return who answers what of ``entries``; ``text`` is the JSON that they were read from.

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
    if len(upstream) == len(entries):
        return Routed({}, upstream, text)
    here = {name: task for name, task in entries.items() if name not in upstream}
    try:
        return Routed(here, upstream, json.dumps(upstream).encode())
    except RecursionError as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, "Invalid request format: the entries are nested too deeply."
        ) from error


def labels(upstream: Mapping[str, Mapping[str, Any]], settings: Settings) -> set[str]:
    """Return what is asked of upstream, for logs and metrics, in the words used for what is answered here."""
    found: set[str] = set()
    for key, types in upstream.items():
        known = {task.label for task in tasks_by_name(settings.extra_tasks).values() if task.entry == key}
        found |= {label for label in known if label == key or label.partition(".")[2] in types} or {key}
    return found


def open_upstreams(settings: Settings) -> UpstreamPool | None:
    """Return the upstreams of ``IMMICH_API``, or None if nothing is routed to them.

    Call it in the event loop that will use them.
    """
    if "upstream" not in routes(settings).values():
        return None
    return UpstreamPool(
        settings.upstream_urls,
        timeout=settings.upstream_timeout,
        concurrency=settings.upstream_concurrency,
        retry_after=settings.upstream_retry_after,
        header=settings.upstream_header_pair,
    )


def can_answer(pool: UpstreamPool | None, settings: Settings) -> bool:
    """Return whether any task can be answered as far as upstreams go: no if all are routed to upstreams, which all are
    down.
    """
    return settings.upstream_fallback or pool is None or pool.any_up or "local" in routes(settings).values()
