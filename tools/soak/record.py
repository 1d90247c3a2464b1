"""The record of a soak: requests, pings, memory, what was killed when; and what it comes to, as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from tools.bench.report import machine, milliseconds

_AFTER = 10.0
"""Seconds after a killed gateway or a restart whose pings are told apart."""
_BINS = 240
"""Points of each curve."""
_OUTAGES = ("gateway killed", "restart")
"""Events during which nobody may answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a good caller. Times are seconds from the beginning."""

    kind: str
    began: float
    seconds: float
    error: str = ""
    """Reason of the loss; empty where it was answered 200."""

    @property
    def ended(self) -> float:
        """Return the time at which it was answered or lost."""
        return self.began + self.seconds


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to the service. Times are seconds from the beginning."""

    what: str
    at: float
    until: float
    """Time at which everything answered again."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A time with one hostile client at work. Times are seconds from the beginning."""

    hostile: str
    begins: float
    ends: float


@dataclass(slots=True)
class Record:
    """Everything that was seen."""

    requests: list[Request] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    pings: list[tuple[float, float]] = field(default_factory=list)
    """Time at which each was asked, and seconds until its answer."""
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """Time; MB of PSS of the service; of the database."""


def why_lost(request: Request, events: Iterable[Event]) -> str:
    """Return what was done to the service while ``request`` was on its way, or "nothing"."""
    during = [event for event in events if event.at - 0.5 <= request.ended and request.began <= event.until]
    order = ("gateway killed", "database restarted", "restart", "runner killed")
    for what in order:
        if any(event.what == what for event in during):
            return what
    return "nothing"


def summary(record: Record, proxy: str) -> dict[str, Any]:
    """Return what ``record`` comes to. ``proxy``: the one before the service, in words."""
    lost = [request for request in record.requests if request.error]
    end = max(stage.ends for stage in record.stages)
    calm = [seconds for at, seconds in record.pings if not _in_outage(at, record.events)]
    return {
        "machine": machine(),
        "seconds": round(end),
        "proxy": proxy,
        "requests": len(record.requests),
        "lost": [
            {"at": round(one.began, 1), "kind": one.kind, "error": one.error, "during": why_lost(one, record.events)}
            for one in lost
        ],
        "ping_ms": _times(calm, 1000),
        "memory_mb": _memory(record),
        "stages": [_stage(stage, record) for stage in record.stages],
        "events": [asdict(event) | {"gap": round(longest_gap(event, record.pings), 2)} for event in record.events],
        "curves": {
            "ping": _worst(((at, seconds * 1000) for at, seconds in record.pings), end / _BINS),
            "wait": _worst(((one.began, one.seconds) for one in record.requests if not one.error), end / _BINS),
            "service": [[round(at), round(service)] for at, service, _ in record.memory],
            "database": [[round(at), round(database)] for at, _, database in record.memory],
        },
    }


def longest_gap(event: Event, pings: Sequence[tuple[float, float]]) -> float:
    """Return the longest time, in seconds, without an answer to a ping from ``event`` on until ten seconds after it."""
    answers = sorted(at + seconds for at, seconds in pings)
    near = [at for at in answers if event.at - 1 <= at <= event.until + _AFTER]
    return max((after - before for before, after in pairwise(near)), default=0.0)


def _in_outage(at: float, events: Iterable[Event]) -> bool:
    return any(event.what in _OUTAGES and event.at <= at <= event.until + _AFTER for event in events)


def _stage(stage: Stage, record: Record) -> dict[str, Any]:
    calm = [
        request for request in record.requests if not request.error and not _in_outage(request.began, record.events)
    ]
    inside = [request for request in calm if stage.begins <= request.began < stage.ends]
    pings = [
        seconds for at, seconds in record.pings if stage.begins <= at < stage.ends and not _in_outage(at, record.events)
    ]
    kinds = sorted({request.kind for request in record.requests})
    return {
        "hostile": stage.hostile,
        "begins": round(stage.begins),
        "ends": round(stage.ends),
        "ping_ms": _times(pings, 1000),
        "wait_s": {kind: _times([one.seconds for one in inside if one.kind == kind], 1) for kind in kinds},
    }


def _times(seconds: Sequence[float], factor: float) -> dict[str, float]:
    if not seconds:
        return {}
    p50, p99 = (milliseconds(seconds, percentile) / 1000 * factor for percentile in (50, 99))
    figures = {"p50": p50, "p99": p99, "worst": max(seconds) * factor}
    return {"count": len(seconds), **{name: round(value, 3) for name, value in figures.items()}}


def _memory(record: Record) -> Mapping[str, float]:
    """Return MB of PSS in the first and the last stage, and the most that was seen."""

    def median(stage: Stage) -> float:
        # What the stage before has taken is given back in the first half of a stage.
        late = [one for at, one, _ in record.memory if (stage.begins + stage.ends) / 2 <= at <= stage.ends]
        return round(statistics.median(late)) if late else 0

    most = max((service for _, service, _ in record.memory), default=0)
    return {"first": median(record.stages[0]), "last": median(record.stages[-1]), "most": round(most)}


def _worst(points: Iterable[tuple[float, float]], width: float) -> list[list[float]]:
    """Return the largest value of every ``width`` seconds of ``points``, (seconds, value), with the middle of each."""
    largest: dict[int, float] = {}
    for at, value in points:
        place = int(at / width)
        largest[place] = max(value, largest.get(place, 0.0))
    return [[round((place + 0.5) * width, 1), round(value, 2)] for place, value in sorted(largest.items())]
