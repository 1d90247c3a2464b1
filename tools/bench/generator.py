"""The load generator: closed loop (callers who wait for their answers) and open loop (requests at a fixed rate).

In a closed loop a slow server is asked less often, which hides its slow answers ("coordinated omission", Gil Tene). The
open loop sends on a schedule made beforehand and counts each latency from when the request was due, not from when it
was sent; a server that cannot keep up shows latencies that grow with the length of the run.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tools.bench.client import Client, RequestFailed
from tools.bench.load import Load


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a load: ``requests`` if given, else ``seconds``, rounded up to whole rounds through the bodies.

    Whole rounds, because pages and photos differ in cost: a slow and a fast server would otherwise be asked different
    mixtures.
    """

    seconds: float = 5.0
    requests: int | None = None


@dataclass(slots=True)
class Supply:
    """Hands out the bodies in turn until the load has lasted long enough."""

    bodies: Sequence[bytes]
    extent: Extent
    started: float = field(default_factory=time.perf_counter)
    given: int = 0

    def __iter__(self) -> Iterator[bytes]:
        while not self._finished():
            body = self.bodies[self.given % len(self.bodies)]
            self.given += 1
            yield body

    def _finished(self) -> bool:
        if self.extent.requests is not None:
            return self.given >= self.extent.requests
        return (
            self.given > 0
            and self.given % len(self.bodies) == 0
            and time.perf_counter() - self.started >= self.extent.seconds
        )


async def closed_loop(url: str, bodies: Sequence[bytes], *, callers: int, extent: Extent) -> Load:
    """Load ``url`` with ``callers`` callers that share one supply of ``bodies``; return the latencies by caller.

    Every caller finishes the request it has begun.
    """
    failures: list[str] = []
    supply = Supply(bodies, extent)

    async def caller() -> tuple[float, ...]:
        latencies = []
        async with Client(url) as client:
            for body in supply:
                began = time.perf_counter()
                try:
                    await client.predict(body)
                    latencies.append(time.perf_counter() - began)
                except RequestFailed as error:
                    failures.append(str(error))
        return tuple(latencies)

    latencies = await asyncio.gather(*(caller() for _ in range(callers)))
    return Load(tuple(latencies), tuple(failures), time.perf_counter() - supply.started)


def due_times(rate: float, *, poisson: bool, seed: int = 0) -> Iterator[float]:
    """Yield when requests are due, in seconds from the start.

    Every ``1 / rate`` s, or with exponential gaps of that mean (Poisson arrivals).
    """
    chance, due = random.Random(seed), 0.0
    while True:
        yield due
        due += chance.expovariate(rate) if poisson else 1 / rate


async def open_loop(
    url: str, bodies: Sequence[bytes], *, rate: float, extent: Extent, poisson: bool = True, seed: int = 0
) -> Load:
    """Send ``rate`` requests per second, each on a free connection; latencies count from when each was due.

    Lasts ``extent.requests`` requests or ``extent.seconds`` of schedule, and until all are answered.
    """
    idle: list[Client] = []
    latencies: list[float] = []
    failures: list[str] = []
    started = time.perf_counter()

    async def request(body: bytes, due: float) -> None:
        client = idle.pop() if idle else Client(url)
        try:
            await client.predict(body)
            latencies.append(time.perf_counter() - due)
        except RequestFailed as error:
            failures.append(str(error))
        idle.append(client)

    pending = []
    for number, (due, body) in enumerate(
        zip(due_times(rate, poisson=poisson, seed=seed), itertools.cycle(bodies), strict=False)
    ):
        if number >= extent.requests if extent.requests is not None else due >= extent.seconds:
            break
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        pending.append(asyncio.ensure_future(request(body, started + due)))
    await asyncio.gather(*pending)
    for client in idle:
        client.close()
    return Load((tuple(latencies),), tuple(failures), time.perf_counter() - started)
