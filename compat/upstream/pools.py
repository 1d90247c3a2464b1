"""All other servers behind this one: a pool for each list of servers that tasks name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from compat.upstream.pool import UpstreamAnswer, UpstreamPool
from settings.gateway import Servers


class Upstreams:
    """Pools by their servers. Belongs to the event loop it is made in."""

    def __init__(self, pools: Mapping[Servers, UpstreamPool]) -> None:
        self._pools = pools

    async def close(self) -> None:
        """Stop looking at upstreams and close all connections."""
        for pool in self._pools.values():
            await pool.close()

    @property
    def any_up(self) -> bool:
        """Return whether some upstream, of whichever task, is up and asked."""
        return any(pool.any_up for pool in self._pools.values())

    def state(self, *, with_urls: bool) -> dict[str, Any]:
        """Return what ``GET /upstreams`` tells of all pools, in the form of ``UpstreamPool.state``."""
        states = [pool.state(with_urls=with_urls) for pool in self._pools.values()]
        return {
            "upstreams": [upstream for state in states for upstream in state["upstreams"]],
            "waiting": sum(state["waiting"] for state in states),
        }

    async def ask(
        self, servers: Servers, parts: Mapping[str, bytes], tasks: Collection[str], headers: Mapping[str, str]
    ) -> UpstreamAnswer:
        """Have ``tasks`` answered by one of ``servers``, which some task names. Errors as of ``UpstreamPool.ask``."""
        return await self._pools[servers].ask(parts, tasks, headers)
