"""The last hour as the metrics tell it: requests, time to an answer and errors, in steps of half a minute.

A look costs some milliseconds in a thread twice a minute; requests are not touched. The counters of all processes are
in files (``PROMETHEUS_MULTIPROC_DIR``), so that every gateway process tells the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger(__name__)

STEP = 30.0
"""Seconds between two looks."""
STEPS = 120
"""Looks that are kept."""
_READINGS = 5
"""How often the files of counters are read, at most, until all are whole."""
_PAUSE = 0.05
"""Seconds between two of these."""
_OWN = "page."
"""Tasks of the page itself, which looks at these figures all the time and would see itself."""


@dataclass(frozen=True, slots=True)
class Look:
    """The counters at one time."""

    requests: float
    errors: float
    """Answers of status 500 and more."""
    buckets: Mapping[float, float]
    """Answers by the seconds that they took at most, as a histogram of Prometheus has them."""
    queue_bytes: float
    queue_waiting: float


@dataclass(frozen=True, slots=True)
class Course:
    """The last hour, the latest last. Of a step that is not over or not known there is None."""

    requests: Sequence[float | None]
    """A second."""
    median: Sequence[float | None]
    """Seconds that half of the answers took at most."""
    p95: Sequence[float | None]
    errors: int
    """Of the whole hour."""


class History:
    """Looks at the metrics for as long as the service runs."""

    def __init__(self, look: Callable[[], Look] | None = None) -> None:
        self._look = look or look_now
        self._looks: deque[Look] = deque(maxlen=STEPS + 1)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, in the background."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def note(self) -> None:
        """Look once."""
        self._looks.append(await asyncio.to_thread(self._look))

    async def now(self) -> Look:
        """Return the counters as they are now."""
        return await asyncio.to_thread(self._look)

    def course(self) -> Course:
        """Return the last hour, as far as it was seen."""
        looks = list(self._looks)
        steps = [_step(before, after) for before, after in pairwise(looks)]
        missing: list[None] = [None] * (STEPS - len(steps))
        return Course(
            requests=[*missing, *(requests / STEP for requests, _, _ in steps)],
            median=[*missing, *(_quantile(took, 0.5) for _, _, took in steps)],
            p95=[*missing, *(_quantile(took, 0.95) for _, _, took in steps)],
            errors=round(sum(errors for _, errors, _ in steps)),
        )

    async def _keep(self) -> None:
        while True:
            try:
                await self.note()
            except Exception:
                log.exception("The metrics could not be read for the page's history.")
            await asyncio.sleep(STEP)


def look_now() -> Look:
    """Read the counters of all processes. Blocks."""
    requests = errors = queue_bytes = queue_waiting = 0.0
    buckets: dict[float, float] = {}
    for metric in _metrics():
        for sample in metric.samples:
            if sample.labels.get("task", "").startswith(_OWN):
                continue
            if sample.name == "immich_bento_requests_total":
                requests += sample.value
                errors += sample.value if sample.labels.get("status", "").startswith("5") else 0
            elif sample.name == "immich_bento_request_seconds_bucket":
                most = float(sample.labels["le"])
                buckets[most] = buckets.get(most, 0.0) + sample.value
            elif sample.name == "immich_bento_queue_bytes":
                queue_bytes += sample.value
            elif sample.name == "immich_bento_queue_waiting":
                queue_waiting += sample.value
    return Look(requests, errors, buckets, queue_bytes, queue_waiting)


def _metrics() -> Sequence[Metric]:
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return list(REGISTRY.collect())
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(_READINGS - 1):
        try:
            return list(registry.collect())
        except struct.error:  # a process that starts has made its file, and has not given it its size yet
            time.sleep(_PAUSE)
    return list(registry.collect())


def _step(before: Look, after: Look) -> tuple[float, float, dict[float, float]]:
    """Return what came between two looks: requests, errors, and answers by time. A counter that began anew gives 0."""
    took = {most: max(0.0, count - before.buckets.get(most, 0.0)) for most, count in sorted(after.buckets.items())}
    return max(0.0, after.requests - before.requests), max(0.0, after.errors - before.errors), took


def _quantile(took: Mapping[float, float], part: float) -> float | None:
    """Return the seconds that ``part`` of the answers took at most, evenly spread within a bucket; None without any."""
    total = max(took.values(), default=0.0)
    if not total:
        return None
    below, lower = 0.0, 0.0
    for most, count in took.items():
        if count >= part * total:
            inside = count - below
            if most == float("inf") or not inside:
                return lower
            return lower + (most - lower) * (part * total - below) / inside
        below, lower = count, most
    return lower
