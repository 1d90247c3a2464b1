"""Other Immich ML servers behind this one: which of them is asked, and how many requests each has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import metrics
from compat.upstream.answers import judge
from compat.upstream.client import ConnectionLost, NoAnswerInTime, NotHttp, Reply, UpstreamClient
from compat.upstream.health import Health, Upstream, UpstreamDown
from compat.upstream.members import Members, Numbers
from errors import ErrorCode, ServiceError, forget_frames
from settings.gateway import Servers

_TRY_ELSEWHERE = (502, 503)
"""Statuses that say: not here, not now. Another upstream may do better."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The outcome of a request."""

    upstream: str
    tasks: dict[str, Any]
    """Answers by the keys of Immich's protocol, without the picture's size."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    chosen: asyncio.Future[Upstream | None]
    """None where all that it might ask are down. (Not an exception: a future that keeps one keeps its frames too.)"""
    avoid: Sequence[Upstream]
    """Those that could not answer it."""


@dataclass(frozen=True, slots=True)
class _TryElsewhere:
    """``upstream`` cannot answer this request now, but another may; ``error`` tells the client if there is none."""

    upstream: Upstream
    error: ServiceError
    reached: bool = True
    """False: no connection could be made, so that nobody has seen the request."""


class UpstreamPool:
    """The servers that answer some tasks. Belongs to the event loop it is made in.

    The one with the fewest requests in flight is asked, and none has more than ``concurrency``: further requests wait
    in one line for whichever has room first. One that refuses connections, or breaks three requests in a row, is down:
    it is left out until it answers ``GET /ping`` again, which is tried every ``retry_after`` seconds. While all are
    down, requests fail at once.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        task: str,
        timeout: float,
        concurrency: int,
        retry_after: float,
        header: tuple[str, str] | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        """``task``: what it answers, for figures. ``timeout``, ``retry_after``: seconds. ``header``: name and value,
        sent with every request and never told to anyone else. ``numbers``: those that other pools take too.
        """
        self._task = task
        self._timeout = timeout
        self._concurrency = concurrency
        self._line: deque[_Waiter] = deque()
        self._choices = 0
        self._client = UpstreamClient(timeout=timeout, header=header)
        self._health = Health(self._client, retry_after=retry_after, on_change=self._serve_line)
        self._members = Members(servers, self._health, numbers or Numbers(), self._serve_line)

    async def close(self) -> None:
        """Stop looking at upstreams and close all connections."""
        self._members.close()
        self._health.close()
        await self._client.close()

    @property
    def any_up(self) -> bool:
        """Return whether some upstream is up and asked."""
        return bool(self._members.live())

    def state(self, *, with_urls: bool) -> dict[str, Any]:
        """Return what ``GET /upstreams`` tells: each upstream's health and requests in flight, and how many requests
        wait for any of them. ``with_urls``: and where each is, which only who has the key is told.
        """
        return {
            "upstreams": [
                {"upstream": upstream.number, "up": upstream.up, "in_flight": upstream.in_flight}
                | ({"url": upstream.url} if with_urls else {})
                | ({} if upstream.up else {"reason": upstream.reason})
                for upstream in self._members.upstreams
            ],
            "waiting": sum(not waiter.chosen.done() for waiter in self._line),
        }

    async def ask(
        self, parts: Mapping[str, bytes], tasks: Collection[str], headers: Mapping[str, str]
    ) -> UpstreamAnswer:
        """Have ``tasks`` answered. ``parts``: of the multipart body, by name: ``entries``, and ``image`` or ``text``.

        A request that one upstream cannot answer, for its connection broke or it said 502 or 503, is sent to another
        once: asking twice changes nothing. One that no connection can be made to has not seen it and does not count.
        Raises ``UpstreamDown``; ``ServiceError``: UPSTREAM_TIMEOUT, UPSTREAM_UNAVAILABLE, and what an upstream says of
        the request itself.
        """
        await self._members.known()
        avoid: list[Upstream] = []
        answer = await self._ask_one(parts, tasks, headers, avoid)
        broken = 0
        while isinstance(answer, _TryElsewhere):
            avoid.append(answer.upstream)
            broken += answer.reached
            if broken > 1 or not self._members.live(avoid):
                try:
                    raise answer.error
                finally:
                    del answer  # else the error would hold this frame, and the frame the error and the picture
            answer = await self._ask_one(parts, tasks, headers, avoid)
        return answer

    async def _ask_one(
        self,
        parts: Mapping[str, bytes],
        tasks: Collection[str],
        headers: Mapping[str, str],
        avoid: Sequence[Upstream],
    ) -> UpstreamAnswer | _TryElsewhere:
        async with self._slot(avoid) as upstream:
            reply = await self._exchange(upstream, parts, headers)
            if isinstance(reply, _TryElsewhere):
                return reply
            try:
                answer = judge(upstream.name, reply, tasks)
            except ServiceError as error:
                its_fault = error.code is ErrorCode.UPSTREAM_UNAVAILABLE
                _count(upstream, "failed" if its_fault else "refused")
                if reply.status not in _TRY_ELSEWHERE:
                    raise
                forget_frames(error)
                return _TryElsewhere(upstream, error)
            _count(upstream, "answered")
            return UpstreamAnswer(upstream.name, answer)

    async def _exchange(
        self, upstream: Upstream, parts: Mapping[str, bytes], headers: Mapping[str, str]
    ) -> Reply | _TryElsewhere:
        try:
            reply = await self._client.predict(upstream.url, parts, headers)
        except ConnectionLost as lost:
            _count(upstream, "lost")
            self._health.note_broken(upstream, lost.reason, down_at_once=not lost.connected)
            message = f"The upstream {upstream.name} did not answer: {lost.reason}."
            return _TryElsewhere(upstream, UpstreamDown(message), reached=lost.connected)
        except NoAnswerInTime:
            _count(upstream, "late")
            self._health.note_broken(upstream, "its answers do not come in time", down_at_once=False)
            message = f"The upstream {upstream.name} did not answer in {self._timeout:g} s (UPSTREAM_TIMEOUT)."
            raise ServiceError(ErrorCode.UPSTREAM_TIMEOUT, message) from None
        except NotHttp as error:
            _count(upstream, "failed")
            raise ServiceError(
                ErrorCode.UPSTREAM_UNAVAILABLE, f"The upstream {upstream.name} cannot be understood: {error}."
            ) from None
        upstream.broken_in_a_row = 0
        return reply

    @asynccontextmanager
    async def _slot(self, avoid: Sequence[Upstream]) -> AsyncIterator[Upstream]:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), tuple(avoid))
        if avoid:
            self._line.appendleft(waiter)  # it has waited before
        else:
            self._line.append(waiter)
        self._serve_line()
        try:
            upstream = await waiter.chosen
        except asyncio.CancelledError:
            if not waiter.chosen.cancelled() and (chosen := waiter.chosen.result()):
                self._release(chosen)  # its turn had come in the same moment
            raise
        if upstream is None:
            raise self._members.none_live()
        try:
            yield upstream
        finally:
            self._release(upstream)

    def _release(self, upstream: Upstream) -> None:
        upstream.in_flight -= 1
        self._tell_in_flight(upstream)
        self._members.released(upstream)
        self._serve_line()

    def _serve_line(self) -> None:
        """Give whoever waits an upstream with room, first come first served; or the error, where all that it might ask
        are down.
        """
        passed_over = []
        while self._line:
            waiter = self._line.popleft()
            if waiter.chosen.done():  # given up
                continue
            live = self._members.live(waiter.avoid)
            free = [upstream for upstream in live if upstream.in_flight < self._concurrency]
            if not live:
                waiter.chosen.set_result(None)
            elif free:
                waiter.chosen.set_result(self._choose(free))
            else:
                passed_over.append(waiter)
                if not waiter.avoid:  # nobody behind it finds more
                    break
        self._line.extendleft(reversed(passed_over))
        metrics.UPSTREAM_WAITING.labels(self._task).set(len(self._line))

    def _choose(self, free: Sequence[Upstream]) -> Upstream:
        upstream = min(free, key=lambda one: (one.in_flight, one.turn))
        self._choices += 1
        upstream.turn = self._choices
        upstream.in_flight += 1
        self._tell_in_flight(upstream)
        return upstream

    def _tell_in_flight(self, upstream: Upstream) -> None:
        metrics.UPSTREAM_IN_FLIGHT.labels(upstream.label, self._task).set(upstream.in_flight)


def _count(upstream: Upstream, outcome: str) -> None:
    metrics.UPSTREAM_REQUESTS.labels(upstream.label, outcome).inc()
