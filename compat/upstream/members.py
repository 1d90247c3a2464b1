"""The servers that a pool has at the time: those that settings name, and the addresses that DNS names have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import count

import metrics
from compat.upstream.health import Health, Upstream, UpstreamDown
from compat.upstream.resolution import NoAddress, resolve
from settings.addresses import DnsName
from settings.gateway import Servers

log = logging.getLogger(__name__)

_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
"""Seconds between two looks at a DNS name, whatever the server says about how long its answer holds."""
_LEFT = "it is no longer an address of its name"


class Numbers:
    """Numbers of upstreams, by which they are called where anybody may look: the least that is free, so that there are
    never many.
    """

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a number that nobody has, from 1."""
        number = next(number for number in count(1) if number not in self._taken)
        self._taken.add(number)
        return number

    def give_back(self, number: int) -> None:
        """Let the next one have ``number``."""
        self._taken.discard(number)


class Members:
    """The upstreams of a pool. Belongs to the event loop that it is made in.

    A DNS name is looked up again and again. An address that is new is asked from then on; one that is gone is asked
    nothing new, while what it works on is finished. A name that cannot be resolved keeps the addresses that it had.
    """

    def __init__(self, servers: Servers, health: Health, numbers: Numbers, on_change: Callable[[], None]) -> None:
        """``on_change``: called when an upstream has come or gone."""
        self._health = health
        self._numbers = numbers
        self._on_change = on_change
        self._given = [server for server in servers if isinstance(server, str)]
        self._found: dict[DnsName, list[str]] = {}
        self._lost: dict[DnsName, str] = {}
        """Why the names that cannot be resolved cannot."""
        self._upstreams: list[Upstream] = []
        names = [server for server in servers if isinstance(server, DnsName)]
        self._unknown = set(names)
        """Names that were not looked up yet."""
        self._all_known = asyncio.Event()
        self._tasks = [asyncio.get_running_loop().create_task(self._follow(name)) for name in names]
        self._update()

    def close(self) -> None:
        """Stop following names."""
        for task in self._tasks:
            task.cancel()

    async def known(self) -> None:
        """Return once every name was looked up for the first time."""
        await self._all_known.wait()

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Return all, those too that are down, and those that have left and still work on something."""
        return self._upstreams

    def live(self, avoid: Sequence[Upstream] = ()) -> list[Upstream]:
        """Return those that can be asked, without ``avoid``."""
        return [upstream for upstream in self._upstreams if upstream.up and upstream not in avoid]

    def none_live(self) -> UpstreamDown:
        """Return the error that says which upstreams cannot be asked, and why."""
        down = [f"{upstream.name} ({upstream.reason})" for upstream in self._upstreams if not upstream.up]
        return self._health.none_live([*down, *(f"{name} ({reason})" for name, reason in self._lost.items())])

    def released(self, upstream: Upstream) -> None:
        """Forget ``upstream`` where it has left and works on nothing any more."""
        if upstream.gone and not upstream.in_flight:
            self._upstreams.remove(upstream)
            self._numbers.give_back(upstream.number)

    async def _follow(self, name: DnsName) -> None:
        while True:
            pause = await self._look(name)
            self._unknown.discard(name)
            self._update()
            self._on_change()
            await asyncio.sleep(pause)

    async def _look(self, name: DnsName) -> float:
        """Note the addresses that ``name`` has. Returns the seconds until the next look."""
        try:
            resolved = await resolve(name)
        except NoAddress as error:
            reason = str(error)
            if self._lost.get(name) != reason:
                log.warning("The upstreams of %s stay as they were: %s.", name, reason)
            self._lost[name] = reason
            return _LEAST_PAUSE
        self._lost.pop(name, None)
        urls = [name.url(address) for address in resolved.addresses]
        if urls != self._found.get(name):
            log.info("The upstreams of %s: %s.", name, ", ".join(resolved.addresses))
        self._found[name] = urls
        return max(_LEAST_PAUSE, min(resolved.ttl, _LONGEST_PAUSE))

    def _update(self) -> None:
        """Let come and go what has come and gone."""
        wanted = dict.fromkeys([*self._given, *(url for urls in self._found.values() for url in urls)])
        known = {upstream.url: upstream for upstream in self._upstreams}
        for url, upstream in known.items():
            if url not in wanted and not upstream.gone:
                upstream.gone, upstream.up, upstream.reason = True, False, _LEFT
                metrics.UPSTREAM_UP.labels(upstream.label).set(0)
                self.released(upstream)
        for url in wanted:
            if url not in known:
                self._upstreams.append(Upstream(url, self._numbers.take()))
                self._health.watch(self._upstreams[-1])
            elif known[url].gone:
                known[url].gone = False
                self._health.watch(known[url])
        if not self._unknown:
            self._all_known.set()
