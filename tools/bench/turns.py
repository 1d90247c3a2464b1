"""Several ways of doing one thing, timed in turns, so that other load on the machine meets them all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import chain

from tools.bench.report import milliseconds


def percentiles(timings: Mapping[str, list[list[float]]]) -> dict[str, tuple[float, float]]:
    """Return p50 and p95 over all rounds, in ms, by way."""
    every = {name: list(chain.from_iterable(rounds)) for name, rounds in timings.items()}
    return {name: (milliseconds(seconds, 50), milliseconds(seconds, 95)) for name, seconds in every.items()}


def median_difference(one: list[list[float]], other: list[list[float]]) -> float:
    """Return the median over the rounds of how many ms longer the median of ``one`` took than that of ``other``."""
    return statistics.median(milliseconds(a, 50) - milliseconds(b, 50) for a, b in zip(one, other, strict=True))


def alternate(ways: Mapping[str, Callable[[], float]], *, rounds: int, requests: int) -> dict[str, list[list[float]]]:
    """Return seconds by way and round.

    Every round begins with another way; the first call of each way in a round is not counted.
    """
    timings: dict[str, list[list[float]]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            ways[name]()
            timings[name].append([ways[name]() for _ in range(requests)])
    return timings
