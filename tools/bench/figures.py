"""Figures of one load on one server; medians over rounds, and ratios of two servers by rounds."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tools.bench.load import Load
from tools.bench.processes import CpuTime, ProcessTree
from tools.bench.report import milliseconds

SUMMED = ("requests", "failures")
"""Fields of ``Figures`` that count; the others measure."""
_UNKNOWN = CpuTime(math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Figures:
    """One load on one server. NaN if nothing was answered, or if the server's processes cannot be seen."""

    per_second: float
    """Answers per second, from the first request to the last answer."""
    p50: float
    """Latencies in ms."""
    p95: float
    p99: float
    requests: float
    """Answered with 200."""
    failures: float
    cpu: float
    """CPU time of all processes of the server, ms per answered request."""
    system: float
    """The part of ``cpu`` that the kernel took."""
    pss: float
    """MB of all processes of the server, right after the load."""
    generator: float
    """CPU of the generator, in % of one core."""


def figures(load: Load, *, server_cpu: CpuTime, generator_cpu: float, pss: float) -> Figures:
    """Return the figures of ``load``.

    ``server_cpu`` and ``generator_cpu`` (seconds): CPU during the load. ``pss``: MB after it.
    """
    latencies = load.all_latencies
    milliseconds_each = 1000 / len(latencies) if latencies else math.nan
    return Figures(
        per_second=load.per_second,
        p50=milliseconds(latencies, 50),
        p95=milliseconds(latencies, 95),
        p99=milliseconds(latencies, 99),
        requests=len(latencies),
        failures=len(load.failures),
        cpu=server_cpu.total * milliseconds_each,
        system=server_cpu.system * milliseconds_each,
        pss=pss,
        generator=generator_cpu / load.seconds * 100,
    )


def measured(run: Callable[[], Coroutine[Any, Any, Load]], tree: ProcessTree | None) -> tuple[Load, Figures]:
    """Run a load, and measure what it cost this process and those of ``tree``."""
    before = tree.cpu() if tree else _UNKNOWN
    own = time.process_time()
    load = asyncio.run(run())
    own = time.process_time() - own
    after, pss = (tree.cpu(), tree.pss()) if tree else (_UNKNOWN, math.nan)
    return load, figures(load, server_cpu=after - before, generator_cpu=own, pss=pss)


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return each figure's median over the rounds that have one; counts are summed."""
    columns = {one.name: [getattr(figure, one.name) for figure in rounds] for one in fields(Figures)}
    return Figures(**{name: sum(values) if name in SUMMED else median(values) for name, values in columns.items()})


def ratios(ours: Sequence[Figures], peer: Sequence[Figures], name: str) -> list[float]:
    """Return the figure ``name`` of ours divided by the peer's in the same round.

    Rounds without both, or with a peer's of 0, are left out.
    """
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(ours, peer, strict=True)]
    return [a / b for a, b in pairs if not math.isnan(a) and not math.isnan(b) and b]


def system_share(rounds: Sequence[Figures]) -> float:
    """Return the kernel's part of the CPU time, 0 to 1: the median over the rounds that have one."""
    return median([one.system / one.cpu for one in rounds if one.cpu])


def median(values: Sequence[float]) -> float:
    """Return the median of the values that are numbers; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan
