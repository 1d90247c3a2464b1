"""The health of other Immich ML servers: those that broke are left out, and looked at until they answer again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import metrics
from compat.upstream.client import UpstreamClient
from errors import ErrorCode, ServiceError

log = logging.getLogger(__name__)

_PATIENCE = 3
"""Requests in a row that must break or be late before an upstream that accepts connections counts as down."""


class UpstreamDown(ServiceError):
    """No upstream could be asked, or the connection to the last one broke."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UPSTREAM_UNAVAILABLE, message)


@dataclass(slots=True, eq=False)
class Upstream:
    """One server and what is known of it."""

    url: str
    """Without a slash at its end."""
    number: int
    """Its name where anybody may look: its place in ``IMMICH_API``, from 1, unless a DNS name has it."""
    up: bool = True
    """It is asked."""
    reason: str = ""
    """Why it is not."""
    gone: bool = False
    """It is no longer an address of its DNS name."""
    in_flight: int = 0
    broken_in_a_row: int = 0
    turn: int = 0
    """When it was last chosen, as a count of all choices."""

    @property
    def name(self) -> str:
        """Return the URL without its scheme, for errors and the log."""
        parts = urlsplit(self.url)
        return parts.netloc + parts.path

    @property
    def label(self) -> str:
        """Return its number, as a label of metrics."""
        return str(self.number)


class Health:
    """The state of each upstream, as far as it is known. Belongs to the event loop that it is made in."""

    def __init__(self, client: UpstreamClient, *, retry_after: float, on_change: Callable[[], None]) -> None:
        """``retry_after``: seconds between looks at one that is down. ``on_change``: called when one goes down or
        up.
        """
        self._client = client
        self._retry_after = retry_after
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, upstream: Upstream) -> None:
        """Count ``upstream`` as up, and look at it once, so that the first photo need not find out."""
        self._note_up(upstream)
        self._spawn(self._look_once(upstream))

    def close(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()

    def none_live(self, down: Sequence[str]) -> UpstreamDown:
        """Return the error that says which upstreams cannot be asked. ``down``: each with the reason."""
        return UpstreamDown(
            f"No upstream can be asked: {', '.join(down)}. They are tried again every {self._retry_after:g} s "
            "(UPSTREAM_RETRY_AFTER)."
        )

    def note_broken(self, upstream: Upstream, reason: str, *, down_at_once: bool) -> None:
        """Note that a request to ``upstream`` broke or was late, and leave it out if that is too much."""
        upstream.broken_in_a_row += 1
        if upstream.up and (down_at_once or upstream.broken_in_a_row >= _PATIENCE):
            log.warning(
                "Upstream %s is down: %s. It is tried again every %g s.", upstream.name, reason, self._retry_after
            )
            upstream.up, upstream.reason = False, reason
            metrics.UPSTREAM_UP.labels(upstream.label).set(0)
            self._on_change()
            self._spawn(self._look_until_up(upstream))

    async def _look_once(self, upstream: Upstream) -> None:
        if not await self._client.pongs(upstream.url):
            self.note_broken(upstream, "it does not answer GET /ping", down_at_once=True)

    async def _look_until_up(self, upstream: Upstream) -> None:
        while not upstream.up:
            await asyncio.sleep(self._retry_after)
            if upstream.gone:
                return
            if not upstream.up and await self._client.pongs(upstream.url) and not upstream.gone:
                log.info("Upstream %s is up again.", upstream.name)
                self._note_up(upstream)
                self._on_change()

    def _note_up(self, upstream: Upstream) -> None:
        upstream.up, upstream.reason, upstream.broken_in_a_row = True, "", 0
        metrics.UPSTREAM_UP.labels(upstream.label).set(1)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
